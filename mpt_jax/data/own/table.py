"""Tables of image files: .csv or .parquet, one image per row."""

import collections
import functools
import os
import pathlib
from collections.abc import Sequence

from mpt_jax.data import findings
from mpt_jax.data.findings import Finding
from mpt_jax.data.own import listing
from mpt_jax.data.own.listing import Listing
from mpt_jax.data.own.paths import is_inside
from mpt_jax.errors import InputError, describe

COLUMNS = ("path", "label", "split", "id")

_OTHER_PATH = "file_name"  # what `path` is called in Hugging Face's metadata.csv
_MAX_ROWS = 100_000_000  # a few bytes of Parquet can declare any number of equal rows


def list_table(path: pathlib.Path, root: pathlib.Path | None = None, *, links: str = "error") -> Listing:
    """List the images in a .csv or .parquet file.

    Columns; others are ignored:

      ``path``   path of the image, relative to `root`, or an absolute path inside it; also named ``file_name``
      ``label``  class name; classes are sorted as those of a folder
      ``split``  "train", "test" or one of `mpt_jax.data.own.listing.HELD_OUT`; optional, default: "train" for all
      ``id``     text or integer, unique; optional, default: the path relative to `root`

    Args:
      root: folder that contains all images; default: the folder of the table.
      links: what to do with paths that lead out of `root` by links: "error", "skip" or "follow".

    Raises:
      InputError: no such file, not a table, missing columns or columns of another type, another split, a path outside
        `root`, or no classes.
    """
    if not path.is_file():
        raise InputError(f"no file {path}; expected a table with columns path, label and optionally split, id")
    root = path.parent if root is None else root
    if not root.is_dir():
        raise InputError(f"dataset.data_dir={root} is not a folder; expected the folder of the images in {path}")
    columns = _read(path)
    names, labels = [name and _inside(name, root) for name in columns["path"]], columns["label"]
    splits = [str(value) for value in columns.get("split", ["train"] * len(labels))]
    ids = columns.get("id", names)
    roles = listing.roles(str(path), set(splits))
    roles.setdefault("train", "train")
    if unknown := sorted(set(splits) - set(roles)):
        raise InputError(
            f"{path}: column split has {', '.join(map(repr, unknown[:5]))}; expected train, test or "
            f"{', '.join(listing.HELD_OUT)} (dataset.validation_per_class takes validation images from train)"
        )
    linked = _refuse_outside(path, root, [name for name in names if name], links)
    classes = listing.natural_order(
        {label for label, split in zip(labels, splits, strict=True) if label and split == "train"}
    )
    if not classes:
        raise InputError(f"{path} lists no training images; expected rows with split train and a label")
    faults: dict[str, list[str]] = collections.defaultdict(list)
    label_of, rows = {name: label for label, name in enumerate(classes)}, []
    notes: dict[str, str] = {}
    for number, (name, label, split, example_id) in enumerate(zip(names, labels, splits, ids, strict=True)):
        if not (name and label and example_id):
            faults["rows without path, label or id"].append(f"row {number}")
        elif name in linked:
            continue
        elif label not in label_of:
            notes.setdefault(label, findings.alike(label, classes))
            faults["images of classes that are not in train"].append(f"{example_id} ({label}{notes[label]})")
        else:
            rows.append((root / name, example_id, label_of[label], split))
    reported = [Finding("paths that lead out of the folder by links", tuple(linked), "skipped")] if linked else []
    return listing.make(str(path), classes, rows, roles=roles, faults=faults, reported=reported)


def read_rows(path: pathlib.Path) -> tuple[dict[str, pathlib.Path], list[str | None] | None]:
    """Return the images in a .csv or .parquet file by id, in the order of the rows, and their labels.

    The columns are those of `list_table`. Only the path is required; without ``label``, the labels are None. ``split``
    is ignored.

    Raises:
      InputError: no such file, not a table, a row without path or id, duplicate ids, a path outside the folder.
    """
    if not path.is_file():
        raise InputError(f"no file {path}; expected a table with a column path")
    columns = _read(path, required=("path",))
    paths = [name and _inside(name, path.parent) for name in columns["path"]]
    both = paths, columns.get("id", paths)
    if missing := [row for row, pair in enumerate(zip(*both, strict=True)) if not all(pair)]:
        raise InputError(
            f"{path} has rows without path or id ({len(missing)}), such as row {missing[0]}; expected both in every row"
        )
    names, ids = ([value for value in column if value] for column in both)  # no row is missing
    _refuse_outside(path, path.parent, names)
    if repeated := findings.duplicates(ids):
        raise InputError(
            f"{path} has duplicate ids ({len(repeated)}), such as {ids[repeated[0]][:200]!r}; expected one each"
        )
    return {i: path.parent / name for i, name in zip(ids, names, strict=True)}, columns.get("label")


def _read(path: pathlib.Path, required: Sequence[str] = ("path", "label")) -> dict[str, list[str | None]]:
    import pyarrow as pa  # takes half a second, and other data sets do not need it
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix == ".csv":
            as_text = {name: pa.string() for name in (*COLUMNS, _OTHER_PATH)}
            table = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=as_text))
        else:
            with pyarrow.parquet.ParquetFile(path) as file:
                if file.metadata.num_rows > _MAX_ROWS:
                    raise InputError(f"{path} has {file.metadata.num_rows} rows; expected at most {_MAX_ROWS}")
                known = [name for name in (*COLUMNS, _OTHER_PATH) if name in file.schema_arrow.names]
                table = file.read(known)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix[1:]} ({describe(error)})") from error
    if "path" not in table.column_names:
        table = table.rename_columns(["path" if name == _OTHER_PATH else name for name in table.column_names])
    found = collections.Counter(table.column_names)
    for name in required:
        if name not in found:
            raise InputError(f"{path} has no column {name}; it has {', '.join(found)}; expected {', '.join(COLUMNS)}")
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
        raise InputError(f"{path}: column {name} has type {kind}; expected text or integers")
    try:
        return column.cast(kind).cast(pa.large_string()).to_pylist()
    except (pa.ArrowException, ValueError) as error:  # not UTF-8
        raise InputError(f"{path}: column {name} cannot be read as UTF-8 text ({describe(error)})") from error


def _inside(name: str, root: pathlib.Path) -> str:
    """Return an absolute path below `root` relative to it, and any other path as it is."""
    if not os.path.isabs(name) or "\0" in name:
        return name
    for folder in (os.path.abspath(root), os.path.realpath(root)):
        if is_inside(name, folder):
            return os.path.relpath(name, folder) if ".." not in name.split(os.sep) else name
    return name


def _refuse_outside(
    table: pathlib.Path, root: pathlib.Path, names: Sequence[str], links: str = "error"
) -> dict[str, None]:
    """Refuse paths outside `root`; return those that lead out of it by links, if these are to be skipped."""
    start, real, real_folder = str(root), os.path.realpath(root), functools.cache(os.path.realpath)

    def is_outside(name: str) -> bool:
        up = ".." in name.replace("\\", "/").split("/")
        return up or "\0" in name or os.path.isabs(name) or bool(os.path.splitdrive(name)[0])

    def leads_outside(name: str) -> bool:
        path = os.path.join(start, name)
        return not is_inside(
            os.path.realpath(path) if os.path.islink(path) else real_folder(os.path.dirname(path)), real
        )

    outside = [name for name in names if is_outside(name)]
    linked = [] if outside or links == "follow" else [name for name in names if leads_outside(name)]
    if links == "error":
        outside += linked
    if outside:
        raise InputError(
            f"{table} lists paths outside {root} ({len(outside)}), such as {outside[0][:200]!r}; expected paths inside"
            + (" (in a run, dataset.follow_links=follow or skip for links)" if linked else "")
        )
    return dict.fromkeys(linked)
