"""ConvNeXt: published sizes, the formula in NumPy, odd images, recomputation, dropout and stochastic depth."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from networks import slow_unless_first

from mpt_jax.models import build, init, train_forward
from mpt_jax.models.convnext import ConvNeXt

SMALL = ConvNeXt(5, depths=(1, 1), features=4, patch=2)


def images(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("convnext_tiny", 28_589_128)]
    + [slow_unless_first(*row) for row in (("convnext_small", 50_223_688), ("convnext_base", 88_591_464))],
)
def test_parameter_counts_are_the_published_ones(name, expected):
    params, _ = jax.eval_shape(lambda key: init(build(name, 1000), key, (32, 32, 3)), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def reference(tree, x):
    """Compute the logits of `SMALL` for images ``[batch, height, width, channels]``, in float64."""

    def patched(x, layer):
        kernel = layer["kernel"]
        size = kernel.shape[0]
        height, width = x.shape[1] // size, x.shape[2] // size
        blocks = x[:, : height * size, : width * size].reshape(len(x), height, size, width, size, -1)
        return np.einsum("naibjc,ijcf->nabf", blocks, kernel) + layer["bias"]

    def normal(x, layer):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * layer["scale"] + layer["bias"]

    def block(x, layers):
        padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))
        kernel, (height, width) = layers["depthwise_conv"]["kernel"][:, :, 0], x.shape[1:3]
        y = sum(padded[:, i : i + height, j : j + width] * kernel[i, j] for i in range(7) for j in range(7))
        y = normal(y + layers["depthwise_conv"]["bias"], layers["norm"])
        y = y @ layers["fc1"]["kernel"] + layers["fc1"]["bias"]
        y = y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) / 2
        return x + layers["layer_scale"] * (y @ layers["fc2"]["kernel"] + layers["fc2"]["bias"])

    x = block(normal(patched(x, tree["stem_conv"]), tree["stem_norm"]), tree["stage1_block1"])
    x = patched(normal(x, tree["stage2_norm"]), tree["stage2_conv"])
    x = block(x, tree["stage2_block1"])
    return normal(x.mean((1, 2)), tree["norm"]) @ tree["head"]["kernel"] + tree["head"]["bias"]


def test_logits_match_the_formula_at_a_size_that_no_patches_fill():
    params, stats = random_weights.drawn(SMALL, (9, 11, 3))
    inputs = images(2, 9, 11, 3)
    expected = reference(jax.tree.map(np.float64, params), np.float64(inputs))
    ours = jax.jit(lambda params: SMALL.apply({"params": params}, inputs, train=False))(params)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert stats == {} and np.ptp(expected, axis=0).max() > 0.1


@pytest.mark.slow
def test_recomputed_gradients_equal_stored_ones_and_no_parameter_is_without():
    params, _ = random_weights.drawn(SMALL, (8, 8, 3))
    inputs = images(4, 8, 8, 3)

    def gradient(module, params):
        return jax.grad(lambda params: jnp.sum(jnp.sin(train_forward(module, params, {}, inputs)[0])))(params)

    stored, recomputed = jax.jit(lambda p: [gradient(SMALL.clone(remat=remat), p) for remat in (False, True)])(params)
    chex.assert_trees_all_close(stored, recomputed, rtol=1e-4, atol=1e-5)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(stored))


def test_half_precision_is_near_float32():
    params, _ = random_weights.drawn(SMALL, (8, 8, 3))
    inputs = images(4, 8, 8, 3)
    wide, near = (
        jax.jit(SMALL.clone(dtype=dtype).apply, static_argnames="train")({"params": params}, inputs, train=False)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert near.dtype == jnp.float32
    assert 0 < np.abs(near - wide).max() < 0.1 * np.abs(wide).max()
