"""Compiled programs that outlive the process: a second start of a command reads them from the user's cache folder.

XLA's own cache does the work. What is added here: a place for it, a bound on its size, and that nothing which may be
wrong with that place (it cannot be written, the disk is full, entries are damaged) is more than time lost.
"""

import contextlib
import os
import pathlib
import re
import warnings

import jax

from mpt_jax.files import cache_dir

LARGEST = 2**30  # bytes; the main job takes 1.5 MB

# Also the programs that compile in a moment: there are few, and reading one is quicker still.
_THRESHOLDS = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}
_COMPLAINT = r"Error (?:reading|writing) persistent compilation cache entry for '([^']+)'"


def default_folder() -> pathlib.Path:
    """``mpt_jax/compiled`` in the user's cache folder: `XDG_CACHE_HOME` or `~/.cache`, or the platform's equivalent.

    Raises:
      RuntimeError: the user has no home folder.
    """
    return cache_dir.path("compiled")


def enable() -> pathlib.Path | None:
    """Keep what this process compiles, and use what earlier ones kept; for a command to call before it compiles.

    Leaves everything as it is where JAX has been told already, by `JAX_COMPILATION_CACHE_DIR`,
    `JAX_ENABLE_COMPILATION_CACHE=false` or `jax.config`.

    Returns:
      The folder, or None where JAX was left alone or the folder cannot be made.
    """
    if jax.config.jax_compilation_cache_dir is not None or not jax.config.jax_enable_compilation_cache:
        return None
    try:
        folder = default_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what lies there is executed
        prune(folder, LARGEST)
    except (OSError, RuntimeError):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    for name, value in _THRESHOLDS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    _remove_what_fails(folder)
    return folder


def prune(folder: pathlib.Path, largest: int) -> None:
    """Remove the oldest entries until at most `largest` bytes are left; programs change with every version."""
    sizes = {}
    for path in folder.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process was quicker
            status = path.stat()
            sizes[path] = (status.st_mtime, status.st_size)
    kept = 0
    for path, (_, size) in sorted(sizes.items(), key=lambda item: item[1], reverse=True):
        kept += size
        if kept > largest:
            with contextlib.suppress(OSError):
                path.unlink()


def _remove_what_fails(folder: pathlib.Path) -> None:
    """In place of JAX's warning about an entry that cannot be read or written, remove it.

    JAX never writes over an entry, so a damaged one, perhaps half written to a full disk, would be compiled anew at
    every start. It compiles after the warning, and then finds the place free.
    """
    show = warnings.showwarning

    def show_others(message, *args, **kwargs):
        complaint = re.match(_COMPLAINT, str(message))
        if complaint is None:
            return show(message, *args, **kwargs)
        for path in folder.glob(f"{complaint[1]}-*"):
            with contextlib.suppress(OSError):
                path.unlink()

    warnings.filterwarnings("always", message=_COMPLAINT, category=UserWarning)
    warnings.showwarning = show_others
