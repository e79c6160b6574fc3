"""Small populations on random images, for tests of how they are trained."""

import jax
import jax.numpy as jnp
import numpy as np
import random_weights

from mpt_jax import models, objectives, training
from mpt_jax.models import Classifier
from mpt_jax.objectives import METHODS

OLD, ALL, N = 3, 6, 40
ROWS = ("no_treatment", "pct_naive", "pct_lm", "mpt_kl")
LINEAR = models.build("linear", ALL)  # for tests of what hangs on no network: a population compiles in a second
STILL = {"crop_padding": 0, "flip": False}


def network(num_classes, dtype="float32"):
    """Convolutions of both strides and BatchNorm, and little to compile."""
    return models.build("convnet", num_classes, dtype=dtype).clone(features=(4, 6))


def make_recipe(dtype="float32", **changes):
    settings = dict(
        module=network(ALL, dtype),
        num_old_classes=OLD,
        batch_size=16,
        epochs=4,
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        crop_padding=1,
        flip=True,
    )
    return training.Recipe(**{**settings, **changes})


def make_teacher(num_classes, keys, dtype):
    module = network(num_classes, dtype)
    params, batch_stats = random_weights.init_each(module, keys, (8, 8, 1))
    mean, std = np.full((len(keys), 1), 0.3, dtype), np.full((len(keys), 1), 0.5, dtype)
    return Classifier(module=module, params=params, batch_stats=batch_stats, mean=mean, std=std)


def make_inputs(seeds=(0,), rows=("mpt_kl",), dtype="float32"):
    random = np.random.default_rng(0)
    keys = jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
    chosen = [METHODS[row] for row in rows]
    names = {source for objective in chosen for source in objectives.sources(objective)}
    folded = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 99)
    teachers = {name: make_teacher({"old": OLD, "new": ALL}[name], folded, dtype) for name in sorted(names)}
    return training.Inputs(
        images=random.integers(0, 256, (N, 8, 8, 1), np.uint8),
        labels=np.sort(random.integers(0, ALL, N).astype(np.int32)),
        mean=np.array([0.4], dtype),
        std=np.array([0.3], dtype),
        keys=keys,
        objectives=objectives.stack(chosen),
        teachers=teachers,
    )


def long_tailed(seeds=(0,)):
    inputs = make_inputs(seeds, ("balanced_meta_softmax",))
    counts = [20, 10, 5, 0, 4, 1]
    return inputs.replace(labels=np.repeat(np.arange(ALL), counts).astype(np.int32))


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
