"""Programs of the user, named by path: config files, data sets and networks."""

import contextlib
import hashlib
import importlib.machinery
import importlib.util
import pathlib
import sys
import traceback
import types
from collections.abc import Iterator

from mpt_jax.errors import InputError, one_line
from mpt_jax.runtime import regular_file


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the current text: a cached compilation may be of an older text of equal size and time."""

    def __init__(self, name: str, path: str, text: bytes):
        super().__init__(name, path)
        self.text = text

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.text, self.path)


def load(path: pathlib.Path, text: bytes | None = None) -> types.ModuleType:
    """Run a program, or a text in its place, and return its names.

    It is listed in `sys.modules` under a name of its own, where dataclasses look up their annotations.
    """
    place, text = str(path.absolute()), regular_file.read_bytes(path) if text is None else text
    identity = hashlib.sha256(place.encode(errors="surrogateescape") + b"\0" + text).hexdigest()
    name = f"mpt_jax_user_program_{identity[:16]}"
    loader = _Loader(name, place, text)
    spec = importlib.util.spec_from_file_location(name, place, loader=loader)
    assert spec is not None  # a loader was given
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


@contextlib.contextmanager
def reported(path: pathlib.Path, what: str) -> Iterator[None]:
    """Convert what a program raises to an `InputError` with its last line that failed.

    A program may raise anything. Its own `InputError` is left as it is.

    Args:
      path: of the program.
      what: the program, at the start of the message.

    Examples:
      >>> with reported(pathlib.Path("net.py"), "model.name=net.py:build"):
      ...     raise KeyError("size")
      Traceback (most recent call last):
      ...
      mpt_jax.errors.InputError: model.name=net.py:build failed: KeyError: 'size'
    """
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        line = failing_line(path, error)
        where = f" in line {line}" if line else ""
        raise InputError(f"{what} failed{where}: {one_line(f'{type(error).__name__}: {error}')}") from error


def failing_line(path: pathlib.Path, error: BaseException) -> int | None:
    """Return the last line of a program that an exception passed through; None if it passed through none."""
    name = str(path.absolute())
    if isinstance(error, SyntaxError) and error.filename == name:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return lines[-1] if lines else None
