"""Files in a local folder or in a bucket of Google Cloud Storage (`gs://`), by the same functions.

A local path is a `pathlib.Path`; a remote one is an `etils.epath.Path`, which uses fsspec and gcsfs. Only what differs
between the two is here. In a bucket an object appears completely or not at all, and all see it immediately; but there
are no folders, no renames, no appending, and no locks that end with their process (see `gcs_lock`).
"""

import contextlib
import errno
import functools
import importlib.util
import io
import logging
import os
import pathlib
import queue
import shutil
import sys
import threading
from collections.abc import Callable
from typing import Any

from mpt_jax.errors import InputError
from mpt_jax.runtime import regular_file

REACHED_WITHIN = 10.0  # seconds for the first access to a bucket
_REACHED: set[str] = set()  # buckets
SCHEME = "gs://"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # the error numbers of a full disk


def path(text: str) -> pathlib.Path:
    """Return the path that a user typed.

    Raises:
      InputError: another kind of store, no bucket, one slash in place of two, or gcsfs is not installed.

    Examples:
      >>> path("runs/digits").parts
      ('runs', 'digits')
    """
    if text.startswith("gs:/") and not text.startswith(SCHEME):
        raise InputError(f"{text!r} has one slash; expected gs://BUCKET/FOLDER as text (a pathlib.Path loses a slash)")
    scheme, found, rest = text.partition("://")
    if not found:
        return pathlib.Path(text)
    if scheme != "gs":
        raise InputError(f"unsupported store {text!r}; expected a folder, or gs://BUCKET/FOLDER")
    if not rest.partition("/")[0] or not rest.partition("/")[2].strip("/"):
        raise InputError(f"{text!r} names no folder of a bucket; expected gs://BUCKET/FOLDER")
    if not importlib.util.find_spec("gcsfs"):
        raise InputError(f"{text!r} needs gcsfs; install it: pip install 'mpt_jax[gcs]'")
    # Set before etils and gcsfs are imported: no TensorFlow, and no calls for special kinds of buckets.
    os.environ.setdefault("EPATH_USE_TF", "false")
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec.config
    from etils import epath

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs tracebacks of errors that we report in one line
    _ignore_late_responses()
    for name in ("gs", "gcs"):  # see what other processes write
        fsspec.config.conf.setdefault(name, {})["use_listings_cache"] = False
    return epath.Path(text)


@functools.cache
def _ignore_late_responses() -> None:
    """Keep TensorStore's threads from printing tracebacks.

    If one of several writes fails, orbax closes the event loop that waits for all of them. The others find it closed,
    which they can tell nobody.
    """
    before = sys.unraisablehook

    def report(found: "sys.UnraisableHookArgs") -> None:
        if not (isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == "Event loop is closed"):
            before(found)

    sys.unraisablehook = report


def is_remote(path: pathlib.Path) -> bool:
    """Return whether the path is in a bucket.

    Examples:
      >>> is_remote(pathlib.Path("/data/runs"))
      False
    """
    return str(path).startswith(SCHEME)


def absolute(path: pathlib.Path) -> pathlib.Path:
    """Return the absolute path; a remote one is absolute already."""
    return path if is_remote(path) else path.absolute()


def check_access(path: pathlib.Path) -> None:
    """Check, before any work, that the bucket exists and is readable; once per bucket.

    Raises:
      InputError: it is not, or does not respond in time.
    """
    bucket = str(path).removeprefix(SCHEME).partition("/")[0]
    if not is_remote(path) or bucket in _REACHED:
        return
    error = _error_within(REACHED_WITHIN, lambda: filesystem().find(str(path), prefix="config.json"))
    if error is not None:
        reason = "no such bucket" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())[:300]
        raise InputError(
            f"cannot reach {SCHEME}{bucket}: {reason or type(error).__name__}; check its name, the network and your "
            "permissions (gcloud auth application-default login)"
        ) from error
    _REACHED.add(bucket)


def _error_within(seconds: float, attempt: Callable[[], Any]) -> Exception | None:
    """Return what an attempt raised, or a `TimeoutError` if it takes longer; the libraries try for minutes."""
    import gcsfs  # noqa: F401 (takes seconds, which do not count)

    ended: queue.Queue[Exception | None] = queue.Queue()

    def run() -> None:
        try:
            attempt()
            ended.put(None)
        except Exception as error:  # from four libraries
            ended.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return ended.get(timeout=seconds)
    except queue.Empty:
        return TimeoutError(f"no response within {seconds:.0f} s")


def check_name(path: pathlib.Path) -> None:
    """Check that a path is one for orbax, which takes UTF-8 alone, a bracket for a pattern, and `gs:/` for a bucket.

    Raises:
      InputError: it is not.
    """
    if not is_remote(path) and "gs:/" in f"{absolute(path)}/":
        raise InputError(
            f"{path} has a name that ends in 'gs:', which orbax takes for a bucket; rename it, or give another folder, "
            "or gs://BUCKET/FOLDER"
        )
    if "[" in str(absolute(path)):
        raise InputError(f"{path} has a '[' in its name, which orbax cannot read; rename it, or give another folder")
    try:
        str(absolute(path)).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name of {path} is not UTF-8; rename it, or give a folder whose name is") from error


def make_folder(path: pathlib.Path) -> None:
    """Create a local folder and its parents; a bucket has none."""
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def remove(folder: pathlib.Path) -> None:
    """Remove a folder with everything in it, or a file or link in its place, if it exists.

    In a bucket its own files go first: the metadata, without which the rest of a folder is ignored.
    """
    if not is_remote(folder):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            folder.unlink()  # what a link points to is not ours
        shutil.rmtree(folder, ignore_errors=True)
        return
    names = sorted(files(folder), key=lambda name: name.count("/"))
    for own in (True, False):
        if chosen := [f"{folder}/{name}" for name in names if ("/" not in name) == own]:
            with contextlib.suppress(FileNotFoundError):
                filesystem().rm(chosen)


def files(folder: pathlib.Path) -> list[str]:
    """Return the sorted relative paths of all files below a folder."""
    if not is_remote(folder):
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    start = str(folder).removeprefix(SCHEME) + "/"
    return sorted(name.removeprefix(start) for name in filesystem().find(start) if name.startswith(start))


def listing(folder: pathlib.Path) -> dict[str, tuple[int, float]]:
    """Return the size in bytes and the time of the last change of all files below a folder, by relative path.

    In a bucket the times are 0: an object is never changed.
    """
    if not is_remote(folder):
        found = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): (facts.st_size, facts.st_mtime) for path, facts in found}
    start = str(folder).removeprefix(SCHEME) + "/"
    objects = filesystem().find(start, detail=True).items()
    return {name.removeprefix(start): (facts["size"], 0.0) for name, facts in objects if name.startswith(start)}


def modified(path: pathlib.Path) -> float:
    """Return the time of the last change of a file, as in `listing`."""
    return 0.0 if is_remote(path) else path.stat().st_mtime


def link_files(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Put the files of one folder into another without copying them, or as copies where links are not possible.

    They must not be changed afterwards, because both folders would have the change.
    """
    for name in files(source):
        if is_remote(folder) or is_remote(source):
            write_bytes(folder / name, (source / name).read_bytes())
            continue
        make_folder((folder / name).parent)
        try:
            os.link(source / name, folder / name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source / name, folder / name)


def opened(path: pathlib.Path) -> contextlib.AbstractContextManager[io.BufferedReader]:
    """Open a file for reading; a local one must be a regular file, of any size."""
    return path.open("rb") if is_remote(path) else regular_file.opened(path)


def read_bytes(path: pathlib.Path, most: int = regular_file.LARGEST) -> bytes:
    """Return the content of a file of at most `most` bytes.

    Raises:
      OSError: it is missing, unreadable, not a regular file, or too large.
    """
    if not is_remote(path):
        return regular_file.read_bytes(path, most)
    if (size := filesystem().size(str(path))) > most:
        raise OSError(errno.EFBIG, f"{size:,} bytes; expected at most {most:,}", str(path))
    return path.read_bytes()


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Write a file completely or not at all: a local one next to the old file first, then renamed.

    A link in its place is replaced, and what it points to stays as it is.
    """
    if is_remote(path):
        filesystem().pipe_file(str(path), content)
        return
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with regular_file.created(unfinished) as file:
            file.write(content)
        os.replace(unfinished, path)
    except BaseException:  # a full disk or a signal
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text as UTF-8 with `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def append_text(path: pathlib.Path, text: str) -> None:
    """Append to a file, which is created if missing; in a bucket the complete object is written again.

    Raises:
      OSError: it is not a regular file, or cannot be written.
    """
    if is_remote(path):
        before = path.read_bytes() if path.exists() else b""
        write_bytes(path, before + text.encode("utf-8"))
        return
    with regular_file.extended(path) as file:
        file.write(text)


def is_failure(error: BaseException) -> bool:
    """Return whether an error is the store's or the network's; those of gcsfs and its libraries share no class."""
    return type(error).__module__.partition(".")[0] in ("gcsfs", "google", "aiohttp", "requests", "fsspec")


def filesystem() -> Any:
    """Return the fsspec file system of Google Cloud Storage."""
    import fsspec

    return fsspec.filesystem("gcs")
