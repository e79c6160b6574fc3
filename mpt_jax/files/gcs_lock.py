"""A lock in a bucket of Google Cloud Storage: an object with its holder's process, host and time."""

import contextlib
import datetime
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from mpt_jax.errors import InputError, one_line
from mpt_jax.files.storage import filesystem

RENEW_EVERY, EXPIRES_AFTER = 20.0, 90.0  # seconds


@contextlib.contextmanager
def hold(path: pathlib.Path, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the object `path` of a bucket as a lock, renew it every `RENEW_EVERY` seconds, and remove it at the end.

    A lock is void if its holder is known to be dead, or if it does not change for `EXPIRES_AFTER` seconds; clocks are
    not compared. A process that finds its lock taken over exits immediately with status 2.

    Raises:
      InputError: another process renews the lock.
    """
    ours = {"process": os.getpid(), "host": socket.gethostname(), "run": uuid.uuid4().hex}
    if not _create(path, ours):
        holder = _read(path)
        if not _is_dead(holder):
            _wait_until_void(path, holder, log)
        with contextlib.suppress(FileNotFoundError):
            filesystem().rm_file(str(path))
        if not _create(path, ours):
            raise _in_use(path, _read(path))
    released = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, ours, released), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        released.set()
        renewal.join()
        with contextlib.suppress(Exception):  # the work is done, and a lock that stays expires
            if _read(path).get("run") == ours["run"]:
                filesystem().rm_file(str(path))


def _renew(path: pathlib.Path, ours: dict[str, Any], released: threading.Event) -> None:
    while not released.wait(RENEW_EVERY):
        try:
            holder = _read(path)
            if holder.get("run") == ours["run"]:
                filesystem().pipe_file(str(path), _with_time(ours))
                continue
        except Exception:  # the store is unreachable: try again
            continue
        if released.is_set():
            return
        reason = one_line(_in_use(path, holder))
        print(f"error: {reason}; it took over while this process did not respond", file=sys.stderr)
        sys.stderr.flush()
        os._exit(2)  # nothing more may be written


def _wait_until_void(path: pathlib.Path, holder: dict[str, Any], log: Callable[[str], None]) -> None:
    log(f"{path} is held by {_name(holder)}: waiting up to {EXPIRES_AFTER:.0f} s to see whether it is still running")
    deadline = time.monotonic() + EXPIRES_AFTER
    while time.monotonic() < deadline:
        time.sleep(min(RENEW_EVERY / 4, 5.0))
        current = _read(path)
        if not current:  # released
            return
        if current != holder:
            raise _in_use(path, current)


def _create(path: pathlib.Path, ours: dict[str, Any]) -> bool:
    """Return whether we created the object: the store lets only one process do so."""
    try:
        filesystem().pipe_file(str(path), _with_time(ours), mode="create")
    except FileExistsError:
        return _read(path).get("run") == ours["run"]  # true if a response was lost and the call repeated
    return True


def _read(path: pathlib.Path) -> dict[str, Any]:
    """Return what the lock records about its holder; empty if there is no lock."""
    try:
        found = json.loads(filesystem().cat_file(str(path)))
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"host": "an unknown host"}
    return found if isinstance(found, dict) else {"host": "an unknown host"}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Return whether the holder was a process of this machine that has ended."""
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


def _with_time(ours: dict[str, Any]) -> bytes:
    return json.dumps({**ours, "time": datetime.datetime.now(datetime.UTC).isoformat()}).encode()


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('process', '?')} on {holder.get('host', '?')} ({holder.get('time', 'no time')})"


def _in_use(path: pathlib.Path, holder: dict[str, Any]) -> InputError:
    folder = str(path).rpartition("/")[0]
    return InputError(f"{folder} is in use by {_name(holder)}; wait until it ends, or give another --workdir")
