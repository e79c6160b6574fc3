"""Released models and training states come back as they were, and damage is found out."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from mpt_jax import checkpoint, models
from mpt_jax.errors import InputError
from mpt_jax.models import Classifier

CARD = {
    **{"name": "one", "method": "old", "release": 0, "seed": 0, "dataset": "made up", "image_shape": [8, 8, 1]},
    **{"architecture": {"name": "convnet", "options": {}}, "classes": ["a", "b", "c"]},
    **{"objective": {}, "parents": {}, "metrics": {}, "steps": 1, "seconds": 1.0, "examples_per_second": 1.0},
}


def make_classifier(seed=0):
    module = models.build("convnet", 3)
    params, batch_stats = models.init(module, jax.random.key(seed), (8, 8, 1))
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
    assert card["schema"] == 1 and card["classes"] == ["a", "b", "c"]
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
    expected = np.mean([models.logits(member, jax.numpy.asarray(pixels)) for member in members], 0)
    np.testing.assert_allclose(models.logits(restored, jax.numpy.asarray(pixels)), expected, atol=1e-5)


def test_a_copied_release_reads_as_well(release, tmp_path):
    shutil.copytree(release, tmp_path / "elsewhere")
    assert checkpoint.read_release(tmp_path / "elsewhere")[1] == checkpoint.read_card(release)


def test_digest_sees_every_value_name_shape_and_type():
    tree = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    variants = [
        {"a": np.zeros((3, 2), np.float32), "b": tree["b"]},
        {"a": tree["a"], "c": tree["b"]},
        {"a": tree["a"].astype(np.float64), "b": tree["b"]},
        {"a": tree["a"], "b": np.nextafter(tree["b"], np.float32(2))},
        {"a": tree["a"]},
    ]
    digests = {checkpoint.digest(variant) for variant in [tree, *variants]}
    assert len(digests) == 6
    assert checkpoint.digest(dict(reversed(tree.items()))) == checkpoint.digest(tree)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's own, of a failed restore
def test_every_damaged_file_of_a_release_is_found_out(release, tmp_path):
    files = sorted(path for path in release.rglob("*") if path.is_file())
    assert len(files) > 3
    silently_same = []
    for number, path in enumerate(files):
        for kind in ("truncated", "flipped", "removed"):
            copy = tmp_path / f"{number}-{kind}"
            shutil.copytree(release, copy)
            damaged = copy / path.relative_to(release)
            content = bytearray(damaged.read_bytes())
            if kind == "removed":
                damaged.unlink()
            elif kind == "truncated":
                damaged.write_bytes(content[: len(content) // 2])
            elif content:
                content[len(content) // 2] ^= 0x10
                damaged.write_bytes(content)
            try:
                classifier, _ = checkpoint.read_release(copy)
            except InputError as error:
                assert str(copy) in str(error)
            else:  # a file that orbax does not need: then the weights must be the released ones
                assert checkpoint.digest(
                    {"params": classifier.params, "batch_stats": classifier.batch_stats}
                ) == checkpoint.digest(
                    {"params": make_classifier().params, "batch_stats": make_classifier().batch_stats}
                )
                silently_same.append(damaged.name)
    assert len(silently_same) < len(files) * 3


def test_what_is_not_a_release_is_said_to_be_none(tmp_path, release):
    with pytest.raises(InputError, match="no released model"):
        checkpoint.read_card(tmp_path / "nothing")
    with pytest.raises(InputError, match="not a released model"):
        checkpoint.read_card(tmp_path)
    card = json.loads((release / "card.json").read_text())
    (release / "card.json").write_text(json.dumps({**card, "schema": 99}))
    with pytest.raises(InputError, match="schema 1"):
        checkpoint.read_card(release)
    (release / "card.json").write_text("[]")
    with pytest.raises(InputError, match="schema 1"):
        checkpoint.read_card(release)
    for key in checkpoint.CARD:
        (release / "card.json").write_text(json.dumps({**card, key: None}))
        with pytest.raises(InputError, match=f"'{key}' is None"):
            checkpoint.read_card(release)
    (release / "card.json").write_text(json.dumps({**card, "architecture": {"name": "vit", "options": {}}}))
    with pytest.raises(InputError, match="vit"):
        checkpoint.read_release(release)


def test_training_states_keep_the_newest_two(tmp_path):
    state = {"w": jax.numpy.arange(4.0), "n": jax.numpy.int32(0)}
    with checkpoint.training_states(tmp_path / "states") as manager:
        assert checkpoint.restore_state(manager, state) is None
        for step in (1, 2, 3):
            grown = {"w": state["w"] * step, "n": jax.numpy.int32(step)}
            checkpoint.save_state(manager, step, grown, {"seconds": step / 2})
    with checkpoint.training_states(tmp_path / "states") as manager:
        step, restored, notes = checkpoint.restore_state(manager, state)
    assert (step, notes) == (3, {"seconds": 1.5})
    np.testing.assert_array_equal(restored["w"], np.arange(4.0) * 3)
    assert restored["n"] == 3
    assert sorted(p.name for p in pathlib.Path(tmp_path / "states").iterdir() if p.name.isdigit()) == ["2", "3"]


def test_an_unreadable_training_state_gives_way_to_the_one_before(tmp_path):
    state = {"w": jax.numpy.arange(4.0)}
    with checkpoint.training_states(tmp_path / "states") as manager:
        for step in (1, 2):
            checkpoint.save_state(manager, step, {"w": state["w"] * step}, {})
    for path in (tmp_path / "states/2").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with checkpoint.training_states(tmp_path / "states") as manager:
        step, restored, _ = checkpoint.restore_state(manager, state)
    assert step == 1
    np.testing.assert_array_equal(restored["w"], state["w"])
    for path in (tmp_path / "states/1").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with checkpoint.training_states(tmp_path / "states") as manager, pytest.raises(InputError, match="remove"):
        checkpoint.restore_state(manager, state)


def test_write_text_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "file.json"
    checkpoint.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        checkpoint.write_text(path, "\ud800")
    assert path.read_text() == "old"
