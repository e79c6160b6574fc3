"""Where a work directory lies: a folder of this machine, or a prefix of a bucket of Google Cloud Storage (`gs://`).

A local path stays a `pathlib.Path`; a remote one is an `etils.epath.Path`, which goes through fsspec and gcsfs. The
functions here are those in which the two differ: in a bucket an object appears whole or not at all and what is written
is seen by all at once, but there are no folders, no renames, no appending and no locks that end with their process.
"""

import contextlib
import datetime
import importlib.util
import json
import logging
import os
import pathlib
import shutil
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from mpt_jax.errors import InputError

SCHEME = "gs://"
BEAT, PATIENCE = 20.0, 90.0  # seconds: between two signs of life, and without one until a lock is void


def path(text: str) -> pathlib.Path:
    """A path from what a user wrote.

    Raises:
      InputError: a store of another kind, no bucket, or gcsfs is not installed.

    Examples:
      >>> path("runs/digits").parts
      ('runs', 'digits')
    """
    scheme, found, rest = text.partition("://")
    if not found:
        return pathlib.Path(text)
    if scheme != "gs":
        raise InputError(f"{text!r} is in a store of an unknown kind; expected a folder, or gs://BUCKET/FOLDER")
    if not rest.partition("/")[0] or not rest.partition("/")[2].strip("/"):
        raise InputError(f"{text!r} names no folder of a bucket; expected gs://BUCKET/FOLDER")
    if not importlib.util.find_spec("gcsfs"):
        raise InputError(f"{text!r} needs gcsfs; install it: pip install 'mpt_jax[gcs]'")
    # Before etils and gcsfs are imported: not through TensorFlow, and not by the calls of special kinds of buckets.
    os.environ.setdefault("EPATH_USE_TF", "false")
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec.config
    from etils import epath

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs a traceback of what it raises, and we say in a line
    for name in ("gs", "gcs"):  # what other processes write must be seen
        fsspec.config.conf.setdefault(name, {})["use_listings_cache"] = False
    return epath.Path(text)


def is_remote(path: pathlib.Path) -> bool:
    """Whether this is a place in a bucket.

    Examples:
      >>> is_remote(pathlib.Path("/data/runs"))
      False
    """
    return str(path).startswith(SCHEME)


def absolute(path: pathlib.Path) -> pathlib.Path:
    """The path from the root; one of a bucket is that already."""
    return path if is_remote(path) else path.absolute()


def reach(path: pathlib.Path) -> None:
    """Find out before anything else whether the bucket is there and may be read.

    Raises:
      InputError: it is not.
    """
    if not is_remote(path):
        return
    bucket = str(path).removeprefix(SCHEME).partition("/")[0]
    try:
        _filesystem(path).find(str(path), prefix="config.json")
    except Exception as error:  # of four libraries
        reason = "no such bucket" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())[:300]
        raise InputError(
            f"cannot reach {SCHEME}{bucket}: {reason or type(error).__name__}; check its name and your rights "
            "(gcloud auth application-default login)"
        ) from error


def make_folder(path: pathlib.Path) -> None:
    """Make a folder and those above it, where there are folders."""
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def remove(folder: pathlib.Path) -> None:
    """Remove a folder and all in it, if it is there; its own files before those below, for they vouch for them."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    names = sorted(files(folder), key=lambda name: name.count("/"))
    for own in (True, False):
        if chosen := [f"{folder}/{name}" for name in names if ("/" not in name) == own]:
            with contextlib.suppress(FileNotFoundError):
                _filesystem(folder).rm(chosen)


def files(folder: pathlib.Path) -> list[str]:
    """The files below a folder at any depth, sorted, by their names from there."""
    if not is_remote(folder):
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    start = str(folder).removeprefix(SCHEME) + "/"
    return sorted(name.removeprefix(start) for name in _filesystem(folder).find(start) if name.startswith(start))


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Write a whole file or none of it: as one object, or to a neighbour first, then renamed over the old one."""
    if is_remote(path):
        _filesystem(path).pipe_file(str(path), content)
        return
    neighbour = path.with_name(f".{path.name}.unfinished")
    try:
        neighbour.write_bytes(content)
        os.replace(neighbour, path)
    except BaseException:  # the disk is full, or a signal came
        with contextlib.suppress(OSError):
            neighbour.unlink()
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text as UTF-8 with `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def append_text(path: pathlib.Path, text: str) -> None:
    """Add to the end of a file, which is made; in a bucket all of it is written again."""
    if is_remote(path):
        before = path.read_bytes() if path.exists() else b""
        write_bytes(path, before + text.encode("utf-8"))
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def is_failure(error: BaseException) -> bool:
    """Whether a store, or the way to it, has failed: what gcsfs and those below it raise shares no class."""
    return type(error).__module__.partition(".")[0] in ("gcsfs", "google", "aiohttp", "requests", "fsspec")


@contextlib.contextmanager
def lease(path: pathlib.Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the object `path` of a bucket as a lock: who holds it renews it every `BEAT` seconds, and takes it away.

    One whose holder is known to be dead, or that stays as it is for `PATIENCE` seconds, is void; clocks are not
    compared. A process that finds its lock in other hands ends at once with status 2.

    Raises:
      InputError: another process renews it.
    """
    mine = {"process": os.getpid(), "host": socket.gethostname(), "run": uuid.uuid4().hex}
    if not _create(path, mine):
        holder = _holder(path)
        if not _is_dead(holder):
            _wait(path, holder, say)
        with contextlib.suppress(FileNotFoundError):
            _filesystem(path).rm_file(str(path))
        if not _create(path, mine):
            raise _in_use(path, _holder(path))
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, mine, over), daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        with contextlib.suppress(Exception):  # the work is done; what is left is void after a while
            if _holder(path).get("run") == mine["run"]:
                _filesystem(path).rm_file(str(path))


def _beat(path: pathlib.Path, mine: dict[str, Any], over: threading.Event) -> None:
    while not over.wait(BEAT):
        try:
            holder = _holder(path)
            if holder.get("run") == mine["run"]:
                _filesystem(path).pipe_file(str(path), _signed(mine))
                continue
        except Exception:  # the store is out of reach: the next beat may find it
            continue
        if over.is_set():
            return
        print(f"error: {_in_use(path, holder)}; it took over while this one was not heard of", file=sys.stderr)
        sys.stderr.flush()
        os._exit(2)  # nothing more may be written


def _wait(path: pathlib.Path, holder: dict[str, Any], say: Callable[[str], None]) -> None:
    say(f"{path} is held by {_name(holder)}: waiting up to {PATIENCE:.0f} s for a sign of life")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(min(BEAT / 4, 5.0))
        now = _holder(path)
        if not now:  # it has ended
            return
        if now != holder:
            raise _in_use(path, now)


def _create(path: pathlib.Path, mine: dict[str, Any]) -> bool:
    """Whether the object is ours now: the store makes it for one only."""
    try:
        _filesystem(path).pipe_file(str(path), _signed(mine), mode="create")
    except FileExistsError:
        return _holder(path).get("run") == mine["run"]  # so it is where an answer was lost and the call repeated
    return True


def _holder(path: pathlib.Path) -> dict[str, Any]:
    """What the lock says of its holder; nothing where there is no lock."""
    try:
        found = json.loads(_filesystem(path).cat_file(str(path)))
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"host": "an unknown host"}
    return found if isinstance(found, dict) else {"host": "an unknown host"}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("process"), int) or os.name != "posix":
        return not holder
    if holder["process"] == os.getpid():  # a container's only process has the same number every time
        return True
    try:
        os.kill(holder["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _signed(mine: dict[str, Any]) -> bytes:
    return json.dumps({**mine, "time": datetime.datetime.now(datetime.UTC).isoformat()}).encode()


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('process', '?')} on {holder.get('host', '?')} ({holder.get('time', 'no time')})"


def _in_use(path: pathlib.Path, holder: dict[str, Any]) -> InputError:
    folder = str(path).rpartition("/")[0]
    return InputError(f"{folder} is in use by {_name(holder)}; wait for its end, or give another --workdir")


def _filesystem(path: pathlib.Path) -> Any:
    import fsspec

    return fsspec.filesystem("gcs")
