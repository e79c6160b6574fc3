"""One process at a time works in a folder, and several processes of one run see the same folder."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from mpt_jax.errors import InputError
from mpt_jax.update import lock, workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_one_process_at_a_time(tmp_path):
    with lock.hold(tmp_path / "run"):
        text = rf"in use by process {os.getpid()} on {socket.gethostname()}; wait"
        with pytest.raises(InputError, match=text), lock.hold(tmp_path / "run"):
            pytest.fail("two processes hold the lock")
        (tmp_path / "run/.config.json.unfinished").write_text("{")
        workdir.check(tmp_path / "run", {})  # a process that is killed here has not begun a run
    with lock.hold(tmp_path / "run"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = "import sys, time; from mpt_jax.update import lock\nwith lock.hold(__import__('pathlib').Path(sys.argv[1])):"
    line = [sys.executable, "-c", f"{code}\n print('locked', flush=True); time.sleep(60)", str(tmp_path)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match=f"in use by process {process.pid} "), lock.hold(tmp_path):
        pytest.fail("two processes hold the lock")
    process.kill()
    process.wait()
    assert str(process.pid) in (tmp_path / lock.FILE).read_text()
    with lock.hold(tmp_path):
        assert (tmp_path / lock.FILE).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_processes_that_see_different_folders_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "VISIBLE_AFTER", 0.2)
    monkeypatch.setattr(lock.processes, "synchronized", contextlib.nullcontext)
    lock.require_shared(tmp_path / "nowhere")  # alone
    monkeypatch.setattr(lock.processes, "is_distributed", lambda: True)
    for held in ("process 7 on there\n", None):
        monkeypatch.setattr(lock.processes, "from_first", lambda read, held=held: held or read())
        with lock.hold(tmp_path / "run"):
            if held:
                with pytest.raises(InputError, match="run is not the same folder for all processes"):
                    lock.require_shared(tmp_path / "run")
            else:
                lock.require_shared(tmp_path / "run")
