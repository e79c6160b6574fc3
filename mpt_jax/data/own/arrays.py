"""Arrays of images, or of features of a frozen network, from an .npz file or a Python program."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mpt_jax.data import classes
from mpt_jax.data.dataset_config import DatasetConfig
from mpt_jax.data.own import listing
from mpt_jax.data.splits import Parts, Source, Split, pick
from mpt_jax.errors import DAMAGED, InputError, describe
from mpt_jax.files import npz
from mpt_jax.runtime import user_program

_KEYS = "train_images or train_features, train_labels, test_images or test_features, test_labels"

Arrays = Mapping[str, np.ndarray]  # an open .npz file, or what a program returned
Faults = dict[str, list[str]]  # kind of fault -> rows that have it


def open_source(settings: DatasetConfig) -> Source:
    """Read the arrays of an .npz file or a .py program.

    A relative name of an .npz file starts from `settings.data_dir`; a program gets `settings.data_dir` as its argument.

    Raises:
      InputError: as `read`, and settings that need encoded images.
    """
    name = settings.name
    if settings.source == "stream" or settings.augmentation == "imagenet":
        raise InputError(
            f"dataset.source={settings.source} and dataset.augmentation={settings.augmentation} with {name}: only "
            "encoded images can be streamed; expected dataset.source=memory (or auto) and augmentation=crop_flip"
        )
    path = pathlib.Path("" if name.endswith(".py") else settings.data_dir, name).expanduser()
    class_names, parts, faults = read(path, str(settings.data_dir))
    shape = parts["train"].images.shape[1:]
    for key, requested, found in (
        ("image_size", settings.size, shape[:2]),
        ("channels", settings.channels or None, shape[-1]),
    ):
        if requested not in (None, found):
            raise InputError(
                f"dataset.{key} applies to encoded images, but {path} contains arrays of shape {shape}; remove that key"
            )

    def in_order(part: str, order: tuple[int, ...]) -> Split:
        split = parts.pop(part)  # frees the array once its sorted copy exists
        labels = classes.positions(order, len(class_names))[split.labels]
        rows = np.flatnonzero(labels >= 0)
        if not rows.size:
            raise InputError(f"{part}_labels of {name} contain none of the chosen classes")
        rows = rows[np.lexsort((split.ids[rows], labels[rows]))]
        return pick(Split(split.images, labels, split.ids), rows)

    return Source(class_names, lambda order: Parts(in_order("train", order), in_order("test", order), faults))


def read(path: pathlib.Path, data_dir: str = "") -> tuple[list[str], dict[str, Split], Faults]:
    """Read the arrays of an .npz file, or those that a program returns.

    Keys; others are ignored:

      ``train_features``, ``test_features``  float32 ``[N, D]``; or
      ``train_images``, ``test_images``      uint8 ``[N, H, W, C]``
      ``train_labels``, ``test_labels``      integers ``[N]``, ``0 .. K-1``, or names of classes
      ``class_names``                        text ``[K]``; optional, default: the labels of train as text, sorted
      ``train_ids``, ``test_ids``            text or integers ``[N]``, unique; optional, default: "train_00000", ...

    A .py file is run, and its function ``get_dataset(data_dir)`` returns a dict with these keys.

    Returns:
      The class names; the parts "train" and "test", in the order and with the labels of the file, with features in
      `Split.images`; and the rows that are not in the parts because their label is no class, their features are not
      finite, or another row has their id.

    Raises:
      InputError: no such file; a file that is damaged, contains Python objects or declares far more data than it
        contains; keys, types or shapes that do not fit.

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
        return _parts(path, _run(path, data_dir))
    with open_file(path) as file:
        return _parts(path, file)


def open_file(path: pathlib.Path) -> npz.Archive:
    """Open an .npz file; only its table of contents is read.

    Raises:
      InputError: no such file, or not an .npz file.
    """
    if not path.is_file():
        raise InputError(f"no file {path}; expected an .npz file with {_KEYS}")
    try:
        return npz.Archive(path, str(path))
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{path} cannot be read as .npz ({describe(error)}); write it with np.savez") from error


def get(path: pathlib.Path, file: Arrays, key: str) -> np.ndarray:
    """Return one array.

    Raises:
      InputError: no such array, a damaged one, Python objects, or one that declares far more data than it contains.
    """
    if key not in file:
        raise InputError(f"{path} has no {key}; it has {', '.join(sorted(file)) or 'no arrays'}; expected {_KEYS}")
    try:
        return file[key]
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(
            f"{path}: {key} cannot be read ({describe(error)}); write it as an array of numbers or text"
        ) from error


def text(values: np.ndarray) -> np.ndarray | None:
    """Return an array of text, decoded if it is bytes; None if it is not text."""
    if values.dtype.kind == "S":
        try:
            return np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            return None
    return values if values.dtype.kind == "U" else None


def _run(path: pathlib.Path, data_dir: str) -> dict[str, np.ndarray]:
    """Run the user's program and return its arrays."""
    if not path.is_file():
        raise InputError(f"no file {path}; expected a program with a function get_dataset(data_dir)")
    with user_program.reported(path, f"dataset.name={path}"):
        module = user_program.load(path)
        if not hasattr(module, "get_dataset"):
            raise InputError(f"dataset.name={path} has no function get_dataset; expected get_dataset(data_dir)")
        values = module.get_dataset(data_dir)
        if not isinstance(values, Mapping):
            raise TypeError(f"get_dataset returned {type(values).__name__}; expected a dict with {_KEYS}")
        return {key: np.asarray(value) for key, value in values.items()}


def _parts(path: pathlib.Path, file: Arrays) -> tuple[list[str], dict[str, Split], Faults]:
    kind = _kind(path, file)
    given = {part: _labels(path, file, part) for part in ("train", "test")}
    names = _class_names(path, file, given["train"])
    labels = {part: _indices(values, names) for part, values in given.items()}
    ids = {part: _ids(path, file, part, len(values)) for part, values in labels.items()}
    examples = {part: _examples(path, file, f"{part}_{kind}", len(values)) for part, values in labels.items()}
    shapes = {part: values.shape[1:] for part, values in examples.items()}
    if shapes["train"] != shapes["test"]:
        raise InputError(
            f"{path}: {kind} have shape {shapes['train']} in train and {shapes['test']} in test; expected the same"
        )
    origin = "class_names" if "class_names" in file else "train_labels"
    faults: Faults = {}

    def add(what: str, rows: Iterable[str]) -> None:
        faults.setdefault(what, []).extend(rows)

    parts = {}
    for part in ("test", "train"):
        first = dict.fromkeys(ids["test"].tolist(), -1) if part == "train" else {}
        unknown = np.flatnonzero((labels[part] < 0) | (labels[part] >= len(names)))
        repeated = [row for row, name in enumerate(ids[part].tolist()) if first.setdefault(name, row) != row]
        infinite = _not_finite(examples[part])
        add(
            f"labels that are not among the {len(names)} names of {origin}"
            if given[part].dtype.kind == "U"
            else f"labels outside 0 to {len(names) - 1}, the range of {origin}",
            (f"{part}_labels[{row}] is {given[part][row]}" for row in unknown),
        )
        add("duplicate ids", (f"{part}_ids[{row}] is {ids[part][row]}" for row in repeated))
        add("rows with values that are not finite", (f"{part}_features[{row}]" for row in infinite))
        faulty = np.concatenate([unknown, repeated, infinite]).astype(np.int64)
        good = np.setdiff1d(np.arange(len(labels[part])), faulty)
        chosen = pick(Split(examples.pop(part), labels[part], ids[part]), good)
        parts[part] = Split(chosen.images, chosen.labels.astype(np.int32), chosen.ids)
    return names, parts, faults


def _not_finite(values: np.ndarray) -> np.ndarray:
    # Minimum and maximum show whether all values are finite without a temporary array of the same size.
    if values.dtype == np.uint8 or (np.isfinite(values.min()) and np.isfinite(values.max())):
        return np.zeros(0, np.int64)
    return np.flatnonzero(~np.isfinite(values).all(1))


def _kind(path: pathlib.Path, file: Arrays) -> str:
    for part in ("train", "test"):
        if f"{part}_images" in file and f"{part}_features" in file:
            raise InputError(f"{path} has both {part}_images and {part}_features; expected one of them")
    return "features" if "train_features" in file else "images"


def _labels(path: pathlib.Path, file: Arrays, part: str) -> np.ndarray:
    labels = get(path, file, f"{part}_labels")
    if labels.dtype.kind in "SU":
        labels = labels if (decoded := text(labels)) is None else decoded
    if labels.dtype.kind not in "iuU" or labels.ndim != 1:
        raise InputError(f"{path}: {part}_labels are {labels.dtype} {list(labels.shape)}; expected integers [N]")
    if not labels.size:
        raise InputError(f"{path}: {part}_labels are empty; expected one label per row")
    return labels


def _class_names(path: pathlib.Path, file: Arrays, train_labels: np.ndarray) -> list[str]:
    if "class_names" in file:
        names = text(get(path, file, "class_names"))
        if names is None or names.ndim != 1 or not names.size:
            raise InputError(f"{path}: class_names are not a list of text; expected one name per class")
        names = names.tolist()
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise InputError(f"{path}: class_names has {repeated!r} more than once; expected one name per class")
        return names
    if train_labels.dtype.kind == "U":
        if not train_labels.astype(bool).any():
            raise InputError(f"{path}: train_labels are all empty; expected the name of a class for each row")
        return listing.natural_order({*train_labels.tolist()} - {""})
    largest = int(train_labels.max())
    if largest >= len(train_labels):  # do not create a name for each of 10**12 classes
        raise InputError(
            f"{path}: train_labels go up to {largest} with {len(train_labels)} rows; "
            "expected labels 0 .. K-1, each with training examples"
        )
    return [str(label) for label in range(largest + 1)]


def _indices(labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return labels as positions among the class names; -1 for a name that is not one of them."""
    if labels.dtype.kind != "U":
        return labels
    position = {name: index for index, name in enumerate(names)}
    return np.array([position.get(label, -1) for label in labels.tolist()], np.int64)


def _ids(path: pathlib.Path, file: Arrays, part: str, num: int) -> np.ndarray:
    key = f"{part}_ids"
    if key not in file:
        digits = max(5, len(str(num - 1)))
        return np.array([f"{part}_{row:0{digits}d}" for row in range(num)])
    given = get(path, file, key)
    ids = given.astype(str) if given.dtype.kind in "iu" else text(given)
    if ids is None or ids.shape != (num,):
        raise InputError(f"{path}: {key} are not {num} texts or integers; expected one per row of {part}_labels")
    return ids


def _examples(path: pathlib.Path, file: Arrays, key: str, num: int) -> np.ndarray:
    values = get(path, file, key)
    dtype, ndim, shape = (np.float32, 2, "[N, D]") if key.endswith("features") else (np.uint8, 4, "[N, H, W, C]")
    if values.dtype != dtype or values.ndim != ndim:
        found = f"{values.dtype} {list(values.shape)}"
        raise InputError(f"{path}: {key} are {found}; expected {np.dtype(dtype)} {shape}")
    if dtype == np.uint8 and values.shape[1] in (1, 3) and values.shape[2] == values.shape[3] > 4:
        raise InputError(
            f"{path}: {key} have shape {list(values.shape)}, which looks like channels first; expected {shape}: use "
            "transpose(0, 2, 3, 1)"
        )
    if len(values) != num:
        raise InputError(f"{path}: {key} has {len(values)} rows for {num} labels; expected as many rows as labels")
    if not values.size:
        raise InputError(f"{path}: {key} have shape {list(values.shape)}; expected no dimension of length 0")
    return values
