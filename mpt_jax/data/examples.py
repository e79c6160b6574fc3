"""Examples for a released model to predict, read batch by batch from image files, arrays or TFDS."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mpt_jax.compare import vocabulary
from mpt_jax.data import images, tfds_source
from mpt_jax.data.dataset_config import COVER, Resizing
from mpt_jax.data.own import arrays, folder, table
from mpt_jax.errors import DAMAGED, InputError, describe


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Some examples, and those of the batch that could not be read."""

    ids: list[str]
    labels: list[str | None]  # class names; None: unknown
    images: np.ndarray  # uint8 [n, H, W, C]; or features, float32 [n, D]
    unread: list[str]  # "id (reason)"


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Examples in a fixed order, of which one batch at a time is in memory."""

    name: str
    count: int
    labelled: bool  # whether labels are known, for some examples at least
    batches: Callable[[int], Iterator[Batch]]  # takes the largest size of a batch
    note: str = ""  # for the user


def open_examples(
    source: str,
    image_shape: Sequence[int],
    classes: Sequence[str],
    *,
    split: str = "test",
    data_dir: str = "",
    any_class: bool = False,
    resizing: Resizing = COVER,
) -> Examples:
    """Open image files, arrays or a TFDS data set as inputs of a network.

    Args:
      source: one of

        - a folder of images. Its subfolders are the labels if at least one of them is a class of the network;
        - a .csv or .parquet file, see `mpt_jax.data.own.table.read_rows`;
        - an .npz file with ``images`` or ``features`` and optionally ``labels``, ``ids`` and ``class_names``, or with
          these keys after ``test_`` (the split), see `mpt_jax.data.own.arrays.read`;
        - the name of a TFDS data set.
      image_shape: input shape of the network, ``(H, W, C)`` or ``(D,)``. Encoded images are resized as described in
        `mpt_jax.data.images.decode`; those of TFDS without applying EXIF orientation.
      classes: class names of the network. An integer label is an index into the source's own ``class_names``, or else
        into these.
      split: split of a TFDS data set, or prefix of the keys of an .npz file.
      data_dir: TFDS data folder; empty: TFDS's default.
      any_class: whether labels may be classes that the network does not know: those of a folder are always its
        subfolders, and integers without names are texts.
      resizing: of encoded images.

    Raises:
      InputError: no such source, an empty one, or one that does not fit the network.
    """
    path = pathlib.Path(source).expanduser()
    shape, suffix = tuple(image_shape), path.suffix.lower()
    if suffix == ".npz":
        return _npz(path, shape, None if any_class else classes, split)
    if len(shape) != 3 or shape[-1] not in images.MODES:
        raise InputError(f"{source}: the model takes inputs of shape {list(shape)}, not images; expected an .npz file")
    if suffix in (".csv", ".parquet"):
        files, labels = table.read_rows(path)
        return _files(str(path), files, labels, shape, resizing)
    if path.is_dir():
        return _folder(path, shape, None if any_class else classes, resizing)
    expected = "expected a folder, a .csv, .parquet or .npz file, or the name of a TFDS data set"
    if path.exists() or len(path.parts) > 1 or suffix in images.SUFFIXES:
        what = "is not a folder of images" if path.exists() else "does not exist"
        raise InputError(f"{source} {what}; {expected}")
    try:
        return _tfds(source, shape, split, data_dir, resizing)
    except InputError as error:
        if not isinstance(error.__cause__, tfds.core.DatasetNotFoundError | ValueError):  # an invalid TFDS name
            raise
        raise InputError(
            f"{source} does not exist and is not a TFDS data set; {expected}{tfds_source.suggestion(source)}"
        ) from error


def _folder(path: pathlib.Path, shape: tuple[int, ...], classes: Sequence[str] | None, resizing: Resizing) -> Examples:
    files = folder.find_images(path)
    if not files:
        raise InputError(f"{path} contains no images; expected files that end in {', '.join(images.SUFFIXES)}")
    labels = [pathlib.PurePosixPath(name).parts[0] if "/" in name else None for name in files]
    found = sorted({label for label in labels if label})
    if {*found} & {*(found if classes is None else classes)}:
        return _files(str(path), files, labels, shape, resizing)
    note = ""
    if found:
        listed = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        note = f"no labels: none of the folders in {path} ({listed}) is a class of the model"
        for name, known in list(vocabulary.other_spellings(found, classes or ()).items())[:1]:
            note += f"; {name!r} looks like its class {known!r}"
    return _files(str(path), files, None, shape, resizing, note)


def _files(
    name: str,
    files: dict[str, pathlib.Path],
    labels: Sequence[str | None] | None,
    shape: tuple[int, ...],
    resizing: Resizing,
    note: str = "",
) -> Examples:
    ids, paths = list(files), list(files.values())
    if not ids:
        raise InputError(f"{name} lists no images; expected at least one row")
    known = [None] * len(ids) if labels is None else [label or None for label in labels]

    def batches(size: int) -> Iterator[Batch]:
        for start in range(0, len(ids), size):
            rows = slice(start, start + size)
            pixels, reasons = images.read_files(paths[rows], channels=shape[-1], size=shape[:2], resizing=resizing)
            good = [row for row in range(len(pixels)) if row not in reasons]
            yield Batch(
                [ids[start + row] for row in good],
                [known[start + row] for row in good],
                pixels[good] if reasons else pixels,
                [f"{ids[start + row]} ({reason})" for row, reason in reasons.items()],
            )

    return Examples(name, len(ids), labels is not None, batches, note)


def _tfds(name: str, shape: tuple[int, ...], split: str, data_dir: str, resizing: Resizing) -> Examples:
    options: dict[str, Any] = {"channels": shape[-1], "size": shape[:2], "resizing": resizing}
    count, names, encoded = tfds_source.open_split(name, data_dir, split)

    def batches(size: int) -> Iterator[Batch]:
        for examples in encoded(size):
            ids, labels, pixels, unread = [], [], [], []
            for example_id, label, image in examples:
                try:
                    pixels.append(images.decode(image, as_stored=True, **options))
                except ValueError as error:
                    unread.append(f"{example_id} ({error})")
                    continue
                ids.append(example_id)
                labels.append(names[label] if label >= 0 else None)  # TFDS labels unlabelled examples -1
            yield Batch(ids, labels, np.array(pixels, np.uint8).reshape(-1, *shape), unread)

    return Examples(f"{name} {split}", count, True, batches)


def _npz(path: pathlib.Path, shape: tuple[int, ...], classes: Sequence[str] | None, split: str) -> Examples:
    if not path.is_file():
        raise InputError(f"no file {path}; expected an .npz file with features or images")
    with arrays.open_file(path) as file:
        kind, dtype = ("images", np.uint8) if len(shape) == 3 else ("features", np.float32)
        prefix = "" if kind in file else f"{split}_"
        key = prefix + kind
        if key not in file:
            has = ", ".join(sorted(file))
            raise InputError(f"{path} has no {kind} and no {key}, only {has}; the model takes {kind}")
        with _readable(path, key), file.opened(key) as (_, found):
            pass
        if found.shape[1:] != shape or found.dtype != dtype:
            expected = f"{np.dtype(dtype)} [N, {', '.join(map(str, shape))}]"
            raise InputError(f"{path}: {key} are {found.dtype} {list(found.shape)}; the model takes {expected}")
        if not (count := found.shape[0]):
            raise InputError(f"{path}: {key} are empty; expected at least one row")
        names = _texts(path, file, "class_names") if "class_names" in file else classes
        ids = [f"{split}_{row:0{max(5, len(str(count - 1)))}d}" for row in range(count)]
        if f"{prefix}ids" in file:
            ids = _texts(path, file, f"{prefix}ids", count)
        labels: list[str | None] = [None] * count
        if labelled := f"{prefix}labels" in file:
            labels = [_class_name(path, label, names) for label in _texts(path, file, f"{prefix}labels", count)]

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

    return Examples(str(path), count, labelled, batches)


def _texts(path: pathlib.Path, file: arrays.Arrays, key: str, count: int | None = None) -> list[str]:
    values = arrays.get(path, file, key)
    found = f"{values.dtype} {list(values.shape)}"
    texts = values.astype(str) if values.dtype.kind in "iu" else arrays.text(values)
    if texts is None or texts.ndim != 1 or len(texts) != (count or len(texts)):
        expected = "a list of texts or integers" if count is None else f"{count} texts or integers, one per row"
        raise InputError(f"{path}: {key} are {found}; expected {expected}")
    return texts.tolist()


def _class_name(path: pathlib.Path, label: str, names: Sequence[str] | None) -> str | None:
    """Return the class name for a label, which is a name or an index, or its own name if there are no names."""
    if names is None or label in names or not label.lstrip("-").isdecimal():
        return label or None
    if not 0 <= int(label) < len(names):
        raise InputError(f"{path} has label {label} with {len(names)} class names; expected class_names in the file")
    return names[int(label)]


@contextlib.contextmanager
def _readable(path: pathlib.Path, key: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{path}: {key} cannot be read ({describe(error)}); write it with np.savez") from error


def _rows(path: pathlib.Path, key: str, size: int) -> Iterator[np.ndarray]:
    """Yield an array of an .npz file in pieces of at most `size` rows."""
    with _readable(path, key), arrays.open_file(path) as file, file.opened(key, size) as (stream, header):
        whole = file[key] if header.by_columns else None
        for start in range(0, header.shape[0], size):
            count = min(size, header.shape[0] - start)
            yield header.rows(stream, count) if whole is None else whole[start : start + count]
