"""The teachers of a population: how the train steps run them, and the tape of their logits."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.microbatching import AccumulationType

from mpt_jax import models
from mpt_jax.models import Classifier
from mpt_jax.training.batches import SeedBatches
from mpt_jax.training.recipe import Recipe
from mpt_jax.training.state import Inputs

OLD_HEAD = "old_head"  # the source whose logits come from the student's features, in the train step


def freeze(teacher: Classifier, mean: Any, std: Any) -> Classifier:
    """Return a teacher as the train step runs it: folded, and without a normalisation that is the student's.

    Teachers without their own normalisation share the student's normalised images.
    """
    same = all(
        (np.asarray(ours) == np.asarray(theirs)).all() for ours, theirs in ((teacher.mean, mean), (teacher.std, std))
    )
    return models.fold(teacher.replace(mean=None, std=None) if same else teacher)


def freeze_all(teachers: Mapping[str, Classifier], mean: Any, std: Any) -> dict[str, Classifier]:
    """Return `freeze` of each teacher; of `OLD_HEAD` the head alone."""
    return {
        source: teacher.replace(params={"head": teacher.params["head"]}, batch_stats={})
        if source == OLD_HEAD
        else freeze(teacher, mean, std)
        for source, teacher in teachers.items()
    }


def old_head(teachers: Mapping[str, Classifier]) -> Mapping[str, jax.Array] | None:
    """Return ``{"kernel": [D, K_old], "bias": [K_old]}`` of the source `OLD_HEAD`, if it is among the teachers."""
    return teachers[OLD_HEAD].params["head"] if OLD_HEAD in teachers else None


def normalize(inputs: Inputs, images: jax.Array) -> jax.Array:
    """Return uint8 images as the students see them."""
    return models.normalize(images, inputs.mean, inputs.std, inputs.mean.dtype)


def logits(batches: SeedBatches, images: jax.Array) -> dict[str, jax.Array]:
    """Return the logits of a seed's teachers on uint8 images, ``[batch, K_source]`` by source, without `OLD_HEAD`.

    They are computed in as many micro-batches as the gradient.
    """

    def of_images(images):
        return {
            source: models.logits(teacher, normalize(batches.call.inputs, images) if teacher.mean is None else images)
            for source, teacher in batches.seed.teachers.items()
            if source != OLD_HEAD
        }

    return optax.microbatch(of_images, 0, batches.call.recipe.micro_batch_size, AccumulationType.CONCAT)(images)


def needs_tape(recipe: Recipe, num_objectives: int, groups: int) -> bool:
    """Return whether logits are recorded: members that do not run side by side would compute them several times.

    Members with learned class rates draw their own batches, for which there is nothing to share.

    Args:
      groups: of devices over which the objectives are split.
    """
    return max(groups, num_objectives / recipe.members_at_once) > 1 and not recipe.sampled


def record(batches: SeedBatches, groups: int) -> dict[str, jax.Array]:
    """Return the tape: the teachers' logits on all batches of a call.

    Each of the groups of devices that the objectives are split over computes every `groups`-th step.

    Returns:
      ``[steps_per_call, batch, K_source]`` by source.
    """
    recipe, start, stop = batches.call.recipe, batches.call.start, batches.call.stop
    empty = jax.tree.map(
        lambda one: jnp.zeros((recipe.steps_per_call, *one.shape), one.dtype),
        jax.eval_shape(lambda: logits(batches, batches.at(start).images)),
    )

    def record_one(number, tape):
        # If the groups do not divide the steps, also a step after the last one, which is never read.
        step = start + groups * number + (jax.lax.axis_index("objectives") if groups > 1 else 0)
        batch = jax.lax.optimization_barrier(batches.at(step))
        new = logits(batches, batch.images)
        return jax.tree.map(lambda recorded, one: recorded.at[step - start].set(one), tape, new)

    tape = jax.lax.fori_loop(0, (stop - start + groups - 1) // groups, record_one, empty)
    return jax.lax.psum(tape, "objectives") if groups > 1 else tape
