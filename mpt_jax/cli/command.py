"""How every command ends: one line on stderr and an exit status."""

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable

from mpt_jax.errors import InputError, one_line, printable
from mpt_jax.files import storage
from mpt_jax.runtime import interruption

BAD_INPUT, DISK_FULL = 2, 3  # exit statuses


def run(
    work: Callable[[], int | None],
    *,
    when_interrupted: str = "interrupted",
    when_disk_full: str = "free some space and run the same command again",
) -> int:
    """Do the work of a command and return its exit status.

    The status is what the work returns (0 for None), or 2 for bad input and unusable files, 3 for a full disk, 130 for
    SIGINT and 143 for SIGTERM. In these four cases one line on stderr gives the reason.

    Args:
      work: the command.
      when_interrupted: printed after a signal.
      when_disk_full: how to continue after a full disk.

    Examples:
      >>> run(lambda: None), run(lambda: 1)
      (0, 1)
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot print ± must not fail a finished run
    try:
        with interruption.handle_signals(when_interrupted):
            return work() or 0
    except InputError as error:
        return _fail(str(error))
    except OSError as error:
        disk_full = error.errno in storage.DISK_FULL
        remedy = "give paths that exist and can be used"
        if disk_full or error.errno == errno.EIO:  # of a disk or a store
            remedy = when_disk_full if disk_full else "run the same command again to continue"
        reason = f"{error.filename or 'disk'}: {error.strerror or str(error) or type(error).__name__}"
        return _fail(f"{reason}; {remedy}", DISK_FULL if disk_full else BAD_INPUT)
    except (RuntimeError, AssertionError) as error:
        if not (reason := _missing_device(error)):
            raise
        return _fail(reason)
    except KeyboardInterrupt as error:
        print_line(when_interrupted, to_stderr=True)
        return error.status if isinstance(error, interruption.Interrupted) else 130
    except Exception as error:
        if not storage.is_failure(error):
            raise
        return _fail(f"cloud storage failed: {one_line(error)}; run the same command again to continue")


def print_line(text: str, *, to_stderr: bool = False) -> None:
    """Print a line that may hold names: what a terminal would act on is escaped, a line break too."""
    print(printable(text), file=sys.stderr if to_stderr else sys.stdout)


def print_text(text: str) -> None:
    """Print a text whose names are escaped already.

    A closed pipe (`| head -1`) does not change the exit status of the command.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        # Python flushes stdout when it exits, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int = BAD_INPUT) -> int:
    print_line(f"error: {one_line(message)}", to_stderr=True)
    return status


def _missing_device(error: Exception) -> str:
    """Return why JAX found none of the requested devices, or "" for any other error."""
    if "nable to initialize backend" in str(error):
        return str(error)  # names the known backends and JAX_PLATFORMS
    # JAX skips a missing GPU and then fails with an empty AssertionError if no platform is left.
    if not str(error) and traceback.extract_tb(error.__traceback__)[-1].filename.endswith("xla_bridge.py"):
        platforms = os.environ.get("JAX_PLATFORMS", "")
        return f"JAX found no device for JAX_PLATFORMS={platforms}; unset it to let JAX choose, or set it to cpu"
    return ""
