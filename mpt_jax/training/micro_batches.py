"""Micro-batches: a batch in parts, one after the other, for steps whose activations do not fit the device together.

Part i of A has the examples i, i + A, i + 2A, and so on, so that no example moves to another device.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def mean(parts: int, function: Callable[[Any], Any], batch: Any) -> Any:
    """Return the mean of ``function(part)`` over the parts of a batch.

    Args:
      batch: arrays ``[batch, ...]``.
    """
    if parts == 1:
        return function(batch)
    pieces = jax.tree.map(functools.partial(split, parts), batch)
    shapes = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], pieces))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    add = lambda total, piece: (jax.tree.map(jnp.add, total, function(piece)), None)  # noqa: E731
    return jax.tree.map(lambda total: total / parts, jax.lax.scan(add, zeros, pieces)[0])


def concatenated(parts: int, function: Callable[[jax.Array], Any], batch: jax.Array) -> Any:
    """Return ``function(batch)``, computed part by part, of a function that treats every example alike.

    Examples:
      >>> concatenated(2, lambda x: 10 * x, jnp.arange(4)).tolist()
      [0, 10, 20, 30]
    """
    if parts == 1:
        return function(batch)
    results = jax.lax.map(function, split(parts, batch))
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:]), results)


def split(parts: int, leaf: jax.Array) -> jax.Array:
    """Return the parts of an array: ``[batch, ...] -> [parts, batch / parts, ...]``.

    Examples:
      >>> split(2, jnp.arange(6)).tolist()
      [[0, 2, 4], [1, 3, 5]]
    """
    return leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1)
