"""What makes a result evidence that stands alone: the files that were read, the options, and the versions."""

import contextlib
import hashlib
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy

from mpt_jax import __version__
from mpt_jax.class_map import ClassMap
from mpt_jax.errors import InputError
from mpt_jax.files.predictions import packed
from mpt_jax.runtime import regular_file

_TEXT = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".toml")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BLOCK = 1 << 20
TABLES = ("old", "new", "labels", "metadata", "must_pass", "class_map", "label_changes", "policy")
"""The arguments of `compare` that are a file or a table in memory."""


def inputs(arguments: Mapping[str, Any], rows: int) -> list[dict[str, Any]]:
    """Return what was compared: files with the SHA-256 of their bytes, tables in memory with their kind.

    Args:
      arguments: those of `compare`.
      rows: how many rows of each model were read.
    """
    found = []
    for role in TABLES:
        given = arguments.get(role)
        counted = {"rows": rows} if role in ("old", "new") else {}
        several = given if role == "class_map" and isinstance(given, list | tuple) else [given]
        found += [
            {"role": role, **(file(each) if _is_path(each) else {"kind": kind(each)}), **counted}
            for each in several
            if each is not None
        ]
    return found


def of_command(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the files of a command that could not compare them, as far as they can be read.

    Args:
      arguments: those of the command by name; `more` are further versions.

    Examples:
      >>> of_command({"old": "nowhere.csv", "new": "-", "more": []})
      [{'role': 'old', 'kind': 'unreadable', 'name': 'nowhere.csv'}, {'role': 'new', 'kind': 'stdin', 'name': '-'}]
    """
    more = arguments.get("more", ())
    roles = {"old": "version 1", "new": "version 2"} if more else {}
    given = {role: value if isinstance(value, list) else [value] for role, value in arguments.items()}
    named = [(roles.get(role, role), each) for role in TABLES for each in given.get(role, ()) if _is_path(each)]
    named += [(f"version {place}", name) for place, name in enumerate(more, 3)]
    found = []
    for role, name in named:
        described: dict[str, Any] = {"kind": "stdin" if name == "-" else "unreadable", "name": str(name)}
        if os.path.isfile(name) or os.path.isdir(name):  # not a pipe, which would wait for a writer
            with contextlib.suppress(InputError, OSError):
                described = file(name)
        found.append({"role": role, **described})
    return found


def models(given: Sequence[Any], rows: int) -> list[dict[str, Any]]:
    """Return what was compared in a chain of versions, as `inputs` does.

    Examples:
      >>> models([{"id": [1]}], 1)
      [{'role': 'version 1', 'kind': 'arrays', 'rows': 1}]
    """
    return [
        {"role": f"version {place}", **(file(each) if _is_path(each) else {"kind": kind(each)}), "rows": rows}
        for place, each in enumerate(given, 1)
    ]


def file(path: str | os.PathLike[str]) -> dict[str, Any]:
    r"""Return name, size and SHA-256 of a file, and its lines if it is text; it is read once.

    Examples:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile(suffix=".csv") as made:
      ...     _ = made.write(b"id,label\n1,cat\n")
      ...     made.flush()
      ...     found = file(made.name)
      >>> found["kind"], found["bytes"], found["lines"], found["sha256"][:8]
      ('file', 15, 2, '1f043972')
    """
    if os.path.isdir(path):
        return _folder(path)
    hashed, size, breaks, start, last = hashlib.sha256(), 0, 0, b"", b""
    is_text = pathlib.Path(path).suffix.lower() in _TEXT
    with regular_file.opened(path) as opened:
        while block := opened.read(_BLOCK):
            hashed.update(block)
            size += len(block)
            breaks += block.count(b"\n") if is_text else 0
            start, last = start or block[:2], block[-1:]
    lines = {"lines": breaks + (last not in (b"", b"\n"))} if is_text and start not in _UTF16 else {}
    return {"kind": "file", "name": str(path), "bytes": size, "sha256": hashed.hexdigest(), **lines}


def _folder(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return name, size and one SHA-256 of the parts of a table: that of their own, in order, one per line."""
    parts = [file(part) for part in packed.parts(packed.File(pathlib.Path(path), str(path)))]
    hashed = hashlib.sha256("".join(f"{part['sha256']}\n" for part in parts).encode()).hexdigest()
    size = sum(part["bytes"] for part in parts)
    return {"kind": "folder", "name": str(path), "bytes": size, "sha256": hashed}


def options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `compare` as JSON has them, without those that are None.

    Examples:
      >>> options({"old": "a.csv", "new": "b.csv", "max_nfr": 0.01, "same": {"Cat": "cat"}, "classes": None})
      {'max_nfr': 0.01, 'same': {'Cat': 'cat'}}
    """
    given = {key: value for key, value in arguments.items() if key not in ("old", "new") and value is not None}
    return {
        key: kind(value) if key in TABLES and key != "class_map" and not _is_path(value) else _plain(value)
        for key, value in given.items()
    }


def versions() -> dict[str, str]:
    """Return the versions of what computed the result."""
    return {
        "mpt_jax": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pyarrow": pa.__version__,
    }


def kind(given: Any) -> str:
    """Return what a table in memory is called.

    Examples:
      >>> kind({"id": [1]}), kind(pa.table({"id": [1]}))
      ('arrays', 'pyarrow.lib.Table')
    """
    return "arrays" if isinstance(given, Mapping) else f"{type(given).__module__}.{type(given).__name__}"


def _is_path(given: Any) -> bool:
    return isinstance(given, str | os.PathLike)


def _plain(value: Any) -> Any:
    if isinstance(value, ClassMap):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, str | bool | int | float) or value is None else str(value)
