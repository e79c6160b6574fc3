"""Examples to be predicted, read batch by batch from image files, arrays or TFDS: memory holds one batch."""

import contextlib
import dataclasses
import math
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

import numpy as np
import tensorflow_datasets as tfds

from mpt_jax.data import images, sources
from mpt_jax.data.own import arrays, folder
from mpt_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Some examples: ids, class names (None: not known) and inputs, and why others of these could not be read."""

    ids: list[str]
    labels: list[str | None]
    images: np.ndarray  # uint8 [n, H, W, C]; or features, float32 [n, D]
    unread: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """Examples that are read when they are asked for, in a fixed order."""

    name: str
    count: int
    labelled: bool  # whether labels are known, if not of every example
    batches: Callable[[int], Iterator[Batch]]  # of at most so many examples each
    note: str = ""  # what a user should know about it


def open_stream(
    source: str, image_shape: Sequence[int], classes: Sequence[str], *, split: str = "test", data_dir: str = ""
) -> Stream:
    """Whatever a user names, as a stream of inputs for a network.

    Args:
      source: a folder of images, whose folders are their classes where the network knows any of these; a .csv or
        .parquet file as `mpt_jax.data.own.folder.read_rows` describes; an .npz file with ``features`` or ``images``
        and, if you like, ``labels``, ``ids`` and ``class_names``, or these keys after ``test_``, as
        `mpt_jax.data.own.arrays.read` describes them; else the name of a TFDS data set.
      image_shape: that the network takes, ``(H, W, C)`` or ``(D,)``. Encoded images are brought to it as
        `mpt_jax.data.images.decode` says; those of TFDS are decoded as stored.
      classes: that the network knows. A label that is an index is one of the source's own ``class_names``, or else of
        these.
      split: which part of a TFDS data set, or the beginning of the keys of an .npz file.
      data_dir: TFDS data folder; empty: TFDS's default.

    Raises:
      InputError: nothing of this kind, nothing in it, or nothing that such a network could take.
    """
    path = pathlib.Path(source).expanduser()
    shape, suffix = tuple(image_shape), path.suffix.lower()
    if suffix == ".npz":
        return _npz(path, shape, classes, split)
    if len(shape) != 3 or shape[-1] not in images.MODES:
        raise InputError(f"the model takes inputs of shape {list(shape)}, not images; expected an .npz file of them")
    if suffix in (".csv", ".parquet"):
        files, labels = folder.read_rows(path)
        return _files(str(path), files, labels, shape)
    if path.is_dir():
        return _folder(path, shape, classes)
    expected = "expected a folder, a .csv, .parquet or .npz file, or the name of a TFDS data set"
    if path.exists() or len(path.parts) > 1 or suffix in images.SUFFIXES:
        what = "is no folder of images" if path.exists() else "does not exist"
        raise InputError(f"{source} {what}; {expected}")
    try:
        return _tfds(source, shape, split, data_dir)
    except InputError as error:
        if not isinstance(error.__cause__, tfds.core.DatasetNotFoundError | ValueError):  # a name that TFDS cannot have
            raise
        raise InputError(
            f"{source} does not exist, neither here nor in TFDS; {expected}{sources.similar(source)}"
        ) from error


def _folder(path: pathlib.Path, shape: tuple[int, ...], classes: Sequence[str]) -> Stream:
    files = folder.find_images(path)
    if not files:
        raise InputError(f"{path} holds no images; expected files that end in {', '.join(images.SUFFIXES)}")
    folders = [pathlib.PurePosixPath(name).parts[0] if "/" in name else None for name in files]
    found = sorted({name for name in folders if name})
    if {*found} & {*classes}:
        return _files(str(path), files, folders, shape)
    note = ""
    if found:
        listed = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        note = f"no labels: none of the folders in {path} ({listed}) is a class of the model"
    return _files(str(path), files, None, shape, note)


def _files(
    name: str,
    files: dict[str, pathlib.Path],
    labels: Sequence[str | None] | None,
    shape: tuple[int, ...],
    note: str = "",
) -> Stream:
    ids, paths = list(files), list(files.values())
    if not ids:
        raise InputError(f"{name} lists no images; expected at least one row")
    known = [None] * len(ids) if labels is None else [label or None for label in labels]

    def batches(size: int) -> Iterator[Batch]:
        for start in range(0, len(ids), size):
            rows = slice(start, start + size)
            pixels, reasons = images.read_files(paths[rows], channels=shape[-1], size=shape[:2])
            good = [row for row in range(len(pixels)) if row not in reasons]
            yield Batch(
                [ids[start + row] for row in good],
                [known[start + row] for row in good],
                pixels[good] if reasons else pixels,
                [f"{ids[start + row]} ({reason})" for row, reason in reasons.items()],
            )

    return Stream(name, len(ids), labels is not None, batches, note)


def _tfds(name: str, shape: tuple[int, ...], split: str, data_dir: str) -> Stream:
    count, names, encoded = sources.open_split(name, data_dir or None, split)

    def batches(size: int) -> Iterator[Batch]:
        for examples in encoded(size):
            ids, labels, pixels, unread = [], [], [], []
            for example_id, label, image in examples:
                try:
                    pixels.append(images.decode(image, channels=shape[-1], size=shape[:2], as_stored=True))
                except ValueError as error:
                    unread.append(f"{example_id} ({error})")
                    continue
                ids.append(example_id)
                labels.append(names[label] if label >= 0 else None)  # -1: TFDS's own of an unlabelled part
            yield Batch(ids, labels, np.array(pixels, np.uint8).reshape(-1, *shape), unread)

    return Stream(f"{name} {split}", count, True, batches)


def _npz(path: pathlib.Path, shape: tuple[int, ...], classes: Sequence[str], split: str) -> Stream:
    if not path.is_file():
        raise InputError(f"no file {path}; expected an .npz file with features or images")
    with arrays.open_file(path) as file:
        kind, dtype = ("images", np.uint8) if len(shape) == 3 else ("features", np.float32)
        prefix = "" if kind in file else f"{split}_"
        key = prefix + kind
        if key not in file:
            raise InputError(
                f"{path} has no {kind} and no {key}, which the model takes; it has {', '.join(sorted(file))}"
            )
        with _member(path, key) as (_, found, found_dtype, _):
            arrays.refuse_bomb(path, file, key)
        if found[1:] != shape or found_dtype != dtype:
            expected = f"{np.dtype(dtype)} [N, {', '.join(map(str, shape))}]"
            raise InputError(f"{path}: {key} are {found_dtype} {list(found)}; the model takes {expected}")
        if not (count := found[0]):
            raise InputError(f"{path}: {key} are empty; expected at least one row")
        names = _texts(path, file, "class_names") if "class_names" in file else list(classes)
        ids = [f"{split}_{row:0{max(5, len(str(count - 1)))}d}" for row in range(count)]
        if f"{prefix}ids" in file:
            ids = _texts(path, file, f"{prefix}ids", count)
        labels: list[str | None] = [None] * count
        if labelled := f"{prefix}labels" in file:
            labels = [_name(path, label, names) for label in _texts(path, file, f"{prefix}labels", count)]

    def batches(size: int) -> Iterator[Batch]:
        start = 0
        for values in _rows(path, key, size):
            finite = np.full(len(values), True) if dtype == np.uint8 else np.isfinite(values).all(1)
            good = np.flatnonzero(finite)
            yield Batch(
                [ids[start + row] for row in good],
                [labels[start + row] for row in good],
                values[good],
                [f"{ids[start + row]} (not finite)" for row in np.flatnonzero(~finite)],
            )
            start += len(values)

    return Stream(str(path), count, labelled, batches)


def _texts(path: pathlib.Path, file: Mapping[str, np.ndarray], key: str, count: int | None = None) -> list[str]:
    values = arrays.get(path, file, key)
    values = values.astype(str) if values.dtype.kind in "iu" else arrays.text(values)
    if values is None or values.ndim != 1 or len(values) != (count or len(values)):
        expected = "texts or integers" if count is None else f"{count} texts or integers"
        raise InputError(f"{path}: {key} are not {expected}, one for each row")
    return values.tolist()


def _name(path: pathlib.Path, label: str, names: Sequence[str]) -> str | None:
    """The class that a label means: a name, or the index of one."""
    if label in names or not label.lstrip("-").isdecimal():
        return label or None
    if not 0 <= int(label) < len(names):
        raise InputError(f"{path} has the label {label}, but there are {len(names)} class names; add class_names to it")
    return names[int(label)]


@contextlib.contextmanager
def _member(path: pathlib.Path, key: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype, bool]]:
    """An array of an .npz file to be read on from its first value: file, shape, dtype, whether column by column."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = header(file)
            yield file, shape, dtype, by_columns
    except InputError:
        raise
    except arrays.DAMAGED as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: {key} cannot be read ({reason}); write it with np.savez") from error


def _rows(path: pathlib.Path, key: str, size: int) -> Iterator[np.ndarray]:
    """An array of an .npz file, so many rows at a time."""
    with _member(path, key) as (file, shape, dtype, by_columns):
        whole = None
        if by_columns:  # its rows do not lie side by side
            with arrays.open_file(path) as arrays_of_file:
                whole = arrays.get(path, arrays_of_file, key)
        for start in range(0, shape[0], size):
            rows = (min(size, shape[0] - start), *shape[1:])
            if whole is not None:
                yield whole[start : start + size]
                continue
            content = file.read(math.prod(rows) * dtype.itemsize)
            yield np.frombuffer(content, dtype, math.prod(rows)).reshape(rows)
