"""From the name of a data set to arrays: read without TensorFlow, labelled in the run's class order, cut up."""

import contextlib
import dataclasses
import difflib
import importlib.util
import io
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mpt_jax.data import classes, findings, images, subsets
from mpt_jax.data.digits import Digits  # registers "digits" with TFDS
from mpt_jax.data.feeding import record_index
from mpt_jax.data.feeding.stream import Choice, Records, Stream
from mpt_jax.data.findings import Finding
from mpt_jax.data.own import arrays, folder
from mpt_jax.data.photos import Photos  # registers "photos"
from mpt_jax.data.splits import Dataset, Split, pick
from mpt_jax.errors import InputError

_READ_AT_ONCE = 2048  # examples: fast to read, and their encoded images still fit in memory where they are large
STATISTICS_OF = 10_000  # images of a stream
_TABLES, _ARRAYS = (".csv", ".parquet"), (".npz", ".py")


@dataclasses.dataclass(frozen=True)
class Parts:
    """Both parts in the run's class order, what is wrong with the examples that they lack, and what was noticed."""

    train: Split
    test: Split
    faults: Mapping[str, Sequence[str]]
    findings: tuple[Finding, ...] = ()


def statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of each channel, of pixel/255, or feature: ``float32 [C]`` or ``[D]``.

    The sums over pixels are exact integers, those over features are in float64. A channel of one colour, or a feature
    that is constant, has no spread to divide by: its standard deviation is given as 1.

    Args:
      images: ``uint8 [N, H, W, C]``, or features, ``float32 [N, D]``.

    Raises:
      ValueError: no images.

    Of a stream at most `STATISTICS_OF` images are decoded, evenly spaced.

    Examples:
      >>> mean, std = statistics(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1))
      >>> float(mean[0]), float(std[0])
      (0.5, 0.5)
      >>> mean, std = statistics(np.array([[1.0, 3.0], [5.0, 3.0]], np.float32))
      >>> mean.tolist(), std.tolist()
      ([3.0, 3.0], [2.0, 1.0])
    """
    if not len(images) or not images.shape[-1]:
        raise ValueError("statistics of no images")
    if isinstance(images, Stream):
        images = np.asarray(images[:: -(-len(images) // STATISTICS_OF)])
    if images.dtype.kind == "f":
        return _feature_statistics(images)
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


def _feature_statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pieces = [features[start : start + 1000] for start in range(0, len(features), 1000)]  # float64 one piece at a time
    mean = sum(piece.sum(0, dtype=np.float64) for piece in pieces) / len(features)
    std = np.sqrt(sum(np.square(piece - mean).sum(0) for piece in pieces) / len(features))
    # A spread below float32's smallest normal number would be taken for 0 and divided by.
    return mean.astype(np.float32), np.where(std < np.finfo(np.float32).tiny, 1, std).astype(np.float32)


def load(
    name: str,
    *,
    data_dir: str | None = None,
    num_classes: int,
    class_order: str | Sequence[int | str] = "natural",
    validation_per_class: int = 0,
    train_per_class: int = 0,
    imbalance: float = 1.0,
    image_size: Sequence[int] = (),
    channels: int = 0,
    test_fraction: float = 0.2,
    on_bad_image: str = "error",
    seed: int = 0,
    source: str = "memory",
    augmentation: str = "crop_flip",
    workers: int = 0,
    test_split: str = "test",
) -> Dataset:
    """Read a data set: one of TFDS with the features `image` and `label`, prepared first where possible, or one's own.

    Everything about the examples that can be wrong is found out here, before anything is trained: images that cannot
    be read, labels outside the classes, ids given twice, images that are in train and in test (their very pixels).

    The validation part is drawn from each class of `train`, never from `test`; which images it holds depends only on
    the seed and the class, not on the class order or the number of classes.

    Args:
      name: "digits", which prepares itself; any TFDS name; "folder", see
        `mpt_jax.data.own.folder.list_folder`; a .csv or .parquet file that lists images, see `list_table` there; an
        .npz file of arrays or a .py file that makes them, as `mpt_jax.data.own.arrays.read`.
      data_dir: the TFDS data folder, which must exist; None or empty: TFDS's own default, made where needed. For
        "folder", that folder. For other files, the folder that a relative name and the paths of a table start from;
        a .py file gets it as the argument.
      num_classes: how many classes of the order exist for the run; the others' images are left out.
      class_order: see `mpt_jax.data.classes.class_order`.
      validation_per_class: images cut from each class of `train`.
      train_per_class: at most this many of the rest of each class are kept, drawn at random; 0: all.
      imbalance: of the rest, the largest class's images over the smallest's, as
        `mpt_jax.data.subsets.long_tail_counts` in the run's class order, drawn at random; 1: as they are.
      image_size: height and width, or one number for both, to which encoded images are brought as
        `mpt_jax.data.images.decode` says; empty: they have one size already.
      channels: of encoded images: 1 (grey) or 3 (RGB); 0: those of the TFDS data set, 3 for one's own files.
      test_fraction: share of the images held out where one's own files have no test part, see
        `mpt_jax.data.own.folder.held_out`.
      on_bad_image: "error", or "skip": leave bad examples out and name them in `Dataset.findings`. Of an image in both
        parts the training copy is the bad one. Published data sets keep these, so that results can be compared with
        the literature's, and only name them, unless it is "skip".
      seed: of the draw of all three.
      source: "memory": all images are decoded here; "stream": when they are needed, see
        `mpt_jax.data.feeding.stream`, and what is wrong with an image beyond its header is found only then; "auto":
        streamed where they would take more than a quarter of the memory.
      augmentation: "crop_flip", or "imagenet", whose random crops are taken from streamed images.
      workers: processes that decode a stream; 0: threads.
      test_split: of a TFDS data set.

    Raises:
      InputError: an unknown data set, a folder that is missing or cannot be written, a data set that is not prepared
        and cannot be, features, splits or image sizes that do not fit, more classes or images wanted than there are,
        bad examples.
    """
    if validation_per_class < 0 or train_per_class < 0:
        raise InputError(
            f"dataset.validation_per_class={validation_per_class}, dataset.train_per_class={train_per_class}: "
            "expected numbers of images, 0 or more"
        )
    if not 1 <= imbalance < np.inf:
        raise InputError(f"dataset.imbalance={imbalance}; expected 1 (as it is) or more, such as 100")
    size = (image_size[0], image_size[-1]) if image_size else None
    suffix = pathlib.PurePath(name).suffix
    published = name != "folder" and suffix not in (*_TABLES, *_ARRAYS)
    choice = Choice(source, augmentation, workers)
    if augmentation == "imagenet" and not size:
        raise InputError("dataset.augmentation=imagenet crops images to a size; give dataset.image_size, such as 224")
    if published:
        names, read = _tfds(name, data_dir or None, size, channels, choice, test_split)
    elif suffix in _ARRAYS:
        if source == "stream" or augmentation == "imagenet":
            raise InputError(
                f"dataset.source={source} and dataset.augmentation={augmentation} with {name}: only encoded images can "
                "be streamed; expected dataset.source=memory (or auto) and augmentation=crop_flip"
            )
        names, read = _file(name, data_dir or "", size, channels)
    else:
        names, read = _own_files(name, data_dir or "", size, channels, test_fraction, choice)
    order = classes.class_order(class_order, names)
    if not 1 <= num_classes <= len(order):
        raise InputError(
            f"update.schedule wants {num_classes} classes, but data set {name} has {len(order)} in this class order"
        )
    order = order[:num_classes]
    class_names = tuple(names[index] for index in order)
    parts = read(order)
    train, test, found = parts.train, parts.test, list(parts.findings)
    shared, faults = _shared(train.images, test.images), dict(parts.faults)
    if shared.size:
        what, ids = "training images that are also in test", train.ids[shared].tolist()
        if published and on_bad_image == "error":
            found.append(Finding(what, tuple(ids), "kept as published"))
        else:
            faults[what] = ids
            train = pick(train, np.setdiff1d(np.arange(len(train)), shared))
    found += findings.settle(f"data set {name}", faults, on_bad_image)
    rest, held_out = [], []
    members_of = subsets.by_class(train.labels, range(num_classes))
    short = [label for label, members in enumerate(members_of) if len(members) <= validation_per_class]
    if short:
        others = ", ".join(repr(class_names[label]) for label in short[1:6]) + (" ..." if len(short) > 6 else "")
        raise InputError(
            f"class {class_names[short[0]]!r} has {len(members_of[short[0]]) or 'no'} training images"
            + (f" (and {len(short) - 1} other classes too few: {others})" if others else "")
            + f"; expected more than dataset.validation_per_class={validation_per_class} of each class"
        )
    for label, members in enumerate(members_of):
        drawn = subsets.shuffled(members, order[label], seed=seed)
        held_out.append(drawn[:validation_per_class])
        rest.append(drawn[validation_per_class:][: train_per_class or None])
    available = [len(members) for members in rest]
    if imbalance > 1:
        rest = subsets.first(rest, subsets.long_tail_counts(available, imbalance))
        if not len(rest[-1]):
            raise InputError(
                f"dataset.imbalance={imbalance:g} leaves class {class_names[-1]!r} no image to train on; "
                f"expected at most {max(available)}, the images of the largest class"
            )
    kept = pick(train, np.sort(np.concatenate(rest)))
    return Dataset(
        name=name,
        class_names=class_names,
        train=kept,
        validation=pick(train, np.sort(np.concatenate(held_out))),
        test=test,
        findings=(*found, *findings.peculiar_classes(class_names, kept.labels, test.labels)),
    )


def _shared(train: np.ndarray | Stream, test: np.ndarray | Stream) -> np.ndarray:
    """Rows of `train` that are in `test` too; not looked for among streamed records: all would have to be read."""
    if not isinstance(train, Stream):
        return findings.shared_rows(train, test)
    if isinstance(train.encoded, Records):
        return np.zeros(0, np.int64)
    return findings.shared_files(*(images.encoded.read(images.records.tolist()) for images in (train, test)))


def _own_files(
    name: str,
    data_dir: str,
    size: tuple[int, int] | None,
    channels: int,
    test_fraction: float,
    choice: Choice,
) -> tuple[list[str], Callable[[tuple[int, ...]], Parts]]:
    """The class names of a folder or table of image files, and a function of the order that reads them."""
    root = pathlib.Path(data_dir).expanduser()
    if name == "folder" and not data_dir:
        raise InputError("dataset.name=folder needs dataset.data_dir=DIR, a folder with train/CLASS/IMAGE")
    if name == "folder":
        listing = folder.list_folder(root)
    else:
        listing = folder.list_table((root / name).expanduser(), root if data_dir else None)
    options = {"size": size, "channels": channels or 3, "test_fraction": test_fraction, "choice": choice}
    return listing.class_names, lambda order: Parts(*folder.read(listing, order, **options))


def _file(
    name: str, data_dir: str, size: tuple[int, int] | None, channels: int
) -> tuple[list[str], Callable[[tuple[int, ...]], Parts]]:
    """The class names of an .npz or .py file, and a function of the order that gives its parts once."""
    program = name.endswith(".py")
    path = pathlib.Path("" if program else data_dir, name).expanduser()
    names, parts, faults = arrays.read(path, data_dir)
    shape = parts["train"].images.shape[1:]
    for key, wanted, given in (("image_size", size, shape[:2]), ("channels", channels or None, shape[-1])):
        if wanted is not None and wanted != given:
            raise InputError(
                f"dataset.{key} is for encoded images, but {path} holds arrays of shape {shape}; leave it out"
            )

    def one(part: str, order: tuple[int, ...]) -> Split:
        split = parts.pop(part)  # not kept beside its sorted copy
        position = np.full(len(names), -1, np.int32)
        position[list(order)] = np.arange(len(order))
        labels = position[split.labels]
        rows = np.flatnonzero(labels >= 0)
        if not rows.size:
            raise InputError(f"{part}_labels of {name} have none of the chosen classes")
        rows = rows[np.lexsort((split.ids[rows], labels[rows]))]
        return pick(Split(split.images, labels, split.ids), rows)

    return names, lambda order: Parts(one("train", order), one("test", order), faults)


def _tfds(
    name: str,
    data_dir: str | None,
    size: tuple[int, int] | None,
    channels: int,
    choice: Choice,
    test_split: str,
) -> tuple[list[str], Callable[[tuple[int, ...]], Parts]]:
    """The class names of a TFDS data set, and a function of the order that reads it."""
    builder = _prepared_builder(name, data_dir)
    _check_features(builder, ("train", test_split))
    stored = builder.info.features["image"].shape
    channels = channels or stored[-1]
    sides = size or (stored[:2] if None not in stored else None)
    splits = ("train", test_split)
    number = sum(builder.info.splits[split].num_examples for split in splits)
    streamed = choice.streams(number, sides and (*sides, channels))
    if streamed and not sides:
        raise InputError(f"images of data set {name} differ in size; to stream them give dataset.image_size")

    def read(order: tuple[int, ...]) -> Parts:
        unread: list[str] = []
        if streamed:
            shape = (*sides, channels)
            train, test = (_stream(builder, split, order, shape, choice) for split in splits)
        else:
            train, test = (_read(builder, split, order, size, channels, unread) for split in splits)
        return Parts(train, test, {"images that cannot be read": unread})

    return builder.info.features["label"].names, read


def open_split(
    name: str, data_dir: str | None, split: str
) -> tuple[int, list[str], Callable[[int], Iterator[list[tuple[str, int, bytes]]]]]:
    """A part of a TFDS data set without reading it: how many examples, the class names, and a function to stream it.

    The function gives lists of at most so many (id, label, encoded image), in the files' order.

    Raises:
      InputError: no such folder, data set or part, one that cannot be prepared, or features that do not fit; later, one
        that is damaged.
    """
    builder = _prepared_builder(name, data_dir)
    _check_features(builder, (split,))

    def batches(size: int) -> Iterator[list[tuple[str, int, bytes]]]:
        with _whole(builder):
            source = _encoded(builder, split)
            for start in range(0, len(source), size):
                numbers = list(range(start, min(start + size, len(source))))
                yield [
                    (record_index.name_of(example, split, number), int(example["label"]), example["image"])
                    for number, example in zip(numbers, source.__getitems__(numbers), strict=True)
                ]

    return builder.info.splits[split].num_examples, builder.info.features["label"].names, batches


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
        raise InputError(
            f"no data set named {name!r}: dataset.name is 'digits' or a name in TFDS, 'folder', "
            f"or an .npz, .py, .csv or .parquet file{similar(name)}"
        ) from error
    except Exception as error:  # a wrong version or config, a package that this data set's builder lacks, ...
        raise InputError(f"dataset.name={name!r} does not work: {_one_line(error)}") from error


def similar(name: str) -> str:
    """The names in TFDS that may be meant, as the end of a sentence."""
    close = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    place, own = builder.data_path.relative_to(builder.data_dir_root), isinstance(builder, Digits | Photos)
    if not own and importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"data set {builder.name} is not prepared in {builder.data_dir_root}, and preparing it needs TensorFlow: "
            "run `pip install 'mpt_jax[prepare]'`, "
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


def _check_features(builder: tfds.core.DatasetBuilder, splits: Sequence[str]) -> None:
    name, info = builder.name, builder.info
    features = dict(sorted(info.features.items())) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    listed = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items()) or "none by name"
    for key, kind in (("image", tfds.features.Image), ("label", tfds.features.ClassLabel)):
        if not isinstance(features.get(key), kind):
            raise InputError(f"data set {name} has no feature {key!r} of kind {kind.__name__}; it has {listed}")
    image = features["image"]
    if image.np_dtype != np.uint8 or image.shape[-1] not in images.MODES:
        raise InputError(
            f"images of data set {name} are {np.dtype(image.np_dtype)} with {image.shape[-1]} channels; "
            f"expected uint8 with {', '.join(map(str, images.MODES))} channels"
        )
    listed = ", ".join(info.splits) or "none"
    for split in splits:
        if split not in info.splits:
            raise InputError(f"data set {name} in {builder.data_path} has no split {split!r}; it has {listed}")


def _read(
    builder: tfds.core.DatasetBuilder,
    split: str,
    order: tuple[int, ...],
    size: tuple[int, int] | None,
    channels: int,
    unread: list[str],
) -> Split:
    with _whole(builder):
        position = {index: label for label, index in enumerate(order)}
        pixels, labels, ids = _decoded(builder, split, position, size, channels, unread)
    if not pixels:
        raise InputError(f"split {split!r} of data set {builder.name} has no images of the chosen classes")
    sizes = sorted({image.shape[:2] for image in pixels})
    if len(sizes) > 1:
        raise InputError(
            f"images of data set {builder.name} differ in size, such as {sizes[0]} and {sizes[-1]}; "
            "give dataset.image_size=HEIGHT,WIDTH to bring them to one"
        )
    labels, ids = np.array(labels, np.int32), np.array(ids)
    sort = np.lexsort((ids, labels))
    return Split(np.stack([pixels[index] for index in sort]), labels[sort], ids[sort])


@contextlib.contextmanager
def _whole(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """What TFDS raises of files that it cannot read, as `InputError`."""
    try:
        yield
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


def _encoded(builder: tfds.core.DatasetBuilder, split: str) -> Any:
    return builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})


def _stream(
    builder: tfds.core.DatasetBuilder,
    split: str,
    order: tuple[int, ...],
    shape: tuple[int, int, int],
    choice: Choice,
) -> Split:
    with _whole(builder):
        source = _encoded(builder, split)
        stored, ids = record_index.read(builder, split, source)
    position = np.full(len(builder.info.features["label"].names), -1, np.int32)
    position[list(order)] = np.arange(len(order))
    labels = position[stored]
    records = np.flatnonzero((labels >= 0) & (stored >= 0))
    if not records.size:
        raise InputError(f"split {split!r} of data set {builder.name} has no images of the chosen classes")
    records = records[np.lexsort((ids[records], labels[records]))]
    encoded = Records(source, f"split {split} of {builder.name} in {builder.data_path}")
    pixels = Stream(encoded, records, shape, choice.augmentation, as_stored=True, workers=choice.workers)
    return Split(pixels, labels[records], ids[records])


def _decoded(
    builder: tfds.core.DatasetBuilder,
    split: str,
    position: dict[int, int],
    size: tuple[int, int] | None,
    channels: int,
    unread: list[str],
) -> tuple[list[np.ndarray], list[int], list[str]]:
    """Images, labels and ids in the files' order; images of classes that have no position are not even decoded."""
    source = _encoded(builder, split)
    if size:
        images.blank(len(source), *size, channels)  # refused before hours are spent on decoding
    pixels, labels, ids = [], [], []
    for start in range(0, len(source), _READ_AT_ONCE):
        numbers = list(range(start, min(start + _READ_AT_ONCE, len(source))))
        for number, example in zip(numbers, source.__getitems__(numbers), strict=True):
            if example["label"] in position:
                name = record_index.name_of(example, split, number)
                try:
                    pixels.append(images.decode(example["image"], channels=channels, size=size, as_stored=True))
                except ValueError as error:
                    unread.append(f"{name} ({error})")
                    continue
                labels.append(position[example["label"]])
                ids.append(name)
    return pixels, labels, ids
