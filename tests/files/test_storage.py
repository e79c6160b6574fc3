"""Files in a local folder and in a bucket, served by a fake Google Cloud Storage."""

import errno
import os
import pathlib

import pytest

from mpt_jax import train
from mpt_jax.errors import InputError
from mpt_jax.files import storage
from mpt_jax.update import workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_local_path_is_a_pathlib_path():
    assert storage.path("a/b.c") == pathlib.Path("a/b.c") and type(storage.path("a")) is type(pathlib.Path("a"))


@pytest.mark.parametrize("text", ["s3://bucket/run", "gs://", "gs://bucket", "gs://bucket//", "gs:///run", "://x"])
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


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    storage.write_bytes(tmp_path / "x", b"before")
    write_bytes = pathlib.Path.write_bytes

    def full(path, content):
        write_bytes(path, content[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        storage.write_bytes(tmp_path / "x", b"after")
    assert (tmp_path / "x").read_bytes() == b"before" and list(tmp_path.iterdir()) == [tmp_path / "x"]


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
