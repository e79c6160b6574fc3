"""The lock in a bucket: who holds it, when it expires, and what its holder does after losing it."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from mpt_jax.files import gcs_lock, storage
from mpt_jax.update import lock

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def short_times(monkeypatch):
    monkeypatch.setattr(gcs_lock, "RENEW_EVERY", 0.1)
    monkeypatch.setattr(gcs_lock, "EXPIRES_AFTER", 0.5)


def holder(**changed):
    return json.dumps({"process": 1, "host": "elsewhere", "run": "abc", **changed}).encode()


def test_a_renewed_lock_keeps_others_out(bucket, short_times):
    lines = []
    with lock.hold(bucket, lines.append):
        text = (bucket / "lock").read_text()
        assert json.loads(text)["process"] == os.getpid()
        code = (
            "import sys; from mpt_jax import errors\nfrom mpt_jax.files import gcs_lock, storage\n"
            "gcs_lock.RENEW_EVERY, gcs_lock.EXPIRES_AFTER = 0.1, 5.0\n"
            "try:\n    with gcs_lock.hold(storage.path(sys.argv[1]), print): print('got it')\n"
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
    assert not (bucket / "lock").exists() and not lines
    with lock.hold(bucket, lines.append):  # free again immediately
        assert not lines


def test_a_lock_expires_unless_it_is_renewed(bucket, short_times):
    lines = []
    storage.write_bytes(bucket / "lock", holder())
    begin = time.monotonic()
    with lock.hold(bucket, lines.append):
        assert json.loads((bucket / "lock").read_text())["process"] == os.getpid()
    assert time.monotonic() - begin >= 0.5 and len(lines) == 1 and "elsewhere" in lines[0]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"host": 3}'])
def test_a_damaged_lock_expires(bucket, short_times, content):
    storage.write_bytes(bucket / "lock", content)
    with lock.hold(bucket, lambda text: None):
        pass


def test_a_lock_of_a_dead_process_of_this_machine_is_void_immediately(bucket):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for process in (ended.pid, os.getpid()):
        storage.write_bytes(bucket / "lock", holder(process=process, host=gcs_lock.socket.gethostname()))
        begin = time.monotonic()
        with lock.hold(bucket, lambda text: pytest.fail(text)):
            pass
        assert time.monotonic() - begin < 10


def test_a_process_that_loses_its_lock_exits(bucket, short_times, monkeypatch, capsys):
    statuses = []
    monkeypatch.setattr(gcs_lock.os, "_exit", statuses.append)
    with lock.hold(bucket):
        storage.write_bytes(bucket / "lock", holder())
        for _ in range(100):
            if statuses:
                break
            time.sleep(0.05)
    assert statuses[0] == 2 and "in use by process 1 on elsewhere" in capsys.readouterr().err
    assert json.loads((bucket / "lock").read_text())["run"] == "abc"  # the other process keeps its lock
