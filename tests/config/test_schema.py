"""What follows from several keys together."""

import json

import pytest

from mpt_jax import config as configs

DIGITS = "digits"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("cat, dog,owl,a,b", ("cat", "dog", "owl", "a", "b")),
        ("0,3,1,2,9", ("0", "3", "1", "2", "9")),
        ("['a b', 'c', 'd', 'e', 'f']", ("a b", "c", "d", "e", "f")),
        ("", ()),
    ],
)
def test_the_classes_of_an_external_old_model_are_names(given, expected):
    assert configs.old_classes(configs.load(DIGITS, ["old.predictions=old.npz", f"old.classes={given}"])) == expected


def test_the_first_release_has_the_network_of_old_model_or_else_of_model():
    assert configs.old_model_of(configs.load(DIGITS, ["model.name=vit_tiny"])).name == "vit_tiny"
    assert configs.old_model_of(configs.load(DIGITS, ["old_model.name=vit_tiny"])).name == "vit_tiny"


def test_candidates_come_from_tune_and_from_an_automatic_bias():
    assert configs.tuned(configs.load(DIGITS, ["update.tune={'old.weight': [1, 2]}", "update.bias=auto"])) == {
        "bias": configs.AUTO_BIAS,
        "old.weight": (1.0, 2.0),
    }


def test_the_sources_of_methods_are_listed_once():
    config = configs.load(DIGITS, ["update.methods=mpt_kl,pct_kl,posthoc_bias"])
    assert sorted(configs.sources(config)) == ["new", "old"]
    assert configs.sources_of("pct_kl") == ("old",)


def test_a_config_is_a_dict_of_json_types_and_back():
    config = configs.load("cifar100:cpu")
    values = configs.to_dict(config)
    assert json.loads(json.dumps(values)) == values
    assert configs.default_config().to_dict().keys() == values.keys()
