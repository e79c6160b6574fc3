"""Writer of a network's features as an .npz file that a run reads as a data set.

Arrays, each with the split and ``_`` before its name:

  ``features``  float32 ``[N, D]``, the inputs of the network's last layer
  ``labels``    text ``[N]``, names of classes; absent if no labels are known, empty where one is not
  ``ids``       text ``[N]``

and ``class_names``, text ``[K]``: the network's classes, if it knows all of the labels. Two files of different splits
make one data set, see `mpt_jax.data.own.arrays.read`.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mpt_jax.runtime import regular_file

_PIECE = 2**20  # bytes that are copied at a time

AddRows = Callable[[Sequence[str], Sequence[str | None], np.ndarray], None]


@contextlib.contextmanager
def open_writer(path: pathlib.Path, classes: Sequence[str], *, split: str, labelled: bool) -> Iterator[AddRows]:
    """Yield a function of ids, labels and features ``[n, D]`` that adds rows to the file.

    Features go to a temporary file next to it, because an array begins with its number of rows. So memory grows with
    the ids and labels alone, and the disk needs room for the features twice. The file appears when the block ends
    without an error; otherwise an existing file at the path is kept.

    Args:
      path: ends in .npz.
      classes: names of the classes that the network knows.
      split: first part of the names of the arrays, such as "train".
      labelled: whether to write labels.

    Raises:
      OSError: the disk is full or cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    all_ids: list[str] = []
    all_labels: list[str] = []
    width = 0
    try:
        with tempfile.TemporaryFile(dir=path.parent) as rows:

            def add_rows(ids: Sequence[str], labels: Sequence[str | None], features: np.ndarray) -> None:
                nonlocal width
                all_ids.extend(ids)
                all_labels.extend(label or "" for label in labels)
                width = features.shape[1]
                rows.write(np.ascontiguousarray(features, np.float32).data)

            yield add_rows
            rows.seek(0)
            texts = {f"{split}_ids": all_ids}
            if labelled:
                texts[f"{split}_labels"] = all_labels
            if not labelled or {*all_labels} <= {*classes, ""}:
                texts["class_names"] = list(classes)
            with regular_file.created(unfinished) as file, zipfile.ZipFile(file, "w") as archive:
                with archive.open(f"{split}_features.npy", "w", force_zip64=True) as member:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (len(all_ids), width)}
                    np.lib.format.write_array_header_1_0(member, header)
                    shutil.copyfileobj(rows, member, _PIECE)
                for name, values in texts.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.array(values, str), allow_pickle=False)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
