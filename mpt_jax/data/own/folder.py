"""One's own image files: a folder `train/CLASS/IMAGE`, or a table (.csv or .parquet) that lists them."""

import collections
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mpt_jax.data import findings, images
from mpt_jax.data.feeding.stream import IN_MEMORY, Choice, Files, Stream
from mpt_jax.data.findings import Finding
from mpt_jax.data.splits import Split, pick
from mpt_jax.errors import InputError

COLUMNS = ("path", "label", "split", "id")
PARTS = ("train", "test")

_MOST_ROWS = 100_000_000  # of a table: a few bytes of Parquet can claim any number of equal rows
_LONGEST_ID = 1000  # characters; an array of text has room for the longest in every row


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """Images not read yet: class names in their natural order, and per image its file, label, id and part."""

    source: str  # the folder or table, for messages
    class_names: list[str]
    files: list[pathlib.Path]
    labels: np.ndarray  # int [N], positions in class_names
    ids: np.ndarray  # str [N], no two alike
    tested: np.ndarray | None  # bool [N], whether of the test part; None: the source names no test part
    faults: dict[str, list[str]]  # what is wrong -> the images that were left out of this listing
    findings: tuple[Finding, ...] = ()


def list_folder(root: pathlib.Path) -> Listing:
    """The images of ``train/CLASS/**`` and, where there is that folder, ``test/CLASS/**``.

    An id is the path from `root`; classes are sorted by name, as numbers where all of them are. Names that begin with
    a dot are passed over; other files than `mpt_jax.data.images.SUFFIXES` too, but these are named in the findings.

    Raises:
      InputError: no such folder, no folder train in it, no classes, a link to a folder or to a file outside of `root`.
    """
    if not root.is_dir():
        raise InputError(f"dataset.data_dir={root} is not a folder; expected one with train/CLASS/IMAGE")
    if not (root / "train").is_dir():
        raise InputError(f"{root} has no folder train; expected train/CLASS/IMAGE and, if you like, test/CLASS/IMAGE")
    parts = [part for part in PARTS if (root / part).is_dir()]
    for part in parts:
        _refuse_link(root / part)
    class_folders = {part: [f for f in _entries(root / part) if f.is_dir()] for part in parts}
    names = _in_natural_order({folder.name for folder in class_folders["train"]})
    if not names:
        raise InputError(f"{root / 'train'} holds no folders; expected one folder of images per class")
    real, position = os.path.realpath(root), {name: label for label, name in enumerate(names)}
    files, labels, tested, strangers = [], [], [], []
    ignored = [_below(root, path) for path in _entries(root) if path.name not in parts]
    for part, folders in class_folders.items():
        ignored += [_below(root, path) for path in _entries(root / part) if not path.is_dir()]
        for folder in folders:
            found = list(_walk(folder, root, real))
            chosen = [path for path in found if path.suffix.lower() in images.SUFFIXES]
            ignored += [_below(root, path) for path in found if path.suffix.lower() not in images.SUFFIXES]
            if folder.name not in position:
                strangers += [_below(root, path) for path in chosen]
                continue
            files += chosen
            labels += [position[folder.name]] * len(chosen)
            tested += [part == "test"] * len(chosen)
    return _listing(
        str(root),
        names,
        [(path, _below(root, path), label, test) for path, label, test in zip(files, labels, tested, strict=True)],
        has_test="test" in parts,
        faults={"test images of classes that train has not": strangers},
        ignored=ignored,
    )


def list_table(path: pathlib.Path, root: pathlib.Path | None = None) -> Listing:
    """The images that a .csv or .parquet file lists, a row each.

    Its columns, others are not read:

      ``path``   of the image, from `root`
      ``label``  name of its class; classes are sorted as those of a folder
      ``split``  "train" or "test"; left out: all are "train"
      ``id``     text or integer, no two alike; left out: the path

    Args:
      root: the folder that every path starts from and stays in; None: the folder of the table.

    Raises:
      InputError: no such file, not a table, columns missing or of another type, another split, a path that leaves
        `root`, no classes.
    """
    if not path.is_file():
        raise InputError(f"no file {path}; expected a table with the columns {', '.join(COLUMNS)} (the last may lack)")
    root = path.parent if root is None else root
    if not root.is_dir():
        raise InputError(f"dataset.data_dir={root} is not a folder; expected the one that the paths of {path} start in")
    columns = _read_table(path)
    names_of_files, labels = columns["path"], columns["label"]
    splits = columns.get("split", ["train"] * len(labels))
    ids = columns.get("id", names_of_files)
    unknown = sorted({str(value) for value in splits} - set(PARTS))
    if unknown:
        raise InputError(
            f"{path}: column split has {', '.join(map(repr, unknown[:5]))}; expected train or test "
            "(dataset.validation_per_class cuts a validation part from train)"
        )
    _refuse_escapes(path, root, [name for name in names_of_files if name])
    faults: dict[str, list[str]] = collections.defaultdict(list)
    classes = _in_natural_order(
        {label for label, split in zip(labels, splits, strict=True) if label and split == "train"}
    )
    if not classes:
        raise InputError(f"{path} lists no images to train on; expected rows with the split train and a label")
    position, rows = {name: label for label, name in enumerate(classes)}, []
    for number, (name, label, split, example_id) in enumerate(zip(names_of_files, labels, splits, ids, strict=True)):
        if not (name and label and example_id):
            faults["rows without path, label or id"].append(f"row {number}")
        elif label not in position:
            faults["test images of classes that train has not"].append(f"{example_id} ({label})")
        else:
            rows.append((root / name, example_id, position[label], split == "test"))
    return _listing(str(path), classes, rows, has_test="test" in splits, faults=faults)


def read(
    listing: Listing,
    order: Sequence[int],
    *,
    size: Sequence[int] | None,
    channels: int,
    test_fraction: float,
    choice: Choice = IN_MEMORY,
) -> tuple[Split, Split, dict[str, list[str]], tuple[Finding, ...]]:
    """Training and test images of the classes in `order`, what is wrong with others, and what else was found.

    Where the listing names no test part, `held_out` makes one. Images that cannot be read are left out; of those that
    are streamed, as `choice` says, nothing but the header is looked at.

    Raises:
      InputError: no images of these classes, a class of one image where a test part is to be held out.
    """
    position = np.full(len(listing.class_names), -1, np.int32)
    position[list(order)] = np.arange(len(order))
    labels = position[listing.labels]
    rows, found = np.flatnonzero(labels >= 0), listing.findings
    if listing.tested is None:
        tested = np.zeros(len(labels), bool)
        _refuse_single_images(listing, order)
        tested[rows] = held_out([digest(listing.files[row]) for row in rows], labels[rows], test_fraction)
        what = f"training images of {listing.source}, which has no test part (dataset.test_fraction={test_fraction:g})"
        found = (*found, Finding(what, tuple(listing.ids[np.flatnonzero(tested)].tolist()), "held out as test"))
    else:
        tested = listing.tested
    for part, chosen in (("train", ~tested[rows]), ("test", tested[rows])):
        if not chosen.any():
            raise InputError(f"{listing.source} has no {part} images of the chosen classes")
    rows = rows[np.lexsort((listing.ids[rows], labels[rows], tested[rows]))]
    files = [listing.files[row] for row in rows]
    if choice.streams(len(files), size and (*size, channels)):
        (height, width), reasons = images.look_at(files, size)
        shape = (height, width, channels)
        pixels = Stream(
            Files(files), np.arange(len(files)), shape, augmentation=choice.augmentation, workers=choice.workers
        )
    else:
        pixels, reasons = images.read_files(files, channels=channels, size=size)
    unread = [f"{listing.ids[rows[i]]} ({reason})" for i, reason in reasons.items()]
    whole = Split(pixels, labels[rows], listing.ids[rows])  # train and then test, so that each is a view
    good = np.setdiff1d(np.arange(len(rows)), list(reasons))
    num_train = int(np.searchsorted(tested[rows[good]], True))
    return (
        pick(whole, good[:num_train]),
        pick(whole, good[num_train:]),
        {**listing.faults, "images that cannot be read": unread},
        found,
    )


def find_images(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Every image of a folder and of the folders in it, in order of the id: its path from `root`.

    Raises:
      InputError: no such folder, a link to a folder or to a file outside of it, a name that is no text.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; expected one of images")
    real = pathlib.Path(os.path.realpath(root))
    found = {
        _below(real, path): path for path in _walk(real, real, str(real)) if path.suffix.lower() in images.SUFFIXES
    }
    if bad := [name for name in found if not _is_text(name)]:
        raise InputError(f"{root} has {len(bad)} images whose name is no text, such as {bad[0]!r}; rename them")
    return dict(sorted(found.items()))


def read_rows(path: pathlib.Path) -> tuple[dict[str, pathlib.Path], list[str | None] | None]:
    """The images that a .csv or .parquet file lists, by id and in its order, and their labels if it has that column.

    Its columns are those of `list_table`, of which only ``path`` has to be there; ``split`` is not read.

    Raises:
      InputError: no such file, not a table, no path or id in a row, an id given twice, a path that leaves the folder.
    """
    if not path.is_file():
        raise InputError(f"no file {path}; expected a table with a column path")
    columns = _read_table(path, needed=("path",))
    names, ids = columns["path"], columns.get("id", columns["path"])
    missing = [row for row, pair in enumerate(zip(names, ids, strict=True)) if not all(pair)]
    if missing:
        raise InputError(f"{path} has {len(missing)} rows without path or id, such as row {missing[0]}")
    _refuse_escapes(path, path.parent, names)
    if again := findings.twice(ids):
        raise InputError(f"{path} has {len(again)} ids that stand further up already, such as {ids[again[0]][:200]!r}")
    return {i: path.parent / name for i, name in zip(ids, names, strict=True)}, columns.get("label")


def held_out(digests: Sequence[bytes], labels: np.ndarray, fraction: float) -> np.ndarray:
    """Which images are for testing, bool ``[N]``: those whose digest, as a number in [0, 1), is below the fraction.

    So an image's part depends on its content alone, and stays the same when images or classes are added later: what an
    old model was trained on does not become a test of the new one. The exception are classes of a few images: one of
    which none is below gives the image with the smallest digest to the test, one of which all are takes that with the
    largest back, copies included.

    Examples:
      >>> digests = [bytes([value]) * 32 for value in (10, 200, 120, 130)]
      >>> held_out(digests, np.array([0, 0, 1, 1]), 0.2).tolist()
      [True, False, True, False]
    """
    numbers = np.array([int.from_bytes(digest[:8], "big") for digest in digests], np.uint64)
    tested = numbers < np.uint64(int(fraction * 2**64))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        smallest, largest = numbers[members].min(), numbers[members].max()
        if smallest < largest:
            tested[members[numbers[members] == smallest]] = True
            tested[members[numbers[members] == largest]] = False
        else:
            tested[members] = False  # copies of one image: something must be left to learn from
    return tested


def digest(file: pathlib.Path) -> bytes:
    """SHA-256 of a file; of its name where it cannot be read, which is said when it is decoded."""
    try:
        if file.is_file():
            with file.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        pass
    return hashlib.sha256(os.fsencode(file)).digest()


def _listing(
    source: str,
    names: list[str],
    rows: list[tuple[pathlib.Path, str, int, bool]],
    *,
    has_test: bool,
    faults: Mapping[str, list[str]],
    ignored: Sequence[str] = (),
) -> Listing:
    """Rows of (file, id, label, whether test) without those whose id cannot be one."""
    faults, ids = dict(faults), [example_id for _, example_id, _, _ in rows]
    again = findings.twice(ids)
    unfit = [i for i, example_id in enumerate(ids) if len(example_id) > _LONGEST_ID or not _is_text(example_id)]
    faults["ids that stand further up already"] = [ids[i] for i in again]
    faults[f"ids that are no text or longer than {_LONGEST_ID} characters"] = [ids[i] for i in unfit]
    if bad := [name for name in names if not _is_text(name) or len(name) > _LONGEST_ID]:
        raise InputError(f"{source} has a class {bad[0][:100]!r}, which is no name; expected text, not too long")
    out = {*again, *unfit}
    rows = [row for i, row in enumerate(rows) if i not in out]
    return Listing(
        source=source,
        class_names=names,
        files=[file for file, _, _, _ in rows],
        labels=np.array([label for _, _, label, _ in rows], np.int64),
        ids=np.array([example_id for _, example_id, _, _ in rows], str),
        tested=np.array([test for _, _, _, test in rows], bool) if has_test else None,
        faults=faults,
        findings=(Finding("files and folders that are no images", tuple(ignored), "ignored"),) if ignored else (),
    )


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _walk(folder: pathlib.Path, root: pathlib.Path, real: str) -> Iterator[pathlib.Path]:
    """All entries below that are not folders; a link may not lead out of `root`, nor to a folder."""
    _refuse_link(folder)
    folders = [folder]
    while folders:
        for path in _entries(folders.pop()):
            if path.is_dir():
                _refuse_link(path)
                folders.append(path)
                continue
            if path.is_symlink() and not _is_inside(os.path.realpath(path), real):
                raise InputError(f"{path} is a link that leads out of {root}; copy the file there")
            yield path


def _refuse_link(folder: pathlib.Path) -> None:
    if folder.is_symlink():
        raise InputError(f"{folder} is a link to a folder; expected the folder itself (dataset.data_dir may be a link)")


def _refuse_escapes(table: pathlib.Path, root: pathlib.Path, names: Sequence[str]) -> None:
    start, real, real_folder = str(root), os.path.realpath(root), functools.cache(os.path.realpath)

    def leaves(name: str) -> bool:
        up = ".." in name.replace("\\", "/").split("/")
        if up or "\0" in name or os.path.isabs(name) or os.path.splitdrive(name)[0]:
            return True
        path = os.path.join(start, name)
        return not _is_inside(
            os.path.realpath(path) if os.path.islink(path) else real_folder(os.path.dirname(path)), real
        )

    outside = [name for name in names if leaves(name)]
    if outside:
        raise InputError(f"{table} lists {len(outside)} paths that leave {root}, such as {outside[0][:200]!r}")


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _read_table(path: pathlib.Path, needed: Sequence[str] = ("path", "label")) -> dict[str, list[str | None]]:
    import pyarrow as pa  # half a second that other data sets do without
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix == ".csv":
            as_text = {name: pa.string() for name in COLUMNS}
            table = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=as_text))
        else:
            with pyarrow.parquet.ParquetFile(path) as file:
                if file.metadata.num_rows > _MOST_ROWS:
                    raise InputError(f"{path} has {file.metadata.num_rows} rows; expected at most {_MOST_ROWS}")
                table = file.read([name for name in COLUMNS if name in file.schema_arrow.names])
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read as {path.suffix[1:]} ({reason})") from error
    found = collections.Counter(table.column_names)
    for name in needed:
        if name not in found:
            raise InputError(f"{path} has no column {name}; it has {', '.join(found)}, expected {', '.join(COLUMNS)}")
    columns = {}
    for name in COLUMNS:
        if found[name] > 1:
            raise InputError(f"{path} has {found[name]} columns {name}; expected one")
        if found[name]:
            columns[name] = _as_text(path, name, table.column(name))
    return columns


def _as_text(path: pathlib.Path, name: str, column) -> list[str | None]:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise InputError(f"{path}: column {name} holds {kind}; expected text or integers")
    try:
        return column.cast(kind).cast(pa.large_string()).to_pylist()
    except (pa.ArrowException, ValueError) as error:  # bytes that are no UTF-8
        raise InputError(f"{path}: column {name} cannot be read as text ({' '.join(str(error).split())})") from error


def _in_natural_order(names: set[str]) -> list[str]:
    """Sorted as text; as numbers where all are, so that 10 comes after 9."""
    numbers = all(name.isdecimal() and name.isascii() for name in names)
    digits = {name: name.lstrip("0") if numbers else "" for name in names}
    return sorted(names, key=lambda name: (len(digits[name]), digits[name], name))


def _refuse_single_images(listing: Listing, order: Sequence[int]) -> None:
    counts = np.bincount(listing.labels, minlength=len(listing.class_names))
    single = [listing.class_names[index] for index in order if counts[index] < 2]
    if single:
        raise InputError(
            f"{listing.source} has no test part, and {len(single)} classes with less than two images to hold one out: "
            f"{', '.join(single[:5])}{' ...' if len(single) > 5 else ''}; give them more, or add test images"
        )


def _below(root: pathlib.Path, path: pathlib.Path) -> str:
    return path.relative_to(root).as_posix()


def _is_text(name: str) -> bool:
    """Whether it can be written: names of files that are no UTF-8 come with surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
