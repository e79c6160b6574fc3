"""Files in a local folder and in a bucket, served by a fake Google Cloud Storage."""

import os
import pathlib
import resource
import subprocess
import sys
import time
import types

import pytest
import strange_files

from mpt_jax import train
from mpt_jax.errors import InputError
from mpt_jax.files import storage
from mpt_jax.update import workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_local_path_is_a_pathlib_path():
    assert storage.path("a/b.c") == pathlib.Path("a/b.c") and type(storage.path("a")) is type(pathlib.Path("a"))


@pytest.mark.parametrize(
    "text", ["s3://bucket/run", "gs://", "gs://bucket", "gs://bucket//", "gs:///run", "://x", "gs:/bucket/run", "gs:/"]
)
def test_unknown_stores_are_refused(text, capsys):
    with pytest.raises(InputError, match="expected"):
        storage.path(text)
    assert train.main(["--config", "configs/digits.py", f"--workdir={text}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_gcsfs_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"mpt_jax\[gcs\]"):
        storage.path("gs://bucket/run")


def test_a_missing_bucket_is_refused(store):
    with pytest.raises(InputError, match=r"cannot reach gs://elsewhere: no such bucket"):
        workdir.check(storage.path("gs://elsewhere/run"), {})


def test_a_failing_store_is_reported_in_one_line(store, bucket, monkeypatch, capsys):
    def run(*_, **__):
        store.fail = lambda method, path: 400
        storage.write_bytes(bucket / "x", b"1")

    monkeypatch.setattr(train, "run", run)
    assert train.main(["--config", "configs/digits.py"]) == 2
    out = capsys.readouterr().err.splitlines()
    assert [line for line in out if line.startswith("error: ")] == out[-1:] and "made to fail" in out[-1]


def test_responses_after_the_loop_was_closed_are_not_printed_and_all_else_is(store, monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    storage._ignore_late_responses.cache_clear()
    storage.path("gs://bucket/run")
    found = [types.SimpleNamespace(exc_value=RuntimeError(text)) for text in ("Event loop is closed", "no loop")]
    for each in found:
        sys.unraisablehook(each)
    assert shown == found[1:]


FAILING = """
import pathlib, sys
import numpy as np
from mpt_jax.cli import command
from mpt_jax.files import array_folder, storage
def work():
    arrays = {f"a{i}": np.zeros(9) for i in range(20)}
    array_folder.write(storage.path(sys.argv[1]), "card.json", {}, arrays)
sys.exit(command.run(work))
"""


@pytest.mark.slow
def test_a_write_that_fails_anywhere_is_one_line(store, bucket, monkeypatch):
    """TensorStore's line about the token of tests is none of ours."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    count = 0
    for first in range(1, 60, 4):
        left = [first]

        def fail(method, path, left=left):
            left[0] -= method == "POST"
            return 400 if left[0] <= 0 and method == "POST" else None

        store.fail = fail
        line = [sys.executable, "-c", FAILING, str(bucket / str(first))]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300)
        errors = [line for line in done.stderr.splitlines() if "GOOGLE_AUTH_TOKEN_FOR_TESTING" not in line]
        assert done.returncode in (0, 2) and len(errors) == (done.returncode == 2), done.stderr
        assert not errors or (errors[0].startswith("error: ") and "run the same command again" in errors[0])
        count += done.returncode == 2
    assert count > 5


@pytest.mark.parametrize("place", ["bucket", "tmp_path"])
def test_files_behave_the_same_in_both(place, request):
    folder = request.getfixturevalue(place) / "a folder"
    storage.make_folder(folder / "below/it")
    storage.write_text(folder / "z", "ä")
    assert (folder / "z").read_bytes() == "ä".encode()
    storage.write_bytes(folder / "z", b"2")
    storage.write_bytes(folder / "below/it/y", b"")
    for text in ("one\n", "two\n"):
        storage.append_text(folder / "lines", text)
    assert storage.files(folder) == ["below/it/y", "lines", "z"]
    assert sorted(path.name for path in folder.iterdir()) == ["below", "lines", "z"]
    assert (folder / "lines").read_text(encoding="utf-8") == "one\ntwo\n" and (folder / "z").read_bytes() == b"2"
    assert (folder / "z").is_file() and folder.is_dir() and not (folder / "below").is_file()
    assert storage.absolute(folder).is_absolute() and str(storage.absolute(folder)) == str(folder)
    storage.remove(folder / "below")
    storage.remove(folder / "never there")
    assert storage.files(folder) == ["lines", "z"] and storage.files(folder / "never there") == []


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    """A limit on the size of files takes the place of the disk's."""
    storage.write_bytes(tmp_path / "x", b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            storage.write_bytes(tmp_path / "x", b"after" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "x").read_bytes() == b"before" and list(tmp_path.iterdir()) == [tmp_path / "x"]


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_what_a_link_points_to_is_not_written_nor_removed(tmp_path, kind):
    """Neither in the place of a file, nor of the file or folder that is written before it is renamed."""
    for name in ("x", ".x.unfinished"):
        victim = strange_files.put(tmp_path / name, kind)
        storage.write_bytes(tmp_path / "x", b"1")
        assert (tmp_path / "x").read_bytes() == b"1" and not (tmp_path / "x").is_symlink()
        assert victim is None or victim.read_bytes() == strange_files.VICTIM
        strange_files.put(tmp_path / "folder", kind)
        storage.remove(tmp_path / "folder")
        assert not os.path.lexists(tmp_path / "folder")
        assert victim is None or victim.read_bytes() == strange_files.VICTIM
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    storage.remove(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "a/file").exists()


def test_a_large_object_is_refused_as_a_large_file_is(bucket, tmp_path):
    for folder in (bucket, tmp_path):
        storage.write_bytes(folder / "x", b"12345")
        assert storage.read_bytes(folder / "x", 5) == b"12345"
        with pytest.raises(OSError, match="5 bytes; expected at most 4"):
            storage.read_bytes(folder / "x", 4)


def test_a_store_that_does_not_respond_is_reported_in_time(store, monkeypatch):
    monkeypatch.setattr(storage, "REACHED_WITHIN", 0.2)
    monkeypatch.setattr(storage, "_REACHED", set())
    monkeypatch.setattr(storage, "filesystem", lambda: time.sleep(5))
    started = time.monotonic()
    with pytest.raises(
        InputError, match="cannot reach gs://bucket: no response within 0 s; check its name, the network"
    ):
        storage.check_access(storage.path("gs://bucket/run"))
    assert time.monotonic() - started < 4
    monkeypatch.setattr(storage, "_REACHED", {"bucket"})
    storage.check_access(storage.path("gs://bucket/run"))  # it was reached before


def test_a_name_that_is_not_utf_8_is_refused(capfd, tmp_path):
    folder = tmp_path / os.fsdecode(b"run-\xff")
    assert train.main(["--config", "digits", "--workdir", str(folder)]) == 2
    assert train.main(["--config", "digits", "--workdir", str(folder), "--new-run"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2 and all("is not UTF-8; rename it" in line and "run-" in line for line in lines)
    assert not folder.exists()


def test_a_name_that_orbax_takes_for_a_pattern_is_refused(capfd, tmp_path):
    assert train.main(["--config", "digits", "--workdir", str(tmp_path / "run[1]")]) == 2
    assert "has a '[' in its name, which orbax cannot read; rename it" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gs:", "dogs:", "gs:/run", "dogs:/run"])
def test_a_local_name_that_orbax_takes_for_a_bucket_is_refused(capfd, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for given in (tmp_path / name, f"./{name}"):
        assert train.main(["--config", "digits", "--workdir", str(given)]) == 2
        assert "'gs:', which orbax takes for a bucket; rename it, or give" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "gs:x").mkdir()
    storage.check_name(tmp_path / "gs:x")


def test_metadata_are_removed_before_the_files_they_describe(store, bucket):
    for name in ("model/d/a", "model/b", "card.json"):
        storage.write_bytes(bucket / name, b"1")
    store.requests.clear()
    storage.remove(bucket)
    removed = [line.rpartition("/")[2] for line in store.requests if line.startswith("DELETE")]
    assert len(removed) == 3 and "card.json" in removed[0]


def test_write_text_keeps_the_old_file_if_encoding_fails(tmp_path):
    storage.write_text(tmp_path / "file.json", "old")
    with pytest.raises(UnicodeEncodeError):
        storage.write_text(tmp_path / "file.json", "\ud800")
    assert (tmp_path / "file.json").read_text() == "old"
