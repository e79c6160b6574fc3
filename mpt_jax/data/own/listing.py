"""Image files with labels, listed by a folder or a table, and read from there."""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mpt_jax.data import classes, findings, images
from mpt_jax.data.dataset_config import DatasetConfig
from mpt_jax.data.feeding.stream import Files, Stream, must_stream
from mpt_jax.data.findings import Finding
from mpt_jax.data.own import holdout
from mpt_jax.data.own.paths import is_text
from mpt_jax.data.splits import PARTS, Parts, Split, pick
from mpt_jax.errors import InputError

HELD_OUT = ("val", "valid", "validation", "dev")
"""Names of a held-out part: the validation part where there is a test part, else the test part."""

_USED_AS = {
    "validation": "used for validation, whatever dataset.validation_per_class is",
    "test": "used as the test part, because there is no part test",
}
_MAX_ID_LENGTH = 1000  # characters; a numpy text array reserves the longest length for every row


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """Images that have not been read: class names in natural order, and the file, label, id and part of each image."""

    source: str  # folder or table, for messages
    class_names: list[str]
    files: list[pathlib.Path]
    labels: np.ndarray  # int [N], positions in class_names
    ids: np.ndarray  # str [N], unique
    part: np.ndarray  # int [N], positions in `mpt_jax.data.splits.PARTS`
    roles: Mapping[str, str]  # name of a part in the source -> one of PARTS
    faults: dict[str, list[str]]  # kind of fault -> images that are not in this listing because of it
    findings: tuple[Finding, ...] = ()


def roles(source: str, names: Collection[str]) -> dict[str, str]:
    """Return which of "train", "validation" and "test" each part of a source is; other names are left out.

    Raises:
      InputError: two names of `HELD_OUT`.

    Examples:
      >>> roles("pets", ["train", "val", "more"]), roles("pets", ["train", "dev", "test"])
      ({'train': 'train', 'val': 'test'}, {'train': 'train', 'test': 'test', 'dev': 'validation'})
    """
    held_out = [name for name in HELD_OUT if name in names]
    if len(held_out) > 1:
        raise InputError(f"{source} has the parts {' and '.join(held_out)}; expected one of them: merge or remove one")
    role = "validation" if "test" in names else "test"
    return {name: name for name in ("train", "test") if name in names} | dict.fromkeys(held_out, role)


def make(
    source: str,
    names: list[str],
    rows: Sequence[tuple[pathlib.Path, str, int, str]],
    *,
    roles: Mapping[str, str],
    faults: Mapping[str, list[str]],
    reported: Sequence[Finding] = (),
) -> Listing:
    """Return a listing of the rows whose id is valid and unique.

    Args:
      names: class names.
      rows: file, id, label and name of the part of each image.
      roles: what each part is, from the function `roles`.
      faults: kind of fault -> images that are not in `rows`.
      reported: what else is to be reported.

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
        part=np.array([PARTS.index(roles[name]) for _, _, _, name in rows], np.int64),
        roles=roles,
        faults={
            **faults,
            "duplicate ids": [ids[row] for row in repeated],
            f"ids that are not UTF-8 or longer than {_MAX_ID_LENGTH} characters": [ids[row] for row in invalid],
        },
        findings=tuple(reported),
    )


def read(listing: Listing, order: Sequence[int], settings: DatasetConfig) -> Parts:
    """Read the images of the classes in `order`, or open them as a stream.

    If the listing has no test part, `holdout.held_out` makes one. Images that cannot be read become faults; of streamed
    images only the header is checked.

    Raises:
      InputError: no images of these classes, or a class of one image when a test part has to be made.
    """
    labels = classes.positions(order, len(listing.class_names))[listing.labels]
    rows, found, part = np.flatnonzero(labels >= 0), listing.findings, listing.part
    if "test" not in listing.roles.values():
        in_test, finding = _hold_out(listing, order, labels, settings.test_fraction)
        found, part = (*found, finding), np.where(in_test, PARTS.index("test"), part)
    for name in dict.fromkeys([*listing.roles.values(), "test"]):
        if not np.any(part[rows] == PARTS.index(name)):
            raise InputError(f"{listing.source} has no {name} images of the chosen classes; expected at least one")
    rows = rows[np.lexsort((listing.ids[rows], labels[rows], part[rows]))]
    for name, role in listing.roles.items():
        if name != role or role == "validation":
            ids = listing.ids[rows[part[rows] == PARTS.index(role)]]
            found = (*found, Finding(f"images of the part {name}", tuple(ids.tolist()), _USED_AS[role]))
    pixels, reasons = _pixels([listing.files[row] for row in rows], settings)
    unreadable = [f"{listing.ids[rows[i]]} ({reason})" for i, reason in reasons.items()]
    whole = Split(pixels, labels[rows], listing.ids[rows])  # part by part, so that each is a view
    good = np.setdiff1d(np.arange(len(rows)), list(reasons))
    train, validation, test = np.split(good, np.searchsorted(part[rows[good]], (1, 2)))
    return Parts(
        pick(whole, train),
        pick(whole, test),
        {**listing.faults, "images that cannot be read": unreadable},
        found,
        pick(whole, validation) if "validation" in listing.roles.values() else None,
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
        return images.read_files(files, channels=channels, size=size, resizing=settings.resizing)
    size, reasons = images.read_sizes(files, size)
    stream = Stream(
        *(Files(files), np.arange(len(files)), (*size, channels)),
        augmentation=settings.augmentation,
        resizing=settings.resizing,
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
