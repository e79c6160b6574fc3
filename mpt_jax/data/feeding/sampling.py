"""Which examples a step sees: a pure function of (key, step), so there is nothing to save or restore."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return the number of steps that show every example at least once: ``ceil(N / B)``.

    Raises:
      ValueError: no examples, or a batch size below 1.

    Examples:
      >>> steps_per_epoch(50_000, 128)
      391
    """
    if num_examples < 1 or batch_size < 1:
        raise ValueError(f"{num_examples} examples in batches of {batch_size}; expected at least one example per batch")
    return -(-num_examples // batch_size)


def epoch_permutation(key: jax.Array, epoch: ArrayLike, num_examples: int) -> jax.Array:
    """Draw the order of the examples in an epoch from (key, epoch): a permutation of ``0 .. N-1``, ``int32 [N]``."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), jnp.arange(num_examples, dtype=jnp.int32))


def batch_indices(permutation: jax.Array, step_in_epoch: ArrayLike, batch_size: int) -> jax.Array:
    """Return the examples of one step, ``int32 [B]``: positions ``(step * B + 0 .. B-1) mod N`` of the permutation.

    The last batch is filled from the start of the same permutation, so that every batch has the same shape and every
    example is seen.

    Examples:
      >>> batch_indices(jnp.array([3, 0, 4, 1, 2], jnp.int32), 2, batch_size=2).tolist()
      [2, 3]
    """
    positions = jnp.asarray(step_in_epoch, jnp.int32) * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    return jnp.take(permutation, positions % permutation.shape[0])
