import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mpt_jax import report, update
from mpt_jax.files import released_model, storage
from mpt_jax.files.predictions import released
from mpt_jax.report import plots
from mpt_jax.update import verification

DRAW = plots.draw
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_run_in_a_bucket_resumes_and_equals_a_local_one(store, bucket, executed, tmp_path, monkeypatch):
    """The store fails during a checkpoint of the students; the resumed run equals an undisturbed one."""
    options = (
        "seeds=0",
        "update.methods=mpt_kl",
        "optimizer.epochs=1",
        "training.checkpoint_every=2",
        "training.steps_per_dispatch=1",
    )
    monkeypatch.setattr(plots, "draw", DRAW)  # `executed` has replaced it
    local = executed(*options, folder=tmp_path / "run")
    broken = []

    def fail(method, path):
        if method == "POST" and "checkpoints%2Fr1-students%2F4" in path:
            broken.append(path)
        return 400 if len(broken) > 1 else None

    store.fail = fail
    with pytest.raises(OSError, match="cannot be written"):
        executed(*options, folder=bucket)
    store.fail = lambda method, path: None
    remote = executed(*options, folder=bucket)
    assert len(local.all_released()) == len(remote.all_released()) > 2
    for ours, theirs in zip(remote.all_released(), local.all_released(), strict=True):
        assert released_model.read_card(ours)["digest"] == released_model.read_card(theirs)["digest"]
        answers = [released.read(run.predictions(f)) for run, f in ((remote, ours), (local, theirs))]
        jax.tree.map(np.testing.assert_array_equal, *answers)
    rows = [make(folder)["rows"] for make, folder in ((report.write, bucket), (report.build, tmp_path / "run"))]
    assert [row["nfr"] for row in rows[0]] == [row["nfr"] for row in rows[1]]
    names, written = storage.files(bucket), storage.files(tmp_path / "run")
    assert {name for name in names if "/model/" not in name and not name.startswith(("report", "plots"))} == {
        name for name in written if "/model/" not in name
    }
    assert "report.html" in names and any(name.startswith("plots/") for name in names)
    assert json.loads((bucket / "report.json").read_text())["rows"]
    assert not update.execute(remote, "command")  # nothing left to do
    rows = verification.verify(bucket)
    assert [fault for row in rows for fault in row.faults] == [] and sum(row.checked for row in rows) > 9


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_killed_runs_in_a_bucket_equal_a_local_one(store, bucket, tmp_path, features_file):
    """The real command, killed three times, and interrupted once."""
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
        ours, theirs = (released.read(place / "predictions" / name) for place in (bucket, local))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    for folder in sorted((local / "releases").iterdir()):
        cards = [released_model.read_card(place / "releases" / folder.name) for place in (bucket, local)]
        assert cards[0]["digest"] == cards[1]["digest"]
        released_model.read(bucket / "releases" / folder.name)
    reports = [json.loads((place / "report.json").read_text(encoding="utf-8")) for place in (bucket, local)]
    assert [row["nfr"] for row in reports[0]["rows"]] == [row["nfr"] for row in reports[1]["rows"]]
    # lines of `metrics.jsonl` neither lost nor written twice
    lines = [(place / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for place in (bucket, local)]
    assert lines[0] == lines[1]
    assert {"report.html", "report.md", "config.json"} <= {path.name for path in bucket.iterdir()}
    assert "lock" not in {path.name for path in bucket.iterdir()}
    process = start(bucket)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "nothing to train" in out
