"""A data set as arrays, in an .npz file or made by Python: images, or features of a frozen network, and labels."""

import importlib.util
import math
import pathlib
from collections.abc import Mapping

import numpy as np

from mpt_jax.data.splits import Split, pick
from mpt_jax.errors import DAMAGED, InputError

_KEYS = "train_images or train_features, train_labels, test_images or test_features, test_labels"
_LARGE, _MOST_COMPRESSED = 2**30, 100  # bytes that any machine can take; by how much real examples may be compressed

Faults = dict[str, list[str]]  # what is wrong -> the rows that have it


def read(path: pathlib.Path, data_dir: str = "") -> tuple[list[str], dict[str, Split], Faults]:
    """The class names, the parts "train" and "test" in the file's order and with its labels, and rows left out of them.

    Keys of an .npz file, others are not read:

      ``train_features``, ``test_features``  float32 ``[N, D]``; or
      ``train_images``, ``test_images``      uint8 ``[N, H, W, C]``
      ``train_labels``, ``test_labels``      integers ``[N]``, ``0 .. K-1``
      ``class_names``                        text ``[K]``; left out: the labels as text
      ``train_ids``, ``test_ids``            text or integers ``[N]``, no two alike; left out: "train_00000", ...

    Features take the place of the images in `Split.images`. Rows are left out whose label is none of the classes,
    whose features are not finite, or whose id another row has.

    A .py file is one's own program: it is run, and its function ``get_dataset(data_dir)`` gives a dict of these keys.

    Raises:
      InputError: no such file, a file that is damaged, holds Python objects or claims to hold far more than its size,
        keys, types or shapes that do not fit.

    Examples:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "pets.npz"
      ...     features, labels = np.eye(3, 8, dtype=np.float32), np.array([0, 1, 1])
      ...     train, test = {"train_features": features, "train_labels": labels}, {"test_features": features}
      ...     np.savez(path, **train, **test, test_labels=labels, class_names=["cat", "dog"])
      ...     names, parts, _ = read(path)
      >>> names, parts["train"].images.shape, parts["test"].ids.tolist()
      (['cat', 'dog'], (3, 8), ['test_00000', 'test_00001', 'test_00002'])
    """
    if path.suffix == ".py":
        return _parts(path, _made(path, data_dir))
    with open_file(path) as file:
        return _parts(path, file)


def _parts(path: pathlib.Path, file: Mapping[str, np.ndarray]) -> tuple[list[str], dict[str, Split], Faults]:
    kind = _kind(path, file)
    labels = {part: _labels(path, file, part) for part in ("train", "test")}
    names = _names(path, file, labels["train"])
    ids = {part: _ids(path, file, part, len(values)) for part, values in labels.items()}
    examples = {part: _examples(path, file, f"{part}_{kind}", len(values)) for part, values in labels.items()}
    shapes = {part: values.shape[1:] for part, values in examples.items()}
    if shapes["train"] != shapes["test"]:
        raise InputError(f"{path}: {kind} of shape {shapes['train']} in train and {shapes['test']} in test")
    faults: Faults = {}
    parts = {}
    for part in ("test", "train"):
        earlier = set(ids["test"].tolist()) if part == "train" else set()
        strange = np.flatnonzero((labels[part] < 0) | (labels[part] >= len(names)))
        again = [row for row, name in enumerate(ids[part].tolist()) if name in earlier or earlier.add(name)]
        endless = _not_finite(examples[part])
        source = "class_names says" if "class_names" in file else "train_labels say"
        for what, rows, column, values in (
            (f"labels that are not 0 to {len(names) - 1}, as {source}", strange, "labels", labels[part]),
            ("ids that another row has", again, "ids", ids[part]),
        ):
            faults.setdefault(what, []).extend(f"{part}_{column}[{row}] is {values[row]!s}" for row in rows)
        what = "rows with values that are not finite"
        faults.setdefault(what, []).extend(f"{part}_features[{row}]" for row in endless)
        good = np.setdiff1d(np.arange(len(labels[part])), np.concatenate([strange, again, endless]).astype(np.int64))
        whole = Split(examples.pop(part), labels[part], ids[part])
        chosen = pick(whole, good)
        parts[part] = Split(chosen.images, chosen.labels.astype(np.int32), chosen.ids)
    return names, parts, faults


def _not_finite(values: np.ndarray) -> np.ndarray:
    # The extremes tell whether all is finite, without an array of the answers.
    if values.dtype == np.uint8 or (np.isfinite(values.min()) and np.isfinite(values.max())):
        return np.zeros(0, np.int64)
    return np.flatnonzero(~np.isfinite(values).all(1))


def _made(path: pathlib.Path, data_dir: str) -> dict[str, np.ndarray]:
    """What the function of the user's own program returns."""
    if not path.is_file():
        raise InputError(f"no file {path}; dataset.name ending in .py is a program with a function get_dataset")
    try:
        spec = importlib.util.spec_from_file_location("mpt_jax_dataset", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        values = module.get_dataset(data_dir)
        if not isinstance(values, Mapping):
            raise TypeError(f"get_dataset gives a {type(values).__name__}, not a dict with {_KEYS}")
        return {key: np.asarray(value) for key, value in values.items()}
    except (Exception, SystemExit) as error:  # what it raises is theirs to read
        raise InputError(f"dataset.name={path} failed: {_one_line(error)}") from error


def open_file(path: pathlib.Path) -> np.lib.npyio.NpzFile:
    """An .npz file, of which nothing is read but the table of contents.

    Raises:
      InputError: no such file, or not one of `np.savez`.
    """
    if not path.is_file():
        raise InputError(f"no file {path}; dataset.name ending in .npz is a file with {_KEYS}")
    try:
        file = np.load(path, allow_pickle=False)
    except DAMAGED as error:
        raise InputError(f"{path} cannot be read as .npz ({_one_line(error)}); write it with np.savez") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise InputError(f"{path} holds one array; expected a file of np.savez with {_KEYS}")
    return file


def get(path: pathlib.Path, file: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    """One array of a file, or of what a program made.

    Raises:
      InputError: no such array, a damaged one, Python objects, or one that claims far more than the file holds.
    """
    if key not in file:
        raise InputError(f"{path} has no {key}; it has {', '.join(sorted(file)) or 'nothing'}, expected {_KEYS}")
    try:
        if isinstance(file, np.lib.npyio.NpzFile):
            refuse_bomb(path, file, key)
        return file[key]
    except InputError:
        raise
    except DAMAGED as error:  # damaged, or Python objects, which are not read as they can run code
        raise InputError(
            f"{path}: {key} cannot be read ({_one_line(error)}); write it as an array of numbers or text"
        ) from error


def refuse_bomb(path: pathlib.Path, file: np.lib.npyio.NpzFile, key: str) -> None:
    """Refuse an array whose header claims more than the archive holds, or that grows out of nearly nothing."""
    names = file.zip.namelist()
    entry = file.zip.getinfo(key if key in names else f"{key}.npy")
    with file.zip.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        claimed = stream.tell() + math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and claimed != entry.file_size:
        raise InputError(f"{path}: {key} claims {claimed} bytes and has {entry.file_size}; write it with np.savez")
    if claimed > _LARGE and claimed > _MOST_COMPRESSED * entry.compress_size:
        raise InputError(
            f"{path}: {key} would grow from {entry.compress_size} bytes to {claimed}, as no real data do; "
            "write it with np.savez"
        )


def _kind(path: pathlib.Path, file: Mapping[str, np.ndarray]) -> str:
    for part in ("train", "test"):
        if f"{part}_images" in file and f"{part}_features" in file:
            raise InputError(f"{path} has both {part}_images and {part}_features; expected one of them")
    return "features" if "train_features" in file else "images"


def _labels(path: pathlib.Path, file: Mapping[str, np.ndarray], part: str) -> np.ndarray:
    labels = get(path, file, f"{part}_labels")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(f"{path}: {part}_labels are {labels.dtype} {list(labels.shape)}; expected integers [N]")
    if not labels.size:
        raise InputError(f"{path}: {part}_labels are empty; expected one label per row")
    return labels


def _names(path: pathlib.Path, file: Mapping[str, np.ndarray], train_labels: np.ndarray) -> list[str]:
    if "class_names" in file:
        names = text(get(path, file, "class_names"))
        if names is None or names.ndim != 1 or not names.size:
            raise InputError(f"{path}: class_names are not a list of texts; expected one name per class")
        names = names.tolist()
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{path}: class_names has {twice!r} more than once; expected one name per class")
        return names
    largest = int(train_labels.max())
    if largest >= len(train_labels):  # before a name is made for each
        raise InputError(
            f"{path}: train_labels go up to {largest} with {len(train_labels)} rows; "
            "expected labels 0 .. K-1, each with training examples"
        )
    return [str(label) for label in range(largest + 1)]


def _ids(path: pathlib.Path, file: Mapping[str, np.ndarray], part: str, num: int) -> np.ndarray:
    key = f"{part}_ids"
    if key not in file:
        digits = max(5, len(str(num - 1)))
        return np.array([f"{part}_{row:0{digits}d}" for row in range(num)])
    ids = get(path, file, key)
    ids = ids.astype(str) if ids.dtype.kind in "iu" else text(ids)
    if ids is None or ids.shape != (num,):
        raise InputError(f"{path}: {key} are not {num} texts or integers; expected one for each of {part}_labels")
    return ids


def _examples(path: pathlib.Path, file: Mapping[str, np.ndarray], key: str, num: int) -> np.ndarray:
    values = get(path, file, key)
    dtype, ndim, shape = (np.float32, 2, "[N, D]") if key.endswith("features") else (np.uint8, 4, "[N, H, W, C]")
    if values.dtype != dtype or values.ndim != ndim:
        what = f"{values.dtype} {list(values.shape)}"
        raise InputError(f"{path}: {key} are {what}; expected {np.dtype(dtype)} {shape}")
    if dtype == np.uint8 and values.shape[1] in (1, 3) and values.shape[2] == values.shape[3] > 4:
        raise InputError(
            f"{path}: {key} have shape {list(values.shape)}, as if channels came first; expected {shape}, such as by "
            "transpose(0, 2, 3, 1)"
        )
    if len(values) != num:
        raise InputError(f"{path}: {key} has {len(values)} rows for {num} labels; expected as many")
    if not values.size:
        raise InputError(f"{path}: {key} have shape {list(values.shape)}; expected no side of length 0")
    return values


def text(values: np.ndarray) -> np.ndarray | None:
    """Text as `str`; None where it is none."""
    if values.dtype.kind == "S":
        try:
            return np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            return None
    return values if values.dtype.kind == "U" else None


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
