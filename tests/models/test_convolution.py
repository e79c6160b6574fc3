"""Convolution and pooling equal XLA's and PyTorch's, in values and gradients, in the form of each platform."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mpt_jax.models.convolution import (
    conv2d,
    depthwise_conv2d,
    matrix_conv2d,
    max_pool2d,
    native_conv2d,
    native_depthwise_conv2d,
    same_padding,
)

# A convolution of one member, and those of a population, as training has them.
MEMBERS = pytest.mark.parametrize(
    "members", [pytest.param(None, id="single", marks=pytest.mark.slow), pytest.param(2, id="vmapped")]
)
CONVOLUTIONS = {  # height, width, channels in, channels out, stride, kernel, padding
    "stem": (32, 32, 3, 4, 2, 7, 3),
    "cifar stem": (12, 12, 3, 4, 1, 3, 1),
    "cifar": (18, 20, 32, 32, 1, 3, 1),
    "8": (8, 8, 3, 4, 1, 3, 1),
    "8, many channels": (8, 8, 32, 33, 1, 3, 1),
    "8 to 4": (8, 8, 3, 4, 2, 3, 1),
    "4": (4, 4, 3, 4, 1, 3, 1),
    "4, many channels": (4, 6, 40, 32, 1, 3, 1),
    "odd, many channels": (7, 4, 32, 32, 1, 3, 1),
    "4 to 2": (4, 4, 3, 4, 2, 3, 1),
    "2": (2, 2, 3, 4, 1, 3, 1),
    "2 to 1": (2, 2, 3, 4, 2, 3, 1),
    "1": (1, 1, 3, 4, 1, 3, 1),
    "1x1": (8, 8, 3, 4, 1, 1, 0),
    "1x1 to 4": (8, 8, 3, 4, 2, 1, 0),
    "1x1 to 1": (2, 2, 3, 4, 2, 1, 0),
    "not square": (5, 2, 3, 4, 2, 3, 1),
    "tiny and not square": (1, 3, 3, 4, 2, 3, 1),
    "an output of only padding": (1, 1, 3, 4, 1, 2, 2),
    "more below and right": (8, 6, 3, 4, 2, 3, ((0, 1), (0, 1))),
    "more above, tiny": (3, 2, 3, 4, 2, 3, ((1, 0), (2, 1))),
}


def _draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@MEMBERS
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution_on_a_cpu_equals_the_native_one(case, members):
    height, width, inputs, outputs, stride, size, padding = CONVOLUTIONS[case]

    def value_and_gradients(function):
        def run(images, kernel):
            value, pull = jax.vjp(function, images, kernel)
            return value, pull(np.sin(np.arange(value.size, dtype=value.dtype)).reshape(value.shape))

        return run if members is None else jax.vmap(run)

    with jax.enable_x64(True):
        lead = () if members is None else (members,)
        arguments = _draw((*lead, 2, height, width, inputs)), _draw((*lead, size, size, inputs, outputs), 1)
        options = {"stride": stride, "padding": padding}
        functions = [value_and_gradients(partial(f, **options)) for f in (conv2d, native_conv2d)]
        ours, native = jax.jit(lambda *arguments: [function(*arguments) for function in functions])(*arguments)
        chex.assert_trees_all_close(ours, native, rtol=0, atol=1e-11)
        chex.assert_type(jax.tree.leaves(ours), jnp.float64)


DEPTHWISE = {  # height, width, channels, stride, kernel
    "3": (8, 6, 4, 1, 3),
    "5": (8, 9, 4, 1, 5),
    "3, halved": (8, 6, 4, 2, 3),
    "3, halved, odd": (7, 9, 4, 2, 3),
    "5, halved": (8, 10, 4, 2, 5),
    "5, halved, odd": (5, 7, 4, 2, 5),
    "5 on a tiny map": (2, 1, 4, 1, 5),
    "5 on a tiny map, halved": (1, 2, 4, 2, 5),
    "one channel": (4, 4, 1, 1, 3),
}


@MEMBERS
@pytest.mark.parametrize("case", DEPTHWISE)
def test_depthwise_convolution_on_a_cpu_equals_the_native_one(case, members):
    height, width, channels, stride, size = DEPTHWISE[case]

    def value_and_gradients(function):
        def run(images, kernel):
            value, pull = jax.vjp(function, images, kernel)
            return value, pull(np.sin(np.arange(value.size, dtype=value.dtype)).reshape(value.shape))

        return run if members is None else jax.vmap(run)

    with jax.enable_x64(True):
        lead = () if members is None else (members,)
        arguments = _draw((*lead, 2, height, width, channels)), _draw((*lead, size, size, 1, channels), 1)
        options = {"stride": stride, "padding": same_padding((2, height, width, channels), size, stride)}
        functions = [value_and_gradients(partial(f, **options)) for f in (depthwise_conv2d, native_depthwise_conv2d)]
        ours, native = jax.jit(lambda *arguments: [function(*arguments) for function in functions])(*arguments)
        assert ours[0].shape == (*lead, 2, -(-height // stride), -(-width // stride), channels)
        chex.assert_trees_all_close(ours, native, rtol=0, atol=1e-11)
        chex.assert_type(jax.tree.leaves(ours), jnp.float64)


def test_depthwise_convolution_in_bfloat16_adds_in_float32():
    images, kernel, cotangent = (
        _draw(shape).astype(jnp.bfloat16) for shape in ((8, 12, 12, 3), (5, 5, 1, 3), (8, 12, 12, 3))
    )
    convolve = partial(depthwise_conv2d, padding=((2, 2), (2, 2)))
    value, pull = jax.vjp(convolve, images, kernel)
    ours = value, *pull(cotangent)
    exact, pull = jax.vjp(convolve, images.astype(np.float32), kernel.astype(np.float32))
    for narrow, wide in zip(ours, (exact, *pull(cotangent.astype(np.float32))), strict=True):
        assert narrow.dtype == jnp.bfloat16
        np.testing.assert_allclose(narrow.astype(np.float32), wide, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_that_of_xla(size, stride):
    for height in range(1, 9):
        shape = (1, height, 7, 3)
        expected = lax.padtype_to_pads(shape[1:3], (size, size), (stride, stride), "SAME")
        assert [*same_padding(shape, size, stride)] == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [2, 8])
def test_the_form_on_a_cpu_rounds_like_the_native_one(size, dtype):
    with jax.enable_x64(True):
        images, kernel = (_draw(shape).astype(jnp.dtype(dtype)) for shape in ((8, size, size, 64), (3, 3, 64, 64)))
        exact = np.asarray(native_conv2d(images.astype(float), kernel.astype(float), stride=1, padding=1))

        def error(function):
            return np.abs(np.asarray(function(images, kernel, stride=1, padding=1), np.float64) - exact).max()

        assert 0 < error(matrix_conv2d) <= 4 * error(native_conv2d)


def test_convolution_works_eagerly_in_a_scan_and_with_shared_images():
    images, kernels = _draw((2, 4, 4, 3)).astype(np.float32), _draw((3, 3, 3, 3, 4)).astype(np.float32)
    convolve = partial(conv2d, stride=2, padding=1)
    one_by_one = np.stack([convolve(images, kernel) for kernel in kernels])
    shared = jax.jit(jax.vmap(convolve, in_axes=(None, 0)))(images, kernels)
    scanned = jax.jit(lambda: lax.scan(lambda carry, kernel: (carry, convolve(images, kernel)), 0, kernels)[1])()
    np.testing.assert_allclose(shared, one_by_one, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(scanned, one_by_one, rtol=1e-6, atol=1e-5)


def test_an_accelerator_uses_the_native_convolution():
    shapes = jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3, 4), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x, k: jnp.sum(conv2d(x, k, padding=1) ** 2), argnums=(0, 1)))
    program = {name: gradient.trace(*shapes).lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda")}
    assert program["cuda"].count("stablehlo.convolution") == 3
    assert "stablehlo.dot_general" not in program["cuda"]
    assert "stablehlo.convolution" not in program["cpu"]
    one_channel_each = jax.jit(partial(depthwise_conv2d, padding=((1, 1), (1, 1))))
    shapes = jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.float32), jax.ShapeDtypeStruct((3, 3, 1, 3), jnp.float32)
    program = one_channel_each.trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("stablehlo.convolution") == 1


@pytest.mark.parametrize("rectified", [False, True], ids=["distinct values", "ties at zero"])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (5, 8), (1, 1)])
def test_max_pool_equals_the_window_reduction(height, width, rectified):
    def reduction(images):
        window, strides, pads = (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(images, -jnp.inf, lax.max, window, strides, pads)

    with jax.enable_x64(True):
        images = _draw((2, 3, height, width, 2))
        images = np.maximum(images, 0) if rectified else images

        def value_and_gradient(pool):
            def run(images):
                value, pull = jax.vjp(pool, images)
                return value, pull(1.0 + jnp.arange(value.size, dtype=value.dtype).reshape(value.shape))

            return jax.jit(jax.vmap(run))(images)

        ours = value_and_gradient(partial(max_pool2d, size=3, stride=2, padding=1))
        chex.assert_trees_all_close(ours, value_and_gradient(reduction), rtol=0, atol=1e-13)


def test_max_pool_routes_ties_and_propagates_nan_as_pytorch():
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    rng = np.random.default_rng(0)
    images = rng.integers(-2, 2, (2, 9, 9, 3)).astype(np.float32)  # many ties, also below zero
    reference = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    pooled = torch.nn.functional.max_pool2d(reference, 3, 2, 1)
    cotangent = rng.standard_normal(pooled.shape).astype(np.float32)
    pooled.backward(torch.tensor(cotangent))

    pool = jax.jit(partial(max_pool2d, size=3, stride=2, padding=1))

    @jax.jit
    def value_and_gradient(images, cotangent):
        value, pull = jax.vjp(pool, images)
        return value, pull(cotangent)[0]

    value, gradient = value_and_gradient(images, cotangent.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(value, pooled.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(gradient, reference.grad.numpy().transpose(0, 2, 3, 1), atol=1e-6)

    images[0, 4, 4, 0] = np.nan
    expected = torch.nn.functional.max_pool2d(torch.tensor(images.transpose(0, 3, 1, 2)), 3, 2, 1)
    ours = pool(images)
    np.testing.assert_array_equal(ours, expected.numpy().transpose(0, 2, 3, 1))
