"""Cache of compiled programs in the user's cache folder, so that a second start of a command need not compile.

XLA's own cache does the work. This module gives it a place and limits its size. Problems with that place (not writable,
full disk, damaged entries) cost time only. A place that others may write to is not used, because programs in it are
executed.
"""

import contextlib
import os
import pathlib
import re
import warnings
from collections.abc import Callable
from typing import Any

import jax

from mpt_jax.files import cache_dir, permissions

MAX_BYTES = 2**30  # the main job needs 1.5 MB

# Keep even programs that compile quickly: there are few, and reading one is faster still.
_THRESHOLDS = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}
_WARNING = r"Error (?:reading|writing) persistent compilation cache entry for '([^']+)'"


def default_folder() -> pathlib.Path:
    """Return ``mpt_jax/compiled`` in the user's cache folder.

    Raises:
      RuntimeError: the user has no home folder.
    """
    return cache_dir.path("compiled")


def enable(log: Callable[[str], None]) -> pathlib.Path | None:
    """Read compiled programs from the cache, and write new ones to it; call this before anything compiles.

    Changes nothing if the user has configured JAX's cache with `JAX_COMPILATION_CACHE_DIR`,
    `JAX_ENABLE_COMPILATION_CACHE=false` or `jax.config`.

    Args:
      log: called with a line if others may write to the folder, by the rule of `permissions`: our own is then not used,
        one that the user has configured is.

    Returns:
      The folder, or None if the user has configured the cache, or the folder cannot be created or is not used.
    """
    configured = jax.config.values
    if not configured["jax_enable_compilation_cache"]:
        return None
    if configured["jax_compilation_cache_dir"] is not None:
        _warn(str(configured["jax_compilation_cache_dir"]), log)
        return None
    try:
        folder = default_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if reason := permissions.writable_by_others(folder):
            log(
                f"no cache of compiled programs: {reason}, and programs in {folder} would be executed; take that "
                f"permission away (chmod go-w), or set XDG_CACHE_HOME to a folder of your own"
            )
            return None
        prune(folder, MAX_BYTES)
    except (OSError, RuntimeError):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    for name, value in _THRESHOLDS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    _remove_failing_entries(folder)
    return folder


def _warn(folder: str, log: Callable[[str], None]) -> None:
    """Log a line if others may write to the folder that the user has configured."""
    with contextlib.suppress(OSError, ValueError):
        if "://" not in folder and (reason := permissions.writable_by_others(pathlib.Path(folder))):
            log(f"JAX's cache of compiled programs {folder} is executed, but {reason}; take that permission away")


def prune(folder: pathlib.Path, max_bytes: int) -> None:
    """Remove the oldest entries until at most `max_bytes` are left; every version of the package adds programs.

    JAX's own limit (`jax_compilation_cache_max_size`) does not fit: JAX 0.10.2 then cannot write to a folder with
    entries from before the limit was set, and cannot read from a read-only folder.
    """
    files = {}
    for path in folder.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process has removed it
            status = path.stat()
            files[path] = (status.st_mtime, status.st_size)
    total = 0
    for path, (_, size) in sorted(files.items(), key=lambda item: item[1], reverse=True):
        total += size
        if total > max_bytes:
            with contextlib.suppress(OSError):
                path.unlink()


def _remove_failing_entries(folder: pathlib.Path) -> None:
    """Remove entries that JAX cannot read or write, instead of showing its warning.

    JAX never overwrites an entry, so a damaged one, perhaps truncated by a full disk, would be compiled at every start.
    JAX compiles after the warning and then writes a new entry.
    """
    show = warnings.showwarning

    def show_others(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        failed = re.match(_WARNING, str(message))
        if failed is None:
            return show(message, *args, **kwargs)
        for path in folder.glob(f"{failed[1]}-*"):
            with contextlib.suppress(OSError):
                path.unlink()

    warnings.filterwarnings("always", message=_WARNING, category=UserWarning)
    warnings.showwarning = show_others
