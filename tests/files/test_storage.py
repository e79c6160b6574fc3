import errno
import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mpt_jax import models, train
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint, storage
from mpt_jax.models import Classifier
from mpt_jax.update import workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_local_path_is_what_it_was():
    assert storage.path("a/b.c") == pathlib.Path("a/b.c") and type(storage.path("a")) is type(pathlib.Path("a"))


@pytest.mark.parametrize("text", ["s3://bucket/run", "gs://", "gs://bucket", "gs://bucket//", "gs:///run", "://x"])
def test_stores_that_are_not_known(text, capsys):
    with pytest.raises(InputError, match="expected"):
        storage.path(text)
    assert train.main(["--config", "configs/digits.py", f"--workdir={text}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_gcsfs_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"mpt_jax\[gcs\]"):
        storage.path("gs://bucket/run")


def test_a_bucket_that_is_not_there(store):
    with pytest.raises(InputError, match=r"cannot reach gs://elsewhere: no such bucket"):
        workdir.check(storage.path("gs://elsewhere/run"), {})


def test_a_store_that_fails_is_one_line(store, bucket, monkeypatch, capsys):
    def run(*_, **__):
        store.fail = lambda method, path: 400
        storage.write_bytes(bucket / "x", b"1")

    monkeypatch.setattr(train, "run", run)
    assert train.main(["--config", "configs/digits.py"]) == 2
    out = capsys.readouterr().err.splitlines()
    assert [line for line in out if line.startswith("error: ")] == out[-1:] and "made to fail" in out[-1]


@pytest.mark.parametrize("place", ["bucket", "tmp_path"])
def test_files_are_the_same_in_both(place, request):
    folder = request.getfixturevalue(place) / "a folder"
    storage.make_folder(folder / "below/it")
    storage.write_bytes(folder / "z", "ä".encode())
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


def test_sheets_go_before_what_they_vouch_for(store, bucket):
    for name in ("model/d/a", "model/b", "card.json"):
        storage.write_bytes(bucket / name, b"1")
    store.requests.clear()
    storage.remove(bucket)
    removed = [line.rpartition("/")[2] for line in store.requests if line.startswith("DELETE")]
    assert len(removed) == 3 and "card.json" in removed[0]


def test_training_states_in_a_bucket(store, bucket):
    state = {"w": jax.numpy.arange(6.0).reshape(2, 3), "n": jax.numpy.int32(7)}
    folder, said = bucket / "stage", []
    for step in (2, 4, 6):
        checkpoint.save_state(folder, step, jax.tree.map(lambda x, s=step: x * s, state), {"teachers": ["t"]})
    assert sorted(path.name for path in folder.iterdir()) == ["4", "6"]  # the newest two
    step, restored, notes = checkpoint.restore_state(folder, state, said.append)
    assert (step, notes, said) == (6, {"teachers": ["t"]}, [])
    np.testing.assert_array_equal(restored["w"], 6 * state["w"])

    # One of which the sheet was not written any more does not count; one that is damaged is found out.
    root = str(folder).removeprefix("gs://bucket/")
    del store.objects[f"{root}/6/notes.json"]
    assert checkpoint.restore_state(folder, state, said.append)[0] == 4 and not said
    checkpoint.save_state(folder, 6, state, {})
    name = next(name for name in store.objects if name.startswith(f"{root}/6/model/") and "/d/" in name)
    content, generation = store.objects[name]
    store.objects[name] = (content[:-1] + bytes([content[-1] ^ 1]), generation)
    assert checkpoint.restore_state(folder, state, said.append)[0] == 4
    assert len(said) == 1 and "damaged" in said[0] and "gs://bucket/" in said[0]


def test_a_write_that_fails_leaves_the_state_before_it(store, bucket):
    state = {"w": jax.numpy.ones((2, 3))}
    checkpoint.save_state(bucket / "stage", 1, state, {})
    store.fail = lambda method, path: 400 if method == "POST" and "%2Fd%2F" in path else None
    with pytest.raises(OSError, match="cannot be written") as raised:
        checkpoint.save_state(bucket / "stage", 2, state, {})
    assert str(bucket) in raised.value.filename
    store.fail = lambda method, path: None
    assert checkpoint.restore_state(bucket / "stage", state, print)[0] == 1


def test_a_released_model_in_a_bucket(bucket):
    module = models.build("linear", 3)
    images = np.zeros((1, 5), np.float32)
    variables = jax.tree.map(np.asarray, module.init(jax.random.key(0), images, train=False))
    weights = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    classifier = Classifier(module=module, mean=np.zeros(1, np.float32), std=np.ones(1, np.float32), **weights)
    kinds = {str: "x", int: 0, float: 0.0, dict: {}, list: []}
    card = {key: kinds[kind] for key, kind in checkpoint.CARD.items() if key not in ("digest", "files")}
    card |= {"architecture": {"name": "linear", "options": {}}, "classes": ["a", "b", "c"]}
    checkpoint.write_release(bucket / "model", classifier, card)
    read, found = checkpoint.read_release(bucket / "model")
    jax.tree.map(np.testing.assert_array_equal, read.params, classifier.params)
    assert found["classes"] == card["classes"]
    with pytest.raises(InputError, match="no released model at gs://"):
        checkpoint.read_release(bucket / "other")


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(storage, "BEAT", 0.1)
    monkeypatch.setattr(storage, "PATIENCE", 0.5)


def holder(**changed):
    return json.dumps({"process": 1, "host": "elsewhere", "run": "abc", **changed}).encode()


def test_a_lock_that_is_renewed_keeps_others_out(bucket, hasty):
    said = []
    with workdir.locked(bucket, said.append):
        text = (bucket / "lock").read_text()
        assert json.loads(text)["process"] == os.getpid()
        code = (
            "import sys; from mpt_jax import storage, errors\n"
            "storage.BEAT, storage.PATIENCE = 0.1, 5.0\n"
            "try:\n    with storage.lease(storage.path(sys.argv[1]), print): print('got it')\n"
            "except errors.InputError as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(bucket / "lock")],
            capture_output=True,
            text=True,
            env={**os.environ},
            cwd=ROOT,
        )
    waiting, refused = done.stdout.splitlines()
    assert f"held by process {os.getpid()}" in waiting and f"in use by process {os.getpid()}" in refused
    assert not (bucket / "lock").exists() and not said
    with workdir.locked(bucket, said.append):  # free again at once
        assert not said


def test_a_lock_that_is_not_renewed_is_void(bucket, hasty):
    said = []
    storage.write_bytes(bucket / "lock", holder())
    begin = time.monotonic()
    with workdir.locked(bucket, said.append):
        assert json.loads((bucket / "lock").read_text())["process"] == os.getpid()
    assert time.monotonic() - begin >= 0.5 and len(said) == 1 and "elsewhere" in said[0]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"host": 3}'])
def test_a_damaged_lock_is_void_after_a_while(bucket, hasty, content):
    storage.write_bytes(bucket / "lock", content)
    with workdir.locked(bucket, lambda text: None):
        pass


def test_a_lock_of_a_dead_process_of_this_machine_is_void_at_once(bucket):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for process in (gone.pid, os.getpid()):
        storage.write_bytes(bucket / "lock", holder(process=process, host=storage.socket.gethostname()))
        begin = time.monotonic()
        with workdir.locked(bucket, lambda text: pytest.fail(text)):
            pass
        assert time.monotonic() - begin < 10


def test_who_loses_the_lock_ends(bucket, hasty, monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(storage.os, "_exit", ended.append)
    with workdir.locked(bucket):
        storage.write_bytes(bucket / "lock", holder())
        for _ in range(100):
            if ended:
                break
            time.sleep(0.05)
    assert ended[0] == 2 and "in use by process 1 on elsewhere" in capsys.readouterr().err
    assert json.loads((bucket / "lock").read_text())["run"] == "abc"  # another's lock stays


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_killed_runs_in_a_bucket_end_as_a_local_one(store, bucket, tmp_path, features_file):
    """The real command, killed three times without warning, and once asked to end."""
    options = (
        *("--config.seeds=0,1", "--config.optimizer.epochs=4", "--config.model.name=mlp"),
        *("--config.update.methods=no_treatment,mpt_kl,posthoc_bias", "--config.update.tune={}"),
        *("--config.training.checkpoint_every=5", "--config.training.steps_per_dispatch=2"),
    )
    cache = {"JAX_ENABLE_COMPILATION_CACHE": "true", "XDG_CACHE_HOME": str(tmp_path / "cache"), "XLA_FLAGS": ""}
    environment = {**os.environ, **cache, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def start(folder):
        where = ("--config", str(ROOT / "configs/digits.py"), f"--config.dataset.name={features_file}")
        command = [sys.executable, "-m", "mpt_jax.train", *where, f"--workdir={folder}", *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    local = tmp_path / "run"
    process = start(local)
    assert process.wait(300) == 0, process.stdout.read()
    name = str(bucket).removeprefix("gs://bucket/")
    for place, number in (("checkpoints/r0", 9), ("checkpoints/r1", 9), ("releases/", 9), ("checkpoints/r1-", 15)):
        count = len([key for key in store.objects if key.startswith(f"{name}/{place}")])
        process = start(bucket)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            now = len([key for key in list(store.objects) if key.startswith(f"{name}/{place}")])
            if now != count:
                process.send_signal(number)
                break
            time.sleep(0.005)
        status = process.wait(120)
        assert status in (-9, 143), process.stdout.read()
    process = start(bucket)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert storage.files(local / "predictions") == storage.files(bucket / "predictions")
    for name in storage.files(local / "predictions"):
        ours, theirs = (workdir.read_predictions(place / "predictions" / name) for place in (bucket, local))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    for folder in sorted((local / "releases").iterdir()):
        cards = [checkpoint.read_card(place / "releases" / folder.name) for place in (bucket, local)]
        assert cards[0]["digest"] == cards[1]["digest"]
        checkpoint.read_release(bucket / "releases" / folder.name)
    reports = [json.loads((place / "report.json").read_text(encoding="utf-8")) for place in (bucket, local)]
    assert [row["nfr"] for row in reports[0]["rows"]] == [row["nfr"] for row in reports[1]["rows"]]
    # lines of `metrics.jsonl` neither lost nor written twice
    lines = [(place / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for place in (bucket, local)]
    assert lines[0] == lines[1]
    assert {"report.html", "report.md", "config.json"} <= {path.name for path in bucket.iterdir()}
    assert "lock" not in {path.name for path in bucket.iterdir()}
    process = start(bucket)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "nothing left to train" in out
