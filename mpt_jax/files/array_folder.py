"""A folder of arrays with sealed JSON metadata: what released models and training states have in common.

`model/` holds the arrays, written by orbax, which only this module imports. Other subfolders may hold arrays that the
folder shares with others. The metadata file has the size and the SHA-256 of every file in them, and the SHA-256 of
itself; reading checks them before anything else. A folder appears completely or not at all. Only reading and writing
arrays imports orbax and JAX.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from mpt_jax.errors import InputError, one_line
from mpt_jax.files import storage
from mpt_jax.files.sealed import read_sealed, sealed

FILES = {"files": {...: str}, "sizes?": {...: int}}
"""What every metadata must hold."""


def write(
    folder: pathlib.Path,
    metadata_name: str,
    metadata: Mapping[str, Any],
    arrays: Any | None,
    shared: Mapping[str, pathlib.Path] = MappingProxyType({}),
    texts: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write the arrays and the sealed metadata to `.NAME.unfinished`, which is then renamed to the folder.

    A bucket has no renames: there both go to the folder itself. It is ignored until its metadata is written, last. With
    several processes each writes its part of the arrays, and the first one the metadata.

    Args:
      shared: other folders of this kind, by the subfolder to which their arrays go: as links, where these are possible.
      texts: contents of further files, by name. Reading ignores them.

    Raises:
      OSError: the disk is full, or the folder cannot be written.
    """
    import jax
    import orbax.checkpoint as ocp

    from mpt_jax.runtime import processes

    remote, first = storage.is_remote(folder), processes.is_first()
    unfinished = folder if remote else folder.with_name(f".{folder.name}.unfinished")
    try:
        with processes.synchronized():
            if first:
                storage.remove(unfinished)
                storage.make_folder(unfinished)
                _require_space(unfinished, sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)))
        if arrays is not None:
            # Synchronous: an asynchronous save is lost when the process exits.
            with _silent(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
                checkpointer.save(storage.absolute(unfinished / "model"), args=ocp.args.StandardSave(arrays))
        with processes.synchronized():
            if first:
                for name, source in shared.items():
                    storage.link_files(source / "model", unfinished / name)
                for name, content in texts.items():
                    storage.write_bytes(unfinished / name, content)
                parts = ("model", *shared)
                facts = {"files": file_digests(unfinished, parts), "sizes": _sizes(unfinished, parts)}
                metadata = sealed({**metadata, **facts})
                storage.write_text(unfinished / metadata_name, json.dumps(metadata, indent=1) + "\n")
                if not remote:
                    storage.remove(folder)  # a damaged one
                    unfinished.rename(folder)
    except Exception as error:
        if first:
            with contextlib.suppress(Exception):
                storage.remove(unfinished)
        if isinstance(error, OSError | jax.errors.JaxRuntimeError):  # the latter: another process was lost
            raise
        if remote:
            raise OSError(errno.EIO, f"cannot be written ({one_line(error)[:300]})", str(folder)) from error
        # orbax and its storage raise a ValueError with the system's message somewhere in it.
        number = next(
            (n for n in (*storage.DISK_FULL, errno.EROFS, errno.EFBIG) if os.strerror(n) in str(error)), errno.EIO
        )
        raise OSError(number, os.strerror(number), str(folder)) from error


def read(
    folder: pathlib.Path, metadata_name: str, abstract: Any | None, part: str = "model"
) -> tuple[Any, dict[str, Any]]:
    """Check every file of a subfolder, then return its arrays, shaped as `abstract` if given, and the metadata.

    Raises:
      InputError: a file is missing or damaged, or the arrays do not have these shapes.
    """
    import jax
    import orbax.checkpoint as ocp

    from mpt_jax.runtime import processes

    with processes.synchronized():
        metadata = read_sealed(folder / metadata_name, FILES)
        for fault in faults(folder, metadata_name, metadata, (part,)):
            raise InputError(fault)
    try:
        with _silent(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            path = storage.absolute(folder / part)
            if abstract is not None:
                _require_fit(folder, checkpointer.metadata(path).item_metadata.tree, abstract)
            return checkpointer.restore(path, args=ocp.args.StandardRestore(abstract)), metadata
    except (InputError, jax.errors.JaxRuntimeError):  # the latter: another process was lost
        raise
    except Exception as error:  # undamaged, but of other shapes or another version of orbax, which raises many kinds
        raise InputError(f"{folder} cannot be read ({type(error).__name__})") from error


def _require_fit(folder: pathlib.Path, saved: Any, expected: Any) -> None:
    """Refuse arrays of other shapes or types than expected: orbax converts some types, and prints what fails."""
    import jax

    both = [
        {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (saved, expected))
    ]
    for name in sorted(both[0].keys() & both[1].keys()):
        found, needed = (f"{np.dtype(tree[name].dtype)} {list(tree[name].shape)}" for tree in both)
        if found != needed:
            raise InputError(f"{folder} cannot be read: {name} is {found}; expected {needed}")


def faults(
    folder: pathlib.Path,
    metadata_name: str,
    metadata: Mapping[str, Any],
    parts: Sequence[str] = ("model",),
    *,
    digests: bool = True,
) -> Iterator[str]:
    """Yield a line for each file of the metadata that is missing or damaged.

    Args:
      parts: the subfolders to check.
      digests: compare the SHA-256 of every file. Otherwise only that of files that are newer than the metadata, which
        were written after it; of the others the size.
    """
    expected, sizes = dict(metadata.get("files", {})), dict(metadata.get("sizes", {}))
    found = {f"{part}/{name}": facts for part in parts for name, facts in storage.listing(folder / part).items()}
    written = storage.modified(folder / metadata_name)
    for name in sorted(name for name in expected if name.partition("/")[0] in parts):
        if name not in found:
            yield f"{folder / name} is missing"
            continue
        size, modified = found[name]
        whole = size == sizes.get(name, size)  # a version before this one recorded no sizes
        if not whole or ((digests or modified > written) and _file_digest(folder / name) != expected[name]):
            yield f"{folder / name} is damaged"


def file_digests(folder: pathlib.Path, parts: Sequence[str] = ("model",)) -> dict[str, str]:
    """Return the SHA-256 of every file in these subfolders, by path."""
    return {
        f"{part}/{name}": _file_digest(folder / part / name) for part in parts for name in storage.files(folder / part)
    }


def _file_digest(path: pathlib.Path) -> str:
    with storage.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sizes(folder: pathlib.Path, parts: Sequence[str]) -> dict[str, int]:
    """Return the bytes of every file in these subfolders, by path."""
    return {f"{part}/{name}": facts[0] for part in parts for name, facts in storage.listing(folder / part).items()}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence what the threads of orbax log beside the error that it raises, which is reported in one line."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _require_space(folder: pathlib.Path, size: int) -> None:
    """Detect a full disk before orbax does, whose threads would print tracebacks."""
    if not storage.is_remote(folder) and shutil.disk_usage(folder).free < size + size // 10 + 2**20:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
