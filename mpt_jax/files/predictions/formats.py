"""Readers of predictions: npz, csv, parquet and jsonl files, or arrays in memory, as a stream of columns."""

import contextlib
import json
import os
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet

from mpt_jax.errors import DAMAGED, InputError, listed, one_line, unknown
from mpt_jax.files import npz
from mpt_jax.files.predictions import cells, delimited, json_table, packed
from mpt_jax.files.predictions.packed import File

IDS, LABELS, PREDICTIONS = ("id", "ids"), ("label", "labels"), ("prediction", "predictions")
SCORES = ("scores", "logits", "probabilities")
NAMES = ("class_names", "label_names")
USUAL = {"id": IDS, "label": LABELS, "prediction": PREDICTIONS, "scores": SCORES}
PREFIXES = ("score", "logit", "probability")
SCORE = re.compile(f"(?:{'|'.join(PREFIXES)})_(.+)", re.DOTALL)  # one column per class
ROWS, BYTES = 1 << 14, 1 << 22  # per batch
MOST_TEXT = 1 << 30  # bytes of JSON that are held at once, of a document or a line; a small file may expand to any size

Column: TypeAlias = pa.Array | np.ndarray
Batches = Iterator[dict[str, Column]]


@dataclass(frozen=True)
class Source:
    """Columns of equal length that can be streamed several times; `class_names` are in the order of the scores.

    `batches` takes the names of columns and yields them in pieces, as arrays by name. `label_names` are what an index
    means as a label, if that is not what it means as a prediction.
    """

    name: str
    columns: tuple[str, ...]
    batches: Callable[[Sequence[str]], Batches]
    class_names: tuple[str, ...] | None = None
    label_names: tuple[str, ...] | None = None


def open_source(source: Any, name: str, ids: Sequence[str] = IDS) -> Source:
    """Open a file by its suffix (text may be compressed), a table in memory, or arrays by name.

    Args:
      source: a path, a mapping from column to array, rows as a list of mappings, a table of Arrow or of a package that
        exports to Arrow (pandas, polars), or a Hugging Face data set.
      name: what errors call it.
      ids: names of the column of ids, by which the delimiter of a text is found.

    Raises:
      InputError: no such file, an unknown suffix, a damaged file, or a repeated column.
    """
    rows = source if isinstance(source, list) and all(isinstance(row, dict) for row in source) else [source]
    keys = dict.fromkeys(key for row in rows if isinstance(row, Mapping) for key in row)
    if not all(isinstance(key, str) for key in keys):
        raise InputError(f"{name} have the keys {listed(list(map(repr, keys)), most=3)}; expected names of columns")
    if isinstance(source, Mapping):
        opened = _arrays(name, dict(source))
    elif isinstance(source, np.ndarray) and source.dtype.names:
        opened = _arrays(name, {column: source[column] for column in source.dtype.names})
    elif isinstance(source, list) and source and all(isinstance(row, dict) for row in source):
        opened = _of_lists(name, json_table.columns(source, name, ids))
    elif hasattr(source, "with_format") or hasattr(source, "__arrow_c_stream__"):
        opened = _table(name, source)
    elif isinstance(source, str | os.PathLike):
        opened = _open_file(source if isinstance(source, File) else File(pathlib.Path(source), str(name)), ids)
    else:
        raise InputError(
            f"{name} is of type {type(source).__name__}; expected a path, a table (pandas, polars, Arrow, datasets) "
            "or arrays by name"
        )
    if twice := [column for column in repeated(opened.columns) if column]:
        raise InputError(f"{opened.name} has two columns {twice[0]!r}; expected unique names")
    return opened


def _open_file(path: File, ids: Sequence[str]) -> Source:
    if path.path.is_dir():
        return _parts(path, [_open_file(part, ids) for part in packed.parts(path)])
    if path.path.exists() and not path.path.is_file():
        raise InputError(
            f"{path}: not a regular file; expected one, as it is read more than once; - reads standard input"
        )
    with _readable(path):
        suffix = packed.suffix(path)
    if suffix not in FORMATS:
        known = f"; expected a name that ends in {', '.join(FORMATS)}"
        raise InputError(f"{path}: unknown format{known}{_INSTEAD.get(suffix, '')}")
    if not path.path.is_file():
        raise InputError(f"{path}: no such file; expected a file of predictions")
    with _readable(path):
        if suffix in packed.TEXTS:
            with packed.open_text(path) as file:
                found = packed.binary(file.read(8))
            if found:
                raise InputError(f"{path} is a {found} file by its content; expected a name that ends in {found}")
        return FORMATS[suffix](path, ids)


def _parts(path: File, opened: Sequence[Source]) -> Source:
    """Return the parts of a table as one source."""
    first = opened[0]
    for part in opened[1:]:
        if {*part.columns} != {*first.columns}:
            raise InputError(
                f"{part.name} has the columns {listed(list(map(repr, part.columns)))}, and {first.name} "
                f"{listed(list(map(repr, first.columns)))}; expected the same in all parts"
            )
        for what in NAMES:
            if getattr(part, what) != getattr(first, what):
                raise InputError(f"{part.name} and {first.name} have different {what}; expected the same in all parts")

    def batches(columns: Sequence[str]) -> Batches:
        for part in opened:
            yield from part.batches(columns)

    return Source(path.name, first.columns, batches, **{what: getattr(first, what) for what in NAMES})


def renamed(sources: Sequence[Source], columns: Mapping[str, str]) -> list[Source]:
    """Return the sources with columns under their usual names.

    A source without the given column may have the usual one, unless that is another column in another source.

    Args:
      columns: names by usual name, one of "id", "label", "prediction" and "scores".

    Raises:
      InputError: another usual name, a column that no source has, or one that is ambiguous.
    """
    for usual, name in columns.items():
        if usual not in USUAL:
            raise InputError(unknown(f"column {usual!r} in columns", usual, list(USUAL)))
        with_it = [source for source in sources if name in source.columns]
        others = [s for s in sources if name not in s.columns and {*s.columns} & {*USUAL[usual]}]
        if not with_it:
            valid = sorted({column for source in sources for column in source.columns})
            raise InputError(unknown(f"column {name!r} for {usual}", name, valid))
        both = [source for source in with_it if name not in USUAL[usual] and {*source.columns} & {*USUAL[usual]}]
        if both and others:
            raise InputError(
                f"{both[0].name} has the columns {name!r} and {USUAL[usual][0]!r}, and {others[0].name} has no "
                f"{name!r}; expected {name!r} in both"
            )
    return [_renamed(source, {name: usual for usual, name in columns.items()}) for source in sources]


def _renamed(source: Source, usual_of: Mapping[str, str]) -> Source:
    usual_of = {name: usual for name, usual in usual_of.items() if name in source.columns}
    if not usual_of:
        return source
    name_of = {usual: name for name, usual in usual_of.items()}
    replaced = {other for usual in name_of for other in USUAL[usual]}
    columns = [
        usual_of.get(column, column) for column in source.columns if column in usual_of or column not in replaced
    ]

    def batches(columns: Sequence[str]) -> Batches:
        names = [name_of.get(column, column) for column in columns]
        for batch in source.batches(names):
            yield {column: batch[name] for column, name in zip(columns, names, strict=True)}

    return replace(source, columns=tuple(columns), batches=batches)


def repeated(names: Sequence[str]) -> list[str]:
    """Return the names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _arrays(name: str, given: dict[str, Any]) -> Source:
    names = {key: _names(name, key, given.pop(key)) for key in NAMES if given.get(key) is not None}
    given = {key: values for key, values in given.items() if key not in NAMES}

    def array(column: str) -> np.ndarray:  # converted on request, as unused columns may hold anything
        try:
            values = given[column]
            if np.ma.is_masked(values):
                without_mask = np.ma.getdata(values).astype(object)
                without_mask[np.ma.getmaskarray(values)] = None
                return without_mask
            return np.asarray(values)
        except (TypeError, RuntimeError) as error:  # of a tensor that is on a device, or has a gradient
            raise InputError(f"{name}: column {column!r}: {one_line(error)}; expected an array of NumPy") from error
        except ValueError as error:
            if column in (*LABELS, *PREDICTIONS):  # several labels a row, a different number in each
                lists = np.empty(len(given[column]), object)
                lists[:] = [
                    list(each) if isinstance(each, Iterable) and not isinstance(each, str) else each
                    for each in given[column]
                ]
                return lists
            raise InputError(
                f"{name}: column {column!r}: {one_line(error)}; expected rows of the same shape"
            ) from error

    def batches(columns: Sequence[str]) -> Batches:
        arrays = {column: array(column) for column in columns}
        rows = _rows(name, {column: values.shape for column, values in arrays.items()})
        for start in range(0, rows, ROWS):
            yield {column: values[start : start + ROWS] for column, values in arrays.items()}

    return Source(name, tuple(given), batches, **names)


def _table(name: str, given: Any) -> Source:
    """Open a table in memory; a Hugging Face data set, which may be a selection of its rows, gives an Arrow table."""
    index = {each for each in getattr(getattr(given, "index", None), "names", ()) if each is not None}
    if index and not index & {*getattr(given, "columns", ())}:
        given = given.reset_index()  # of pandas: ids are often the index
    try:
        table = given.with_format("arrow")[:] if hasattr(given, "with_format") else pa.table(given)
        names = tuple(table.column_names)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        if not hasattr(given, "dtypes") or not hasattr(given, "columns"):
            raise InputError(f"{name}: {one_line(error)}; expected columns of numbers or text in memory") from error
        table, names = None, tuple(map(str, given.columns))  # some column cannot be converted, perhaps an unused one

    def batches(columns: Sequence[str]) -> Batches:
        try:
            chosen = pa.table(given[list(columns)]) if table is None else table.select(list(columns))
        except (pa.ArrowException, TypeError, ValueError, KeyError) as error:
            raise InputError(f"{name}: {one_line(error)}; expected columns of numbers or text") from error
        yield from map(_columns, chosen.to_batches(ROWS))

    return Source(name, names, batches)


def _of_lists(name: str, table: Mapping[str, list[Any]]) -> Source:
    """Open columns of Python values, of which only the requested ones become arrays."""
    names = {key: _names(name, key, table[key]) for key in NAMES if table.get(key) is not None}
    table = {column: values for column, values in table.items() if column not in NAMES}
    if len(lengths := {len(values) for values in table.values()}) > 1:
        raise InputError(f"{name} has columns of {listed(sorted(map(str, lengths)))} rows; expected equal numbers")

    def batches(columns: Sequence[str]) -> Batches:
        arrays = {}
        for column in columns:
            try:
                arrays[column] = pa.array(table[column])
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise InputError(f"{name}: column {column!r}: {one_line(error)}; expected one type of value") from error
        yield from map(_columns, pa.table(arrays).to_batches(ROWS))

    return Source(name, tuple(table), batches, **names)


def _names(name: str, key: str, given: Any) -> tuple[str, ...]:
    try:
        names = np.asarray(given)
        if names.ndim != 1:
            raise ValueError(f"shape {list(names.shape)}")
        texts = [each.decode() if isinstance(each, bytes) else str(each) for each in names.tolist()]
    except ValueError as error:
        raise InputError(f"{name}: {key}: {one_line(error)}; expected a list with one name per class") from error
    if twice := repeated(texts):
        raise InputError(f"{name}: {key} have {twice[0]!r} twice; expected a unique name for each class")
    return tuple(texts)


def _npz(path: File, ids: Sequence[str]) -> Source:
    with npz.Archive(path.path, path.name) as archive:
        columns = tuple(column for column in archive if column not in NAMES)
        names = {key: _names(path.name, key, archive[key]) for key in NAMES if key in archive}

    def batches(columns: Sequence[str]) -> Batches:
        with _readable(path), npz.Archive(path.path, path.name) as archive, contextlib.ExitStack() as stack:
            opened = {column: stack.enter_context(archive.opened(column, ROWS)) for column in columns}
            rows = _rows(path.name, {column: header.shape for column, (_, header) in opened.items()})
            whole = {column: archive[column] for column, (_, header) in opened.items() if header.by_columns}
            for start in range(0, rows, ROWS):
                count = min(ROWS, rows - start)
                yield {
                    column: whole[column][start : start + count] if column in whole else header.rows(stream, count)
                    for column, (stream, header) in opened.items()
                }

    return Source(path.name, columns, batches, **names)


def _rows(name: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
    lengths = {shape[:1] for shape in shapes.values()}
    if len(lengths) != 1 or () in lengths:
        raise InputError(f"{name}: shapes do not match: {dict(shapes)}; expected the same number of rows in each")
    return lengths.pop()[0]


def _delimited(path: File, ids: Sequence[str]) -> Source:
    table = delimited.describe(path, lambda: packed.open_text(path), ids)
    written = {cells.restored(name): name for name in table.columns}
    names = tuple(map(cells.restored, table.columns))
    numbers = {written[name] for name in names if name in SCORES or SCORE.fullmatch(name)}

    def batches(columns: Sequence[str]) -> Batches:
        with _readable(path, table.columns):
            # Only scores are numbers: "007" is not 7, and "NA" may be a class.
            for batch in delimited.read(table, [written[name] for name in columns], numbers):
                yield dict(zip(columns, map(cells.restored_column, batch.columns), strict=True))

    return Source(path.name, names, batches)


def _parquet(path: File, ids: Sequence[str]) -> Source:
    def batches(columns: Sequence[str]) -> Batches:
        # Without a buffer size an entire row group, perhaps the entire file, is read at once. Each column has a buffer.
        streamed = {"buffer_size": min(BYTES, max(BYTES >> 8, 16 * BYTES // len(columns))), "pre_buffer": False}
        with _readable(path), pyarrow.parquet.ParquetFile(path.path, **streamed) as file:
            yield from map(_columns, file.iter_batches(ROWS, columns=list(columns)))

    with pyarrow.parquet.ParquetFile(path.path) as file:
        return Source(path.name, tuple(file.schema_arrow.names), batches)


def _jsonl(path: File, ids: Sequence[str]) -> Source:
    with packed.open_text(path) as file:
        types = _json_types(next(_blocks(file, path), b"").splitlines()[:1000], path)
    if not types:
        raise InputError(f"{path} has no rows; expected a JSON object on each line")

    def batches(columns: Sequence[str]) -> Batches:
        schema = pa.schema([(column, types[column]) for column in columns])
        objects = {c: {field.name for field in types[c]} for c in columns if pa.types.is_struct(types[c])}
        named = bool(objects) or any(map(SCORE.fullmatch, columns))

        def read(block: bytes, unexpected: str) -> pa.Table:
            options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(block))
            parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unexpected)
            return pyarrow.json.read_json(pa.BufferReader(block), options, parse)

        first = 1
        with _readable(path), packed.open_text(path) as file:
            for block in _blocks(file, path):
                if named and _may_have_new_scores(partial(read, block, "infer"), set(types), objects):
                    _reject_new_scores(_json_rows(block.splitlines(), path, first), set(types), objects, path)
                try:
                    table = read(block, "ignore")
                except pa.ArrowException as error:
                    raise ValueError(_by_line(str(error), block, path, first)) from error
                first += block.count(b"\n")
                yield from map(_columns, table.to_batches())

    return Source(path.name, tuple(types), batches)


def _json(path: File, ids: Sequence[str]) -> Source:
    """Open one JSON document, which is held in memory, or JSON lines under that name."""
    pieces, size = [], 0
    with packed.open_text(path) as file:
        while piece := file.read(BYTES):
            pieces.append(piece)
            if (size := size + len(piece)) > MOST_TEXT:
                raise _too_large(path)
    if not (text := b"".join(pieces)).strip():
        raise InputError(f"{path} is empty; expected an array of objects")
    try:
        return _of_lists(path.name, json_table.read(text, path.name, ids))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _jsonl(path, ids)
        raise InputError(f"{path} is not JSON: {error}; expected an array of objects") from error


def _arrow(path: File, ids: Sequence[str]) -> Source:
    """Open an Arrow file or stream; Feather is the file format."""

    def read(file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
        with contextlib.suppress(pa.ArrowInvalid):
            reader = pa.ipc.open_file(file)
            return map(reader.get_batch, range(reader.num_record_batches))
        file.seek(0)
        return iter(pa.ipc.open_stream(file))

    def batches(columns: Sequence[str]) -> Batches:
        with _readable(path), pa.memory_map(os.fspath(path)) as file:
            for batch in read(file):
                batch.validate(full=True)  # a damaged file would make later steps read beyond their memory
                for start in range(0, len(batch), ROWS):
                    yield _columns(batch.select(list(columns)).slice(start, ROWS))

    with pa.memory_map(os.fspath(path)) as file:
        first = next(read(file), None)
        if first is None:
            raise InputError(f"{path} has no rows; expected at least one")
        return Source(path.name, tuple(first.schema.names), batches)


def _by_line(reason: str, block: bytes, path: File, first: int) -> str:
    """Replace the row within a block in an error message by the line of the file."""
    lines = [number for number, _ in _json_rows(block.splitlines(), path, first)]  # raises if a line is not JSON
    return re.sub(r"in row (\d+)", lambda found: f"in line {lines[int(found[1])]}", reason)


def _too_large(path: File) -> InputError:
    return InputError(
        f"{path} holds a JSON text of more than {MOST_TEXT:,} bytes; expected .jsonl, a row on each line, or .parquet"
    )


def _blocks(file: pa.NativeFile, path: File) -> Iterator[bytes]:
    """Yield the file in pieces of complete lines."""
    rest = b""
    while read := file.read(BYTES):
        if len(rest) > MOST_TEXT:
            raise _too_large(path)
        lines, end, rest = (rest + read).rpartition(b"\n")
        if lines.strip():
            yield lines + end
    if rest.strip():
        yield rest


def _json_types(lines: Iterable[bytes], path: File) -> dict[str, pa.DataType]:
    """Infer the types from the first lines; pyarrow's own inference takes some texts for dates."""
    seen: dict[str, Any] = {}
    for _, row in _json_rows(lines, path):
        for column, value in row.items():
            if isinstance(value, float) or seen.get(column) in (None, []):
                seen[column] = value
    return {column: _json_type(column, value) for column, value in seen.items()}


def _json_rows(lines: Iterable[bytes], path: File, first: int = 1) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each row with the number of its line."""
    for number, line in enumerate(lines, first):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}: line {number} is not JSON: {error}; expected an object") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}: line {number} is not a JSON object; expected one such as {{'id': ..., ...}}")
            yield number, row


def _may_have_new_scores(read: Callable[[], pa.Table], columns: set[str], objects: Mapping[str, set[str]]) -> bool:
    """Return whether pyarrow's inference finds further scores or fails, so that the rows must be checked one by one."""
    try:
        found = read().schema
    except pa.ArrowException:  # perhaps of an unused column, which may hold anything
        return True
    return any(SCORE.fullmatch(name) for name in set(found.names) - columns) or any(
        {field.name for field in found.field(column).type} != keys for column, keys in objects.items()
    )


def _reject_new_scores(
    rows: Iterable[tuple[int, dict[str, Any]]], columns: set[str], objects: Mapping[str, set[str]], path: File
) -> None:
    """Reject scores of classes that the first rows do not have, which pyarrow would silently drop."""
    for number, row in rows:
        new = [column for column in row.keys() - columns if SCORE.fullmatch(column)]
        new += [f"{column}.{key}" for column, keys in objects.items() for key in (row.get(column) or {}).keys() - keys]
        if new:
            raise InputError(
                f"{path}: line {number} has {min(new)!r}, which the first lines do not have; "
                "expected scores of the same classes on each line"
            )


def _json_type(column: str, value: Any) -> pa.DataType:
    is_score = column in SCORES or SCORE.fullmatch(column)
    if isinstance(value, dict):
        return pa.struct([(key, pa.float64()) for key in value])
    if isinstance(value, list) and not is_score:
        return pa.list_(_json_type(column, next((each for each in value if each is not None), None)))
    if isinstance(value, list):
        return pa.list_(pa.float64())
    if is_score:
        return pa.float64()
    for kind, arrow in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if isinstance(value, kind):
            return arrow
    return pa.string()


def _columns(batch: pa.RecordBatch) -> dict[str, Column]:
    return dict(zip(batch.schema.names, batch.columns, strict=True))


@contextlib.contextmanager
def _readable(path: File, names: Sequence[str] = ()) -> Iterator[None]:
    try:
        yield
    except (InputError, FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, *DAMAGED) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = re.sub(r"In CSV column #(\d+)", lambda found: f"column {names[int(found[1])]!r}", reason)
        expected = f"a valid {path.path.suffix} file"
        if "conversion error to double" in reason and "'[" in reason:
            expected = "a column per class, such as score_cat; .jsonl, .parquet and .npz can have a list in each row"
        raise InputError(f"{path} cannot be read: {reason}; expected {expected}") from error


FORMATS: dict[str, Callable[[File, Sequence[str]], Source]] = {
    ".npz": _npz,
    ".csv": _delimited,
    ".tsv": _delimited,
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".arrow": _arrow,
    ".feather": _arrow,
}
_INSTEAD = {
    ".xlsx": "; save the sheet as CSV",
    ".xls": "; save the sheet as CSV",
    ".pkl": "; a pickle can run code: save as .parquet",
    ".pickle": "; a pickle can run code: save as .parquet",
    ".npy": "; one array has no ids: use np.savez with id, label and prediction",
    ".pt": "; use np.savez with id, label and prediction",
}
