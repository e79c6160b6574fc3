"""The exception for bad input, which commands print in one line before they exit with status 2, and its messages.

Also the exceptions that libraries raise for damaged files, to be converted to it.
"""

import contextlib
import difflib
import tokenize
import zipfile
import zlib
from collections.abc import Sequence

# What numpy and zipfile raise for a damaged .npz file: a changed byte can request a password or another compression
# method, leave a bracket open, or nest deeper than Python allows.
DAMAGED: tuple[type[Exception], ...] = (
    *(OSError, MemoryError, EOFError, ValueError, TypeError, LookupError, RuntimeError, SyntaxError),
    *(OverflowError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
with contextlib.suppress(ImportError):  # Python may have been built without it
    from lzma import LZMAError

    DAMAGED += (LZMAError,)


class InputError(ValueError):
    """Bad input from a user. The message says what was given, what was expected, and what would work."""


def counted_rows(count: int) -> str:
    """Return a number of rows in words.

    Examples:
      >>> counted_rows(1), counted_rows(1200)
      ('1 row', '1,200 rows')
    """
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def listed(names: Sequence[str], total: int | None = None, *, most: int = 5) -> str:
    """Join the first names for a message, each printable and at most 200 characters long, and count the rest.

    Args:
      names: all names, or only the first ones of `total`.
      total: how many there are; None: `len(names)`.
      most: how many to show.

    Examples:
      >>> listed(["a", "b", "c"], most=2), listed(["a"], total=3), listed(["a"])
      ('a, b and 1 more', 'a and 2 more', 'a')
    """
    shown = [name if len(name) <= 200 else f"{name[:197]}..." for name in names[:most]]
    more = (len(names) if total is None else total) - len(shown)
    return printable(", ".join(shown)) + (f" and {more:,} more" if more > 0 else "")


def unknown(what: str, name: str, valid: Sequence[str]) -> str:
    """Return the message for an unknown name: the closest valid name, and all valid ones."""
    valid = [item for item in valid if item]
    close = difflib.get_close_matches(name, valid, n=1)
    return f"unknown {what}; {f'did you mean {close[0]!r}? ' if close else ''}valid: {', '.join(valid)}"


def one_line(error: BaseException | str) -> str:
    """Return the message as one printable line of at most 2,000 characters; longer ones lose their middle.

    Examples:
      >>> one_line(InputError("no such" + chr(10) + " class"))
      'no such class'
    """
    text = printable(" ".join(str(error).split()))
    return text if len(text) <= 2000 else f"{text[:1400]} ... {text[-595:]}"


def describe(error: BaseException) -> str:
    """Return the type and the first 300 characters of the message of an exception, as one line.

    Examples:
      >>> describe(KeyError("label"))
      "KeyError: 'label'"
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def printable(text: str, most: int | None = None) -> str:
    """Return the text with unprintable characters (control characters, changes of direction) escaped.

    Names come from other people's files. Without this, one could clear a terminal, colour it or hide a part of a line.
    The middle of a text longer than `most` is cut, because long names often differ at the end.

    Examples:
      >>> printable("a" + chr(10) + "b"), printable("left_ventricle_7", 9)
      ('a\\\\nb', 'left…le_7')
    """
    shown = text
    if not text.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if most is None or len(shown) <= most:
        return shown
    half = most // 2
    return f"{shown[: most - half - 1]}…{shown[-half:]}"


def printable_lines(text: str) -> str:
    """Return the text with the unprintable characters of each line escaped."""
    return "\n".join(map(printable, text.split("\n")))
