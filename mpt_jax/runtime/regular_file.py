"""Regular files: everything that the package reads or appends to by itself is opened here.

A named pipe in the place of a file blocks whoever opens it, a device may never end, and a sparse file of 20 GiB takes
no space on the disk but all memory. Such files are errors here. What is written never goes through a link.

Imports nothing of the package, so that every layer can use it.
"""

import contextlib
import errno
import io
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import IO, TextIO

LARGEST = 2**26  # bytes of a JSON document, a program or a list of names

_KINDS = {
    **{stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link"},
    **{stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"},
}
_NON_BLOCKING, _BINARY, _NO_LINK = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_BINARY", "O_NOFOLLOW"))

Path = str | os.PathLike[str]


@contextlib.contextmanager
def opened(path: Path, most: int | None = None) -> Iterator[io.BufferedReader]:
    """Open a regular file, or a link to one, for reading.

    Args:
      path: of the file.
      most: its largest size in bytes; None: any.

    Raises:
      OSError: it is missing, unreadable, of another kind, or too large.
    """
    _require(path, os.stat(path), most)  # before it is opened, which acts on some devices
    with os.fdopen(os.open(path, os.O_RDONLY | _NON_BLOCKING | _BINARY), "rb") as file:
        _require(path, os.fstat(file.fileno()), most)  # it may have been replaced
        yield file


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises:
      OSError: see `opened`.
    """
    with opened(path, most) as file:
        content = file.read(most + 1)
    if len(content) > most:  # it grew
        raise _too_large(path, len(content), most)
    return content


def read_text(path: Path, encoding: str = "utf-8", most: int = LARGEST) -> str:
    """Return the text of a regular file, with its line ends as newlines.

    Raises:
      OSError: see `opened`.
      UnicodeDecodeError: another encoding.
    """
    return read_bytes(path, most).decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


@contextlib.contextmanager
def created(path: Path) -> Iterator[IO[bytes]]:
    """Create a file for writing in the place of another one.

    A link of this name is removed, so that the file that it points to stays as it is.

    Raises:
      OSError: the folder cannot be written, or a folder has this name.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "xb") as file:  # fails if a link has appeared
        yield file


@contextlib.contextmanager
def extended(path: Path) -> Iterator[TextIO]:
    """Open a regular file for reading and appending, which is created if missing; not through a link.

    Raises:
      OSError: it cannot be written, or is of another kind.
    """
    with contextlib.suppress(FileNotFoundError):
        _require(path, os.lstat(path))
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_LINK | _NON_BLOCKING
    with os.fdopen(os.open(path, flags, 0o666), "a+", encoding="utf-8", errors="replace") as file:
        _require(path, os.fstat(file.fileno()))
        yield file


def reason(error: BaseException) -> str:
    """Return why a file cannot be read: the system's message or ours, else the name of the exception.

    Examples:
      >>> reason(FileNotFoundError(2, "No such file or directory")), reason(ValueError("Expecting value"))
      ('No such file or directory', 'ValueError')
    """
    return error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__


def _require(path: Path, status: os.stat_result, most: int | None = None) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        number = errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL
        raise OSError(number, f"{_KINDS.get(kind, 'something else')}, not a file", str(pathlib.Path(path)))
    if most is not None and status.st_size > most:
        raise _too_large(path, status.st_size, most)


def _too_large(path: Path, size: int, most: int) -> OSError:
    return OSError(errno.EFBIG, f"{size:,} bytes; expected at most {most:,}", str(pathlib.Path(path)))
