"""Text files with a delimiter between columns (.csv, .tsv), as people have them: quotes, line breaks, encodings."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mpt_jax.errors import InputError
from mpt_jax.files.predictions import packed
from mpt_jax.files.predictions.packed import File

BYTES = 1 << 20  # per block; a row must fit into one
_DELIMITERS = (",", ";", "\t", "|")
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Table:
    """How a file is written.

    Attributes:
      path: for messages.
      open: returns the file, uncompressed, from its start.
      columns: names in its header.
      delimiter: between columns.
      encoding: of the text.
      skipped: lines before the header, such as Excel's ``sep=;``.
      longest: bytes of its longest line.
      quoted: whether quotes enclose cells, which may then hold delimiters; not between tabs.
      broken: whether such a cell may hold line breaks.
      stray: whether there are quotes that enclose no cells.
    """

    path: File
    open: Callable[[], pa.NativeFile]
    columns: tuple[str, ...]
    delimiter: str
    encoding: str
    skipped: int
    longest: int
    quoted: bool
    broken: bool
    stray: bool


def describe(path: File, open_file: Callable[[], pa.NativeFile], ids: Collection[str]) -> Table:
    """Find out how a file is written; the delimiter is the one that gives a column of ids.

    Raises:
      InputError: no header.
    """
    with open_file() as file:
        start = file.read(BYTES)
        while b"\n" not in start and (more := file.read(BYTES)):  # a header of many classes
            start += more
        longest, quotes, odd = _scan(start, file)
    encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
    # The first block may end within a character; reading reports where text is not UTF-8.
    first = re.split("\r\n|\n|\r", start.decode(encoding, "replace"), maxsplit=2)[:2]
    skipped = int(bool(first) and first[0].casefold().startswith("sep="))
    if not first[skipped:] or not first[skipped]:
        what = "begins with an empty line" if start.strip() else "is empty"
        raise InputError(f"{path} {what}; expected a header with the names of the columns, and a row per example")
    usual = first[0][4:5] or "," if skipped else "\t" if packed.suffix(path) == ".tsv" else ","
    found = {each: _cells(first[skipped], each) for each in (usual, *_DELIMITERS)}
    delimiter = next((each for each, names in found.items() if set(names) & set(ids) and len(names) > 1), usual)
    # Tools that write tabs rarely quote, and a quote at the start of a cell is then a part of it. The header tells.
    quoted = quotes and (delimiter != "\t" or '"' in first[skipped])
    return Table(
        path=path,
        open=open_file,
        columns=tuple(found[delimiter]),
        delimiter=delimiter,
        encoding=encoding,
        skipped=skipped,
        longest=longest,
        quoted=quoted,
        broken=quoted and odd,
        stray=quotes and not quoted,
    )


def read(table: Table, columns: Sequence[str], numbers: Collection[str]) -> Iterator[pa.RecordBatch]:
    """Yield some columns batch by batch, as text, or as float64 for those of `numbers`.

    Raises:
      InputError: a quote that is never closed, or that swallows rows.
      pa.ArrowException: rows of another number of cells, numbers that are none, text in another encoding.
    """
    block = max(BYTES, 4 * table.longest)
    if table.broken:
        block = max(block, min(_longest_row(table) * 4, 2**31 - 1))
    read_options = pyarrow.csv.ReadOptions(
        block_size=block,
        skip_rows=table.skipped,
        encoding="utf8" if table.encoding.startswith("utf-8") else table.encoding,
    )
    parse = pyarrow.csv.ParseOptions(
        delimiter=table.delimiter, quote_char='"' if table.quoted else False, newlines_in_values=table.broken
    )
    types = {name: pa.float64() if name in numbers else pa.string() for name in columns}
    convert = pyarrow.csv.ConvertOptions(include_columns=list(columns), column_types=types)
    with table.open() as file, pyarrow.csv.open_csv(file, read_options, parse, convert) as reader:
        for batch in reader:
            yield _without_quotes(batch) if table.stray else batch


def _scan(start: bytes, file: pa.NativeFile) -> tuple[int, bool, bool]:
    """Return the bytes of the longest line, whether there are quotes, and whether a line has an odd number of them."""
    longest, quotes, odd, length, parity, block = 0, 0, False, 0, 0, start
    while block:
        data = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        counted = np.cumsum(data == ord('"'), dtype=np.int64)
        if ends.size:
            longest = max(longest, length + int(ends[0]), int(np.diff(ends).max(initial=0)))
            length = len(block) - int(ends[-1]) - 1
            before = np.concatenate([[quotes - parity], quotes + counted[ends]])  # quotes up to the end of each line
            odd = odd or bool((np.diff(before) % 2).any())
            parity = int(counted[-1] - counted[ends[-1]])  # of the line that goes on in the next block
        else:
            length, parity = length + len(block), parity + int(counted[-1])
        longest, quotes = max(longest, length), quotes + int(counted[-1])
        block = file.read(BYTES)
    return longest, quotes > 0, odd or bool(parity % 2)


def _longest_row(table: Table) -> int:
    """Return the most bytes of a row of a file with quotes, and check that no quote swallows rows.

    Raises:
      InputError: a cell holds lines with as many delimiters as a row, or is never closed.
    """
    longest, width = 0, len(table.columns) - 1
    with table.open() as file, io.TextIOWrapper(file, table.encoding, newline="") as text:
        reader = csv.reader(text, delimiter=table.delimiter, strict=True)
        previous, limit = 0, csv.field_size_limit(2**31 - 1)
        try:
            for row in reader:
                if reader.line_num > previous + 1:
                    longest = max(longest, sum(map(len, row)) * 4)
                    swallowed = [
                        cell
                        for cell in row
                        if any(line.count(table.delimiter) >= width for line in cell.split("\n")[1:])
                    ]
                    if swallowed and width:
                        raise InputError(
                            f"{table.path}: the quote in line {previous + 1} opens a cell that ends in line "
                            f"{reader.line_num} and holds whole rows; expected a quote at both ends of a cell, or none"
                        )
                previous = reader.line_num
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{table.path}: line {reader.line_num}: {error}; expected a quote at both ends of a cell, or none"
            ) from error
        finally:
            csv.field_size_limit(limit)
    return longest


def _without_quotes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Remove the quotes around cells of text that some tools write in tab-separated files too."""

    def bare(column: pa.Array) -> pa.Array:
        if not pa.types.is_string(column.type):
            return column
        enclosed = pc.match_substring_regex(column, '^".*"$')
        inner = pc.replace_substring(pc.utf8_slice_codeunits(column, 1, -1), '""', '"')
        return pc.if_else(pc.fill_null(enclosed, False), inner, column)

    return pa.RecordBatch.from_arrays([bare(column) for column in batch.columns], names=batch.schema.names)


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])
