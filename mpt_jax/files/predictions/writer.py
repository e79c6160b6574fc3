"""Writer of a model's predictions as a file that `mpt_jax.compare` reads: id, label, prediction, a score per class.

Columns of .csv and .parquet, written batch by batch:

  ``id``          text
  ``label``       name of the class; absent if no labels are known, empty if this one is not
  ``prediction``  name of the class with the largest logit
  ``logit_NAME``  or ``probability_NAME``, float32, for each class that the model knows, in its order

In .csv, names that a spreadsheet would compute or a terminal act on are written as `cells` says, and read back as they
are.

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

from mpt_jax.files.predictions import cells
from mpt_jax.runtime import regular_file

SCORES = ("logits", "probabilities", "none")

_GROUP = 2**22  # scores in a row group of Parquet: 16 MiB

AddRows = Callable[[Sequence[str], Sequence[str | None], np.ndarray], None]


@contextlib.contextmanager
def open_writer(
    path: pathlib.Path, classes: Sequence[str], *, labelled: bool, scores: str = "logits"
) -> Iterator[AddRows]:
    """Yield a function of ids, labels and logits ``[n, K]`` that adds rows to the file.

    The file appears when the block ends without an error; otherwise an existing file at the path is kept.

    Args:
      path: ends in one of `FORMATS`.
      classes: names, in the order of the logits.
      labelled: whether to write a column of labels.
      scores: "logits", "probabilities" (their softmax), or "none".

    Raises:
      OSError: the disk is full or cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    names = np.array(classes, dtype=object)
    try:
        with regular_file.created(unfinished) as file, FORMATS[path.suffix.lower()](file, classes, scores) as add:

            def add_rows(ids: Sequence[str], labels: Sequence[str | None], logits: np.ndarray) -> None:
                columns = {"id": list(ids), "label": list(labels), "prediction": names[logits.argmax(-1)].tolist()}
                if not labelled:
                    del columns["label"]
                values = scipy.special.softmax(logits, axis=-1) if scores == "probabilities" else logits
                add(columns, values.astype(np.float32))

            yield add_rows
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


Add = Callable[[dict[str, list[str | None]], np.ndarray], None]


@contextlib.contextmanager
def _table(
    file: IO[bytes], classes: Sequence[str], scores: str, *, open_table: Callable, rows: int, name: Callable[[str], str]
) -> Iterator[Add]:
    """Yield a function that collects rows and writes them to the table, at least `rows` at a time.

    Args:
      name: returns how a name is written.
    """
    prefix = {"logits": "logit_", "probabilities": "probability_"}.get(scores)
    table, waiting = None, []

    def flush() -> None:
        if table is not None and waiting:
            table.write_table(pa.concat_tables(waiting).combine_chunks())
            waiting.clear()

    def add(columns: dict[str, list[str | None]], values: np.ndarray) -> None:
        nonlocal table
        arrays = {
            key: pa.array([each if each is None else name(each) for each in column], pa.string())
            for key, column in columns.items()
        }
        if prefix:
            arrays |= {name(f"{prefix}{each}"): pa.array(values[:, k]) for k, each in enumerate(classes)}
        waiting.append(pa.table(arrays))
        table = table or open_table(file, waiting[0].schema)
        if sum(map(len, waiting)) >= rows:
            flush()

    try:
        yield add
        flush()
    finally:
        if table is not None:
            table.close()


def _csv(file: IO[bytes], classes: Sequence[str], scores: str) -> contextlib.AbstractContextManager[Add]:
    return _table(file, classes, scores, open_table=pyarrow.csv.CSVWriter, rows=1, name=cells.protected)


def _parquet(file: IO[bytes], classes: Sequence[str], scores: str) -> contextlib.AbstractContextManager[Add]:
    rows = max(1, _GROUP // len(classes))
    return _table(file, classes, scores, open_table=pyarrow.parquet.ParquetWriter, rows=rows, name=str)


@contextlib.contextmanager
def _npz(file: IO[bytes], classes: Sequence[str], scores: str) -> Iterator[Add]:
    collected: dict[str, list[str | None]] = {}
    batches = []

    def add(columns: dict[str, list[str | None]], values: np.ndarray) -> None:
        for name, column in columns.items():
            collected.setdefault(name, []).extend(column)
        batches.append(values)

    yield add
    arrays = {name: np.array([text or "" for text in column]) for name, column in collected.items()}
    if scores != "none":
        arrays[scores] = np.concatenate(batches)
    # For mypy the arrays could be the argument allow_pickle.
    np.savez_compressed(file, **arrays, class_names=np.array(classes))  # type: ignore[arg-type]


FORMATS = {".csv": _csv, ".parquet": _parquet, ".npz": _npz}
