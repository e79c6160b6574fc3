"""TFDS data sets with the features `image` and `label`, prepared if necessary and read without TensorFlow."""

import contextlib
import difflib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mpt_jax.data import classes, images
from mpt_jax.data.dataset_config import DatasetConfig
from mpt_jax.data.digits import Digits  # registers "digits" with TFDS
from mpt_jax.data.feeding import record_index
from mpt_jax.data.feeding.stream import Records, Stream, must_stream
from mpt_jax.data.photos import Photos  # registers "photos" with TFDS
from mpt_jax.data.splits import Parts, Source, Split
from mpt_jax.errors import InputError, describe

_BATCH = 2048  # examples read together: fast, and their encoded images fit in memory


def open_source(settings: DatasetConfig) -> Source:
    """Prepare a TFDS data set if necessary, and read its metadata.

    Raises:
      InputError: no such folder, data set or split, a data set that cannot be prepared, or features that do not fit;
        when it is read: damaged files, or images of different sizes without `settings.image_size`.
    """
    builder, splits = _prepared_builder(settings.name, settings.data_dir), ("train", settings.test_split)
    _check_features(builder, splits, settings.labels)
    stored = builder.info.features["image"].shape
    channels = settings.channels or stored[-1]
    size = settings.size or (stored[:2] if None not in stored else None)
    num_images = sum(builder.info.splits[split].num_examples for split in splits)
    streamed = must_stream(settings, num_images, size and (*size, channels))
    if streamed and not size:
        raise InputError(
            f"images of data set {settings.name} differ in size; to stream them, expected dataset.image_size, such as "
            "224"
        )

    def read(order: tuple[int, ...]) -> Parts:
        if streamed and size:
            train, test = (_stream(builder, split, order, (*size, channels), settings) for split in splits)
            return Parts(train, test, {})
        (train, train_faults), (test, test_faults) = (
            _read(builder, split, order, settings, channels) for split in splits
        )
        return Parts(train, test, {"images that cannot be read": train_faults + test_faults})

    return Source(builder.info.features[settings.labels].names, read, published=True)


def open_split(
    name: str, data_dir: str, split: str
) -> tuple[int, list[str], Callable[[int], Iterator[list[tuple[str, int, bytes]]]]]:
    """Open one split of a TFDS data set without reading its examples.

    Returns:
      The number of examples, the class names, and a function that takes a batch size and yields lists of
      ``(id, label, encoded image)`` in the order of the files.

    Raises:
      InputError: no such folder, data set or split, a data set that cannot be prepared, or features that do not fit;
        when it is read: damaged files.
    """
    builder = _prepared_builder(name, data_dir)
    _check_features(builder, (split,))

    def batches(size: int) -> Iterator[list[tuple[str, int, bytes]]]:
        with _read_errors(builder):
            for records in _batches(_encoded(builder, split), size):
                yield [
                    (record_index.name_of(example, split, number), int(example["label"]), example["image"])
                    for number, example in records
                ]

    return builder.info.splits[split].num_examples, builder.info.features["label"].names, batches


def suggestion(name: str) -> str:
    """Return "; did you mean ...?" with TFDS names similar to `name`, or an empty string."""
    close = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


# Preparation


def _prepared_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    if data_dir:
        folder = tfds.core.Path(data_dir).expanduser()
        if not folder.is_dir():
            raise InputError(f"dataset.data_dir={data_dir} is not a folder; expected an existing TFDS data folder")
        data_dir = str(folder)
    builder = _builder(name, data_dir)
    if not builder.data_path.exists():
        _prepare(builder)
        builder = _builder(name, data_dir)  # another process may have prepared it first
    return builder


def _builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(
            f"no data set named {name!r}; expected dataset.name to be 'digits', another TFDS name, 'folder', or an "
            f".npz, .py, .csv or .parquet file{suggestion(name)}"
        ) from error
    except Exception as error:  # an invalid version or config, or a package that the builder needs is missing
        raise InputError(f"dataset.name={name!r} cannot be opened: {describe(error)}") from error


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    place, built_in = builder.data_path.relative_to(builder.data_dir_root), isinstance(builder, Digits | Photos)
    if not built_in and importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"data set {builder.name} is not prepared in {builder.data_dir_root}, and preparing it needs TensorFlow: "
            f"run `pip install 'mpt_jax[prepare]'`, or pass --config.dataset.data_dir=DIR with a folder DIR that "
            f"contains {place} as ArrayRecord files"
        )
    # The built-in sets take a second; progress bars of TFDS would hide the output of the run.
    out, err = (io.StringIO(), io.StringIO()) if built_in else (sys.stdout, sys.stderr)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False), file_format="array_record"
            )
    except Exception as error:  # TFDS raises many types: no network, disk full, a manual download required, ...
        if not builder.data_path.exists():  # if it exists, another process has prepared the same files
            raise InputError(
                f"cannot prepare data set {builder.name} in {builder.data_dir_root}: {describe(error)}; "
                f"pass --config.dataset.data_dir=DIR with a writable folder DIR or one that contains {place}"
            ) from error


def _check_features(builder: tfds.core.DatasetBuilder, splits: Sequence[str], label: str = "label") -> None:
    name, info = builder.name, builder.info
    features = dict(sorted(info.features.items())) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    listed = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items()) or "no named features"
    for key, kind in (("image", tfds.features.Image), (label, tfds.features.ClassLabel)):
        if not isinstance(features.get(key), kind):
            setting = f"dataset.labels={label}, but " if key != "label" and key == label else ""
            raise InputError(
                f"{setting}data set {name} has {listed}; expected a feature {key!r} of type {kind.__name__}"
            )
    image = features["image"]
    if image.np_dtype != np.uint8 or image.shape[-1] not in images.MODES:
        raise InputError(
            f"images of data set {name} are {np.dtype(image.np_dtype)} with {image.shape[-1]} channels; "
            f"expected uint8 with {', '.join(map(str, images.MODES))} channels"
        )
    listed = ", ".join(info.splits) or "no splits"
    for split in splits:
        if split not in info.splits:
            raise InputError(f"data set {name} in {builder.data_path} has no split {split!r}; it has {listed}")


# Reading


def _encoded(builder: tfds.core.DatasetBuilder, split: str) -> Any:
    return builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})


def _batches(source: Any, size: int) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Yield lists of at most `size` numbered examples."""
    for start in range(0, len(source), size):
        numbers = list(range(start, min(start + size, len(source))))
        yield list(zip(numbers, source.__getitems__(numbers), strict=True))


@contextlib.contextmanager
def _read_errors(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Turn the errors that TFDS raises for unreadable files into `InputError`."""
    try:
        yield
    except NotImplementedError as error:
        raise InputError(
            f"data set {builder.name} in {builder.data_path} was prepared as {builder.info.file_format.value}; "
            "expected ArrayRecord: prepare it in another folder with file_format='array_record'"
        ) from error
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"data set {builder.name} in {builder.data_path} is incomplete or damaged ({describe(error)}); "
            "remove that folder and prepare or copy it again"
        ) from error


def _read(
    builder: tfds.core.DatasetBuilder,
    split: str,
    order: tuple[int, ...],
    settings: DatasetConfig,
    channels: int,
) -> tuple[Split, list[str]]:
    """Decode a split, and return the ids of the images that cannot be read."""
    with _read_errors(builder):
        pixels, label_list, id_list, unreadable = _decode(builder, split, order, settings, channels)
    if not pixels:
        raise _no_images(builder, split)
    sizes = sorted({image.shape[:2] for image in pixels})
    if len(sizes) > 1:
        raise InputError(
            f"images of data set {builder.name} differ in size, such as {sizes[0]} and {sizes[-1]}; "
            "expected one size: set dataset.image_size=HEIGHT,WIDTH"
        )
    labels, ids = np.array(label_list, np.int32), np.array(id_list)
    rows = np.lexsort((ids, labels))
    return Split(np.stack([pixels[row] for row in rows]), labels[rows], ids[rows]), unreadable


def _decode(
    builder: tfds.core.DatasetBuilder,
    split: str,
    order: tuple[int, ...],
    settings: DatasetConfig,
    channels: int,
) -> tuple[list[np.ndarray], list[int], list[str], list[str]]:
    """Return pixels, labels and ids in the order of the files, and the ids of the images that cannot be read."""
    source, position = _encoded(builder, split), {index: label for label, index in enumerate(order)}
    options: dict[str, Any] = {"channels": channels, "size": settings.size, "resizing": settings.resizing}
    if settings.size:
        images.blank(len(source), *settings.size, channels)  # fail before decoding for hours
    pixels, labels, ids, unreadable = [], [], [], []
    for number, example in (record for records in _batches(source, _BATCH) for record in records):
        if example[settings.labels] not in position:
            continue
        name = record_index.name_of(example, split, number)
        try:
            pixels.append(images.decode(example["image"], as_stored=True, **options))
        except ValueError as error:
            unreadable.append(f"{name} ({error})")
            continue
        labels.append(position[example[settings.labels]])
        ids.append(name)
    return pixels, labels, ids, unreadable


def _stream(
    builder: tfds.core.DatasetBuilder,
    split: str,
    order: tuple[int, ...],
    shape: tuple[int, int, int],
    settings: DatasetConfig,
) -> Split:
    with _read_errors(builder):
        source = _encoded(builder, split)
        stored, ids = record_index.read(builder, split, source, settings.labels)
    labels = classes.positions(order, len(builder.info.features[settings.labels].names))[stored]
    records = np.flatnonzero((labels >= 0) & (stored >= 0))  # TFDS labels unlabelled examples -1
    if not records.size:
        raise _no_images(builder, split)
    records = records[np.lexsort((ids[records], labels[records]))]
    encoded = Records(source, f"split {split} of {builder.name} in {builder.data_path}")
    pixels = Stream(
        *(encoded, records, shape, settings.augmentation, settings.resizing),
        as_stored=True,
        workers=settings.workers,
    )
    return Split(pixels, labels[records], ids[records])


def _no_images(builder: tfds.core.DatasetBuilder, split: str) -> InputError:
    return InputError(f"split {split!r} of data set {builder.name} has no images of the chosen classes")
