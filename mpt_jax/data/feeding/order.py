"""Which rows of a stream each step sees, on the host; sent to the processes that decode."""

import dataclasses
import functools
import threading
from typing import Any, Protocol

import jax
import numpy as np

from mpt_jax.data.feeding.sampling import epoch_permutation, steps_per_epoch


class Order(Protocol):
    """The rows of each step, as a pure function of (step, seed)."""

    @property
    def seeds(self) -> int:
        """How many seeds there are."""

    @property
    def batch_size(self) -> int:
        """How many rows a step has."""

    def rows(self, step: int, seed: int) -> np.ndarray:
        """Return the rows of a step, ``int32 [batch_size]``."""

    def entropy(self, step: int, seed: int) -> tuple[int, ...] | None:
        """Return what seeds the augmentation of a step's images, together with their rows; None: no augmentation."""


@dataclasses.dataclass(frozen=True)
class Consecutive:
    """Every row once, in order; the last batch is padded with row 0.

    Examples:
      >>> Consecutive(3, 2).rows(1, seed=0).tolist()
      [2, 0]
    """

    num_examples: int
    batch_size: int
    seeds: int = 1

    def rows(self, step: int, seed: int) -> np.ndarray:
        rows = step * self.batch_size + np.arange(self.batch_size, dtype=np.int32)
        return np.where(rows < self.num_examples, rows, np.int32(0))

    def entropy(self, step: int, seed: int) -> None:
        return None


class Shuffled:
    """The order that `sampling.epoch_permutation` and `sampling.batch_indices` give in the compiled program.

    Each process computes it on its CPU, so nothing has to be sent or saved.

    Args:
      order_keys: typed keys ``[seeds]``, of the permutations.
      augment_keys: typed keys ``[seeds]``, of the random crops.
      num_examples: that each seed learns from.
      chosen: ``int32 [seeds, num_examples]``, their rows; None: the rows are ``0 .. num_examples-1``.
    """

    def __init__(
        self,
        order_keys: jax.Array,
        augment_keys: jax.Array,
        *,
        num_examples: int,
        batch_size: int,
        chosen: np.ndarray | None = None,
    ):
        self.seeds, self.batch_size = order_keys.shape[0], batch_size
        self._num_examples, self._chosen = num_examples, chosen
        self._keys, self._implementation = (
            np.asarray(jax.random.key_data(order_keys)),
            str(jax.random.key_impl(order_keys)),
        )
        self._entropy = [tuple(words) for words in np.asarray(jax.random.key_data(augment_keys)).tolist()]
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_cached")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._cached = functools.lru_cache(maxsize=2 * self.seeds)(self._permutation)

    def rows(self, step: int, seed: int) -> np.ndarray:
        epoch, step_in_epoch = divmod(step, steps_per_epoch(self._num_examples, self.batch_size))
        with self._lock:  # otherwise all threads would compute the permutation when an epoch begins
            permutation = self._cached(epoch, seed)
        positions = step_in_epoch * self.batch_size + np.arange(self.batch_size)
        rows = permutation[positions % self._num_examples]
        return rows if self._chosen is None else self._chosen[seed][rows]

    def entropy(self, step: int, seed: int) -> tuple[int, ...]:
        return (*self._entropy[seed], step // steps_per_epoch(self._num_examples, self.batch_size))

    def _permutation(self, epoch: int, seed: int) -> np.ndarray:
        with jax.default_device(_host()):  # an accelerator is busy with earlier steps
            key = jax.random.wrap_key_data(self._keys[seed], impl=self._implementation)
            return np.asarray(_epoch_permutation(key, np.int32(epoch), self._num_examples))


_epoch_permutation = jax.jit(epoch_permutation, static_argnums=2)


def _host() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names accelerators only
        return jax.local_devices()[0]
