"""TensorBoard events equal the lines of `metrics.jsonl`, also after a kill, and a hook gets every line."""

import collections
import importlib.util
import json
import pathlib

import pytest

from mpt_jax import train
from mpt_jax.errors import InputError
from mpt_jax.update import loggers, workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]


def line(stage, step, member="mpt_kl b=2 seed=0", **values):
    return {"release": 1, "stage": stage, "step": step, "member": member, "values": values or {"loss": step / 10}}


def events(folder):
    """Return (run, name) -> steps and values of its events, in the order of the files."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = collections.defaultdict(list)
    for path in sorted((folder / "tensorboard").rglob("*tfevents*")):
        content, start = path.read_bytes(), 0
        while start < len(content):  # length, its checksum, an event, its checksum
            length = int.from_bytes(content[start : start + 8], "little")
            event = event_pb2.Event.FromString(content[start + 12 : start + 12 + length])
            for value in event.summary.value:
                run = path.parent.relative_to(folder / "tensorboard").as_posix()
                found[run, value.tag].append((event.step, round(value.simple_value, 5)))
            start += 16 + length
    return dict(found)


def test_events_equal_the_metrics_lines_also_after_a_kill(tmp_path):
    pytest.importorskip("tensorboardX")

    def session(stage, steps, after):
        with loggers.tensorboard(tmp_path) as write:
            workdir.drop_metrics_after(tmp_path, f"r1-{stage}", after)
            for step in steps:
                lines = [line(stage, step), line(stage, step, "a/b", loss=None, accuracy=0.5)]
                workdir.append_metrics(tmp_path, lines)
                for one in lines:
                    write(one)

    session("independent", (10, 20), 0)
    session("students", (10, 20, 30), 0)
    session("students", (20, 30, 40), 10)  # the last checkpoint was at step 10
    losses, run = [(step, step / 10) for step in (10, 20, 30, 40)], "mpt_kl b=2 seed=0"
    assert events(tmp_path) == {
        (f"r1-independent/{run}", "loss"): losses[:2],
        ("r1-independent/a_b", "accuracy"): [(10, 0.5), (20, 0.5)],
        (f"r1-students/{run}", "loss"): losses,
        ("r1-students/a_b", "accuracy"): [(step, 0.5) for step in (10, 20, 30, 40)],
    }
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"release": 1, "sta')  # left by a kill
    with loggers.tensorboard(tmp_path):
        pass
    assert events(tmp_path)[f"r1-students/{run}", "loss"] == losses


def test_the_command_passes_every_line_to_a_hook_and_to_tensorboard(features_file, tmp_path):
    pytest.importorskip("tensorboardX")
    keys = {"dataset.name": features_file, "dataset.train_per_class": 20, "dataset.validation_per_class": 0}
    keys |= {"model.name": "linear", "seeds": 0, "optimizer.epochs": 2, "optimizer.batch_size": 32}
    keys |= {"update.tune": {}, "update.methods": "no_treatment"}
    command = ["--config", str(ROOT / "configs/digits.py"), f"--workdir={tmp_path}/run", "--tensorboard"]
    received = []

    def hook(line):
        received.append(line)
        if line["release"]:
            raise ZeroDivisionError  # an exception in a hook ends the run, here after the old model

    with pytest.raises(ZeroDivisionError):
        train.main([*command, *(f"--config.{key}={value}" for key, value in keys.items())], on_metrics=hook)
    assert received == workdir.read_metrics(tmp_path / "run") and len(received) > 1
    assert events(tmp_path / "run") == {
        ("r0-old/old b=0 seed=0", name): [
            (one["step"], pytest.approx(one["values"][name], abs=1e-4)) for one in received[:-1]
        ]
        for name in ("loss", "accuracy")
    }


def test_a_missing_tensorboardx_is_an_error_before_any_work(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboardX" else find(name))
    with pytest.raises(InputError, match=r"mpt_jax\[tensorboard\]"):
        loggers.require_tensorboard(tmp_path)


def test_metrics_are_read_without_a_truncated_line(tmp_path):
    assert workdir.read_metrics(tmp_path) == []
    workdir.append_metrics(tmp_path, [line("old", 1), line("old", 2)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line("old", 3))[:-5])
    assert [one["step"] for one in workdir.read_metrics(tmp_path)] == [1, 2]
