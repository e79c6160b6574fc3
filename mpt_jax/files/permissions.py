"""Whether other users of a machine may change what a folder holds.

The rule is that of SSH for its keys: the folder and all folders above it belong to this user or to root, and neither
their group nor everyone may write to them. In a folder above, the sticky bit (as of /tmp) is enough, because others can
then neither rename nor remove what is not theirs. A group whose only member is this user counts as this user. Access
lists beyond these permissions are not read; where a system has no such permissions (Windows), nobody else is found.
"""

import os
import pathlib
import stat

from mpt_jax.errors import printable
from mpt_jax.files import storage

try:
    import grp
    import pwd
except ImportError:  # Windows
    grp = pwd = None  # type: ignore[assignment]

ROOT = 0


def writable_by_others(folder: pathlib.Path) -> str:
    """Return who else may change what is in a folder and why, or "" for nobody; a folder in a bucket is not checked.

    A folder that does not exist yet would be made in the first one above that does.
    """
    if grp is None or storage.is_remote(folder):
        return ""
    real = pathlib.Path(os.path.realpath(folder))
    for path in (real, *real.parents):
        try:
            status = path.stat()
        except OSError:  # it does not exist, or may not be examined: who uses it reports that
            continue
        above = path != real
        if status.st_uid not in (os.geteuid(), ROOT):
            return printable(f"{path} belongs to {_user(status.st_uid)}")
        if above and status.st_mode & stat.S_ISVTX:
            continue
        if status.st_mode & stat.S_IWOTH:
            return printable(f"everyone may write to {path}")
        if status.st_mode & stat.S_IWGRP and (group := _shared_group(status.st_gid)):
            return printable(f"the group {group} may write to {path}")
    return ""


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _shared_group(number: int) -> str:
    """Return the name of a group that may have other members than this user and root, or ""."""
    user = _user(os.geteuid())
    try:
        group = grp.getgrgid(number)
    except KeyError:
        return str(number)
    # The members that have it as their own group are not listed. A group named as the user is the user's alone.
    private = group.gr_name in (user, "root") and not {*group.gr_mem} - {user, "root"}
    return "" if private else group.gr_name
