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


class Batch(struct.PyTreeNode):
    """What a train step learns from.

    Attributes:
      images: ``[batch, H, W, C]``, or features ``[batch, D]``: uint8 as drawn, floats once they are normalised.
      labels: int32 ``[batch]``.
      teacher_logits: ``[batch, K_source]`` by source: "old", "new" or "ensemble", those that the objective names.
    """

    images: jax.Array
    labels: jax.Array
    teacher_logits: Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of the program: the steps ``start .. stop-1`` of the members that a group of devices has."""

    recipe: Recipe
    mesh: Mesh
    inputs: Inputs
    window: data.Window
    start: jax.Array
    stop: jax.Array


@dataclasses.dataclass(frozen=True)
class SeedBatches:
    """The batches of one seed in one call, see `of_seed`.

    Attributes:
      call: the steps.
      seed: the inputs of the seed.
      augment_key: of crops and flips.
      dropout_key: of dropout and stochastic depth.
      class_counts: int32 ``[K]``, the seed's images of each class.
      rows: int32 ``[steps_per_call, batch]``: positions among the seed's images, or the rows of a stream.
    """

    call: Call
    seed: SeedInputs
    augment_key: jax.Array
    dropout_key: jax.Array
    class_counts: jax.Array
    rows: jax.Array

    def at(self, step: jax.Array) -> Batch:
        """Return the batch of a step, augmented, with the precomputed logits."""
        key, index = jax.random.fold_in(self.augment_key, step), step - self.call.start
        if self.seed.window is None:
            return self.of_positions(self.rows[index], key)
        return self._batch(self.seed.window.images[index], self.rows[index], key)

    def of_positions(self, positions: jax.Array, key: jax.Array) -> Batch:
        """Return the batch of these positions among the seed's images, augmented with this key.

        Raises:
          ValueError: the images are streamed.
        """
        if self.seed.window is not None:
            raise ValueError("a stream has the images of its own batches only; expected images in memory")
        rows = positions if self.seed.rows is None else self.seed.rows[positions]
        return self._batch(self.call.window.images[rows], rows, key)

    def _batch(self, images: jax.Array, rows: jax.Array, key: jax.Array) -> Batch:
        recipe, inputs = self.call.recipe, self.call.inputs
        images = sharding.split_batch(self.call.mesh, images)
        images = data.augment(key, images, recipe.augmentation)
        labels, tables = inputs.labels[rows], inputs.precomputed_logits
        return Batch(
            images, labels, {source: table[self.seed.number % len(table), rows] for source, table in tables.items()}
        )


def of_seed(call: Call, seed: SeedInputs) -> SeedBatches:
    """Return the batches of a seed in a call: those of a stream, or drawn here."""
    recipe, inputs = call.recipe, call.inputs
    order_key, augment_key, dropout_key = (jax.random.fold_in(seed.key, stream) for stream in (1, 2, 4))
    labels = inputs.labels if seed.rows is None else inputs.labels[seed.rows]
    class_counts = jnp.bincount(labels, length=recipe.num_classes)
    rows = None if seed.window is None else seed.window.rows
    if rows is None:
        sizes = inputs.num_examples, recipe.batch_size
        rows = draw_rows(order_key, call.start, call.stop, *sizes, size=recipe.steps_per_call)
    return SeedBatches(call, seed, augment_key, dropout_key, class_counts, rows)


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
        # The barrier separates drawing a batch from the arithmetic of the step, which a stream must repeat exactly.
        return function(carry, step, jax.lax.optimization_barrier(batches.at(step)))

    return jax.lax.fori_loop(start, stop, body, carry)
