"""Which examples a step sees, as a pure function of (key, step): nothing to save, nothing to restore, ready to vmap."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Steps that show every example at least once: ``ceil(N / B)``.

    Raises:
      ValueError: no examples, or a batch size below 1.

    Examples:
      >>> steps_per_epoch(50_000, 128)
      391
    """
    if num_examples < 1 or batch_size < 1:
        raise ValueError(f"need at least one example and one per batch, got {num_examples} and {batch_size}")
    return -(-num_examples // batch_size)


def epoch_permutation(key: jax.Array, epoch: ArrayLike, num_examples: int) -> jax.Array:
    """The order of the examples in an epoch, ``int32 [N]``: a permutation of ``0 .. N-1`` drawn from (key, epoch)."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), jnp.arange(num_examples, dtype=jnp.int32))


def batch_indices(permutation: jax.Array, step_in_epoch: ArrayLike, batch_size: int) -> jax.Array:
    """The examples of one step, ``int32 [B]``: positions ``(step * B + 0 .. B-1) mod N`` of the epoch's permutation.

    The last batch is filled up from the start of the same permutation, so every batch has the same shape and no
    example is left out.

    Examples:
      >>> batch_indices(jnp.array([3, 0, 4, 1, 2], jnp.int32), 2, batch_size=2).tolist()
      [2, 3]
    """
    positions = jnp.asarray(step_in_epoch, jnp.int32) * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    return jnp.take(permutation, positions % permutation.shape[0])
