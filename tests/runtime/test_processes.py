"""Several processes on the loopback: what they compute, what they survive, and that they report the same errors.

Each runs the real command on the digits as features, with a network that compiles quickly.
"""

import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from rich.console import Console

from mpt_jax import config, report, train, update
from mpt_jax.cli.progress import progress
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint, released_model
from mpt_jax.files.predictions import released
from mpt_jax.runtime import processes
from mpt_jax.training import sharding
from mpt_jax.update import lock

ROOT = pathlib.Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
SMALL = (
    *("--config", str(ROOT / "configs/features.py"), "--config.seeds=0,", "--config.optimizer.epochs=1"),
    *("--config.update.methods=mpt_kl", "--config.update.tune={}"),
    *("--config.training.checkpoint_every=4", "--config.training.steps_per_dispatch=2"),
)
LOST = r"error: .*process {} of 2 ended early.*resume from the last checkpoint, .*: python -m mpt_jax\.train "

LOST_STATUS = (processes.LOST, -signal.SIGABRT)  # the latter if JAX notices first


class Group:
    """Processes that run one command together, killed at the end of the block."""

    def __init__(self, arguments, count, devices, cache, own_options=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {
            **{**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "true", "XDG_CACHE_HOME": str(cache)},
            **{"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            # The flags of this process, which goes on with the run: with others it would be refused.
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        }
        line = [sys.executable, "-m", "mpt_jax.train", *arguments, f"--coordinator=127.0.0.1:{port}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.members = [
            subprocess.Popen(
                [*line, f"--num-processes={count}", f"--process-id={i}", *(own_options[i] if own_options else ())],
                **pipes,
                env=environment,
                cwd=ROOT,
            )
            for i in range(count)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.members:
            process.kill()
            process.wait()

    def wait_for(self, path, steps=1):
        """Wait until at least this many steps of a stage have been saved."""
        deadline = time.monotonic() + 300
        while max(checkpoint.saved_steps(path), default=0) < steps:
            assert time.monotonic() < deadline and all(process.poll() is None for process in self.members), self.ends()
            time.sleep(0.01)

    def ends(self, timeout=900):
        """Return the exit status, output and errors of each process."""
        texts = [process.communicate(timeout=timeout) for process in self.members]
        return [(process.returncode, *text) for process, text in zip(self.members, texts, strict=True)]

    def finish(self):
        """Return the output of the first process; all must succeed and the others print nothing."""
        ends = self.ends()
        assert [status for status, _, _ in ends] == [0] * len(ends), ends
        assert all(line.startswith("[Gloo]") for _, output, _ in ends[1:] for line in output.splitlines())
        return ends[0][1]


def outcome(folder, stage):
    """Return what a run wrote except times: weights, logits, and the metadata and metrics of this stage."""
    assert not list((folder / "checkpoints").iterdir()) and not list(folder.rglob("*.unfinished"))
    found = {}
    for path in sorted((folder / "releases").iterdir()):
        classifier, card = released_model.read(path)
        predictions = released.read(folder / "predictions" / f"{path.name}.npz")
        found[path.name] = {
            "weights": jax.tree.leaves((classifier.params, classifier.batch_stats)),
            "logits": predictions["logits"],
            "metadata": (card["metrics"], card["classes"], card["steps"], predictions["ids"].tolist()),
        }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if stage in line]
    values = np.array([list(line.pop("values").values()) for line in lines])
    found["metrics"] = {"weights": [], "logits": values, "metadata": lines}
    return found


def assert_alike(one, other, *, tolerance):
    """Check that both outcomes are the same, arrays to the tolerance."""
    assert one.keys() == other.keys()
    for name, of_one in one.items():
        assert of_one["metadata"] == other[name]["metadata"], name
        for kind, scale in (("weights", 1.0), ("logits", 100.0)):  # logits are sums of products with pixels up to 16
            for a, b in zip([*of_one[kind]], [*other[name][kind]], strict=True):
                np.testing.assert_allclose(a, b, rtol=tolerance, atol=scale * tolerance, err_msg=name)


@pytest.fixture
def run_here(monkeypatch):
    """Return a function that runs a command in this process with four devices and returns its output."""
    mesh = sharding.make_mesh(jax.devices()[:4])
    monkeypatch.setattr(sharding, "make_mesh", lambda **_: mesh)

    def run_command(arguments):
        options, text = train.parse(arguments), io.StringIO()
        with progress(Console(file=text)) as shown:
            run = update.prepare(config.load(options.config, options.overrides), options.workdir, shown)
            update.execute(run, "")
        return text.getvalue()

    return run_command


@pytest.mark.ci
@pytest.mark.slow
@POSIX
def test_two_processes_equal_one_and_a_run_that_lost_one_resumes_on_a_single_process(features_file, tmp_path, run_here):
    options = (*SMALL, f"--config.dataset.name={features_file}")
    run_here([*options, f"--workdir={tmp_path / 'one'}"])
    shared, teachers = tmp_path / "two", tmp_path / "one/releases"
    options += (f"--config.update.old={teachers}/r0-old-seed0",)  # compiles less; the slow tests train all models
    options += (f"--config.update.independent={teachers}/r1-independent-seed0",)
    with Group([*options, f"--workdir={shared}"], 2, 2, tmp_path / "cache") as group:
        group.wait_for(shared / "checkpoints/r1-students", steps=4)
        group.members[0].kill()
        killed = time.monotonic()
        (_, output, _), (status, quiet, errors) = group.ends()
        assert time.monotonic() - killed < 60
    assert status in LOST_STATUS and re.search(LOST.format(1), errors), errors
    assert "Traceback" not in errors and "students, 1 seed: 19 steps" in output and "students" not in quiet
    assert {path.name for path in (shared / "releases").iterdir()} == {"r0-old-seed0", "r1-independent-seed0"}
    saved = shared / "checkpoints/r1-students"
    assert list(saved.glob("*/model/ocdbt.process_0")) and list(saved.glob("*/model/ocdbt.process_1"))
    output = run_here([*options, f"--workdir={shared}"])
    assert int(re.search(r"students.*: 19 steps, resumed from step (\d+)", output)[1]) >= 4
    assert_alike(*(outcome(folder, "students") for folder in (tmp_path / "one", shared)), tolerance=1e-5)
    assert json.loads((shared / "config.json").read_text())["device"]["processes"] == 2


@pytest.mark.slow
@POSIX
def test_stopped_and_killed_processes_resume_bit_identically(features_file, tmp_path):
    options = (*SMALL, f"--config.dataset.name={features_file}", "--config.optimizer.epochs=6")

    def start(name, count=2):
        return Group([*options, f"--workdir={tmp_path / name}"], count, 4 // count, tmp_path / "cache")

    with start("whole") as group:
        group.finish()
    for signum, stage in ((signal.SIGTERM, "r0-old"), (signal.SIGINT, "r1-independent")):
        with start("broken") as group:
            group.wait_for(tmp_path / "broken/checkpoints" / stage, steps=20)
            group.members[1].send_signal(signum)  # the process that writes nothing receives it
            signaled = time.monotonic()
            ends = group.ends()
            assert time.monotonic() - signaled < 15
        assert [status for status, _, _ in ends] == [143, 128 + signum], ends
        for _, _, errors in ends:
            assert errors.splitlines()[-1].startswith("stopped; to resume from the last checkpoint: python -m mpt_jax")
            assert "ended early" not in errors
        saved = max(checkpoint.saved_steps(tmp_path / "broken/checkpoints" / stage))
        last_line = (tmp_path / "broken/metrics.jsonl").read_text().splitlines()[-1]
        assert saved >= json.loads(last_line)["step"]
    with start("broken") as group:
        group.wait_for(tmp_path / "broken/checkpoints/r1-students", steps=20)
        group.members[1].kill()
        (status, _, errors), _ = group.ends(timeout=60)
    assert status in LOST_STATUS and re.search(LOST.format(0), errors), errors
    with start("broken") as group:
        assert "students, 1 seed: 114 steps, resumed from step " in group.finish()
    assert_alike(*(outcome(tmp_path / name, "") for name in ("whole", "broken")), tolerance=0)
    with start("broken", count=4) as group:
        assert "nothing to train" in group.finish()


@pytest.mark.slow
def test_every_kind_of_method_gives_the_results_of_one_process(tmp_path, run_here):
    """Herding, ensembles, soups and choices on validation, on images with batch normalisation."""
    options = [
        *("--config", str(ROOT / "configs/digits.py"), "--config.seeds=0,1", "--config.optimizer.epochs=2"),
        "--config.update.methods=mpt_kl,posthoc_bias,bcwi,bcwi_fisher,soup,ensemble,balanced_meta_softmax",
        *("--config.update.start=old", "--config.update.memory=per_class:20", "--config.update.memory_by=herding"),
        *("--config.update.ensemble_size=2", "--config.training.checkpoint_seconds=0.5"),
        f"--config.dataset.data_dir={tmp_path}",
    ]
    folders = [tmp_path / "one", tmp_path / "two"]
    run_here([*options, f"--workdir={folders[0]}"])
    with Group([*options, f"--workdir={folders[1]}"], 2, 2, tmp_path / "cache") as group:
        group.finish()
    reports = [report.write(folder)["rows"] for folder in folders]
    for one, two in zip(*reports, strict=True):
        # equal to rounding, except for an image between two classes
        assert one["method"] == two["method"] and one["accuracy"] == pytest.approx(two["accuracy"], abs=2 / 1281)
    one, two = (released.read(folder / "predictions/r0-old-seed1.npz")["logits"] for folder in folders)
    np.testing.assert_allclose(one, two, atol=1e-3)


@pytest.mark.slow
def test_an_error_of_one_process_is_reported_by_all(features_file, tmp_path):
    options = [*SMALL, f"--workdir={tmp_path / 'run'}"]

    def errors_of(first, second):
        with Group(options, 2, 2, tmp_path / "cache", [[first], [second]]) as group:
            ends = group.ends(timeout=60)
        assert [status for status, _, _ in ends] == [2, 2], ends
        assert ends[0][2] == ends[1][2] and ends[0][2].startswith("error: ") and len(ends[0][2].splitlines()) == 1
        return ends[0][2]

    there = f"--config.dataset.name={features_file}"
    assert "the config differs between process 0 and process 1" in errors_of(there, there.replace("digits", "other"))
    assert not (tmp_path / "run").exists()
    with lock.hold(tmp_path / "run"):  # only the first process locks
        assert f"is in use by process {os.getpid()} on " in errors_of(there, there)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--coordinator=host:1"], "is missing; expected all three"),
        (["--num-processes=2", "--process-id=0"], "is missing; expected all three"),
        (["--coordinator=host", "--num-processes=2", "--process-id=0"], "expected HOST:PORT"),
        (["--coordinator=host:x", "--num-processes=2", "--process-id=0"], "expected HOST:PORT"),
        (["--coordinator=host:70000", "--num-processes=2", "--process-id=0"], "expected HOST:PORT"),
        (["--coordinator=host:80", "--num-processes=2", "--process-id=2"], "--process-id=2 of --num-processes=2"),
        (["--coordinator=host:80", "--num-processes=two", "--process-id=0"], "invalid int value"),
        (["--distributed", "--process-id=0"], "finds the processes itself; expected it alone"),
    ],
)
def test_inconsistent_flags_are_refused(arguments, complaint):
    with pytest.raises(InputError, match=complaint):
        train.parse(["--config=x", *arguments])


def test_a_port_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for address in (f"localhost:{port}", "localhost:99999"):
            with pytest.raises(InputError, match=f"--coordinator {address}: process 0 cannot listen there"):
                processes.join("command", address, 1, 0)


def test_flags_are_parsed():
    given = ["--config=x", "--coordinator", "[::1]:80", "--num-processes=2", "--process-id=1"]
    assert train.parse(given).processes == ("[::1]:80", 2, 1)
    assert train.parse(["--config=x", "--distributed"]).processes == ()
    assert train.parse(["--config=x"]).processes is None


def test_a_single_process_needs_no_communication():
    assert processes.is_first() and not processes.is_distributed()
    assert processes.from_first(lambda: {1: 2}) == {1: 2} and processes.all_gather("x") == ["x"]
    processes.require_same({}, "nothing")
    processes.share_stop_request()
    processes.leave(1)
    with pytest.raises(ZeroDivisionError), processes.synchronized():
        _ = 1 / 0
    assert not processes.stop_requested()


def test_messages_between_processes(monkeypatch):
    """The other processes' messages come from a list."""
    others = []

    def gather(array):
        texts = [json.dumps(other).encode() for other in others]
        if np.ndim(array) == 0:
            return np.array([int(array), *map(len, texts)])
        return np.stack([array, *(np.frombuffer(text.ljust(array.size), np.uint8) for text in texts)])

    monkeypatch.setattr(processes, "is_distributed", lambda: True)
    monkeypatch.setattr(processes, "is_first", lambda: True)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gather)
    others[:] = [{"value": "ä" * 99}, {"value": None}]
    assert processes.all_gather([1]) == [[1], "ä" * 99, None]
    others[:] = [{"value": None}]
    assert processes.from_first(lambda: [1, 2]) == [1, 2]
    with processes.synchronized():
        pass
    with pytest.raises(InputError, match="mine"), processes.synchronized():
        raise InputError("mine")
    with pytest.raises(OSError, match="No such file") as missing, processes.synchronized():
        (ROOT / "x").read_text()
    assert missing.value.errno == 2 and missing.value.filename == str(ROOT / "x")
    others[:] = [{"error": ["theirs"]}]
    for do in (lambda: processes.all_gather(1), lambda: processes.from_first(lambda: 1)):
        with pytest.raises(InputError, match="theirs"):
            do()
    # An error that all processes have is not sent again: the next message belongs to the block after the outer one.
    with pytest.raises(InputError, match="theirs"), processes.synchronized(), processes.synchronized():
        pass
    others[:] = [{"error": [28, "No space left on device", "place"]}]
    with pytest.raises(OSError, match="No space") as full, processes.synchronized():
        pass
    assert full.value.errno == 28 and full.value.filename == "place"
    others[:] = [{"value": {"b": 1, "a": 2}}]
    processes.require_same({"a": 2, "b": 1}, "it")
    with pytest.raises(InputError, match="it differs between process 0 and process 1"):
        processes.require_same({"a": 2, "b": 3}, "it")
