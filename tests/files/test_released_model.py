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
    with pytest.raises(InputError, match=r"damaged: it is \[\]; expected an object"):
        released_model.read_card(release)
    for key in (key.removesuffix("?") for key in released_model.CARD if key != "selection?"):
        write(**{key: None})
        with pytest.raises(InputError, match=f"{key} is None; expected .*; restore it from a copy"):
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
    kind_of = {key: type(kind) if isinstance(kind, dict | list) else kind for key, kind in released_model.CARD.items()}
    card = {
        key: kinds[kind] for key, kind in kind_of.items() if not key.endswith("?") and key not in ("digest", "files")
    }
    card |= {"architecture": {"name": "linear", "options": {}}, "classes": ["a", "b", "c"]}
    released_model.write(bucket / "model", classifier, card)
    read, found = released_model.read(bucket / "model")
    jax.tree.map(np.testing.assert_array_equal, read.params, classifier.params)
    assert found["classes"] == card["classes"]
    with pytest.raises(InputError, match="no released model at gs://"):
        released_model.read(bucket / "other")


# Releases that share a backbone


def write_in_parts(folder, seed=0, ensemble=0):
    """Write a release whose backbone is that of `make_classifier`, with a head of its own."""
    classifier = make_classifier()
    shape = (ensemble,) if ensemble else ()
    random = np.random.default_rng(seed)
    heads = jax.tree.map(lambda leaf: random.normal(size=(*shape, *leaf.shape)).astype(leaf.dtype), classifier.params)
    frozen = {name: values for name, values in classifier.params.items() if name != "head"}
    backbone = released_model.write_backbone(folder.parents[1] / "backbone", frozen, classifier.batch_stats)
    spread = lambda leaf: np.broadcast_to(leaf, (*shape, *np.shape(leaf)))  # noqa: E731
    whole = jax.tree.map(spread, classifier).replace(ensemble=bool(ensemble))
    whole = whole.replace(params={**whole.params, "head": heads["head"]})
    card = CARD if not ensemble else {**CARD, "architecture": {"name": "convnet", "options": {}, "ensemble": True}}
    released_model.write(folder, whole, card, backbone)
    return whole


@pytest.mark.parametrize("ensemble", [0, 3])
def test_a_release_in_two_parts_is_a_whole_model_also_where_it_is_copied_to(tmp_path, ensemble):
    folder = tmp_path / "run/releases/one"
    expected = write_in_parts(folder, ensemble=ensemble)
    shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "run")
    classifier, card = released_model.read(tmp_path / "elsewhere")
    jax.tree.map(np.testing.assert_array_equal, classifier, expected)
    assert classifier.ensemble == bool(ensemble) and card["digest"] == released_model.identity(expected)
    head = released_model.read_head(tmp_path / "elsewhere")
    jax.tree.map(np.testing.assert_array_equal, head, expected.params["head"])


def test_a_release_in_two_parts_in_a_bucket(bucket):
    expected = write_in_parts(bucket / "releases/one")
    classifier, _ = released_model.read(bucket / "releases/one")
    jax.tree.map(np.testing.assert_array_equal, classifier, expected)


def test_releases_share_one_copy_of_the_backbone(tmp_path):
    size, places = {}, set()
    for seed in range(3):
        write_in_parts(tmp_path / f"releases/{seed}", seed)
        files = {path: path.stat() for path in tmp_path.rglob("*") if path.is_file()}
        size[seed] = sum({status.st_ino: status.st_size for status in files.values()}.values())
        places |= {path.parent for path in tmp_path.glob("backbone/*/backbone.json")}
    (place,) = places
    frozen = sum(path.stat().st_size for path in (place / "model").rglob("*") if path.is_file())
    assert size[2] - size[1] == pytest.approx(size[1] - size[0], rel=0.1) and size[2] - size[1] < frozen
    shutil.rmtree(tmp_path / "releases/0")  # the others keep theirs
    released_model.read(tmp_path / "releases/1")


def test_files_are_copied_where_links_are_not_possible(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    write_in_parts(tmp_path / "releases/one")
    assert all(path.stat().st_nlink == 1 for path in tmp_path.rglob("*") if path.is_file())
    released_model.read(tmp_path / "releases/one")


def test_damage_to_either_part_is_detected(tmp_path):
    write_in_parts(tmp_path / "releases/one")
    shutil.copytree(tmp_path / "releases/one", tmp_path / "copy")
    for folder, name in damaged_copies(tmp_path / "copy", tmp_path / "damaged"):
        with pytest.raises(InputError, match=r"restore it from a copy, or remove|has no card\.json"):
            released_model.read(folder)
        if name.parts[0] == "backbone":
            released_model.read_head(folder)
    (backbone,) = (tmp_path / "backbone").iterdir()
    next(path for path in (backbone / "model").rglob("*") if path.is_file()).unlink()
    with pytest.raises(InputError, match=rf"is missing; remove {backbone} to write it again"):
        write_in_parts(tmp_path / "releases/two")
