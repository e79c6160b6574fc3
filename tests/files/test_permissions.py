"""Who else may change a folder: by its own permissions, by those of the folders above, and by their owners."""

import os
import pathlib

import pytest

from mpt_jax.files import permissions
from mpt_jax.files.permissions import writable_by_others

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


@pytest.fixture
def folder(tmp_path):
    """A folder of this user alone; those above it are not looked at, as they may be anything."""
    path = tmp_path / "above/own"
    path.mkdir(parents=True)
    for each in (tmp_path, path.parent, path):
        each.chmod(0o700)
    assert writable_by_others(path) == ""
    return path


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o500, 0o750])
def test_a_folder_that_others_only_read(folder, mode):
    folder.chmod(mode)
    assert writable_by_others(folder) == ""


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o1777])
def test_a_folder_for_everyone(folder, mode):
    folder.chmod(mode)
    assert writable_by_others(folder) == f"everyone may write to {folder.resolve()}"


def test_a_folder_above_counts_unless_its_sticky_bit_protects(folder):
    folder.parent.chmod(0o777)
    reason = f"everyone may write to {folder.parent.resolve()}"
    assert writable_by_others(folder) == writable_by_others(folder / "not/made/yet") == reason
    folder.parent.chmod(0o1777)
    assert writable_by_others(folder) == ""


def test_a_link_counts_as_what_it_points_to(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    folder.chmod(0o777)
    assert writable_by_others(tmp_path / "link") == f"everyone may write to {folder.resolve()}"


class Group:
    """An entry of the list of groups."""

    def __init__(self, name, members=()):
        self.gr_name, self.gr_mem = name, list(members)


@pytest.mark.parametrize(
    ("group", "shared"),
    [
        (Group("me"), False),
        (Group("me", ["me"]), False),
        (Group("me", ["you"]), True),
        (Group("team", ["me"]), True),
        (Group("root"), False),
        (None, True),
    ],
)
def test_a_group_counts_unless_it_is_the_users_own(folder, monkeypatch, group, shared):
    def found(number):
        if group is None:
            raise KeyError(number)
        return group

    monkeypatch.setattr(permissions.grp, "getgrgid", found)
    monkeypatch.setattr(permissions, "_user", lambda number: "me")
    folder.chmod(0o770)
    name = group.gr_name if group else folder.stat().st_gid
    assert writable_by_others(folder) == (f"the group {name} may write to {folder.resolve()}" if shared else "")


def test_the_owner_of_a_folder_may_always_change_it(folder, monkeypatch):
    monkeypatch.setattr(permissions.os, "geteuid", lambda: folder.stat().st_uid + 12345)
    monkeypatch.setattr(permissions, "ROOT", -1)
    assert " belongs to " in writable_by_others(folder)


def test_a_bucket_is_not_checked():
    class Remote(type(pathlib.Path())):
        """A path that prints as one in a bucket."""

        def __str__(self):
            return "gs://bucket/runs"

    assert writable_by_others(Remote("runs")) == ""
