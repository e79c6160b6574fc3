"""The user's cache folder. Its contents can be deleted at any time, at the cost of time alone."""

import pathlib

import platformdirs


def path(name: str) -> pathlib.Path:
    """Return ``mpt_jax/NAME`` in the user's cache folder: `XDG_CACHE_HOME` or `~/.cache`, or the platform's equivalent.

    Raises:
      RuntimeError: the user has no home folder.
    """
    return platformdirs.user_cache_path("mpt_jax", appauthor=False, opinion=False) / name
