"""Every network is one row; options are checked by name and value."""

import pytest

from mpt_jax.errors import InputError
from mpt_jax.models import NETWORKS, build, registry


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"stem": "mnist"}, "unknown stem 'mnist'; expected one of imagenet, cifar"),
        ("vit_tiny", {"dropout": 1.0}, "unknown dropout 1.0; expected a probability from 0 to below 1"),
        ("vit_tiny", {"stem": "cifar"}, "model 'vit_tiny' has no option 'stem'; expected one of dropout, drop_path"),
        ("resnet19", {}, "unknown model 'resnet19'; expected one of convnet, "),
    ],
)
def test_options_are_checked(name, options, message):
    with pytest.raises(InputError, match=message):
        build(name, 3, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_takes_its_options(name):
    given = {"stem": "cifar", "dropout": 0.25, "drop_path": 0.125, "activation": "gelu"}
    options = {option: given[option] for option in registry.options_of(name)}
    module = build(name, 7, dtype="bfloat16", **options)
    assert {option: getattr(module, option) for option in options} == options
    assert module.num_classes == 7 and module.dtype == "bfloat16" and module.param_dtype == "float32"


def test_tables_are_found_by_the_class_of_the_module():
    assert set(registry.WITH_WEIGHTS) == {*NETWORKS} - {"convnet", "linear", "mlp"}
    for name in registry.WITH_WEIGHTS:
        assert registry.dialects(build(name, 2)) is NETWORKS[name].dialects
