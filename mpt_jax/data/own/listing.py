"""Image files with labels, listed by a folder or a table, and read from there."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mpt_jax.data import classes, findings, images
from mpt_jax.data.dataset_config import DatasetConfig
from mpt_jax.data.feeding.stream import Files, Stream, must_stream
from mpt_jax.data.findings import Finding
from mpt_jax.data.own import holdout
from mpt_jax.data.own.paths import is_text
from mpt_jax.data.splits import Parts, Split, pick
from mpt_jax.errors import InputError

PARTS = ("train", "test")

_MAX_ID_LENGTH = 1000  # characters; a numpy text array reserves the longest length for every row


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """Images that have not been read: class names in natural order, and the file, label, id and part of each image."""

    source: str  # folder or table, for messages
    class_names: list[str]
    files: list[pathlib.Path]
    labels: np.ndarray  # int [N], positions in class_names
    ids: np.ndarray  # str [N], unique
    in_test: np.ndarray | None  # bool [N]; None: the source has no test part
    faults: dict[str, list[str]]  # kind of fault -> images that are not in this listing because of it
    findings: tuple[Finding, ...] = ()


def make(
    source: str,
    names: list[str],
    rows: Sequence[tuple[pathlib.Path, str, int, bool]],
    *,
    has_test: bool,
    faults: Mapping[str, list[str]],
    ignored: Sequence[str] = (),
) -> Listing:
    """Return a listing of the rows whose id is valid and unique.

    Args:
      names: class names.
      rows: file, id, label and whether it is a test image, of each image.
      has_test: whether the source has a test part.
      faults: kind of fault -> images that are not in `rows`.
      ignored: files and folders that are not images.

    Raises:
      InputError: an invalid class name.
    """
    ids = [example_id for _, example_id, _, _ in rows]
    repeated = findings.duplicates(ids)
    invalid = [row for row, example_id in enumerate(ids) if not _is_valid(example_id)]
    if bad := [name for name in names if not _is_valid(name)]:
        raise InputError(
            f"{source} has a class named {bad[0][:100]!r}; expected UTF-8 text of at most {_MAX_ID_LENGTH} characters"
        )
    faulty = {*repeated, *invalid}
    rows = [row for number, row in enumerate(rows) if number not in faulty]
    return Listing(
        source=source,
        class_names=names,
        files=[file for file, _, _, _ in rows],
        labels=np.array([label for _, _, label, _ in rows], np.int64),
        ids=np.array([example_id for _, example_id, _, _ in rows], str),
        in_test=np.array([test for _, _, _, test in rows], bool) if has_test else None,
        faults={
            **faults,
            "duplicate ids": [ids[row] for row in repeated],
            f"ids that are not UTF-8 or longer than {_MAX_ID_LENGTH} characters": [ids[row] for row in invalid],
        },
        findings=(Finding("files and folders that are not images", tuple(ignored), "ignored"),) if ignored else (),
    )


def read(listing: Listing, order: Sequence[int], settings: DatasetConfig) -> Parts:
    """Read the images of the classes in `order`, or open them as a stream.

    If the listing has no test part, `holdout.held_out` makes one. Images that cannot be read become faults; of streamed
    images only the header is checked.

    Raises:
      InputError: no images of these classes, or a class of one image when a test part has to be made.
    """
    labels = classes.positions(order, len(listing.class_names))[listing.labels]
    rows, found = np.flatnonzero(labels >= 0), listing.findings
    in_test = listing.in_test
    if in_test is None:
        in_test, finding = _hold_out(listing, order, labels, settings.test_fraction)
        found = (*found, finding)
    for part, chosen in (("train", ~in_test[rows]), ("test", in_test[rows])):
        if not chosen.any():
            raise InputError(f"{listing.source} has no {part} images of the chosen classes; expected at least one")
    rows = rows[np.lexsort((listing.ids[rows], labels[rows], in_test[rows]))]
    pixels, reasons = _pixels([listing.files[row] for row in rows], settings)
    unreadable = [f"{listing.ids[rows[i]]} ({reason})" for i, reason in reasons.items()]
    both = Split(pixels, labels[rows], listing.ids[rows])  # training, then test images, so that each part is a view
    good = np.setdiff1d(np.arange(len(rows)), list(reasons))
    num_train = int(np.searchsorted(in_test[rows[good]], True))
    return Parts(
        pick(both, good[:num_train]),
        pick(both, good[num_train:]),
        {**listing.faults, "images that cannot be read": unreadable},
        found,
    )


def natural_order(names: set[str]) -> list[str]:
    """Sort names as text, or as numbers if all are numbers.

    Examples:
      >>> natural_order({"10", "9"}), natural_order({"10", "9", "cat"})
      (['9', '10'], ['10', '9', 'cat'])
    """
    numbers = all(name.isdecimal() and name.isascii() for name in names)
    digits = {name: name.lstrip("0") if numbers else "" for name in names}
    return sorted(names, key=lambda name: (len(digits[name]), digits[name], name))


def _pixels(files: list[pathlib.Path], settings: DatasetConfig) -> tuple[np.ndarray | Stream, dict[int, str]]:
    """Return the images, and why some cannot be read, by row."""
    size, channels = settings.size, settings.channels or 3
    if not must_stream(settings, len(files), size and (*size, channels)):
        return images.read_files(files, channels=channels, size=size)
    size, reasons = images.read_sizes(files, size)
    stream = Stream(
        *(Files(files), np.arange(len(files)), (*size, channels)),
        augmentation=settings.augmentation,
        workers=settings.workers,
    )
    return stream, reasons


def _hold_out(
    listing: Listing, order: Sequence[int], labels: np.ndarray, fraction: float
) -> tuple[np.ndarray, Finding]:
    """Return which images are held out, bool ``[N]``, and the finding that lists them; `labels` are -1 if unused."""
    counts = np.bincount(listing.labels, minlength=len(listing.class_names))
    if single := [listing.class_names[index] for index in order if counts[index] < 2]:
        raise InputError(
            f"{listing.source} has no test part, and {len(single)} of its classes have only one image: "
            f"{', '.join(single[:5])}{' ...' if len(single) > 5 else ''}; expected 2 or more, or a test part"
        )
    rows = np.flatnonzero(labels >= 0)
    in_test = np.zeros(len(labels), bool)
    digests = [holdout.digest(listing.files[row]) for row in rows]
    in_test[rows] = holdout.held_out(digests, labels[rows], fraction)
    what = f"images of {listing.source}, which has no test part (dataset.test_fraction={fraction:g})"
    return in_test, Finding(what, tuple(listing.ids[in_test].tolist()), "held out for testing")


def _is_valid(name: str) -> bool:
    return is_text(name) and len(name) <= _MAX_ID_LENGTH
