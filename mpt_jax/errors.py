"""The one exception a user causes; the commands print its message as one line and exit with status 2.

And what a damaged file causes in the libraries that read it, which is to become that one.
"""

import contextlib
import tokenize
import zipfile
import zlib

# What numpy, and zipfile below it, raise of a damaged .npz file: a changed byte can ask for a password or for another
# method of compression, leave a bracket open, or nest deeper than Python reads.
DAMAGED: tuple[type[Exception], ...] = (
    *(OSError, MemoryError, EOFError, ValueError, TypeError, LookupError, RuntimeError, SyntaxError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
with contextlib.suppress(ImportError):  # Python may have been built without it
    from lzma import LZMAError

    DAMAGED += (LZMAError,)


class InputError(ValueError):
    """Bad input from a user: the message says what is wrong, what was expected and what would work."""


def one_line(error: BaseException) -> str:
    """The message as one printable line of at most 2,000 characters: of a longer one the middle is left out.

    Examples:
      >>> one_line(InputError("no such" + chr(10) + " class"))
      'no such class'
    """
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return text if len(text) <= 2000 else f"{text[:1400]} ... {text[-595:]}"
