"""Released models and training states come back as they were, and damage is found out."""

import errno
import json
import shutil
import types

import jax
import numpy as np
import pytest
import random_weights

from mpt_jax import models
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint
from mpt_jax.models import Classifier

CARD = {
    **{"name": "one", "method": "old", "release": 0, "seed": 0, "dataset": "made up", "image_shape": [8, 8, 1]},
    **{"architecture": {"name": "convnet", "options": {}}, "classes": ["a", "b", "c"]},
    **{"objective": {}, "parents": {}, "metrics": {}, "steps": 1, "seconds": 1.0, "examples_per_second": 1.0},
}


get_logits = jax.jit(models.logits)


def make_classifier(seed=0):
    module = models.build("convnet", 3)
    params, batch_stats = random_weights.init(module, jax.random.key(seed), (8, 8, 1))
    mean, std = np.float32([0.3]), np.float32([0.4])
    return Classifier(module=module, params=params, batch_stats=batch_stats, mean=mean, std=std)


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "releases" / "one"
    checkpoint.write_release(folder, make_classifier(), CARD)
    return folder


def test_a_release_comes_back_bit_identical(release):
    classifier, card = checkpoint.read_release(release)
    expected = make_classifier()
    assert jax.tree.structure(classifier) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, classifier, expected)
    assert card["schema"] == 2 and card["classes"] == ["a", "b", "c"]
    assert [path.name for path in release.parent.iterdir()] == ["one"]  # nothing unfinished is left


def test_an_ensemble_comes_back_as_one(tmp_path):
    members = [make_classifier(seed) for seed in range(3)]
    ensemble = jax.tree.map(lambda *leaves: np.stack(leaves), *members).replace(ensemble=True)
    card = {**CARD, "architecture": {"name": "convnet", "options": {}, "ensemble": True}}
    checkpoint.write_release(tmp_path / "many", ensemble, card)
    restored, card = checkpoint.read_release(tmp_path / "many")
    assert card["architecture"]["ensemble"] is True
    assert jax.tree.structure(restored) == jax.tree.structure(ensemble) and restored.ensemble
    jax.tree.map(np.testing.assert_array_equal, restored, ensemble)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    expected = np.mean([get_logits(member, pixels) for member in members], 0)
    np.testing.assert_allclose(get_logits(restored, pixels), expected, atol=1e-5)


def test_a_copied_release_reads_as_well(release, tmp_path):
    shutil.copytree(release, tmp_path / "elsewhere")
    assert checkpoint.read_release(tmp_path / "elsewhere")[1] == checkpoint.read_card(release)


def damaged(folder, tmp_path):
    """Copies of a folder with one file truncated, one bit of it flipped, or it removed: (the copy, the file's name)."""
    random = np.random.default_rng(0)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for number, name in enumerate(files):
        content = (folder / name).read_bytes()
        bit = int(random.integers(8 * len(content)))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        for kind, now in (("cut", content[: len(content) // 2]), ("flip", flipped), ("empty", b""), ("gone", None)):
            copy = tmp_path / f"{number}-{kind}" / folder.name
            shutil.copytree(folder, copy)
            (copy / name).unlink()
            if now is not None:
                (copy / name).write_bytes(now)
            yield copy, name


def test_every_damaged_file_of_a_release_is_found_out_and_the_user_told_what_to_do(release, tmp_path):
    count = 0
    for folder, name in damaged(release, tmp_path / "damaged"):
        with pytest.raises(InputError) as refused:
            checkpoint.read_release(folder)
        assert str(folder) in str(refused.value) and name.name in str(refused.value)
        assert "restore it from a copy" in str(refused.value) or "no card.json" in str(refused.value)
        count += 1
    assert count >= 4 * 5


def test_what_is_not_a_release_is_said_to_be_none(tmp_path, release):
    with pytest.raises(InputError, match="no released model"):
        checkpoint.read_card(tmp_path / "nothing")
    with pytest.raises(InputError, match="not a released model"):
        checkpoint.read_card(tmp_path)
    card = json.loads((release / "card.json").read_text())

    def write(**changes):
        (release / "card.json").write_text(json.dumps(checkpoint.sealed({**card, **changes})))

    write(schema=99)
    with pytest.raises(InputError, match="schema 2"):
        checkpoint.read_card(release)
    (release / "card.json").write_text("[]")
    with pytest.raises(InputError, match="damaged or was edited"):
        checkpoint.read_card(release)
    for key in checkpoint.CARD:
        write(**{key: None})
        with pytest.raises(InputError, match=f"'{key}' is None"):
            checkpoint.read_card(release)
    write(architecture={"name": "vit", "options": {}})
    with pytest.raises(InputError, match="vit"):
        checkpoint.read_release(release)


def saved_states(folder, *steps):
    state = {"w": jax.numpy.arange(4.0), "n": jax.numpy.int32(0)}
    for step in steps:
        grown = {"w": state["w"] * step, "n": jax.numpy.int32(step)}
        checkpoint.save_state(folder, step, grown, {"seconds": step / 2})
    return state


def test_training_states_keep_the_newest_two(tmp_path):
    state = saved_states(tmp_path / "states")
    assert checkpoint.restore_state(tmp_path / "states", state, pytest.fail) is None
    (tmp_path / "states/.7.unfinished/model").mkdir(parents=True)  # a process was killed
    saved_states(tmp_path / "states", 1, 2, 10)
    step, restored, notes = checkpoint.restore_state(tmp_path / "states", state, pytest.fail)
    assert (step, notes) == (10, {"seconds": 5.0})
    np.testing.assert_array_equal(restored["w"], np.arange(4.0) * 10)
    assert restored["n"] == 10 and isinstance(restored["w"], jax.Array)
    assert {path.name for path in (tmp_path / "states").iterdir()} == {"2", "10"}


def test_every_damaged_file_of_a_training_state_is_found_out_and_gives_way_to_the_one_before(tmp_path):
    state = saved_states(tmp_path / "states", 1, 2)
    count = 0
    for newest, name in damaged(tmp_path / "states/2", tmp_path / "damaged"):
        shutil.copytree(tmp_path / "states/1", newest.parent / "1")
        said = []
        step, restored, _ = checkpoint.restore_state(newest.parent, state, said.append)
        assert step == 1 and len(said) == 1 and str(newest / name) in said[0] and "older" in said[0]
        np.testing.assert_array_equal(restored["w"], state["w"])
        saved_states(newest.parent, 2)  # and the same step is written again in its place
        assert checkpoint.restore_state(newest.parent, state, pytest.fail)[0] == 2
        count += 1
    assert count >= 4 * 5


def test_without_a_whole_training_state_the_user_decides(tmp_path):
    state = saved_states(tmp_path / "states", 1, 2)
    for step in (1, 2):
        (tmp_path / f"states/{step}/notes.json").unlink()
    with pytest.raises(InputError, match="remove that folder"):
        checkpoint.restore_state(tmp_path / "states", state, lambda text: None)
    saved_states(tmp_path / "states", 3)
    with pytest.raises(InputError, match="remove that folder"):  # whole, but of another shape
        checkpoint.restore_state(tmp_path / "states", {"w": jax.numpy.zeros(5)}, lambda text: None)


def test_a_full_disk_leaves_what_was_saved_and_nothing_else(tmp_path, monkeypatch):
    state = saved_states(tmp_path / "states", 1)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10))
    with pytest.raises(OSError, match="No space left") as full:
        saved_states(tmp_path / "states", 2)
    assert full.value.errno == errno.ENOSPC
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["1"]
    assert checkpoint.restore_state(tmp_path / "states", state, pytest.fail)[0] == 1


def test_write_text_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "file.json"
    checkpoint.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        checkpoint.write_text(path, "\ud800")
    assert path.read_text() == "old"
