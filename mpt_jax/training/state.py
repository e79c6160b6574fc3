"""What a population is trained from and what a train step changes.

A population is a set of students that differ in their seed and in the numbers of their objective. Every leaf of its
`TrainState` has two leading axes, ``[seeds, objectives]``. A seed is a complete replica, with its own teachers and its
own order of batches. The objectives of a seed share both and start from the same weights, so they differ in nothing but
their numbers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mpt_jax import data, models
from mpt_jax.models import Classifier
from mpt_jax.objectives import Objective
from mpt_jax.runtime import processes
from mpt_jax.training import sharding
from mpt_jax.training.optimizer import make_optimizer
from mpt_jax.training.recipe import Recipe

Array = jax.Array | np.ndarray  # on the host until `place` puts it on the devices


class TrainState(struct.PyTreeNode):
    """What one step changes; leaves ``[seeds, objectives, ...]``. The number of steps done is not part of it."""

    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any = None  # moving average of (params, batch_stats), if `Recipe.averaged`
    log_rates: Any = None  # class rates of a batch, ``[K]``, if `Recipe.sampled`


class Inputs(struct.PyTreeNode):
    """What a population learns from besides images; never donated, never in a checkpoint."""

    labels: Array  # int32 ``[N]``, sorted
    mean: Array  # ``[C]``, of the students' inputs
    std: Array
    keys: jax.Array  # one typed key per seed, ``[seeds]``
    objectives: Objective  # leaves ``[objectives]``
    teachers: Mapping[str, Classifier]  # leaves ``[seeds, ...]``; the sources that the objectives name
    rows: Array | None = None  # int32 ``[seeds, n]``, the images that each seed learns from; None: all
    label_scale: Array | None = None  # ``[seeds, K]``, for objectives with a `bias_power`
    # Sources that are known by their logits alone: float32 ``[1 or seeds, N, K_source]``.
    precomputed_logits: Mapping[str, Array] = struct.field(default_factory=dict)

    @property
    def num_examples(self) -> int:
        """How many images each seed learns from."""
        return (self.labels if self.rows is None else self.rows).shape[-1]

    @property
    def num_objectives(self) -> int:
        """How many objectives each seed trains."""
        return jax.tree.leaves(self.objectives)[0].shape[0]


class SeedInputs(struct.PyTreeNode):
    """The part of the inputs that belongs to a seed; leaves ``[seeds, ...]``, or those of one seed."""

    teachers: Mapping[str, Classifier]
    key: jax.Array
    rows: Array | None
    label_scale: Array | None
    window: data.Window | None  # of a stream; None: the images in memory serve all seeds
    number: jax.Array  # of the seed


def init_state(
    recipe: Recipe,
    keys: jax.Array,
    num_objectives: int,
    image_shape: Sequence[int],
    num_examples: int,
    start: Classifier | None = None,
) -> TrainState:
    """Return a fresh state in which the objectives of a seed have the same weights.

    Args:
      keys: one typed key per seed, ``[seeds]``.
      image_shape: of one input.
      num_examples: images that each seed learns from, for the learning rate.
      start: networks of the same architecture, leaves ``[seeds, ...]`` or ``[1, ...]`` for all seeds, whose weights
        replace the random ones. Head columns of classes that they do not know stay random.
    """

    def one_seed(key, start):
        params, batch_stats = models.init(recipe.module, jax.random.fold_in(key, 0), image_shape)
        if start is not None:
            params, batch_stats = models.warm_start((params, batch_stats), (start.params, start.batch_stats))
        return TrainState(
            params,
            batch_stats,
            make_optimizer(recipe, num_examples).init(params),
            average=(params, batch_stats) if recipe.averaged else None,
            log_rates=jnp.zeros(recipe.num_classes) if recipe.sampled else None,
        )

    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (keys.shape[0], *leaf.shape[1:])), start)
    spread = lambda leaf: jnp.broadcast_to(leaf[:, None], (leaf.shape[0], num_objectives, *leaf.shape[1:]))  # noqa: E731
    return jax.tree.map(spread, jax.vmap(one_seed)(keys, start))


def new_state(
    recipe: Recipe, mesh: Mesh, inputs: Inputs, image_shape: Sequence[int], start: Classifier | None = None
) -> TrainState:
    """Return `init_state`, computed where it is needed: each device of the mesh makes its own part."""
    sizes = (inputs.num_objectives, image_shape, inputs.num_examples)
    shapes = jax.eval_shape(lambda keys, start: init_state(recipe, keys, *sizes, start), inputs.keys, start)
    initialize = jax.jit(init_state, static_argnums=(0, 2, 3, 4), out_shardings=sharding.state_shardings(mesh, shapes))
    return initialize(recipe, inputs.keys, *sizes, start)


def zero_sums(recipe: Recipe, inputs: Inputs) -> dict[str, jax.Array]:
    """Return the sums to which `train_steps` adds in its first call: zeros ``[seeds, objectives]`` by name."""
    shape = (inputs.keys.shape[0], inputs.num_objectives)
    names = ("loss", "accuracy", *(["skipped"] if recipe.optimizer.skip_nonfinite else []))
    return {name: jnp.zeros(shape) for name in names}


def input_specs() -> Inputs:
    """Return the partition specs of `Inputs`: split by seed what belongs to a seed, replicate the rest."""
    of_seeds = ("keys", "teachers", "rows", "label_scale")
    specs: dict[str, Any] = {
        field.name: P("seeds") if field.name in of_seeds else P() for field in dataclasses.fields(Inputs)
    }
    return Inputs(**specs)


def place(mesh: Mesh, inputs: Inputs) -> Inputs:
    """Put the inputs on the devices of a mesh of `sharding.choose_mesh`."""
    return processes.device_put(inputs, sharding.named_shardings(mesh, inputs, input_specs()))
