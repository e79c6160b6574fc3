"""The train step of one member on one batch: the whole method, without axes, devices or loops."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import struct
from optax.microbatching import AccumulationType

from mpt_jax import models, objectives, posttraining
from mpt_jax.models import parameters
from mpt_jax.objectives import Objective
from mpt_jax.training.batches import Batch
from mpt_jax.training.optimizer import make_optimizer
from mpt_jax.training.recipe import Recipe
from mpt_jax.training.state import Array, TrainState


class SeedFacts(struct.PyTreeNode):
    """What the members of a seed share besides their batches.

    Attributes:
      num_examples: number of images that the seed learns from.
      class_counts: its images of each class, ``[K]``, for objectives with a balance.
      label_scale: ``[K]``, for objectives with a `bias_power`.
      old_head: ``{"kernel": [D, K_old], "bias": [K_old]}``: the source "old_head" applies it to the student's features.
    """

    num_examples: int = struct.field(pytree_node=False)
    class_counts: Array | None = None
    label_scale: Array | None = None
    old_head: Mapping[str, jax.Array] | None = None


def train_step(
    recipe: Recipe,
    facts: SeedFacts,
    state: TrainState,
    objective: Objective,
    batch: Batch,
    step: jax.typing.ArrayLike = 0,
    key: jax.Array | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Take one step of the optimizer with one member on one batch of normalised images.

    Frozen parameters (`OptimizerConfig.freeze`) have no gradient: the backward pass ends at the first trained layer.

    With ``accumulate`` A, the gradient is the mean of those of A micro-batches: the i-th holds the examples i, i + A,
    and so on, so that no example moves to another device. This is the gradient of the whole batch except through
    BatchNorm, which normalises each micro-batch by its own statistics (those of all devices together). The statistics
    of the whole batch would take another forward pass per layer. The running statistics move once per step, by the mean
    over the micro-batches, so their decay does not depend on A.

    Args:
      state: without leading axes.
      step: steps done before, for the schedules of the objective (may be traced).
      key: of dropout in this step, such as ``jax.random.fold_in(key_of_the_seed, step)``; each micro-batch has its own.
        None serves networks without dropout.

    Returns:
      The next state, and ``{"loss", "accuracy"}`` of the batch before the step. With ``skip_nonfinite`` also
      ``"skipped"``, 1 if the update was not finite; the state is then unchanged and the loss 0.

    Examples:
      A training loop of your own, of two steps on one batch:

      >>> from mpt_jax.config import OptimizerConfig
      >>> from mpt_jax.objectives import METHODS
      >>> settings = OptimizerConfig(learning_rate=0.1, epochs=1, batch_size=4)
      >>> recipe = Recipe(models.build("linear", 3), num_old_classes=2, optimizer=settings)
      >>> params, batch_stats = models.init(recipe.module, jax.random.key(0), (5,))
      >>> optimizer = make_optimizer(recipe, num_examples=8)
      >>> state = TrainState(params, batch_stats, optimizer.init(params))
      >>> batch = Batch(jnp.eye(4, 5), jnp.array([0, 1, 2, 0]), {"old": jnp.zeros((4, 2))})
      >>> step = jax.jit(train_step, static_argnums=0)
      >>> for number in range(2):
      ...     state, values = step(recipe, SeedFacts(num_examples=8), state, METHODS["pct_kl"], batch, number)
      >>> sorted(values)
      ['accuracy', 'loss']
      >>> trained = models.Classifier(recipe.module, state.params, state.batch_stats, mean=None, std=None)
      >>> models.logits(trained, batch.images).shape
      (4, 3)
    """
    trained, frozen = parameters.split(state.params, recipe.optimizer.freeze)
    module = recipe.module.clone(remat=True) if recipe.remat and hasattr(recipe.module, "remat") else recipe.module

    def loss_function(trained, batch, dropout_key):
        params = parameters.merge(trained, frozen)
        logits, features, batch_stats = models.train_forward(
            module, params, state.batch_stats, batch.images, dropout_key, fixed=recipe.fixed
        )
        teacher_logits = dict(batch.teacher_logits)
        if facts.old_head is not None:
            teacher_logits["old_head"] = features @ facts.old_head["kernel"] + facts.old_head["bias"][None]
        losses = objectives.per_example_loss(
            objective,
            logits,
            batch.labels,
            teacher_logits,
            num_old_classes=recipe.num_old_classes,
            common=recipe.common,
            class_counts=facts.class_counts,
            label_scale=facts.label_scale,
            epoch=jnp.asarray(step) // recipe.steps_per_epoch(facts.num_examples),
            progress=jnp.asarray(step, float) / recipe.total_steps(facts.num_examples),
        )
        accuracy = (jnp.argmax(logits, axis=-1).astype(batch.labels.dtype) == batch.labels).mean(dtype=float)
        return losses.mean(), (accuracy, batch_stats)

    def gradient(batch, positions):
        dropout_key = None if key is None else jax.random.fold_in(key, positions[0])
        return jax.value_and_grad(loss_function, has_aux=True)(trained, batch, dropout_key)

    gradient = optax.microbatch(gradient, (0, 1), recipe.micro_batch_size, AccumulationType.MEAN)
    # The first position in a micro-batch is its number.
    (loss, (accuracy, batch_stats)), grads = gradient(batch, jnp.arange(len(batch.labels)))
    optimizer = make_optimizer(recipe, facts.num_examples)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    params = parameters.merge(optax.apply_updates(trained, updates), frozen)
    after = state
    if state.average is not None:
        after = after.replace(average=posttraining.ema(state.average, (params, batch_stats), objective.average, step))
    values = {"loss": loss.astype(float), "accuracy": accuracy}
    after = after.replace(params=params, batch_stats=batch_stats, opt_state=opt_state)
    if recipe.optimizer.skip_nonfinite:
        finite = jnp.isfinite(optax.tree.norm(grads)) & jnp.isfinite(loss)
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
        values |= {"loss": jnp.where(finite, values["loss"], 0.0), "skipped": (~finite).astype(float)}
    return after, values
