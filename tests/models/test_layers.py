"""Layers: batch normalisation, its folding into convolutions, and initialisation."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mpt_jax.models import layers


class Normed(nn.Module):
    folded: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images, train):
        x = layers.Conv(4, 3, padding=1, name="conv1")(images)
        return layers.batch_norm(x, train=train, folded=self.folded, dtype=jnp.dtype(self.dtype), name="norm1")


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((5, 6, 6, 2)).astype(np.float32)


def variables_of(images):
    """Return variables whose scales, biases and statistics are not trivial."""
    variables = Normed().init(jax.random.key(0), images, train=False)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: np.asarray(leaf + rng.uniform(0.5, 1.5, leaf.shape), np.float32), variables)


def test_batch_norm_matches_the_formula_in_training_and_inference(images):
    variables = variables_of(images)
    x = np.asarray(layers.conv2d(images, variables["params"]["conv1"]["kernel"], padding=1), np.float64)
    norm, stats = variables["params"]["norm1"], variables["batch_stats"]["norm1"]
    moments = {True: (x.mean((0, 1, 2)), x.var((0, 1, 2))), False: (stats["mean"], stats["var"])}
    for train, (mean, var) in moments.items():
        ours, mutated = Normed().apply(variables, images, train=train, mutable=["batch_stats"])
        np.testing.assert_allclose(ours, (x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"], atol=1e-3)
    mean, var = moments[True]
    updated = Normed().apply(variables, images, train=True, mutable=["batch_stats"])[1]["batch_stats"]["norm1"]
    np.testing.assert_allclose(updated["mean"], 0.9 * stats["mean"] + 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(updated["var"], 0.9 * stats["var"] + 0.1 * var, rtol=1e-4)
    assert jax.tree.all(
        jax.tree.map(np.array_equal, mutated["batch_stats"]["norm1"], stats)
    )  # inference records nothing


def test_folded_parameters_give_the_outputs_of_inference(images):
    variables = variables_of(images)
    folded = layers.fold_batch_norms(variables["params"], variables["batch_stats"])
    assert jax.tree.map(np.shape, folded) == {"conv1": {"kernel": (3, 3, 2, 4)}, "norm1": {"bias": (4,)}}
    ours = Normed(folded=True).apply({"params": folded}, images, train=False)
    np.testing.assert_allclose(ours, Normed().apply(variables, images, train=False), atol=1e-4)


def test_folding_accepts_nested_blocks_and_leading_axes(images):
    members = [variables_of(images), jax.tree.map(lambda leaf: 2 * leaf, variables_of(images))]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    nested = layers.fold_batch_norms({"block": stacked["params"]}, {"block": stacked["batch_stats"]})["block"]
    for i, member in enumerate(members):
        alone = layers.fold_batch_norms(member["params"], member["batch_stats"])
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda leaf, i=i: leaf[i], nested), alone)


@pytest.mark.parametrize("folded", [False, True])
def test_batch_norm_returns_the_requested_dtype_and_computes_in_float32(images, folded):
    module = Normed(folded, "bfloat16")
    outputs, variables = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), images, train=False))
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_linear_is_a_product_in_at_least_float32_with_a_uniform_start():
    inputs = np.random.default_rng(0).standard_normal((3, 400)).astype(np.float32)
    outputs, variables = layers.Linear(50, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), inputs)
    kernel, bias = (np.asarray(variables["params"][name], np.float64) for name in ("kernel", "bias"))
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs, inputs @ kernel + bias, atol=1e-4)
    for values in (kernel, bias):
        assert 0.9 / 20 < np.abs(values).max() <= 1 / 20
    np.testing.assert_allclose(kernel.std(), 1 / 20 / 3**0.5, rtol=0.02)


def test_convolutions_start_with_the_variance_of_torchvision():
    shape = jax.ShapeDtypeStruct((1, 4, 4, 8), jnp.float32)
    conv = layers.Conv(256, 3, padding=1)
    kernel = jax.jit(lambda key: conv.lazy_init(key, shape))(jax.random.key(0))["params"]["kernel"]
    assert kernel.shape == (3, 3, 8, 256)
    np.testing.assert_allclose(kernel.std(), (2 / (256 * 9)) ** 0.5, rtol=0.02)


def test_layer_norm_of_large_close_numbers_keeps_its_variance():
    values = 1000 + np.arange(8.0) / 64
    x = jnp.asarray(values, jnp.float32)[None]

    class Only(nn.Module):
        @nn.compact
        def __call__(self, x):
            return layers.layer_norm(x, dtype=jnp.float32, name="norm")

    ours, _ = Only().init_with_output(jax.random.key(0), x)
    np.testing.assert_allclose(ours[0], (values - values.mean()) / np.sqrt(values.var() + 1e-6), rtol=1e-4)


class Residual(nn.Module):
    rates: tuple[float, ...]

    @nn.compact
    def __call__(self, x, train):
        for rate in self.rates:
            x = x + layers.skipped_at_random(x, rate, train)
        return x


def test_stochastic_depth_skips_whole_branches_of_an_example_at_its_rate():
    x = np.ones((4000, 2, 3), np.float32)
    (rate,) = [each for each in layers.stochastic_depth(0.2, 2) if each]
    out = np.asarray(Residual((rate,)).apply({}, x, True, rngs={"dropout": jax.random.key(0)}))
    np.testing.assert_array_equal(out, np.broadcast_to(out[:, :1, :1], out.shape))
    np.testing.assert_allclose(np.unique(out), [1, 1 + 1 / 0.8], rtol=1e-6)
    assert (out == 1).mean() == pytest.approx(0.2, abs=0.02)
    np.testing.assert_array_equal(Residual((rate,)).apply({}, x, False), 2 * x)  # no key is needed


def test_a_rate_of_zero_needs_no_key():
    x = np.ones((2, 2), np.float32)
    assert list(layers.stochastic_depth(0.3, 1)) == [0.0] == list(layers.stochastic_depth(0.0, 1))
    np.testing.assert_array_equal(Residual((0.0, 0.0)).apply({}, x, True), 4 * x)


def gradients_of_blocks(ways, depth):
    """Return the gradients of residual blocks of which each gets its input twice from `ways`."""

    def output(weights, x):
        for weight in weights:
            x, y = ways(x)
            y = (y - y.mean(-1, keepdims=True)) * jax.lax.rsqrt(y.var(-1, keepdims=True) + 1e-6)
            x = x + jnp.tanh(y @ weight)
        return (x * jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)).sum()

    random = np.random.default_rng(0)
    weights = [random.standard_normal((8, 8)).astype(np.float32) for _ in range(depth)]
    x = random.standard_normal((4, 8)).astype(np.float32)
    return jax.jit(jax.grad(output, (0, 1))).lower(weights, x).compile(), (weights, x)


def twice(x):
    return x, x


def test_the_two_ways_through_a_block_have_the_gradient_of_their_sum():
    ours, arguments = gradients_of_blocks(layers.fork, 3)
    plain, _ = gradients_of_blocks(twice, 3)
    for one, other in zip(*map(jax.tree.leaves, (ours(*arguments), plain(*arguments))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
    x, gradients = jnp.ones(3, jnp.bfloat16), (jnp.full(3, 1e-3, jnp.bfloat16), jnp.full(3, 2.0, jnp.bfloat16))
    (total,) = jax.vjp(layers.fork, x)[1](gradients)
    np.testing.assert_array_equal(total, gradients[0] + gradients[1])


def test_the_gradient_of_a_block_is_not_computed_anew_in_the_blocks_before_it():
    def most_operands(ways, depth):
        program = gradients_of_blocks(ways, depth)[0].as_text()
        entry = program[program.index("ENTRY") :]
        return max(operands.count("%") for operands in re.findall(r" fusion\((.*?)\)", entry))

    assert most_operands(layers.fork, 8) == most_operands(layers.fork, 4)
    assert most_operands(twice, 8) > most_operands(twice, 4)  # or XLA has learned it, and `fork` is not needed
