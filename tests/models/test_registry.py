"""Every network is one row; options are checked by name and value."""

import functools

import jax
import numpy as np
import pytest
import random_weights
from flax import linen as nn

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


SMALL = {
    "resnet18": {"depths": (1, 1)},
    "vit_tiny": {"width": 8, "depth": 2, "heads": 2},
    "clip_b32": {"patch": 4, "width": 8, "depth": 2, "heads": 2, "embedding": 8},
    "convnext_tiny": {"depths": (1, 1), "features": 4},
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n[0] == "c" else n for n in SMALL])
def test_dropout_and_stochastic_depth_act_in_training_alone(name):
    module = build(name, 3).clone(**SMALL[name])
    params, stats = random_weights.drawn(module, (16, 16, 3))
    images = np.random.default_rng(0).standard_normal((6, 16, 16, 3)).astype(np.float32)
    modules = module, module.clone(dropout=0.5), module.clone(drop_path=0.5)

    @functools.partial(jax.jit, static_argnames="train")
    def outputs(train, key):
        apply = functools.partial(nn.Module.apply, mutable=["batch_stats"], train=train, rngs={"dropout": key})
        return [apply(module, {"params": params, "batch_stats": stats}, images)[0] for module in modules]

    plain, *others = outputs(False, jax.random.key(0))
    for other in others:
        np.testing.assert_array_equal(other, plain)
    plain, *others = outputs(True, jax.random.key(0))
    for other, again in zip(others, outputs(True, jax.random.key(1))[1:], strict=True):
        assert not np.allclose(other, plain)
        assert not np.allclose(other, again)
