"""The folder of an export, which appears complete or not at all."""

import contextlib
import hashlib
import importlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from mpt_jax.errors import InputError
from mpt_jax.runtime import regular_file


def require_new(folder: pathlib.Path) -> None:
    """Check that a folder is new or empty, and can be created.

    Raises:
      InputError: it is not.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; expected a new or empty folder")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"{folder.absolute().parent} is not a folder; create it first")


@contextlib.contextmanager
def complete(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a folder to write into, which becomes this one when all is written; after an error nothing is left."""
    folder = folder.absolute()
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        yield unfinished
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def package(name: str) -> Any:
    """Import a module of the extra `export`.

    Raises:
      InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        extra = name.partition(".")[0]
        raise InputError(f"export needs {extra}; install it: pip install 'mpt_jax[export]'") from error


def digest(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file."""
    with regular_file.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
