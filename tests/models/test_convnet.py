"""The small convolutional network: its size, its statistics, and that it learns."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import random_weights
from sklearn.datasets import load_digits

from mpt_jax.models import Classifier, build, init, logits, normalize


@functools.partial(jax.jit, static_argnums=0)
def train_pass(module, params, batch_stats, images):
    variables = {"params": params, "batch_stats": batch_stats}
    return module.apply(variables, images, train=True, mutable=["batch_stats"])


def test_size_on_the_digits():
    params, _ = jax.eval_shape(lambda: init(build("convnet", 10), jax.random.key(0), (8, 8, 1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == (
        9 * 16 + 9 * 16 * 32 + 9 * 32 * 32 + 2 * (16 + 32 + 32) + 512 * 10 + 10
    )


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 1, 2), (5, 9, 3)])
def test_any_small_image_size_works(shape):
    module = build("convnet", 4)
    params, batch_stats = random_weights.init(module, jax.random.key(0), shape)
    output, updated = train_pass(module, params, batch_stats, jnp.ones((3, *shape)))
    chex.assert_shape(output, (3, 4))
    chex.assert_trees_all_equal_shapes_and_dtypes(updated["batch_stats"], batch_stats)


def test_running_statistics_move_by_a_tenth():
    module = build("convnet", 3)
    params, batch_stats = random_weights.init(module, jax.random.key(0), (6, 6, 2))
    images = jax.random.normal(jax.random.key(1), (4, 6, 6, 2))
    _, updated = train_pass(module, params, batch_stats, images)

    padded = np.pad(np.asarray(images, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(params["conv1"]["kernel"], np.float64)
    convolved = sum(padded[:, i : i + 6, j : j + 6] @ kernel[i, j] for i in range(3) for j in range(3))
    stats = updated["batch_stats"]["norm1"]
    np.testing.assert_allclose(stats["mean"], 0.1 * convolved.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * convolved.var((0, 1, 2)), atol=1e-5)


@pytest.mark.slow
def test_a_population_learns_the_digits_from_few_images():
    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:300], order[300:]
    mean, std = (jnp.asarray([value], jnp.float32) for value in (pixels.mean() / 255, pixels.std() / 255))
    module = build("convnet", 10)
    images, targets = normalize(jnp.asarray(pixels[train]), mean, std), jnp.asarray(labels[train])
    steps = 120
    optimizer = optax.sgd(lambda step: 0.025 * (1 + jnp.cos(jnp.pi / steps * step.astype(jnp.float32))), 0.9)

    def fit(key):
        params, batch_stats = init(module, key, (8, 8, 1))

        def step(state, key):
            params, batch_stats, momentum = state
            batch = jax.random.choice(key, len(train), (50,), replace=False)

            def loss(params):
                variables = {"params": params, "batch_stats": batch_stats}
                output, updated = module.apply(variables, images[batch], train=True, mutable=["batch_stats"])
                losses = optax.softmax_cross_entropy_with_integer_labels(output, targets[batch])
                return losses.mean(), updated["batch_stats"]

            gradient, batch_stats = jax.grad(loss, has_aux=True)(params)
            updates, momentum = optimizer.update(gradient, momentum)
            return (optax.apply_updates(params, updates), batch_stats, momentum), None

        state = params, batch_stats, optimizer.init(params)
        (params, batch_stats, _), _ = jax.lax.scan(step, state, jax.random.split(key, steps))
        return Classifier(module, params, batch_stats, mean, std)

    population = jax.jit(jax.vmap(fit))(jax.random.split(jax.random.key(0), 2))
    outputs = jax.jit(jax.vmap(logits, in_axes=(0, None)))(population, jnp.asarray(pixels[test]))
    accuracy = np.mean(np.argmax(np.asarray(outputs), axis=-1) == labels[test], axis=-1)
    assert accuracy.min() > 0.93
