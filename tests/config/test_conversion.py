"""Overrides become values of the type of their key, or errors."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax import config as configs
from mpt_jax.errors import InputError

DIGITS = "digits"


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("seeds=3", ("seeds",), (3,)),
        ("seeds=0,2", ("seeds",), (0, 2)),
        ("update.methods=mpt_kl,pct_kl", ("update", "methods"), ("mpt_kl", "pct_kl")),
        ("update.methods=mpt_kl", ("update", "methods"), ("mpt_kl",)),
        ("update.methods=('mpt_kl', 'pct_kl')", ("update", "methods"), ("mpt_kl", "pct_kl")),
        ("update.methods=[mpt_kl, pct_kl]", ("update", "methods"), ("mpt_kl", "pct_kl")),
        ("update.schedule=[3, 7]", ("update", "schedule"), (3, 7)),
        ("update.tune={}", ("update", "tune"), {}),
        ("update.tune.bias=0,1.5", ("update", "tune"), {"bias": (0.0, 1.5)}),
        ("update.tune={'old.weight': [1, 2]}", ("update", "tune"), {"old.weight": (1.0, 2.0)}),
        ("update.tune.old.weight=1", ("update", "tune"), {"bias": (0.0, 1.0, 4.0, 8.0, 12.0), "old.weight": (1.0,)}),
        ("old_model.name=vit_tiny", ("old_model", "name"), "vit_tiny"),
        ("dataset.class_order=seed:1993", ("dataset", "class_order"), "seed:1993"),
        ("dataset.class_order=[1, 0, 2]", ("dataset", "class_order"), (1, 0, 2)),
        ("dataset.class_order=1,0,...", ("dataset", "class_order"), (1, 0, "...")),
        ("dataset.class_order=owl,cat,...", ("dataset", "class_order"), "owl,cat,..."),
        ("dataset.image_size=32", ("dataset", "image_size"), (32,)),
        ("dataset.image_size=32,48", ("dataset", "image_size"), (32, 48)),
        ("dataset.flip=true", ("dataset", "flip"), True),
        ("dataset.data_dir=a/b=c", ("dataset", "data_dir"), "a/b=c"),
        ("dataset.data_dir=2024", ("dataset", "data_dir"), "2024"),
        ("optimizer.learning_rate=1", ("optimizer", "learning_rate"), 1.0),
        ("optimizer.learning_rate=1e-3", ("optimizer", "learning_rate"), 1e-3),
        ("optimizer.decay_exclude=bias", ("optimizer", "decay_exclude"), ("bias",)),
        ("optimizer.decay_exclude=stage1*,*/scale", ("optimizer", "decay_exclude"), ("stage1*", "*/scale")),
        ("optimizer.options={'nesterov': True}", ("optimizer", "options"), {"nesterov": True}),
    ],
)
def test_overrides(override, path, expected):
    value = configs.load(DIGITS, [override])
    for name in path:
        value = getattr(value, name)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("map.toml", "map.toml"),
        ("2024", "2024"),
        ("{'merge': {'a b': ['c', 'd']}}", {"merge": {"a b": ["c", "d"]}}),
        ("", ""),
    ],
)
def test_a_class_map_is_a_file_or_its_content(text, expected):
    given = [f"update.class_map={text}", "update.old=somewhere"]
    assert configs.load(DIGITS, given).update.class_map == expected
    with pytest.raises(InputError, match=r"'update.class_map'=3; expected text"):
        configs.load(DIGITS, {"update.class_map": 3})


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_override_gives_a_config_or_an_input_error(key, text):
    try:
        configs.load(DIGITS, [f"{key}={text}"])
    except InputError as error:
        assert str(error)


@given(st.sampled_from([f.name for f in dataclasses.fields(configs.OptimizerConfig)]), st.text(max_size=12))
def test_any_value_of_a_key_gives_a_config_or_an_input_error(key, text):
    try:
        configs.load(DIGITS, [f"optimizer.{key}={text}"])
    except InputError as error:
        assert str(error)
