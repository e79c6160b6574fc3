"""The commands in processes of their own, which share compiled programs, and what their runs have produced."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

from mpt_jax.files import released_model
from mpt_jax.files.predictions import released

ROOT = pathlib.Path(__file__).resolve().parents[1]


def environment(folder, devices=0):
    """Variables of a process with its caches in a folder, on so many virtual devices (0: as JAX chooses)."""
    flags = f"--xla_force_host_platform_device_count={devices}" if devices else ""
    cache = {"JAX_ENABLE_COMPILATION_CACHE": "true", "XDG_CACHE_HOME": str(folder / "cache")}
    home = {"HOME": str(folder), "LOCALAPPDATA": str(folder / "cache")}
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **cache, **home}


def start(folder, name, *arguments, devices=0):
    """Start `python -m mpt_jax.NAME` in the root of the repository."""
    line = [sys.executable, "-m", f"mpt_jax.{name}", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, env=environment(folder, devices), cwd=ROOT, **pipes)


def run(folder, name, *arguments, **options):
    """(exit status, standard output, standard error) of a command that is not disturbed."""
    process = start(folder, name, *arguments, **options)
    output, errors = process.communicate(timeout=1200)
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors


def wait_for(folder, pattern, process):
    """Wait until a process has written a file of this pattern."""
    deadline = time.monotonic() + 600
    while not list(folder.glob(pattern)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


def outcome(folder):
    """Return all results of a run except its times, paths and sessions' versions of this repository."""
    return *result(folder), metrics(folder)


def result(folder):
    """Return the report and the digests of the releases; reading one checks every file against its digest."""
    report = json.loads((folder / "report.json").read_text())
    costs = {"seconds", "examples_per_second"}
    for entry in [*report["rows"], *report["summary"].values()]:
        for key in costs:
            del entry[key]
    for key in ("command", "git_revision", "git_revisions"):
        report.pop(key, None)
    digests = {path.name: released_model.read(path)[1]["digest"] for path in (folder / "releases").iterdir()}
    return report, digests


def metrics(folder):
    """Return the lines of `metrics.jsonl`, without a last one that was cut by a kill."""
    lines = []
    if (folder / "metrics.jsonl").exists():
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                assert line == (folder / "metrics.jsonl").read_text().splitlines()[-1]
    return lines


def predictions(folder):
    """Return the predictions of each release of a run."""
    return {path.stem: released.read(path) for path in sorted((folder / "predictions").iterdir())}


def assert_equal(one, other):
    """Check that two runs have bit-identical releases, predictions and metrics, and that no other file is left."""
    assert outcome(one) == outcome(other)
    expected, found = predictions(one), predictions(other)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        for key in ("logits", "ids"):
            assert values[key].dtype == found[name][key].dtype and np.array_equal(values[key], found[name][key])
    assert not list(other.rglob("*.unfinished")) and not list((other / "checkpoints").iterdir())
