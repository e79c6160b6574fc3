"""From a TFDS name to arrays: prepared once, read without TensorFlow, labelled in the run's class order."""

import contextlib
import dataclasses
import difflib
import importlib.util
import io
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mpt_jax.data import classes
from mpt_jax.data.digits import Digits  # registers "digits" with TFDS
from mpt_jax.errors import InputError

_READ_AT_ONCE = 2048  # examples: fast to read, and their encoded images still fit in memory where they are large
_PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, sorted by label and within a label by id, so that a release's classes are a prefix."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N], positions in the run's class order
    ids: np.ndarray  # str [N]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set as a run sees it: `class_names` in the run's order, and three disjoint parts."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split


def count(split: Split, num_classes: int) -> int:
    """How many examples a release with the first `num_classes` classes has: ``split.images[:count]`` are its images.

    Examples:
      >>> labels = np.array([0, 0, 1, 2], np.int32)
      >>> count(Split(np.zeros((4, 8, 8, 1), np.uint8), labels, np.array(list("abcd"))), 2)
      3
    """
    return int(np.searchsorted(split.labels, num_classes))


def statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of each channel, ``float32 [C]``, of pixel/255.

    The sums are exact integers. A channel of one colour has no spread to divide by: its standard deviation is given
    as 1.

    Args:
      images: ``uint8 [N, H, W, C]``.

    Raises:
      ValueError: no pixels.

    Examples:
      >>> mean, std = statistics(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1))
      >>> float(mean[0]), float(std[0])
      (0.5, 0.5)
    """
    if not images.size:
        raise ValueError("statistics of no images")
    means, stds = [], []
    for channel in range(images.shape[-1]):
        counts = sum(  # a histogram of small pieces: bincount copies what it reads to 8 bytes a pixel
            np.bincount(images[start : start + 1000, ..., channel].ravel(), minlength=256)
            for start in range(0, len(images), 1000)
        )
        pixels, values = counts.tolist(), range(256)
        total = sum(pixels)
        first = sum(number * value for number, value in zip(pixels, values, strict=True))
        second = sum(number * value * value for number, value in zip(pixels, values, strict=True))
        means.append(first / total / 255)
        stds.append((total * second - first * first) ** 0.5 / total / 255 or 1.0)
    return np.array(means, np.float32), np.array(stds, np.float32)


def load(
    name: str,
    *,
    data_dir: str | None = None,
    num_classes: int,
    class_order: str | Sequence[int | str] = "natural",
    validation_per_class: int = 0,
    train_per_class: int = 0,
    seed: int = 0,
) -> Dataset:
    """Read a TFDS data set with the features `image` and `label`, preparing it first where that is possible.

    The validation part is drawn from each class of `train`, never from `test`; which images it holds depends only on
    the seed and the class, not on the class order or the number of classes.

    Args:
      name: "digits", which prepares itself, or any TFDS name.
      data_dir: the TFDS data folder, which must exist; None or empty: TFDS's own default, made where needed.
      num_classes: how many classes of the order exist for the run; the others' images are left out.
      class_order: see `mpt_jax.data.classes.class_order`.
      validation_per_class: images cut from each class of `train`.
      train_per_class: at most this many of the rest of each class are kept, drawn at random; 0: all.
      seed: of the draw of both.

    Raises:
      InputError: an unknown data set, a folder that is missing or cannot be written, a data set that is not prepared
        and cannot be, features, splits or image sizes that do not fit, more classes or images wanted than there are.
    """
    if validation_per_class < 0 or train_per_class < 0:
        raise InputError(
            f"dataset.validation_per_class={validation_per_class}, dataset.train_per_class={train_per_class}: "
            "expected numbers of images, 0 or more"
        )
    builder = _prepared_builder(name, data_dir or None)
    _check_features(builder)
    names = builder.info.features["label"].names
    order = classes.class_order(class_order, names)
    if not 1 <= num_classes <= len(order):
        raise InputError(
            f"update.schedule wants {num_classes} classes, but data set {name} has {len(order)} in this class order"
        )
    order = order[:num_classes]
    class_names = tuple(names[index] for index in order)
    train, test = (_read(builder, split, order) for split in ("train", "test"))
    drawn = []
    for label, index in enumerate(order):
        members = np.flatnonzero(train.labels == label)
        if len(members) <= validation_per_class:
            raise InputError(
                f"class {class_names[label]!r} has {len(members)} training images, and "
                f"dataset.validation_per_class={validation_per_class} leaves none to train on"
            )
        drawn.append(np.random.default_rng([seed, index]).permutation(members))
    end = validation_per_class + train_per_class if train_per_class else None
    return Dataset(
        name=name,
        class_names=class_names,
        train=_take(train, [members[validation_per_class:end] for members in drawn]),
        validation=_take(train, [members[:validation_per_class] for members in drawn]),
        test=test,
    )


def _take(split: Split, members: list[np.ndarray]) -> Split:
    chosen = np.sort(np.concatenate(members))
    return Split(split.images[chosen], split.labels[chosen], split.ids[chosen])


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _prepared_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    if data_dir:
        folder = tfds.core.Path(data_dir).expanduser()
        if not folder.is_dir():
            raise InputError(f"dataset.data_dir={data_dir} is not a folder; pass a TFDS data folder, or make this one")
        data_dir = str(folder)
    builder = _builder(name, data_dir)
    if not builder.data_path.exists():
        _prepare(builder)
        builder = _builder(name, data_dir)  # reads what was prepared, perhaps by another process
    return builder


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"no data set named {name!r}: dataset.name is 'digits' or a name in TFDS{hint}") from error
    except Exception as error:  # a wrong version or config, a package that this data set's builder lacks, ...
        raise InputError(f"dataset.name={name!r} does not work: {_one_line(error)}") from error


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    place, own = builder.data_path.relative_to(builder.data_dir_root), isinstance(builder, Digits)
    if not own and importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"data set {builder.name} is not prepared in {builder.data_dir_root}, and preparing it needs TensorFlow: "
            "run `pip install 'mpt_jax[prepare]'` (in a clone: `pip install -e '.[prepare]'`), "
            f"or pass --config.dataset.data_dir=DIR with a folder DIR that holds {place} as ArrayRecord files"
        )
    # The digits take a second: TFDS's announcements and progress bars would only hide what the run itself says.
    out, err = (io.StringIO(), io.StringIO()) if own else (sys.stdout, sys.stderr)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False), file_format="array_record"
            )
    except Exception as error:  # no network, no disk, a data set to be downloaded by hand: all that TFDS may meet
        if not builder.data_path.exists():  # otherwise another process has finished first, with the same files
            raise InputError(
                f"cannot prepare data set {builder.name} in {builder.data_dir_root}: {_one_line(error)}; "
                f"pass --config.dataset.data_dir=DIR with a folder DIR that can be written or holds {place}"
            ) from error


def _check_features(builder: tfds.core.DatasetBuilder) -> None:
    name, info = builder.name, builder.info
    features = dict(sorted(info.features.items())) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    listed = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items()) or "none by name"
    for key, kind in (("image", tfds.features.Image), ("label", tfds.features.ClassLabel)):
        if not isinstance(features.get(key), kind):
            raise InputError(f"data set {name} has no feature {key!r} of kind {kind.__name__}; it has {listed}")
    image = features["image"]
    if image.np_dtype != np.uint8 or image.shape[-1] not in _PIL_MODES:
        raise InputError(
            f"images of data set {name} are {np.dtype(image.np_dtype)} with {image.shape[-1]} channels; "
            f"expected uint8 with {', '.join(map(str, _PIL_MODES))} channels"
        )
    listed = ", ".join(info.splits) or "none"
    for split in ("train", "test"):
        if split not in info.splits:
            raise InputError(f"data set {name} in {builder.data_path} has no split {split!r}; it has {listed}")


def _read(builder: tfds.core.DatasetBuilder, split: str, order: tuple[int, ...]) -> Split:
    try:
        images, labels, ids = _decoded(builder, split, {index: label for label, index in enumerate(order)})
    except NotImplementedError as error:
        raise InputError(
            f"data set {builder.name} in {builder.data_path} was prepared as {builder.info.file_format.value}; "
            "prepare it in another folder with file_format='array_record'"
        ) from error
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"data set {builder.name} in {builder.data_path} is incomplete or damaged ({_one_line(error)}); "
            "remove that folder and prepare or copy it again"
        ) from error
    if not images:
        raise InputError(f"split {split!r} of data set {builder.name} has no images of the chosen classes")
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        raise InputError(
            f"images of data set {builder.name} differ in size, such as {sizes[0]} and {sizes[-1]}; expected one size"
        )
    labels, ids = np.array(labels, np.int32), np.array(ids)
    sort = np.lexsort((ids, labels))
    return Split(np.stack([images[index] for index in sort]), labels[sort], ids[sort])


def _decoded(
    builder: tfds.core.DatasetBuilder, split: str, position: dict[int, int]
) -> tuple[list[np.ndarray], list[int], list[str]]:
    """Images, labels and ids in the files' order; images of classes that have no position are not even decoded."""
    source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    mode = _PIL_MODES[builder.info.features["image"].shape[-1]]
    images, labels, ids = [], [], []
    for start in range(0, len(source), _READ_AT_ONCE):
        numbers = list(range(start, min(start + _READ_AT_ONCE, len(source))))
        for number, example in zip(numbers, source.__getitems__(numbers), strict=True):
            if example["label"] in position:
                images.append(_decode(example["image"], mode))
                labels.append(position[example["label"]])
                ids.append(_text(example.get("id", f"{split}_{number:05d}")))
    return images, labels, ids


def _decode(encoded: bytes, mode: str) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _text(value: bytes | str | int) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
