"""The optimizer of a recipe, put together from optax: rates, weight decay, clipping and frozen parameters.

A rate may differ by parameter: `layer_decay` and `head_learning_rate` multiply the updates, to which every optimizer of
`config.optimizers` gives the rate as a factor.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from mpt_jax.config.optimizers import OPTIMIZERS
from mpt_jax.models import parameters
from mpt_jax.training.recipe import Recipe


def learning_rate(recipe: Recipe, num_examples: int) -> optax.Schedule:
    """Return the schedule of the learning rate, a function of the number of steps done.

    It rises from 0 by equal steps in the W steps of `warmup_epochs`. Then, with t counted from there and T the steps
    that remain:

    * "cosine": ``lr/2 * (1 + cos(pi * t/T))``, with t and T in steps, or in epochs if `schedule_unit` is "epoch".
    * "constant": lr.
    * "thirds": lr, then ``lr/10`` after one third and ``lr/100`` after two thirds of the steps.
    """
    settings, per_epoch = recipe.optimizer, recipe.steps_per_epoch(num_examples)
    warmup = round(settings.warmup_epochs * per_epoch)
    schedule = _after_warmup(recipe, per_epoch, recipe.total_steps(num_examples) - warmup)
    if not warmup:
        return schedule
    return optax.join_schedules([optax.linear_schedule(0.0, settings.learning_rate, warmup), schedule], [warmup])


def _after_warmup(recipe: Recipe, per_epoch: int, steps: int) -> optax.Schedule:
    settings = recipe.optimizer
    if settings.schedule == "constant":
        return optax.constant_schedule(settings.learning_rate)
    if settings.schedule == "thirds":
        third = steps / 3
        ends = jnp.array([round(third), round(2 * third)], jnp.int32)
        return lambda step: settings.learning_rate * jnp.power(0.1, (step >= ends).sum(dtype=float))
    unit = per_epoch if settings.schedule_unit == "epoch" else 1
    units = max(1, -(-steps // unit))

    def cosine(step):
        return settings.learning_rate * 0.5 * (1.0 + jnp.cos(jnp.asarray(step // unit, float) * (math.pi / units)))

    return cosine


def head_learning_rate(recipe: Recipe, num_examples: int) -> optax.Schedule:
    """Return the schedule of the head's learning rate."""
    rate, factor = learning_rate(recipe, num_examples), rate_factor(recipe, parameters.HEAD)
    return rate if factor == 1 else lambda step: factor * rate(step)


def rate_factor(recipe: Recipe, path: str) -> float:
    """Return the learning rate of a parameter as a multiple of `learning_rate`.

    It is ``layer_decay ** n`` for the n-th layer before the head. Parameters outside the layers, such as a class token,
    count as the first layer. The head has `head_learning_rate`, if that is given.

    Args:
      path: of the parameter.

    Raises:
      ValueError: `layer_decay` is below 1, but the recipe does not list the layers.

    Examples:
      >>> from mpt_jax import models
      >>> from mpt_jax.config import OptimizerConfig
      >>> settings = OptimizerConfig(layer_decay=0.5, learning_rate=0.1, head_learning_rate=0.3)
      >>> recipe = Recipe(models.build("mlp", 3), 2, settings, layers=("block1", "block2", "head"))
      >>> paths = ("head/kernel", "block2/kernel", "block1/kernel", "class_token")
      >>> [round(rate_factor(recipe, path), 2) for path in paths]
      [3.0, 0.5, 0.25, 0.25]
    """
    settings, layer = recipe.optimizer, path.split("/")[0]
    if layer == parameters.HEAD and settings.head_learning_rate:
        return settings.head_learning_rate / settings.learning_rate
    if settings.layer_decay == 1:
        return 1.0
    if not recipe.layers:
        raise ValueError("layer_decay needs Recipe.layers; expected those of models.layer_order")
    number = recipe.layers.index(layer) if layer in recipe.layers else 0
    return settings.layer_decay ** (len(recipe.layers) - 1 - number)


def make_optimizer(recipe: Recipe, num_examples: int) -> optax.GradientTransformation:
    """Return the optimizer of a recipe.

    The default is SGD as PyTorch defines it: weight decay is added to every gradient before the momentum. See
    `config.optimizers` for the others.

    Parameters that match `freeze` have updates of 0 and no state. Gradients of the others are clipped together. The
    trees may be those of all parameters, or the trained part of `models.parameters.split`.
    """
    settings, rate = recipe.optimizer, learning_rate(recipe, num_examples)
    optimizer = _base(recipe, rate, settings.weight_decay)
    if settings.decay_exclude:
        groups = {"decayed": optimizer, "excluded": _base(recipe, rate, 0.0)}
        is_excluded = functools.partial(parameters.matches, settings.decay_exclude)
        optimizer = optax.partition(groups, _by_path(lambda path: "excluded" if is_excluded(path) else "decayed"))
    if settings.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(settings.clip_norm), optimizer)
    if settings.layer_decay != 1 or settings.head_learning_rate:
        factors = _by_path(functools.partial(rate_factor, recipe))
        scale = optax.stateless(
            lambda updates, _: jax.tree.map(lambda u, factor: factor * u, updates, factors(updates))
        )
        optimizer = optax.chain(optimizer, scale)
    if settings.freeze:
        groups = {"trained": optimizer, "frozen": optax.set_to_zero()}
        is_frozen = functools.partial(parameters.is_frozen, settings.freeze)
        optimizer = optax.partition(groups, _by_path(lambda path: "frozen" if is_frozen(path) else "trained"))
    return _promoting(optimizer)


def _promoting(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the same optimizer for programs that forbid implicit promotion: optax multiplies integers by floats."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.update(updates, state, params)

    return optax.GradientTransformation(optimizer.init, update)


def _base(recipe: Recipe, rate: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Return the optimizer of `name` with its options."""
    settings, row = recipe.optimizer, OPTIMIZERS[recipe.optimizer.name]
    options = dict(settings.options)
    if settings.name == "sgd":
        options["momentum"] = settings.momentum
    if settings.name == "muon":
        options["muon_weight_dimension_numbers"] = _matrices
    if row.decay:
        return row.constructor(learning_rate=rate, **dict.fromkeys(row.decay, weight_decay), **options)
    return optax.chain(optax.add_decayed_weights(weight_decay), row.constructor(learning_rate=rate, **options))


def _matrices(params: Any) -> Any:
    """Return how Muon reads a parameter as a matrix ``[inputs, outputs]``; None: Adam trains it.

    Matrices are the kernels of linear layers and convolutions, ``[height * width * inputs, outputs]``. As its authors
    recommend, Adam trains the head and everything else, among it depthwise kernels.

    Source: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
    """

    def one(keys: Any, leaf: jax.Array) -> MuonDimensionNumbers | None:
        parts = parameters.path_of(keys).split("/")
        depthwise = leaf.ndim == 4 and leaf.shape[2] == 1
        if parts[-1] != "kernel" or parts[0] == parameters.HEAD or leaf.ndim not in (2, 4) or depthwise:
            return None
        return MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(one, params)


def _by_path(function: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return a function from a tree to the same tree with ``function(path)`` in place of each leaf."""
    return lambda tree: jax.tree_util.tree_map_with_path(lambda keys, _: function(parameters.path_of(keys)), tree)
