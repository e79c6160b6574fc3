r"""Names in cells of .csv files, written so that a spreadsheet and a terminal take them as text.

A spreadsheet computes a cell that begins with ``=``, ``+``, ``-`` or ``@``, in quotes or not, and such a formula can
send the sheet elsewhere or start a program. Ids are often the names of other people's files. Such a name gets an
apostrophe before it, the mark of text in spreadsheets. One with control characters gets it too; they are written as
``\xNN``, and its backslashes doubled. Numbers such as ``-5`` are no formulas and stay. `restored` undoes all this.
"""

import re

import pyarrow as pa
import pyarrow.compute as pc

# Full-width signs become ASCII in some Japanese and Chinese settings.
_FORMULA = re.compile("'*[=+@\uff1d\uff0b\uff0d\uff20-]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ESCAPED = re.compile(r"(?:[^\\]|\\\\|\\x[0-9a-f]{2}|\\u[0-9a-f]{4})*")
_ESCAPE = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4}))")


def is_marked(name: str) -> bool:
    """Return whether the cell of a name differs from it."""
    return protected(name) != name


def protected(name: str) -> str:
    r"""Return the cell of a name.

    Examples:
      >>> protected("cat.png"), protected("-5"), protected("=1+1"), protected("a\x1b[2J")
      ('cat.png', '-5', "'=1+1", "'a\\x1b[2J")
    """
    control = _CONTROL.search(name) is not None
    formula = _FORMULA.match(name) is not None and not _NUMBER.fullmatch(name)
    if not control and not formula and not (name.startswith("'") and "\\" in name):  # the last would be read as escaped
        return name
    if control or "\\" in name:
        name = _CONTROL.sub(lambda found: _code(found[0]), name.replace("\\", "\\\\"))
    return f"'{name}"


def restored(cell: str) -> str:
    r"""Return the name in a cell of `protected`; a cell of another kind is a name.

    Examples:
      >>> restored("'=1+1"), restored("'s-Hertogenbosch"), restored("'a\\x1b[2J") == "a\x1b[2J"
      ('=1+1', "'s-Hertogenbosch", True)
    """
    inner = cell[1:]
    if not cell.startswith("'") or not ("\\" in inner or _FORMULA.match(inner)) or not _ESCAPED.fullmatch(inner):
        return cell
    return _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)) if found[1] or found[2] else "\\", inner)


def restored_column(column: pa.Array) -> pa.Array:
    """Return a column of cells as names; one without an apostrophe, or of numbers, is returned as it is."""
    if not pa.types.is_string(column.type) or not pc.any(pc.starts_with(column, "'")).as_py():
        return column
    return pa.array([None if cell is None else restored(cell) for cell in column.to_pylist()], pa.string())


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
