"""How much memory a device has, and how many members of a population it can train side by side.

An estimate from shapes alone, for a choice that has to be made before anything is compiled; what a compiled program
takes is said by `python -m mpt_jax.benchmark step --memory`.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mpt_jax import models
from mpt_jax.models.convolution import native_convolutions

SHARE = 0.85  # of a device's memory that may be planned with: the rest is fragments, and what this does not count


def limit() -> int | None:
    """Bytes of memory that this process may use on the first device; None where there is no limit to be asked for.

    That is so on a CPU, where members run a few at a time anyway.
    """
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def of_tree(tree: Any) -> int:
    """Bytes of all arrays of a tree (or of their shapes)."""
    sizes = [math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)]
    return sum(sizes)


def activations(module: nn.Module, image_shape: Sequence[int], *, remat: bool = False) -> int:
    """Bytes that one image leaves behind for the backward pass: every array that JAX keeps, on an accelerator.

    More than a compiler keeps, which computes the cheap ones again (a normalisation, a ReLU). With `remat`, of networks
    that have blocks, what is kept between them, and a quarter of the rest for the block at work.

    Examples:
      >>> activations(models.build("linear", 10), (64,))
      256
    """
    if remat and hasattr(module, "remat"):
        between = _kept(module.clone(remat=True), image_shape)
        return between + (_kept(module, image_shape) - between) // 4
    return _kept(module, image_shape)


def _kept(module: nn.Module, image_shape: Sequence[int]) -> int:
    params, batch_stats = jax.eval_shape(lambda: models.init(module, jax.random.key(0), tuple(image_shape)))

    def residuals(params: Any, batch_stats: Any, images: jax.Array) -> Any:
        def logits(params: Any) -> jax.Array:
            return models.train_forward(module, params, batch_stats, images)[0]

        return jax.vjp(logits, params)[1]  # a tree of what it keeps

    with native_convolutions():
        one, two = (
            of_tree(
                jax.eval_shape(residuals, params, batch_stats, jax.ShapeDtypeStruct((n, *image_shape), jnp.float32))
            )
            for n in (1, 2)
        )
    return two - one  # parameters are among them, but not once per image


def members_side_by_side(limit: int, *, shared: int, state: int, work: int, members: int) -> int:
    """``(SHARE * limit - shared - members * state) / work`` and at least one, of all members that a device has.

    Args:
      limit: bytes of the device.
      shared: bytes that all members use: images, teachers.
      state: bytes that a member keeps: parameters, momentum, statistics, averages.
      work: bytes that a member takes while it trains: its activations, and its parameters and gradient once more.
      members: how many the device has.

    Examples:
      >>> members_side_by_side(100, shared=15, state=5, work=20, members=4)
      2
      >>> members_side_by_side(100, shared=90, state=5, work=20, members=4)
      1
    """
    free = SHARE * limit - shared - members * state
    return max(1, min(members, int(free // work)))
