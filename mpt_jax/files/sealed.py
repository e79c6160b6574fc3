"""Digests that reveal damage: of trees of arrays, and of JSON objects and `.npz` files that carry their own.

Imports no JAX, so that `mpt_jax.compare` can check the files of a run.
"""

import hashlib
import io
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from mpt_jax.errors import DAMAGED, InputError, listed
from mpt_jax.files import npz, schema, storage
from mpt_jax.runtime import regular_file

AGAIN = "run the same command again to regenerate it"  # remedy for a file that a run can write again


def digest(tree: Any) -> str:
    """Return the SHA-256 of the path, dtype, shape and bytes of every array in a tree of mappings and sequences.

    Paths are written as `jax.tree_util.keystr` writes them and sorted as text; None holds no arrays.
    """
    result = hashlib.sha256()
    for path, leaf in sorted(_leaves(tree, ""), key=lambda pair: pair[0]):
        array = np.ascontiguousarray(leaf)
        result.update(f"{path} {array.dtype} {array.shape}\n".encode())
        result.update(array.reshape(-1).view(np.uint8).data)  # not a copy: images may take most of the memory
    return result.hexdigest()


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}[{key!r}]")
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from _leaves(value, f"{path}[{index}]")
    elif tree is not None:
        yield path, tree


def sealed(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its digest as `seal`: the SHA-256 of everything else in it."""
    contents = json.loads(json.dumps({key: value for key, value in contents.items() if key != "seal"}))
    return {**contents, "seal": hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()}


def read_sealed(path: pathlib.Path, expected: Any = dict) -> dict[str, Any]:
    """Read a JSON object written with its seal.

    Args:
      expected: what it must hold, see `schema`.

    Raises:
      InputError: the file is missing or unreadable, or its contents do not match the seal or are not as expected.
    """
    contents = schema.read(path)
    if contents.get("seal") != sealed(contents)["seal"]:
        raise InputError(f"{path} is damaged or was edited: its contents do not match the digest in it")
    if found := schema.fault(contents, expected):
        raise InputError(f"{path} is damaged: {found}")
    return contents


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an `.npz` file of the arrays and their `digest`, completely or not at all."""
    content = io.BytesIO()
    # For mypy the arrays could be the argument allow_pickle.
    np.savez_compressed(content, **arrays, digest=digest(arrays))  # type: ignore[arg-type]
    storage.write_bytes(path, content.getvalue())


def read_arrays(path: pathlib.Path, names: Collection[str], *, optional: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Read the arrays of these names, as `write_arrays` wrote them; those of `optional` may be absent.

    Raises:
      InputError: the file is missing or damaged, or holds other arrays.
    """
    arrays = _arrays(path, {*names, *optional, "digest"})
    expected = str(arrays.pop("digest", ""))
    if set(arrays) - set(optional) != set(names) or digest(arrays) != expected:
        raise InputError(f"{path} is damaged: its arrays do not match the digest in it; {AGAIN}")
    return arrays


def read_array(path: pathlib.Path, name: str) -> np.ndarray | None:
    """Read one of the arrays, without the digest; None if there is none of this name.

    Raises:
      InputError: the file is missing or damaged.
    """
    return _arrays(path, {name}, others=True).get(name)


def _arrays(path: pathlib.Path, names: Collection[str], *, others: bool = False) -> dict[str, np.ndarray]:
    """Read the arrays of these names that are there; any other one is an error, unless `others` are allowed."""
    try:
        with storage.opened(path) as stream, npz.Archive(stream, str(path)) as file:
            if not others and (unknown := file.keys() - names):
                raise InputError(f"{path} is damaged: it has {listed(sorted(unknown))}")
            return {name: file[name] for name in file if name in names}
    except InputError as error:
        raise InputError(f"{error}; {AGAIN}") from error
    except DAMAGED as error:
        raise InputError(f"{path} is missing or damaged ({regular_file.reason(error)}); {AGAIN}") from error
