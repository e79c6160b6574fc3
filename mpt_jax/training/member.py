"""The steps of one member in one call of the program: its batches, its teachers' logits and `train_step`."""

import dataclasses

import jax
import jax.numpy as jnp

from mpt_jax import models
from mpt_jax.objectives import Objective
from mpt_jax.training import batches, class_rates, sharding, teachers
from mpt_jax.training.batches import Batch, SeedBatches
from mpt_jax.training.optimizer import head_learning_rate
from mpt_jax.training.state import TrainState
from mpt_jax.training.step import SeedFacts, train_step

Sums = dict[str, jax.Array]  # of the values of `train_step`, by name


@dataclasses.dataclass(frozen=True)
class Seed:
    """What the members of a seed share in one call of the program.

    Attributes:
      batches: of the call.
      facts: for the objectives.
      tape: the recorded logits of the teachers, see `teachers.record`; None: every member computes them.
    """

    batches: SeedBatches
    facts: SeedFacts
    tape: dict[str, jax.Array] | None


def train_member(
    seed: Seed, state: TrainState, sums: Sums, objective: Objective, begin: jax.Array, end: jax.Array
) -> tuple[TrainState, Sums]:
    """Take the steps ``begin .. end-1`` of one member and add their values to `sums`."""
    recipe, mesh, inputs = seed.batches.call.recipe, seed.batches.call.mesh, seed.batches.call.inputs

    def step_of_member(carry, step, batch):
        state, sums = carry
        if recipe.sampled:
            state, batch = resample(seed, state, objective, step)
        logits = teacher_logits(seed, batch, step)
        whole = state.replace(params=sharding.gather_parameters(mesh, state.params))
        batch = Batch(teachers.normalize(inputs, batch.images), batch.labels, logits | batch.teacher_logits)
        key = jax.random.fold_in(seed.batches.dropout_key, step)
        state, values = train_step(recipe, seed.facts, whole, objective, batch, step, key)
        return sharding.split_parameters(mesh, state), jax.tree.map(jnp.add, sums, values)

    return batches.over_steps(seed.batches, step_of_member, (state, sums), begin, end)


def teacher_logits(seed: Seed, batch: Batch, step: jax.Array) -> dict[str, jax.Array]:
    """Return the logits of the seed's teachers on a batch: those of the tape, if there is one."""
    if seed.tape is None:
        return teachers.logits(seed.batches, batch.images)
    return jax.tree.map(lambda tape: tape[step - seed.batches.call.start], seed.tape)


def resample(seed: Seed, state: TrainState, objective: Objective, step: jax.Array) -> tuple[TrainState, Batch]:
    """Improve the class rates of a member and draw its batch by them, see `class_rates`."""
    recipe, inputs, counts = seed.batches.call.recipe, seed.batches.call.inputs, seed.batches.class_counts
    keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(seed.batches.seed.key, 3), step), 6)
    dropout_key = jax.random.fold_in(jax.random.fold_in(seed.batches.seed.key, 5), step)

    def features(positions, key):
        batch = seed.batches.of_positions(positions, key)
        images = teachers.normalize(inputs, batch.images)
        _, features, _ = models.train_forward(
            recipe.module, state.params, state.batch_stats, images, dropout_key, fixed=recipe.fixed
        )
        return features, batch.labels

    balanced = jnp.where(counts > 0, 0.0, -jnp.inf)  # rates of a class-balanced batch
    log_rates = class_rates.improve(
        jnp.where(counts > 0, state.log_rates, -jnp.inf),
        keys[0],
        lambda classes: features(class_rates.positions(keys[1], classes, counts), keys[2]),
        features(
            class_rates.positions(keys[3], class_rates.draw(keys[4], balanced, recipe.batch_size), counts), keys[2]
        ),
        state.params["head"],
        class_counts=counts,
        batch_size=recipe.batch_size,
        head_rate=head_learning_rate(recipe, seed.facts.num_examples)(step),
        sampler_rate=objective.sampler_rate,
    )
    classes = class_rates.draw(keys[5], log_rates, recipe.batch_size)
    positions = class_rates.positions(jax.random.fold_in(keys[5], 1), classes, counts)
    batch = seed.batches.of_positions(positions, jax.random.fold_in(seed.batches.augment_key, step))
    return state.replace(log_rates=log_rates), batch
