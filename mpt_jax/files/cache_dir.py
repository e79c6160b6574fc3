"""The user's cache folder: what is there may be deleted at any time, and costs time alone."""

import os
import pathlib
import sys


def path(name: str) -> pathlib.Path:
    """``mpt_jax/NAME`` in the user's cache folder: `XDG_CACHE_HOME` or `~/.cache`, or the platform's equivalent.

    Raises:
      RuntimeError: the user has no home folder.
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or pathlib.Path.home() / "AppData/Local"
    elif sys.platform == "darwin":
        base = pathlib.Path.home() / "Library/Caches"
    else:
        given = os.environ.get("XDG_CACHE_HOME", "")
        base = given if os.path.isabs(given) else pathlib.Path.home() / ".cache"  # its standard: ignore relative ones
    return pathlib.Path(base) / "mpt_jax" / name
