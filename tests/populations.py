"""Small populations on random images, for tests of how they are trained."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import random_weights
from flax import linen as nn

from mpt_jax import data, models, objectives, training
from mpt_jax.config import OptimizerConfig
from mpt_jax.models import Classifier
from mpt_jax.objectives import METHODS
from mpt_jax.training import loop, sharding

OLD, ALL, N, SHAPE = 3, 6, 40, (8, 8, 1)
ROWS = ("no_treatment", "pct_naive", "pct_lm", "mpt_kl")
LINEAR = models.build("linear", ALL)  # for tests that do not depend on the network: it compiles in a second
NOT_AUGMENTED = {"augmentation": data.Augmentation()}

_random = np.random.default_rng(0)
IMAGES = _random.integers(0, 256, (N, *SHAPE), np.uint8)
LABELS = np.sort(_random.integers(0, ALL, N).astype(np.int32))


def network(num_classes, dtype="float32"):
    """Return a network with convolutions of both strides and BatchNorm that compiles quickly."""
    return models.build("convnet", num_classes, dtype=dtype).clone(features=(4, 6))


class Dropped(nn.Module):
    """A linear network on half of its inputs, drawn by dropout."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(self.num_classes, dtype=self.dtype, param_dtype=self.dtype, name="head")(x)


def recipe_of(**settings):
    """Return the recipe of these settings, those of the optimizer among them."""
    names = [field.name for field in dataclasses.fields(OptimizerConfig) if field.name in settings]
    optimizer = OptimizerConfig(**{name: settings.pop(name) for name in names})
    return training.Recipe(optimizer=optimizer, **settings)


def make_recipe(dtype="float32", **changes):
    settings = dict(
        module=network(ALL, dtype),
        num_old_classes=OLD,
        batch_size=16,
        epochs=4,
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        augmentation=data.Augmentation(crop_padding=1, flip=True),
    )
    return recipe_of(**{**settings, **changes})


def make_teacher(num_classes, keys, dtype):
    module = network(num_classes, dtype)
    params, batch_stats = random_weights.init_each(module, keys, SHAPE)
    mean, std = np.full((len(keys), 1), 0.3, dtype), np.full((len(keys), 1), 0.5, dtype)
    return Classifier(module=module, params=params, batch_stats=batch_stats, mean=mean, std=std)


def make_inputs(seeds=(0,), rows=("mpt_kl",), dtype="float32"):
    keys = jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
    chosen = [METHODS[row] for row in rows]
    names = {source for objective in chosen for source in objectives.sources(objective)}
    folded = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 99)
    teachers = {name: make_teacher({"old": OLD, "new": ALL}[name], folded, dtype) for name in sorted(names)}
    return training.Inputs(
        labels=LABELS,
        mean=np.array([0.4], dtype),
        std=np.array([0.3], dtype),
        keys=keys,
        objectives=objectives.stack(chosen),
        teachers=teachers,
    )


def with_objectives(inputs, *chosen):
    return inputs.replace(objectives=objectives.stack(chosen))


def long_tailed(seeds=(0,)):
    counts = [20, 10, 5, 0, 4, 1]
    labels = np.repeat(np.arange(ALL), counts).astype(np.int32)
    return make_inputs(seeds, ("balanced_meta_softmax",)).replace(labels=labels)


def first_state(recipe, inputs, image_shape=SHAPE, start=None):
    """Return the state before the first step."""
    initialize = jax.jit(training.init_state, static_argnums=(0, 2, 3, 4))
    return initialize(recipe, inputs.keys, inputs.num_objectives, image_shape, inputs.num_examples, start)


def take_steps(recipe, state, inputs, begin, stop, images=IMAGES):
    """Take these steps on one device; return the state and the sums of the values."""
    mesh, window = sharding.make_mesh(jax.devices()[:1]), data.Window(images)
    return training.train_steps(recipe, mesh, state, inputs, window, jnp.int32(begin), jnp.int32(stop))


def train(recipe, inputs, steps=6, devices=1, chunks=None, images=IMAGES):
    """Return the final state, and the means over the last call, after `steps` steps in calls of the given sizes."""
    mesh = sharding.make_mesh(jax.devices()[:devices])
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    inputs, window = jax.device_put((inputs, data.Window(images)), replicated)
    state, step = jax.device_put(first_state(recipe, inputs, images.shape[1:]), replicated), 0
    for chunk in chunks or [steps]:
        bounds = jnp.int32(step), jnp.int32(step + chunk)
        state, sums = training.train_steps(recipe, mesh, state, inputs, window, *bounds)
        step += chunk
    return jax.device_get(state), loop.means(jax.device_get(sums), chunk)


def trajectory(recipe, inputs, steps, images=IMAGES):
    """Return the states before and after each of these steps, and the values of each, on the host."""
    inputs, images = jax.device_put((inputs, images), jax.devices()[0])
    state = first_state(recipe, inputs, images.shape[1:])
    states, values = [jax.device_get(state)], []
    for step in range(steps):
        state, sums = take_steps(recipe, state, inputs, step, step + 1, images)
        states.append(jax.device_get(state))
        values.append(loop.means(jax.device_get(sums), 1))
    return states, values


def batch_of(key, step, num_examples=N, batch_size=16):
    """Return the positions of a step's examples, computed outside the program."""
    per_epoch = math.ceil(num_examples / batch_size)
    order = data.epoch_permutation(jax.random.fold_in(key, 1), step // per_epoch, num_examples)
    return np.asarray(data.batch_indices(order, step % per_epoch, batch_size))


def member(state, seed, row):
    return jax.tree.map(lambda leaf: leaf[seed, row], state)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, tolerance=1e-9):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)
