"""Labels and ids of all records of a TFDS split, which a stream needs before it reads any image.

They are stored next to the images, so the split has to be read once. Those of a large split are cached in the
user's cache folder, under a name that depends on the files.
"""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mpt_jax.errors import DAMAGED
from mpt_jax.files import cache_dir, npz
from mpt_jax.runtime import regular_file

CACHED_FROM = 100_000  # records; fewer are read quickly

_CHUNK = 2048  # records read together


def read(
    builder: tfds.core.DatasetBuilder, split: str, source: Any, label: str = "label"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of the data set, ``int32 [N]``, and the ids, text ``[N]``, in the order of the files.

    Args:
      label: the feature that has the labels.
    """
    info = builder.info.splits[split]
    if info.num_examples < CACHED_FROM:
        return _read_all(split, source, label)
    of_label = () if label == "label" else (label,)
    facts = (str(builder.data_path), split, list(info.shard_lengths), info.num_bytes, *of_label)
    name = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    with contextlib.suppress(*DAMAGED):  # or missing
        file = regular_file.opened(cache_dir.path("records") / f"{name}.npz")
        with file as stream, npz.Archive(stream, name) as cached:
            labels, ids = cached["labels"], cached["ids"]
        if len(labels) == len(ids) == len(source) and labels.dtype == np.int32 and ids.dtype.kind == "U":
            return labels, ids
    labels, ids = _read_all(split, source, label)
    with contextlib.suppress(OSError, RuntimeError):
        _cache(cache_dir.path("records") / f"{name}.npz", labels, ids)
    return labels, ids


def name_of(example: Mapping[str, Any], split: str, number: int) -> str:
    """Return the id of an example: its feature `id`, or the split and its position in it."""
    value = example.get("id", f"{split}_{number:05d}")
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_all(split: str, source: Any, label: str) -> tuple[np.ndarray, np.ndarray]:
    labels, ids = [], []
    for start in range(0, len(source), _CHUNK):
        numbers = list(range(start, min(start + _CHUNK, len(source))))
        for number, example in zip(numbers, source.__getitems__(numbers), strict=True):
            labels.append(example[label])
            ids.append(name_of(example, split, number))
    return np.array(labels, np.int32), np.array(ids, str)


def _cache(path: pathlib.Path, labels: np.ndarray, ids: np.ndarray) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}-{os.getpid()}.npz")  # another process may be writing the same
    try:
        np.savez(unfinished, labels=labels, ids=ids)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
