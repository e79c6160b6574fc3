"""Which images a step sees, inside the compiled program.

Batches, crops and flips are pure functions of (seed, step). They are drawn in the program from uint8 images that stay
on the device; a stream draws the same batches on the host, see `data.Feed`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from mpt_jax import data
from mpt_jax.training import sharding
from mpt_jax.training.recipe import Recipe
from mpt_jax.training.state import Inputs, SeedInputs


@struct.dataclass
class Batch:
    """What a train step learns from."""

    images: jax.Array  # ``[batch, H, W, C]``: uint8 as drawn, floats once they are normalised
    labels: jax.Array  # int32 ``[batch]``
    teacher_logits: Mapping[str, jax.Array]  # ``[batch, K_source]`` by source


@dataclasses.dataclass(frozen=True)
class SeedBatches:
    """The batches of one seed in one call of the program, see `of_seed`.

    Attributes:
      recipe: of the population.
      mesh: over which each batch is split.
      inputs: of the population.
      seed: its part of the inputs.
      window: the images of the call.
      start: first step of the call.
      augment_key: of crops and flips.
      class_counts: int32 ``[K]``, the seed's images of each class.
      rows: int32 ``[steps_per_call, batch]``: positions among the seed's images, or the rows of a stream.
    """

    recipe: Recipe
    mesh: Mesh
    inputs: Inputs
    seed: SeedInputs
    window: data.Window
    start: jax.Array
    augment_key: jax.Array
    class_counts: jax.Array
    rows: jax.Array

    def at(self, step: jax.Array) -> Batch:
        """Return the batch of a step, augmented, with the precomputed logits."""
        key = jax.random.fold_in(self.augment_key, step)
        if not self.window.streamed:
            return self.of_positions(self.rows[step - self.start], key)
        return self._batch(self.window.images[step - self.start], self.rows[step - self.start], key)

    def of_positions(self, positions: jax.Array, key: jax.Array) -> Batch:
        """Return the batch of these positions among the seed's images, augmented with this key.

        Raises:
          ValueError: the images are streamed.
        """
        if self.window.streamed:
            raise ValueError("a stream has the images of its own batches only; expected images in memory")
        rows = positions if self.seed.rows is None else self.seed.rows[positions]
        return self._batch(self.window.images[rows], rows, key)

    def _batch(self, images: jax.Array, rows: jax.Array, key: jax.Array) -> Batch:
        images = sharding.split_batch(self.mesh, images)
        images = data.augment(key, images, crop_padding=self.recipe.crop_padding, flip=self.recipe.flip)
        labels, tables = self.inputs.labels[rows], self.inputs.precomputed_logits
        return Batch(
            images, labels, {source: table[self.seed.number % len(table), rows] for source, table in tables.items()}
        )


def of_seed(
    recipe: Recipe,
    mesh: Mesh,
    inputs: Inputs,
    window: data.Window,
    seed: SeedInputs,
    start: jax.Array,
    stop: jax.Array,
) -> SeedBatches:
    """Return the batches of the steps ``start .. stop-1`` of a seed.

    Args:
      window: the images of the call, for all seeds; of a stream, those of `seed` are used instead.
    """
    order_key, augment_key = jax.random.fold_in(seed.key, 1), jax.random.fold_in(seed.key, 2)
    labels = inputs.labels if seed.rows is None else inputs.labels[seed.rows]
    class_counts = jnp.bincount(labels, length=recipe.module.num_classes)
    if seed.window is not None:
        window, rows = seed.window, seed.window.rows
    else:
        rows = draw_rows(order_key, start, stop, inputs.num_examples, recipe.batch_size, size=recipe.steps_per_call)
    return SeedBatches(recipe, mesh, inputs, seed, window, start, augment_key, class_counts, rows)


def draw_rows(
    key: jax.Array, start: jax.Array, stop: jax.Array, num_examples: int, batch_size: int, *, size: int
) -> jax.Array:
    """Return the positions of the examples of the steps ``start .. stop-1``, int32 ``[size, batch_size]``.

    Rows of `size` beyond the last step are 0. The permutation of an epoch is computed once.
    """
    per_epoch = data.steps_per_epoch(num_examples, batch_size)

    def permutation_of(epoch):
        return data.epoch_permutation(key, epoch, num_examples)

    def draw(step, carry):
        rows, permutation = carry
        epoch, step_in_epoch = step // per_epoch, step % per_epoch
        permutation = jax.lax.cond(step_in_epoch == 0, lambda: permutation_of(epoch), lambda: permutation)
        batch = data.batch_indices(permutation, step_in_epoch, batch_size)
        return rows.at[step - start].set(batch), permutation

    rows = jnp.zeros((size, batch_size), jnp.int32)
    return jax.lax.fori_loop(start, stop, draw, (rows, permutation_of(start // per_epoch)))[0]


def over_steps(
    batches: SeedBatches,
    function: Callable[[Any, jax.Array, Batch], Any],
    carry: Any,
    start: jax.Array,
    stop: jax.Array,
) -> Any:
    """Return the last ``carry = function(carry, step, batch)`` over the steps ``start .. stop-1``."""

    def body(step, carry):
        # The barrier keeps the making of a batch out of the arithmetic of the step, which a stream must repeat exactly.
        return function(carry, step, jax.lax.optimization_barrier(batches.at(step)))

    return jax.lax.fori_loop(start, stop, body, carry)
