"""The lock of a work directory: one process works there, or one group of processes that share it."""

import contextlib
import errno
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator

from mpt_jax.errors import InputError
from mpt_jax.files import gcs_lock, storage
from mpt_jax.runtime import processes, regular_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE = "lock"
VISIBLE_AFTER = 60.0  # seconds until all hosts that share a disk see a new file


@contextlib.contextmanager
def hold(workdir: pathlib.Path, log: Callable[[str], None] = print) -> Iterator[None]:
    """Create a work directory and keep other processes out of it for the duration of the block.

    The operating system releases the lock of a process that was killed. On platforms without such locks (Windows, some
    network file systems) nothing is locked. In a bucket the lock is `gcs_lock.hold`.

    Raises:
      InputError: another process holds the lock, or the folder is not writable.
    """
    if storage.is_remote(workdir):
        with gcs_lock.hold(workdir / FILE, log):
            yield
        return
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(regular_file.extended(workdir / FILE))
        except OSError as error:
            raise not_writable(workdir, error) from error
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise InputError(
                    f"{workdir} is in use by {file.read(200).strip() or 'another process'}; wait until it ends, "
                    "or give another --workdir"
                ) from error
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL):
                    raise
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def require_shared(workdir: pathlib.Path) -> None:
    """Check that all processes see the work directory that the first one has locked.

    Raises:
      InputError: in all processes, if one of them has another folder of this name.
    """
    if not processes.is_distributed() or storage.is_remote(workdir):
        return
    path, deadline = workdir / FILE, time.monotonic() + VISIBLE_AFTER
    holder = processes.from_first(lambda: regular_file.read_text(path))
    with processes.synchronized():
        while not path.exists() or regular_file.read_text(path) != holder:
            if time.monotonic() > deadline:
                raise InputError(
                    f"{workdir} is not the same folder for all processes ({socket.gethostname()} has another one); "
                    "expected a folder on a shared disk or in a bucket"
                )
            time.sleep(VISIBLE_AFTER / 100)


def not_writable(workdir: pathlib.Path, error: OSError) -> Exception:
    """Return the error to raise: an `InputError`, or the original one if the disk is full."""
    if error.errno in storage.DISK_FULL:
        return OSError(error.errno, error.strerror, str(workdir))
    # The path of a file in it is worth naming, that of a temporary file is not.
    inside = error.filename and os.path.lexists(error.filename) and pathlib.Path(error.filename) != workdir
    where = f"{error.filename}: " if inside else ""
    return InputError(f"cannot write to work directory {workdir}: {where}{error.strerror}; give another --workdir")
