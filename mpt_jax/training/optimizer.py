"""SGD with momentum and weight decay, and its learning rate schedules."""

import math

import jax.numpy as jnp
import optax

from mpt_jax.training.recipe import Recipe


def learning_rate(recipe: Recipe, num_examples: int) -> optax.Schedule:
    """Return the schedule of the learning rate, a function of the number of steps done.

    * "cosine": ``lr/2 * (1 + cos(pi * t/T))``, with t and T in steps, or in epochs if `schedule_unit` is "epoch".
    * "constant": lr.
    * "thirds": lr, then ``lr/10`` after one third and ``lr/100`` after two thirds of the steps.
    """
    settings = recipe.optimizer
    if settings.schedule == "constant":
        return optax.constant_schedule(settings.learning_rate)
    if settings.schedule == "thirds":
        third = recipe.total_steps(num_examples) / 3
        ends = jnp.array([round(third), round(2 * third)], jnp.int32)
        return lambda step: settings.learning_rate * jnp.power(0.1, (step >= ends).sum(dtype=float))
    unit = recipe.steps_per_epoch(num_examples) if settings.schedule_unit == "epoch" else 1
    units = recipe.total_steps(num_examples) // unit

    def cosine(step):
        return settings.learning_rate * 0.5 * (1.0 + jnp.cos(jnp.asarray(step // unit, float) * (math.pi / units)))

    return cosine


def make_optimizer(recipe: Recipe, num_examples: int) -> optax.GradientTransformation:
    """Return SGD as PyTorch defines it: weight decay is added to every gradient before the momentum."""
    settings, rate = recipe.optimizer, learning_rate(recipe, num_examples)
    return optax.chain(optax.add_decayed_weights(settings.weight_decay), optax.sgd(rate, settings.momentum))
