"""Pipes, sockets, devices, folders and files of any size in the place of a file are errors, and block nothing."""

import errno
import os
import re

import pytest
import strange_files

from mpt_jax.runtime import regular_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kinds of files of POSIX")

EXPECTED = {
    "pipe": "a named pipe, not a file",
    "socket": "a socket, not a file",
    "device": "a device, not a file",
    "folder": "a folder, not a file",
    "sparse": "21,474,836,480 bytes; expected at most 67,108,864",
    "missing": "No such file or directory",
    "dangling": "No such file or directory",
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_other_kinds_are_refused_when_they_are_read(tmp_path, kind):
    strange_files.put(tmp_path / "file", kind)
    with pytest.raises(OSError, match=re.escape(EXPECTED[kind])) as error:
        regular_file.read_bytes(tmp_path / "file")
    assert error.value.filename in (str(tmp_path / "file"), tmp_path / "file")


def test_a_file_is_read_also_through_a_link_up_to_its_largest_size(tmp_path):
    (tmp_path / "file").write_bytes("ä\r\nb\r".encode())
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for path in (tmp_path / "file", str(tmp_path / "link")):
        assert regular_file.read_bytes(path, 6) == "ä\r\nb\r".encode()
        assert regular_file.read_text(path) == "ä\nb\n"
        with pytest.raises(OSError, match="6 bytes; expected at most 5"):
            regular_file.read_bytes(path, 5)


def test_a_file_that_is_replaced_between_check_and_opening_is_refused(tmp_path, monkeypatch):
    path, status = tmp_path / "file", os.stat
    path.write_text("1")

    def replaced(name):
        found = status(name)
        path.unlink()
        os.mkfifo(path)
        return found

    monkeypatch.setattr(os, "stat", replaced)
    with pytest.raises(OSError, match="a named pipe"):
        regular_file.read_bytes(path)


@pytest.mark.parametrize("kind", [*EXPECTED, "link"])
def test_nothing_is_written_through_a_link_or_to_another_kind(tmp_path, kind):
    victim = strange_files.put(tmp_path / "file", kind)
    if kind == "folder":
        with pytest.raises(OSError), regular_file.created(tmp_path / "file"):
            pytest.fail("a folder was replaced")
    else:
        with regular_file.created(tmp_path / "file") as file:
            file.write(b"new")
        assert (tmp_path / "file").read_bytes() == b"new" and not (tmp_path / "file").is_symlink()
    assert victim is None or victim.read_bytes() == strange_files.VICTIM


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder", "link", "dangling"])
def test_appending_refuses_other_kinds_and_links(tmp_path, kind):
    victim = strange_files.put(tmp_path / "file", kind)
    with pytest.raises(OSError, match="not a file") as error, regular_file.extended(tmp_path / "file"):
        pytest.fail(f"a {kind} was opened")
    assert error.value.errno in (errno.EINVAL, errno.EISDIR)
    assert victim is None or victim.read_bytes() == strange_files.VICTIM


def test_appending_keeps_what_is_there_and_creates_what_is_not(tmp_path):
    for text in ("one\n", "two\n"):
        with regular_file.extended(tmp_path / "file") as file:
            file.write(text)
    assert (tmp_path / "file").read_text() == "one\ntwo\n"


def test_read_again_after_an_error_no_descriptor_is_left_open(tmp_path):
    os.mkfifo(tmp_path / "file")
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    for _ in range(5):
        with pytest.raises(OSError):
            regular_file.read_bytes(tmp_path / "file")
    assert not before or len(os.listdir("/proc/self/fd")) == before
