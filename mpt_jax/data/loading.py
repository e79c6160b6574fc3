"""From the section `dataset` of a config to a `Dataset`: read, remove faulty examples, draw the subsets."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mpt_jax.data import classes, findings, relabelling, subsets, tfds_source
from mpt_jax.data.dataset_config import DatasetConfig
from mpt_jax.data.feeding.stream import Files, Stream
from mpt_jax.data.findings import Finding
from mpt_jax.data.own import arrays, folder, listing, table
from mpt_jax.data.splits import Dataset, Parts, Source, Split, pick
from mpt_jax.errors import InputError, listed
from mpt_jax.files import class_changes


def load(
    settings: DatasetConfig,
    *,
    num_classes: int,
    becomes: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Dataset:
    """Read a data set and split it into training, validation and test examples.

    Faults are reported here, before any training: unreadable images, labels outside the classes, duplicate ids, and
    images in both train and test, or with several labels (identical pixels). Streamed images are not decoded here, so
    only their headers (image files) or their labels and ids (TFDS) are checked.

    Validation images are those of the validation part, if your images have one. Else they are drawn from each class of
    train, never from test. Which ones depends only on the seed and the class, not on the class order or the number of
    classes.

    Args:
      settings: what to read. `settings.name` decides how:

        - "folder": `mpt_jax.data.own.folder.list_folder`;
        - a .csv or .parquet file: `mpt_jax.data.own.table.list_table`;
        - an .npz or .py file: `mpt_jax.data.own.arrays.read`;
        - any other name: `mpt_jax.data.tfds_source`. "digits" and "photos" prepare themselves.

        `mean`, `std`, `crop_padding` and `flip` have no effect here.
      num_classes: number of classes to read, from the start of the class order.
      becomes: what each class of an older release is called now, see `relabelling.relabelled`; None: all stay.
      seed: seed of the validation, `train_per_class` and `imbalance` subsets.

    Raises:
      InputError: an unknown data set, a folder that is missing or cannot be written, a data set that is not prepared
        and cannot be, features, splits or image sizes that do not fit, more classes or images requested than exist,
        faulty examples, or class names that print alike.
    """
    source = _open(settings)
    changes = class_changes.read_label_changes(settings.label_changes) if settings.label_changes else None
    if becomes is not None:
        source = relabelling.relabelled(source, becomes, settings.name, changes)
    if changes:
        source = relabelling.corrected(source, changes, becomes or {}, settings.name)
    similar = findings.similar_names(f"data set {settings.name}", source.class_names)
    order = _class_order(settings, source.class_names, num_classes)
    class_names = tuple(source.class_names[index] for index in order)
    parts = source.read(order)
    usable, found = _without_faults(parts, settings, published=source.published)
    given = usable.validation
    try:
        num_validation = settings.validation_per_class if given is None else 0
        train, drawn = _draw(usable.train, num_validation, settings, order, class_names, seed)
        validation = drawn if given is None else _with_every_class(given, class_names)
    except InputError as error:  # the skipped images may be the reason
        skipped = [str(finding) for finding in found if finding.outcome == "skipped"]
        raise InputError("; ".join([str(error), *skipped])) from error
    return Dataset(
        name=settings.name,
        class_names=class_names,
        train=train,
        validation=validation,
        test=parts.test,
        corrected=parts.corrected,
        findings=(*similar, *found, *findings.unusual_classes(class_names, train.labels, parts.test.labels)),
    )


def _open(settings: DatasetConfig) -> Source:
    if settings.is_listed:
        return _open_files(settings)
    if pathlib.PurePath(settings.name).suffix in (".npz", ".py"):
        return arrays.open_source(settings)
    return tfds_source.open_source(settings)


def _open_files(settings: DatasetConfig) -> Source:
    root = pathlib.Path(settings.data_dir).expanduser()
    if settings.name == "folder":
        if not settings.data_dir:
            raise InputError("dataset.name=folder without dataset.data_dir; expected a folder with train/CLASS/IMAGE")
        found = folder.list_folder(root, policy=settings.on_bad_image, links=settings.follow_links)
    else:
        path = (root / settings.name).expanduser()
        found = table.list_table(path, root if settings.data_dir else None, links=settings.follow_links)
    return Source(found.class_names, lambda order: listing.read(found, order, settings))


def _class_order(settings: DatasetConfig, names: Sequence[str], num_classes: int) -> tuple[int, ...]:
    order = classes.class_order(settings.class_order, names)
    if not 1 <= num_classes <= len(order):
        raise InputError(
            f"update.schedule needs {num_classes} classes, but {settings.name} has {len(order)} in its class order "
            f"(dataset.class_order); expected 1 to {len(order)}"
        )
    return order[:num_classes]


def _without_faults(parts: Parts, settings: DatasetConfig, *, published: bool) -> tuple[Parts, tuple[Finding, ...]]:
    """Return the parts without copies of images of later parts or of other classes, and the findings."""
    found, faults = parts.findings, dict(parts.faults)

    def reject(part: str, rows: np.ndarray, what: str) -> None:
        nonlocal found
        examples = kept[part]
        ids = examples.ids[rows].tolist()
        if not ids:
            return
        if published and settings.on_bad_image == "error":
            found = (*found, Finding(what, tuple(ids), "kept as published"))
        else:
            faults[what] = ids
            kept[part] = pick(examples, np.setdiff1d(np.arange(len(examples)), rows))

    named = {"training": parts.train, "validation": parts.validation, "test": parts.test}
    kept = {part: examples for part, examples in named.items() if examples is not None}
    for part, other in (("training", "test"), ("validation", "test"), ("training", "validation")):
        if part not in kept or other not in kept:
            continue
        copies = _copies(kept[part].images, kept[other].images)
        reject(part, copies, f"{part} images that are also in {other}")
    reject("training", _contradictory(kept["training"]), "training images with several labels")
    found = (*found, *findings.resolve(f"data set {settings.name}", faults, settings.on_bad_image))
    return dataclasses.replace(parts, train=kept["training"], validation=kept.get("validation")), found


def _copies(train: np.ndarray | Stream, test: np.ndarray | Stream) -> np.ndarray:
    """Return the rows of `train` that are also in `test`; none for TFDS records, which would all have to be read."""
    if not isinstance(train, Stream) or not isinstance(test, Stream):
        return findings.shared_rows(np.asarray(train), np.asarray(test))
    if not isinstance(train.encoded, Files) or not isinstance(test.encoded, Files):
        return np.zeros(0, np.int64)
    return findings.shared_files(train.encoded.read(train.records.tolist()), test.encoded.read(test.records.tolist()))


def _contradictory(train: Split) -> np.ndarray:
    """Return the rows of images that occur with several labels; none for TFDS records, as in `_copies`."""
    if not isinstance(train.images, Stream):
        return findings.contradictory_rows(np.asarray(train.images), train.labels)
    if not isinstance(train.images.encoded, Files):
        return np.zeros(0, np.int64)
    return findings.contradictory_files(train.images.encoded.read(train.images.records.tolist()), train.labels)


def _draw(
    train: Split,
    num_validation: int,
    settings: DatasetConfig,
    order: Sequence[int],
    class_names: Sequence[str],
    seed: int,
) -> tuple[Split, Split]:
    """Draw the training examples, and `num_validation` validation examples of each class."""
    rows_of = subsets.by_class(train.labels, range(len(order)))
    _check_counts([len(rows) for rows in rows_of], num_validation, class_names)
    drawn = [subsets.shuffled(rows, index, seed=seed) for rows, index in zip(rows_of, order, strict=True)]
    validation = [rows[:num_validation] for rows in drawn]
    kept = [rows[num_validation:][: settings.train_per_class or None] for rows in drawn]
    if settings.imbalance > 1:
        available = [len(rows) for rows in kept]
        kept = subsets.first(kept, subsets.long_tail_counts(available, settings.imbalance))
        if not len(kept[-1]):
            raise InputError(
                f"dataset.imbalance={settings.imbalance:g} leaves no training images of class {class_names[-1]!r}; "
                f"expected at most {max(available)}, the number of images of the largest class"
            )
    return _pick_all(train, kept), _pick_all(train, validation)


def _pick_all(split: Split, rows_of: Sequence[np.ndarray]) -> Split:
    return pick(split, np.sort(np.concatenate(rows_of)))


def _with_every_class(validation: Split, class_names: Sequence[str]) -> Split:
    counts = np.bincount(validation.labels, minlength=len(class_names))
    if missing := [class_names[label] for label in np.flatnonzero(counts == 0).tolist()]:
        raise InputError(
            f"the validation part has no images of {len(missing)} classes: {listed(missing)}; expected at least one "
            "image of each class there, or no validation part (dataset.validation_per_class then takes images of train)"
        )
    return validation


def _check_counts(counts: Sequence[int], num_validation: int, class_names: Sequence[str]) -> None:
    short = [label for label, count in enumerate(counts) if count <= num_validation]
    if not short:
        return
    others = ", ".join(repr(class_names[label]) for label in short[1:6]) + (" ..." if len(short) > 6 else "")
    raise InputError(
        f"class {class_names[short[0]]!r} has {counts[short[0]] or 'no'} training image{'s' * (counts[short[0]] != 1)}"
        + (f" (and {len(short) - 1} more classes have too few: {others})" if others else "")
        + f"; expected more than dataset.validation_per_class={num_validation} in each class"
        + ("; lower that number, or add images" if num_validation else "")
    )
