"""Labels and ids of all records of a TFDS split, which a stream must know before it reads any image.

They lie beside the images, so all of a split has to be read once. Of a large one they are kept in the user's cache
folder, under a name that belongs to the very files.
"""

import contextlib
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mpt_jax.files import cache_dir

KEPT_FROM = 100_000  # records; fewer are read in a moment

_READ_AT_ONCE = 2048


def read(builder: tfds.core.DatasetBuilder, split: str, source: Any) -> tuple[np.ndarray, np.ndarray]:
    """The data set's own labels, ``int32 [N]``, and the ids, text ``[N]``, in the files' order."""
    info = builder.info.splits[split]
    if info.num_examples < KEPT_FROM:
        return _all(split, source)
    facts = (str(builder.data_path), split, list(info.shard_lengths), info.num_bytes)
    name = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    with contextlib.suppress(OSError, RuntimeError, KeyError, ValueError, zipfile.BadZipFile):  # then it is read again
        with np.load(cache_dir.path("records") / f"{name}.npz", allow_pickle=False) as kept:
            labels, ids = kept["labels"], kept["ids"]
        if len(labels) == len(ids) == len(source) and labels.dtype == np.int32 and ids.dtype.kind == "U":
            return labels, ids
    labels, ids = _all(split, source)
    with contextlib.suppress(OSError, RuntimeError):
        _keep(cache_dir.path("records") / f"{name}.npz", labels=labels, ids=ids)
    return labels, ids


def name_of(example: Mapping[str, Any], split: str, number: int) -> str:
    """The id of an example: its feature `id`, or its place in the split."""
    value = example.get("id", f"{split}_{number:05d}")
    return value.decode() if isinstance(value, bytes) else str(value)


def _all(split: str, source: Any) -> tuple[np.ndarray, np.ndarray]:
    labels, ids = [], []
    for start in range(0, len(source), _READ_AT_ONCE):
        numbers = list(range(start, min(start + _READ_AT_ONCE, len(source))))
        for number, example in zip(numbers, source.__getitems__(numbers), strict=True):
            labels.append(example["label"])
            ids.append(name_of(example, split, number))
    return np.array(labels, np.int32), np.array(ids, str)


def _keep(path: pathlib.Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}-{os.getpid()}.npz")  # another process may be writing the same
    try:
        np.savez(unfinished, **arrays)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
