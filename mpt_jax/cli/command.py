"""The door that all commands share: how they are asked for and how they end, in one line and an exit status."""

import argparse
import errno
import io
import os
import pathlib
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from mpt_jax.errors import InputError, one_line
from mpt_jax.files import storage
from mpt_jax.runtime import interruption

BAD_INPUT, DISK_FULL = 2, 3  # exit statuses


class Parser(argparse.ArgumentParser):
    """Raises `InputError` where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def ended(
    work: Callable[[], int | None],
    *,
    goodbye: str = "interrupted",
    when_full: str = "make room, and give the same command again",
) -> int:
    """Do the work of a command; returns its exit status.

    That is what the work returns (0 for None), or 2 for bad input and files that cannot be used, 3 for a full disk, 130
    for SIGINT and 143 for SIGTERM, each with one line on stderr.

    Args:
      goodbye: what is said after a signal.
      when_full: what a user can do about a full disk.

    Examples:
      >>> ended(lambda: None), ended(lambda: 1)
      (0, 1)
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± or box lines must not end a finished run
    try:
        with interruption.watched(goodbye):
            return work() or 0
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = when_full if full else "give paths that exist and can be used"
        reason = f"{error.filename or 'disk'}: {error.strerror or str(error) or type(error).__name__}"
        print(f"error: {one_line(f'{reason}; {remedy}')}", file=sys.stderr)
        return DISK_FULL if full else BAD_INPUT
    except (RuntimeError, AssertionError) as error:
        if not (reason := _no_device(error)):
            raise
        print(f"error: {one_line(reason)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as error:
        print(goodbye, file=sys.stderr)
        return error.status if isinstance(error, interruption.Interrupted) else 130
    except Exception as error:
        if not storage.is_failure(error):
            raise
        print(f"error: the store has failed: {one_line(error)}; the same command goes on from there", file=sys.stderr)
        return BAD_INPUT


def _no_device(error: Exception) -> str:
    """Why JAX has found none of the devices that it was to take, or nothing where that is not what has failed."""
    if "nable to initialize backend" in str(error):
        return str(error)  # names those that are known, and JAX_PLATFORMS
    # It passes over a GPU that is not there, and then has no words for having nothing left.
    if not str(error) and traceback.extract_tb(error.__traceback__)[-1].filename.endswith("xla_bridge.py"):
        asked = os.environ.get("JAX_PLATFORMS", "")
        return f"JAX finds no device of JAX_PLATFORMS={asked}; set JAX_PLATFORMS= to let it choose, or cpu"
    return ""


def say(text: str) -> None:
    """Print a whole text; a reader who has left (`| head -1`) changes nothing of how the command ends."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        # or Python would fail once more at its end, when it flushes what is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def natural(text: str) -> int:
    """An integer from 1 on, as the type of an argument.

    Examples:
      >>> natural("12")
      12
    """
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) < 2**31):
        raise argparse.ArgumentTypeError(f"{text[:50]!r}; expected an integer from 1 on")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    """Words separated by commas, each once, as the type of an argument.

    Examples:
      >>> names("cpu, tpu,cpu")
      ('cpu', 'tpu')
    """
    if not (found := tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))):
        raise argparse.ArgumentTypeError(f"{text!r}; expected at least one, separated by commas")
    return found


def output_file(option: str, path: pathlib.Path) -> pathlib.Path:
    """The path, where a file can be written there.

    Raises:
      InputError: it is a folder, in a bucket, or where nothing exists or may be written: found out before any work.
    """
    wrong = {
        "is in a bucket": str(path).startswith("gs:/"),
        "is a folder": path.is_dir(),
        "is in a folder that does not exist": not path.parent.is_dir(),
        "is in a folder that may not be written": not os.access(path.parent, os.W_OK),
    }
    for what in (what for what, is_so in wrong.items() if is_so):
        raise InputError(f"{option} {path} {what}; expected a file in a folder that exists and may be written")
    return path
