"""What the work directory keeps, refuses and forgets."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from mpt_jax.errors import InputError
from mpt_jax.files import sealed
from mpt_jax.update import workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = {
    "seeds": [0],
    "optimizer": {"epochs": 3},
    "dataset": {"data_dir": "here"},
    "training": {"steps_per_dispatch": 5},
}


def facts(**changes):
    provenance = workdir.provenance({"platform": "cpu", "kind": "cpu", "count": 1})
    return {"config": CONFIG, "images": {"train": 1}, "command": "", **provenance, **changes}


def test_a_new_run_may_start_in_a_missing_or_an_empty_folder(tmp_path):
    workdir.check(tmp_path / "missing", CONFIG)
    workdir.check(tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_only_the_training_section_may_change(tmp_path):
    workdir.claim(tmp_path / "run", facts())
    workdir.check(tmp_path / "run", CONFIG)
    workdir.check(tmp_path / "run", {**CONFIG, "training": {"steps_per_dispatch": 7}})
    workdir.check(tmp_path / "run", {**CONFIG, "dataset": {"data_dir": "there"}})  # where it is, not what it is
    workdir.check(tmp_path / "run", {**CONFIG, "dataset": {"data_dir": "here", "workers": 4}})
    with pytest.raises(InputError, match=r"optimizer\.epochs=3, now it is 4"):
        workdir.check(tmp_path / "run", {**CONFIG, "optimizer": {"epochs": 4}})
    with pytest.raises(InputError, match="new=None, now it is 1"):
        workdir.check(tmp_path / "run", {**CONFIG, "new": 1})


def test_all_differences_are_told_with_both_values(tmp_path):
    workdir.claim(tmp_path / "run", facts())
    with pytest.raises(InputError) as refused:
        workdir.check(tmp_path / "run", {**CONFIG, "optimizer": {"epochs": 4}, "seeds": [1, 2]})
    assert "optimizer.epochs=3, now it is 4" in str(refused.value) and "--new-run" in str(refused.value)
    assert "seeds=[0], now it is [1, 2]" in str(refused.value)
    with pytest.raises(InputError, match="epochs=3, now it is 4"):  # another process has begun since the check
        workdir.claim(tmp_path / "run", facts(config={**CONFIG, "optimizer": {"epochs": 4}}))


def test_a_run_goes_on_with_the_data_that_it_began_with(tmp_path):
    workdir.check_contents(tmp_path / "run", {"test images": "a"})
    workdir.claim(tmp_path / "old", facts())  # of a version that recorded none
    workdir.check_contents(tmp_path / "old", {"test images": "a"})
    workdir.claim(tmp_path / "run", facts(contents={"train images": "a", "test images": "a"}))
    workdir.check_contents(tmp_path / "run", {"train images": "a", "test images": "a", "more": "b"})
    with pytest.raises(InputError, match="run began with other test images; put those back, or give another --workdir"):
        workdir.check_contents(tmp_path / "run", {"train images": "a", "test images": "b"})


def test_a_new_run_begins_beside_runs_of_other_configs_and_is_found_again(tmp_path):
    run, other = tmp_path / "run", {**CONFIG, "seeds": [1]}
    assert workdir.beside(run, CONFIG) == run
    workdir.claim(run, facts())
    (tmp_path / "run-2").write_text("somebody else's")
    assert workdir.beside(run, CONFIG) == run and workdir.beside(run, other) == tmp_path / "run-3"
    workdir.claim(tmp_path / "run-3", facts(config=other))
    assert workdir.beside(run, other) == tmp_path / "run-3"
    assert workdir.beside(run, {**CONFIG, "seeds": [2]}) == tmp_path / "run-4"


def test_a_bucket_that_cannot_be_reached_is_no_occupied_folder(tmp_path, monkeypatch):
    def reach(path):
        assert path == tmp_path / "run"  # nothing beside it is tried
        raise InputError("cannot reach it")

    monkeypatch.setattr(workdir.storage, "reach", reach)
    with pytest.raises(InputError, match="cannot reach it"):
        workdir.beside(tmp_path / "run", CONFIG)


def test_one_process_at_a_time(tmp_path):
    with workdir.locked(tmp_path / "run"):
        text = rf"in use by process {os.getpid()} on {socket.gethostname()}; wait"
        with pytest.raises(InputError, match=text), workdir.locked(tmp_path / "run"):
            pytest.fail("both in one folder")
        (tmp_path / "run/.config.json.unfinished").write_text("{")
        workdir.check(tmp_path / "run", CONFIG)  # a process that was killed now has begun no run
    with workdir.locked(tmp_path / "run"):
        pass


def test_a_process_that_was_killed_holds_nobody_up(tmp_path):
    code = (
        "import sys, time; from mpt_jax import workdir\nwith workdir.locked(__import__('pathlib').Path(sys.argv[1])):"
    )
    line = [sys.executable, "-c", f"{code}\n print('locked', flush=True); time.sleep(60)", str(tmp_path)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match=f"in use by process {process.pid} "), workdir.locked(tmp_path):
        pytest.fail("both in one folder")
    process.kill()
    process.wait()
    assert str(process.pid) in (tmp_path / workdir.LOCK).read_text()
    with workdir.locked(tmp_path):
        assert (tmp_path / workdir.LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_processes_with_different_folders_of_one_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir, "SIGHT", 0.2)
    monkeypatch.setattr(workdir.processes, "together", contextlib.nullcontext)
    workdir.require_shared(tmp_path / "nowhere")  # alone
    monkeypatch.setattr(workdir.processes, "several", lambda: True)
    for held in ("process 7 on there\n", None):
        monkeypatch.setattr(workdir.processes, "decided", lambda read, held=held: held or read())
        with workdir.locked(tmp_path / "run"):
            if held:
                with pytest.raises(InputError, match="run is not one folder for all processes"):
                    workdir.require_shared(tmp_path / "run")
            else:
                workdir.require_shared(tmp_path / "run")


def test_a_second_claim_keeps_the_facts_of_the_first(tmp_path):
    workdir.claim(tmp_path, facts(command="first"))
    workdir.claim(tmp_path, facts(command="second"))
    kept = workdir.read_facts(tmp_path)
    assert kept["command"] == "first" and set(workdir.PACKAGES) < set(kept["versions"])


def test_an_unreadable_config_is_not_overwritten(tmp_path):
    workdir.claim(tmp_path / "run", facts())
    other = (tmp_path / "run/config.json").read_text().replace('"epochs": 3', '"epochs": 4')
    bare = json.dumps(sealed.sealed({"config": []}))
    for text, word in (
        *(("{", "unreadable"), ("[]", "damaged"), ('{"config": []}', "damaged")),
        *((other, "damaged"), (bare, "has no 'config'")),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=word):
            workdir.check(tmp_path, CONFIG)
        assert (tmp_path / "config.json").read_text() == text


def test_a_path_below_a_file_cannot_be_claimed(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        workdir.claim(tmp_path / "file/run", facts())


def test_metrics_of_repeated_steps_and_half_lines_are_dropped(tmp_path):
    stages = ((0, "old"), (1, "students"), (2, "students"))
    lines = [{"step": s, "release": r, "stage": stage, "values": {"loss": 1.0}} for r, stage in stages for s in (2, 4)]
    workdir.append_metrics(tmp_path, lines)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('garbage}}\n{"step": 8, "stage": "students", "val')
    workdir.drop_metrics_after(tmp_path, "r1-students", 2)
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kept == lines[:3] + lines[4:]


def test_a_key_that_did_not_exist_when_the_run_began_had_its_default_then(tmp_path):
    workdir.claim(tmp_path / "run", facts())  # of an `optimizer` with `epochs` alone
    grown = {**CONFIG, "optimizer": {**CONFIG["optimizer"], "skip_nonfinite": False}}
    workdir.check(tmp_path / "run", grown)
    grown["optimizer"]["skip_nonfinite"] = True
    with pytest.raises(InputError, match=r"optimizer\.skip_nonfinite=False, now it is True"):
        workdir.check(tmp_path / "run", grown)


def test_the_revision_is_dirty_where_the_code_was_changed_and_not_where_results_were(tmp_path, monkeypatch):
    def git(*words):
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    code, results = tmp_path / "package/update/workdir.py", tmp_path / "results.json"
    code.parent.mkdir(parents=True)
    monkeypatch.setattr(workdir, "__file__", str(code))
    assert workdir._git_revision.__wrapped__() is None
    for path in (code, results):
        path.write_text("1")
    git("init", "-q")
    assert workdir._git_revision.__wrapped__() is None  # nothing is committed yet
    git("add", ".")
    git("commit", "-qm", "x")
    head = git("rev-parse", "HEAD")
    assert workdir._git_revision.__wrapped__() == head
    results.write_text("2")
    assert workdir._git_revision.__wrapped__() == head
    code.write_text("2")
    assert workdir._git_revision.__wrapped__() == f"{head}-dirty"
