"""A model's answers as a file that `mpt_jax.compare` reads: id, label, prediction and a score per class.

Columns of .csv and .parquet, which are written batch by batch:

  ``id``          text
  ``label``       name of the class; left out where no labels are known, empty where this one is not
  ``prediction``  name of the class with the largest logit
  ``logit_NAME``  or ``probability_NAME``, float32, for each class that the model knows, in its order

Arrays of .npz, which is kept in memory until the end: ``id``, ``label``, ``prediction``, text ``[N]``; ``logits`` or
``probabilities``, float32 ``[N, K]``; ``class_names``, text ``[K]``.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import scipy.special

SCORES = ("logits", "probabilities", "none")

_GROUP = 2**22  # scores in a row group of Parquet: 16 MiB

Write = Callable[[Sequence[str], Sequence[str | None], np.ndarray], None]


@contextlib.contextmanager
def writing(path: pathlib.Path, classes: Sequence[str], *, labelled: bool, scores: str = "logits") -> Iterator[Write]:
    """A function of ids, labels and logits ``[n, K]`` that adds rows to the file, which appears when the block ends.

    If the block ends otherwise, whatever was at the path before stays.

    Args:
      path: ends in one of `FORMATS`.
      classes: names, in the order of the logits.
      labelled: whether there is a column of labels.
      scores: "logits", "probabilities" (their softmax), or "none".

    Raises:
      OSError: the disk is full, or cannot be written.
    """
    neighbour = path.with_name(f".{path.name}.unfinished")
    names = np.array(classes, dtype=object)
    try:
        with neighbour.open("wb") as file, FORMATS[path.suffix.lower()](file, classes, scores) as add:

            def write(ids: Sequence[str], labels: Sequence[str | None], logits: np.ndarray) -> None:
                columns = {"id": list(ids), "label": list(labels), "prediction": names[logits.argmax(-1)].tolist()}
                if not labelled:
                    del columns["label"]
                values = scipy.special.softmax(logits, axis=-1) if scores == "probabilities" else logits
                add(columns, values.astype(np.float32))

            yield write
        os.replace(neighbour, path)
    finally:
        neighbour.unlink(missing_ok=True)


Add = Callable[[dict[str, list[str | None]], np.ndarray], None]


@contextlib.contextmanager
def _table(file: IO[bytes], classes: Sequence[str], scores: str, *, open_writer: Callable, rows: int) -> Iterator[Add]:
    """Rows gathered until they are worth a piece of the file."""
    prefix = {"logits": "logit_", "probabilities": "probability_"}.get(scores)
    writer, waiting = None, []

    def flush() -> None:
        if writer is not None and waiting:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())
            waiting.clear()

    def add(columns: dict[str, list[str | None]], values: np.ndarray) -> None:
        nonlocal writer
        arrays = {name: pa.array(column, pa.string()) for name, column in columns.items()}
        if prefix:
            arrays |= {f"{prefix}{name}": pa.array(values[:, k]) for k, name in enumerate(classes)}
        waiting.append(pa.table(arrays))
        writer = writer or open_writer(file, waiting[0].schema)
        if sum(map(len, waiting)) >= rows:
            flush()

    try:
        yield add
        flush()
    finally:
        if writer is not None:
            writer.close()


def _csv(file: IO[bytes], classes: Sequence[str], scores: str) -> contextlib.AbstractContextManager[Add]:
    return _table(file, classes, scores, open_writer=pyarrow.csv.CSVWriter, rows=1)


def _parquet(file: IO[bytes], classes: Sequence[str], scores: str) -> contextlib.AbstractContextManager[Add]:
    rows = max(1, _GROUP // len(classes))
    return _table(file, classes, scores, open_writer=pyarrow.parquet.ParquetWriter, rows=rows)


@contextlib.contextmanager
def _npz(file: IO[bytes], classes: Sequence[str], scores: str) -> Iterator[Add]:
    gathered: dict[str, list[str | None]] = {}
    pieces = []

    def add(columns: dict[str, list[str | None]], values: np.ndarray) -> None:
        for name, column in columns.items():
            gathered.setdefault(name, []).extend(column)
        pieces.append(values)

    yield add
    arrays = {name: np.array([text or "" for text in column]) for name, column in gathered.items()}
    if scores != "none":
        arrays[scores] = np.concatenate(pieces)
    np.savez_compressed(file, **arrays, class_names=np.array(classes))


FORMATS = {".csv": _csv, ".parquet": _parquet, ".npz": _npz}
