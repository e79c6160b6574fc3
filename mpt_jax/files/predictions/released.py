"""The predictions of a run's released models on its test images: `predictions/NAME.npz` in the work directory."""

import pathlib

import numpy as np

from mpt_jax.errors import InputError
from mpt_jax.files import sealed


def write(path: pathlib.Path, *, labels: np.ndarray, logits: np.ndarray, ids: np.ndarray) -> None:
    """Write labels ``[n]``, logits ``[n, K]`` as float32, ids ``[n]`` and their `digest`, completely or not at all."""
    sealed.write_arrays(path, {"labels": labels, "logits": logits.astype(np.float32), "ids": ids})


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read `labels`, `logits` and `ids`.

    Raises:
      InputError: the file is missing or damaged.
    """
    return sealed.read_arrays(path, ("labels", "logits", "ids"))


def exists(path: pathlib.Path) -> bool:
    """Return whether the file exists and is undamaged."""
    try:
        read(path)
    except InputError:
        return False
    return True
