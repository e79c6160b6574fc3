"""Checkpoints are restored bit-identical, and a damaged one is reported and replaced by the one before it."""

import json
import shutil

import jax
import numpy as np
import pytest
from damage import damaged_copies

from mpt_jax.errors import InputError
from mpt_jax.files import array_folder, checkpoint, sealed

NOTES = {"seconds": 1.0, "since": 0, "teachers": [], "sums": {}}


def saved_states(folder, *steps):
    state = {"w": jax.numpy.arange(4.0), "n": jax.numpy.int32(0)}
    for step in steps:
        grown = {"w": state["w"] * step, "n": jax.numpy.int32(step)}
        checkpoint.save(folder, step, grown, {**NOTES, "seconds": step / 2})
    return state


def test_the_newest_two_are_kept(tmp_path):
    state = saved_states(tmp_path / "states")
    assert checkpoint.restore(tmp_path / "states", state, pytest.fail) is None
    (tmp_path / "states/.7.unfinished/model").mkdir(parents=True)  # a process was killed
    saved_states(tmp_path / "states", 1, 2, 10)
    step, restored, notes = checkpoint.restore(tmp_path / "states", state, pytest.fail)
    assert (step, notes) == (10, {**NOTES, "seconds": 5.0})
    assert checkpoint.read_notes(tmp_path / "states", 2)["seconds"] == 1.0
    np.testing.assert_array_equal(restored["w"], np.arange(4.0) * 10)
    assert restored["n"] == 10 and isinstance(restored["w"], jax.Array)
    assert {path.name for path in (tmp_path / "states").iterdir()} == {"2", "10"}


@pytest.mark.parametrize("name", ["{}", "step-{}", "{:08d}", "{}.state"])
def test_the_name_of_a_checkpoint_is_decided_in_one_function(name, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "step_folder", lambda folder, step: folder / name.format(step))
    for other in (".9.unfinished", "notes-7", "0011", "other"):
        (tmp_path / other).mkdir()
    state = saved_states(tmp_path, 1, 2, 10)
    assert checkpoint.saved_steps(tmp_path) == [10, 2]
    assert checkpoint.restore(tmp_path, state, pytest.fail)[0] == 10
    assert (tmp_path / name.format(10) / "notes.json").is_file()


def test_every_damaged_file_is_reported_and_the_checkpoint_before_is_restored(tmp_path):
    state = saved_states(tmp_path / "states", 1, 2)
    count = 0
    for newest, name in damaged_copies(tmp_path / "states/2", tmp_path / "damaged"):
        shutil.copytree(tmp_path / "states/1", newest.parent / "1")
        lines = []
        step, restored, _ = checkpoint.restore(newest.parent, state, lines.append)
        assert step == 1 and len(lines) == 1 and str(newest / name) in lines[0] and "older" in lines[0]
        np.testing.assert_array_equal(restored["w"], state["w"])
        saved_states(newest.parent, 2)  # the same step is saved again in its place
        assert checkpoint.restore(newest.parent, state, pytest.fail)[0] == 2
        count += 1
    assert count >= 4 * 5


def test_a_checkpoint_under_the_name_of_another_step_is_reported_and_not_used(tmp_path):
    state = saved_states(tmp_path / "states", 10, 20)
    for name in ("25", "9999"):
        shutil.copytree(tmp_path / "states/20", tmp_path / "states" / name)
    lines = []
    step, restored, _ = checkpoint.restore(tmp_path / "states", state, lines.append)
    assert step == restored["n"] == 20 and len(lines) == 2
    assert f"{tmp_path}/states/9999 was copied or renamed: it is the checkpoint of step 20: trying" in lines[0]
    assert checkpoint.newest(tmp_path / "states")[0] == 20
    saved_states(tmp_path / "states", 21)  # the next one removes them
    assert checkpoint.saved_steps(tmp_path / "states") == [21, 20]

    (tmp_path / "states/20").rename(tmp_path / "states/x")
    (tmp_path / "states/21").rename(tmp_path / "states/20")
    (tmp_path / "states/x").rename(tmp_path / "states/21")
    with pytest.raises(InputError, match=r"no checkpoint in .* can be used; remove that folder"):
        checkpoint.restore(tmp_path / "states", state, lines.append)
    assert checkpoint.newest(tmp_path / "states") is None


@pytest.mark.parametrize("changed", [{"run": "b"}, {"stage": "r1-students"}, {"run": "b", "stage": "r1-students"}])
def test_a_checkpoint_of_another_training_is_reported_and_not_used(changed, tmp_path):
    state, of = {"w": jax.numpy.arange(4.0)}, {"run": "a", "stage": "r0-old"}
    checkpoint.save(tmp_path, 1, state, NOTES, of)
    assert checkpoint.restore(tmp_path, state, pytest.fail, of)[::2] == (1, NOTES)
    checkpoint.save(tmp_path, 2, state, NOTES, of | changed)
    lines = []
    assert checkpoint.restore(tmp_path, state, lines.append, of)[0] == 1
    assert lines == [f"{tmp_path}/2 is the checkpoint of another {', '.join(changed)}: trying an older checkpoint"]


def test_a_checkpoint_of_a_version_that_did_not_record_its_step_is_used_with_a_line(tmp_path):
    state = {"w": jax.numpy.arange(4.0)}
    array_folder.write(tmp_path / "7", "notes.json", NOTES, state)
    lines = []
    assert checkpoint.restore(tmp_path, state, lines.append, {"run": "a"})[0] == 7
    assert lines == [f"{tmp_path}/7 was made before checkpoints named their step: it is used unchecked"]


@pytest.mark.parametrize("key", ["files", *NOTES])
def test_notes_without_a_key_that_is_read_are_reported_although_their_digest_fits(key, tmp_path):
    state, lines = saved_states(tmp_path, 1, 2), []
    path = tmp_path / "2/notes.json"
    notes = json.loads(path.read_text())
    del notes[key]
    path.write_text(json.dumps(sealed.sealed(notes)))
    assert checkpoint.restore(tmp_path, state, lines.append)[0] == checkpoint.newest(tmp_path)[0] == 1
    assert lines == [f"{path} is damaged: it has no {key}: trying an older checkpoint"]


def test_if_all_are_damaged_the_user_decides(tmp_path):
    state = saved_states(tmp_path / "states", 1, 2)
    for step in (1, 2):
        (tmp_path / f"states/{step}/notes.json").unlink()
    with pytest.raises(InputError, match="remove that folder"):
        checkpoint.restore(tmp_path / "states", state, lambda text: None)
    saved_states(tmp_path / "states", 3)
    with pytest.raises(InputError, match="remove that folder"):  # undamaged, but of another shape
        checkpoint.restore(tmp_path / "states", {"w": jax.numpy.zeros(5)}, lambda text: None)


def test_in_a_bucket(store, bucket):
    state = {"w": jax.numpy.arange(6.0).reshape(2, 3), "n": jax.numpy.int32(7)}
    folder, lines = bucket / "stage", []
    for step in (2, 4, 6):
        checkpoint.save(folder, step, jax.tree.map(lambda x, s=step: x * s, state), {**NOTES, "teachers": ["t"]})
    assert sorted(path.name for path in folder.iterdir()) == ["4", "6"]  # the newest two
    step, restored, notes = checkpoint.restore(folder, state, lines.append)
    assert (step, notes, lines) == (6, {**NOTES, "teachers": ["t"]}, [])
    np.testing.assert_array_equal(restored["w"], 6 * state["w"])

    # One whose notes were never written does not count; a damaged one is reported.
    root = str(folder).removeprefix("gs://bucket/")
    del store.objects[f"{root}/6/notes.json"]
    assert checkpoint.restore(folder, state, lines.append)[0] == 4 and not lines
    checkpoint.save(folder, 6, state, NOTES)
    name = next(name for name in store.objects if name.startswith(f"{root}/6/model/") and "/d/" in name)
    content, generation = store.objects[name]
    store.objects[name] = (content[:-1] + bytes([content[-1] ^ 1]), generation)
    assert checkpoint.restore(folder, state, lines.append)[0] == 4
    assert len(lines) == 1 and "damaged" in lines[0] and "gs://bucket/" in lines[0]
