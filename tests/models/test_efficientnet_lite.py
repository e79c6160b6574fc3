"""EfficientNet-Lite: published sizes, folding, dtypes, odd images, dropout and stochastic depth."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from networks import slow_unless_first

from mpt_jax.models import Classifier, build, features, fold, init, logits, train_forward
from mpt_jax.models.efficientnet_lite import EfficientNetLite, Stage, scaled

SMALL = EfficientNetLite(5, (Stage(1, 3, 1, 1, 8), Stage(2, 5, 2, 6, 8)))


def classifier(module=SMALL, size=8):
    """Return a classifier whose scales, biases and statistics are not trivial."""
    variables = jax.eval_shape(lambda: init(module, jax.random.key(0), (size, size, 3)))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            inputs = leaf.size // leaf.shape[-1]
            return (rng.standard_normal(leaf.shape) * (2 / inputs) ** 0.5).astype(np.float32)
        low, high = (0.5, 1.5) if name in ("scale", "var") else (-0.5, 0.5)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    params, batch_stats = jax.tree_util.tree_map_with_path(draw, variables)
    return Classifier(module, params, batch_stats, mean=None, std=None)


def draw_images(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("efficientnet_lite0", 4_652_008),  # of timm's and the published networks
        slow_unless_first("efficientnet_lite1", 5_416_680),
        slow_unless_first("efficientnet_lite2", 6_092_072),
        slow_unless_first("efficientnet_lite3", 8_197_096),
        slow_unless_first("efficientnet_lite4", 13_006_568),
    ],
)
def test_parameter_counts_are_the_published_ones(name, expected):
    params, _ = jax.eval_shape(lambda key: init(build(name, 1000), key, (32, 32, 3)), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_channels_never_shrink_by_more_than_a_tenth_and_the_outer_stages_keep_their_blocks():
    for width in np.linspace(0.3, 2, 50):
        for plain, larger in zip(scaled(1, 1), scaled(width, 3.0), strict=True):
            assert larger.features % 8 == 0
            assert 0.9 * width * plain.features <= larger.features < width * plain.features + 8
    assert [stage.blocks for stage in scaled(1, 3.0)] == [1, 6, 6, 9, 9, 12, 1]


@pytest.mark.parametrize("height, width", [(17, 6), (1, 7)])
def test_folded_logits_equal_unfolded_ones_at_any_size(height, width):
    net, images = classifier(), draw_images(3, height, width, 3)
    unfolded, folded = jax.jit(lambda images: (logits(net, images), logits(fold(net), images)))(images)
    assert unfolded.shape == (3, 5)
    assert np.abs(unfolded - folded).max() < 1e-5 * np.abs(unfolded).max()


def test_bfloat16_logits_are_near_those_of_float32():
    net, images = classifier(), draw_images(4, 8, 8, 3)
    narrow = net.replace(module=net.module.clone(dtype=jnp.bfloat16))
    wide, near = jax.jit(logits)(net, images), jax.jit(logits)(narrow, images)
    assert near.dtype == jnp.float32
    assert 0 < np.abs(near - wide).max() < 0.1 * np.abs(wide).max()


def test_activations_end_at_zero_and_six():
    net, images = classifier(), draw_images(2, 8, 8, 3)
    top = net.params["top_norm"]
    found = jax.jit(lambda top: features(net.replace(params={**net.params, "top_norm": top}), images))
    for bias, expected in ((100.0, 6.0), (-100.0, 0.0)):
        np.testing.assert_array_equal(found({**top, "bias": np.full_like(top["bias"], bias)}), expected)


@pytest.mark.slow
def test_recomputed_gradients_equal_stored_ones():
    images = draw_images(4, 8, 8, 3)

    def gradient(module, params, batch_stats):
        def loss(params):
            outputs, _, stats = train_forward(module, params, batch_stats, images)
            return jnp.sum(jnp.sin(outputs)), stats

        return jax.grad(loss, has_aux=True)(params)

    with jax.enable_x64(True):
        module = SMALL.clone(dtype=jnp.float64, param_dtype=jnp.float64)
        net = classifier()
        weights = jax.tree.map(np.float64, (net.params, net.batch_stats))
        both = jax.jit(lambda *weights: [gradient(module.clone(remat=remat), *weights) for remat in (False, True)])
        chex.assert_trees_all_close(*both(*weights), rtol=0, atol=1e-10)


def test_dropout_and_stochastic_depth_act_in_training_alone():
    net, images = classifier(), draw_images(6, 8, 8, 3)
    modules = SMALL, SMALL.clone(dropout=0.5), SMALL.clone(drop_path=0.5)

    @functools.partial(jax.jit, static_argnames="train")
    def outputs(train, key):
        variables = {"params": net.params, "batch_stats": net.batch_stats}
        apply = functools.partial(nn.Module.apply, mutable=["batch_stats"], train=train, rngs={"dropout": key})
        return [apply(module, variables, images)[0] for module in modules]

    plain, *others = outputs(False, jax.random.key(0))
    for other in others:
        np.testing.assert_array_equal(other, plain)
    plain, *others = outputs(True, jax.random.key(0))
    for other, again in zip(others, outputs(True, jax.random.key(1))[1:], strict=True):
        assert not np.allclose(other, plain)
        assert not np.allclose(other, again)


def test_stochastic_depth_keeps_the_first_block_and_grows_with_depth():
    module = SMALL.clone(drop_path=0.6)
    rates = {}

    def record(call, args, kwargs, context):
        if context.module.__class__.__name__ == "Block":
            rates[context.module.name] = context.module.drop_path
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: init(module, jax.random.key(0), (8, 8, 3)))
    assert [*rates.values()] == pytest.approx([0.0, 0.2, 0.4])
