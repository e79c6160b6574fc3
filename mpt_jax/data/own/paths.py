"""Checks of file names and paths."""

import os


def is_inside(path: str, folder: str) -> bool:
    """Return whether a resolved path is a resolved folder or below it.

    Examples:
      >>> is_inside("/pets/cat", "/pets"), is_inside("/pets2", "/pets")
      (True, False)
    """
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def is_text(name: str) -> bool:
    r"""Return whether a name can be encoded: Python gives file names that are not valid UTF-8 surrogates.

    Examples:
      >>> is_text("cat"), is_text("cat\udcff")
      (True, False)
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
