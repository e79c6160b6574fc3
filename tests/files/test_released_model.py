"""Released models are read bit-identical, and damage is detected."""

import json
import shutil

import jax
import numpy as np
import pytest
import random_weights
from damage import damaged_copies

from mpt_jax import models
from mpt_jax.errors import InputError
from mpt_jax.files import released_model, sealed
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
    released_model.write(folder, make_classifier(), CARD)
    return folder


def test_a_release_is_read_bit_identical(release):
    classifier, card = released_model.read(release)
    expected = make_classifier()
    assert jax.tree.structure(classifier) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, classifier, expected)
    assert card["schema"] == 2 and card["classes"] == ["a", "b", "c"]
    assert card["digest"] == released_model.identity(expected)
    assert [path.name for path in release.parent.iterdir()] == ["one"]  # nothing unfinished is left


def test_an_ensemble_is_read_as_an_ensemble(tmp_path):
    members = [make_classifier(seed) for seed in range(3)]
    ensemble = jax.tree.map(lambda *leaves: np.stack(leaves), *members).replace(ensemble=True)
    card = {**CARD, "architecture": {"name": "convnet", "options": {}, "ensemble": True}}
    released_model.write(tmp_path / "many", ensemble, card)
    restored, card = released_model.read(tmp_path / "many")
    assert card["architecture"]["ensemble"] is True
    assert jax.tree.structure(restored) == jax.tree.structure(ensemble) and restored.ensemble
    jax.tree.map(np.testing.assert_array_equal, restored, ensemble)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    expected = np.mean([get_logits(member, pixels) for member in members], 0)
    np.testing.assert_allclose(get_logits(restored, pixels), expected, atol=1e-5)


def test_a_model_known_by_its_predictions_has_a_card_and_no_weights(tmp_path):
    card = {**CARD, "architecture": {"predictions": "old.npz"}, "digest": "00ff"}
    released_model.write(tmp_path / "one", None, card)
    assert released_model.read_card(tmp_path / "one")["digest"] == "00ff"
    with pytest.raises(InputError, match=r"no weights.*old\.npz"):
        released_model.read(tmp_path / "one")


def test_a_copied_release_can_be_read(release, tmp_path):
    shutil.copytree(release, tmp_path / "elsewhere")
    assert released_model.read(tmp_path / "elsewhere")[1] == released_model.read_card(release)


def test_every_damaged_file_is_detected_and_the_error_has_a_remedy(release, tmp_path):
    count = 0
    for folder, name in damaged_copies(release, tmp_path / "damaged"):
        with pytest.raises(InputError) as refused:
            released_model.read(folder)
        assert str(folder) in str(refused.value) and name.name in str(refused.value)
        assert "restore it from a copy" in str(refused.value) or "no card.json" in str(refused.value)
        count += 1
    assert count >= 4 * 5


def test_folders_that_are_no_release_are_refused(tmp_path, release):
    with pytest.raises(InputError, match="no released model"):
        released_model.read_card(tmp_path / "nothing")
    with pytest.raises(InputError, match="not a released model"):
        released_model.read_card(tmp_path)
    card = json.loads((release / "card.json").read_text())

    def write(**changes):
        (release / "card.json").write_text(json.dumps(sealed.sealed({**card, **changes})))

    write(schema=99)
    with pytest.raises(InputError, match="schema 2"):
        released_model.read_card(release)
    (release / "card.json").write_text("[]")
    with pytest.raises(InputError, match="damaged or was edited"):
        released_model.read_card(release)
    for key in released_model.CARD:
        write(**{key: None})
        with pytest.raises(InputError, match=f"'{key}' is None"):
            released_model.read_card(release)
    write(architecture={"name": "vit", "options": {}})
    with pytest.raises(InputError, match="vit"):
        released_model.read(release)


def test_in_a_bucket(bucket):
    module = models.build("linear", 3)
    images = np.zeros((1, 5), np.float32)
    variables = jax.tree.map(np.asarray, module.init(jax.random.key(0), images, train=False))
    weights = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    classifier = Classifier(module=module, mean=np.zeros(1, np.float32), std=np.ones(1, np.float32), **weights)
    kinds = {str: "x", int: 0, float: 0.0, dict: {}, list: []}
    card = {key: kinds[kind] for key, kind in released_model.CARD.items() if key not in ("digest", "files")}
    card |= {"architecture": {"name": "linear", "options": {}}, "classes": ["a", "b", "c"]}
    released_model.write(bucket / "model", classifier, card)
    read, found = released_model.read(bucket / "model")
    jax.tree.map(np.testing.assert_array_equal, read.params, classifier.params)
    assert found["classes"] == card["classes"]
    with pytest.raises(InputError, match="no released model at gs://"):
        released_model.read(bucket / "other")
