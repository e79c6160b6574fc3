"""A folder of arrays appears completely or not at all."""

import errno
import gc
import json
import logging
import os
import resource
import types

import jax
import numpy as np
import pytest

from mpt_jax.errors import InputError
from mpt_jax.files import array_folder

ARRAYS = {"w": np.arange(4, dtype=np.float32), "n": np.array(3, np.int32)}


def test_arrays_and_metadata_are_read_as_they_were_written(tmp_path):
    array_folder.write(tmp_path / "one", "about.json", {"name": "größer"}, ARRAYS)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]  # nothing unfinished is left
    arrays, metadata = array_folder.read(tmp_path / "one", "about.json", None)
    jax.tree.map(np.testing.assert_array_equal, arrays, ARRAYS)
    assert metadata == json.loads((tmp_path / "one/about.json").read_text()) and metadata["name"] == "größer"
    assert metadata["files"] == array_folder.file_digests(tmp_path / "one") != {}
    placed = {"w": jax.ShapeDtypeStruct((4,), np.float32), "n": jax.ShapeDtypeStruct((), np.int32)}
    arrays, _ = array_folder.read(tmp_path / "one", "about.json", placed)
    np.testing.assert_array_equal(arrays["w"], ARRAYS["w"])
    with pytest.raises(InputError, match="cannot be read"):
        array_folder.read(tmp_path / "one", "about.json", {"w": jax.ShapeDtypeStruct((5,), np.float32)})


def test_without_digests_a_file_is_compared_by_its_size_and_read_only_if_it_was_changed_later(tmp_path, monkeypatch):
    folder, read = tmp_path / "one", []
    array_folder.write(folder, "about.json", {}, ARRAYS)
    metadata = json.loads((folder / "about.json").read_text())
    assert metadata["sizes"] == {name: (folder / name).stat().st_size for name in metadata["files"]}
    digest = array_folder._file_digest
    monkeypatch.setattr(array_folder, "_file_digest", lambda path: read.append(path) or digest(path))

    def faults(**options):
        return [*array_folder.faults(folder, "about.json", metadata, **options)]

    assert faults(digests=False) == [] and read == []
    assert faults() == [] and len(read) == len(metadata["files"])
    path = max((folder / name for name in metadata["files"]), key=lambda path: path.stat().st_size)
    content, written = path.read_bytes(), (folder / "about.json").stat().st_mtime
    flipped = bytes([content[0] ^ 1]) + content[1:]
    for changed, later, found in (
        (content, 9, ([], [])),  # copied later
        (flipped, 9, ([f"{path} is damaged"], [f"{path} is damaged"])),
        (flipped, -9, ([], [f"{path} is damaged"])),  # as on a failing disk
        (content[:-1], -9, ([f"{path} is damaged"], [f"{path} is damaged"])),
        (content + b"0", -9, ([f"{path} is damaged"], [f"{path} is damaged"])),
    ):
        path.write_bytes(changed)
        os.utime(path, (written + later, written + later))
        assert (faults(digests=False), faults()) == found
    read.clear()
    os.truncate(path, 2**40)  # a sparse file of this size would take an hour to read
    assert faults() == [f"{path} is damaged"] and path not in read
    path.unlink()
    path.symlink_to("/dev/zero")
    assert faults(digests=False) == faults() == [f"{path} is missing"]


def test_metadata_alone_need_no_arrays(tmp_path):
    array_folder.write(tmp_path / "one", "about.json", {}, None)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["about.json"]


def test_a_full_disk_leaves_what_was_written_before_and_nothing_else(tmp_path, monkeypatch):
    array_folder.write(tmp_path / "one", "about.json", {}, ARRAYS)
    monkeypatch.setattr(array_folder.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10))
    for name in ("one", "two"):
        with pytest.raises(OSError, match="No space left") as full:
            array_folder.write(tmp_path / name, "about.json", {}, {"w": np.zeros(9)})
        assert full.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    np.testing.assert_array_equal(array_folder.read(tmp_path / "one", "about.json", None)[0]["w"], ARRAYS["w"])


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_write_that_fails_in_the_threads_of_orbax_prints_nothing(tmp_path, capfd, monkeypatch):
    """A limit on the size of files takes the place of a disk that fills up after the space was checked."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(2**60, size=(4, 50_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            array_folder.write(tmp_path / "one", "about.json", {}, {"a": noise[:2], "b": noise[2:]})
        gc.collect()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == [] and "".join(capfd.readouterr()) == ""


def test_a_state_that_does_not_fit_prints_nothing(tmp_path, capfd):
    array_folder.write(tmp_path / "one", "about.json", {}, ARRAYS)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    other = {
        "w": jax.ShapeDtypeStruct((5,), np.float32, sharding=here),
        "n": jax.ShapeDtypeStruct((), np.int32, sharding=here),
    }
    for expected in (other, {"w": other["w"]}, {"x": other["n"]}, {**other, "n": ARRAYS["n"].astype(np.float32)}):
        with pytest.raises(InputError, match="cannot be read"):
            array_folder.read(tmp_path / "one", "about.json", expected)
    gc.collect()
    assert "".join(capfd.readouterr()) == ""


def test_what_libraries_log_elsewhere_is_still_shown(tmp_path, caplog):
    levels = {name: logging.getLogger(name).level for name in ("absl", "asyncio")}
    array_folder.write(tmp_path / "one", "about.json", {}, ARRAYS)
    assert levels == {name: logging.getLogger(name).level for name in levels}


def test_a_failed_write_to_a_bucket_leaves_the_folder_before_it(store, bucket):
    array_folder.write(bucket / "one", "about.json", {}, ARRAYS)
    store.fail = lambda method, path: 400 if method == "POST" and "%2Fd%2F" in path else None
    with pytest.raises(OSError, match="cannot be written") as raised:
        array_folder.write(bucket / "two", "about.json", {}, ARRAYS)
    assert str(bucket) in raised.value.filename
    store.fail = lambda method, path: None
    jax.tree.map(np.testing.assert_array_equal, array_folder.read(bucket / "one", "about.json", None)[0], ARRAYS)
    with pytest.raises(InputError, match=r"about\.json is missing"):
        array_folder.read(bucket / "two", "about.json", None)
