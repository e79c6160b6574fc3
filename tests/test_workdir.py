"""What the work directory keeps, refuses and forgets."""

import json

import numpy as np
import pytest

from mpt_jax import workdir
from mpt_jax.errors import InputError

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
    with pytest.raises(InputError, match=r"optimizer\.epochs=3, now it is 4"):
        workdir.check(tmp_path / "run", {**CONFIG, "optimizer": {"epochs": 4}})
    with pytest.raises(InputError, match="new=None, now it is 1"):
        workdir.check(tmp_path / "run", {**CONFIG, "new": 1})


def test_a_second_claim_keeps_the_facts_of_the_first(tmp_path):
    workdir.claim(tmp_path, facts(command="first"))
    workdir.claim(tmp_path, facts(command="second"))
    kept = workdir.read_facts(tmp_path)
    assert kept["command"] == "first" and set(workdir.PACKAGES) < set(kept["versions"])


def test_an_unreadable_config_is_not_overwritten(tmp_path):
    for text, word in (("{", "unreadable"), ("[]", "damaged"), ('{"config": []}', "damaged")):
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


def test_predictions_come_back(tmp_path):
    path = tmp_path / "one.npz"
    labels, ids = np.arange(3, dtype=np.int32), np.array(["a", "bc", "ä"])
    workdir.write_predictions(path, labels=labels, logits=np.eye(3), ids=ids)
    arrays = workdir.read_predictions(path)
    assert arrays["logits"].dtype == np.float32
    for name, expected in (("labels", labels), ("logits", np.eye(3)), ("ids", ids)):
        np.testing.assert_array_equal(arrays[name], expected)
    assert [p.name for p in tmp_path.iterdir()] == ["one.npz"]
    assert workdir.has_predictions(path) and not workdir.has_predictions(tmp_path / "two.npz")
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:100] + b"?" * 20 + content[120:]):
        path.write_bytes(damaged)
        assert not workdir.has_predictions(path)
