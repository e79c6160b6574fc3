"""An external old model: the order of its classes, and its weights from PyTorch."""

import re

import jax
import numpy as np
import pytest
from random_weights import TIMM_VIT_TINY, timm_vit

from mpt_jax import models
from mpt_jax.errors import InputError
from mpt_jax.files import released_model
from mpt_jax.objectives import METHODS
from mpt_jax.update import lineage, releases, selection, stages, workdir


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with random weights of a small vision transformer under timm's names, and its network."""
    safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra 'weights'")
    state = {f"module.{name}": array for name, array in timm_vit(3, 8, **TIMM_VIT_TINY).items()}
    path = tmp_path_factory.mktemp("weights") / "old.safetensors"
    safetensors.save_file(state, path)
    return path


@pytest.fixture
def images(tmp_path):
    """An .npz file of small images in five classes."""
    rng, path = np.random.default_rng(0), tmp_path / "images.npz"
    parts = {part: rng.integers(0, 256, (40, 8, 8, 3), np.uint8) for part in ("train", "test")}
    arrays = {f"{part}_images": values for part, values in parts.items()}
    arrays |= {f"{part}_labels": np.arange(40) % 5 for part in parts}
    np.savez(path, class_names=["ant", "bee", "cat", "dog", "eel"], **arrays)
    return path


def test_weights_from_pytorch_become_the_old_release(prepared, weights, images, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra 'weights'")
    shared = (
        *("seeds=0", "dataset.validation_per_class=0", "update.schedule=[3,5]", "optimizer.batch_size=8"),
        *(f"dataset.name={images}", "model.name=vit_tiny", "update.methods=no_treatment", f"old.weights={weights}"),
    )
    normalised = ("old.mean=0.5,0.4,0.3", "old.std=0.2,0.3,0.4")
    run = prepared(*shared, *normalised, "old.classes=eel,bee,dog")
    assert run.dataset.class_names == ("eel", "bee", "dog", "ant", "cat")
    classifier, card = run.adopted["old"][0]
    assert card["adopted_from"] == str(weights) and card["classes"] == ["eel", "bee", "dog"]
    # an update must not change how a deployed model's input is prepared
    for mean, std in (run.normalization(1), (classifier.mean, classifier.std)):
        np.testing.assert_array_equal(mean, np.float32([0.5, 0.4, 0.3]))
        np.testing.assert_array_equal(std, np.float32([0.2, 0.3, 0.4]))
    other = prepared(*shared, *normalised, "old.classes=eel,bee,dog", "dataset.class_order=1,3,4,...")
    np.testing.assert_array_equal(
        other.adopted["old"][0][0].params["head"]["kernel"], classifier.params["head"]["kernel"][:, [1, 2, 0]]
    )
    apart = prepared(*shared, *normalised, "dataset.mean=0,0,0", "dataset.std=1,1,1")
    assert (
        apart.normalization(1)[0].tolist() == [0, 0, 0]
        and apart.adopted["old"][0][0].mean.tolist() == classifier.mean.tolist()
    )
    workdir.claim(run.workdir, stages._facts(run, "command"))
    stages.make(run, lineage.Stage(0, "old", ("old",)))
    released, card = released_model.read(run.folder(0, "old", 0))
    jax.tree.map(np.testing.assert_array_equal, released.params, classifier.params)
    assert card["architecture"]["name"] == "vit_tiny" and card["classes"] == ["eel", "bee", "dog"]
    assert card["dataset"] == "unknown" and card["steps"] == 0
    said = " ".join(run.progress.console.file.getvalue().split())  # its weights are random
    assert re.search(r"old, seed 0: adopted from .*; accuracy \d+\.\d % on the test images of its classes", said)
    changed = safetensors.load_file(weights)
    changed["module.head.bias"] += 1
    safetensors.save_file(changed, tmp_path / "changed.safetensors")
    same = [each for each in shared if not each.startswith("old.weights")]
    again = (*same, *normalised, "old.classes=eel,bee,dog")
    prepared(*again, f"old.weights={weights}")
    kept = weights.read_bytes()
    weights.write_bytes((tmp_path / "changed.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"old.safetensors holds other weights than .*r0-old-seed0 was made with"):
        prepared(*again, f"old.weights={weights}")
    weights.write_bytes(kept)
    for more, message in (
        (
            ["update.schedule=[4,5]"],
            r"does not fit vit_tiny with 4 classes .*'head.weight' \[3, 128\] instead of \[4, 128\].*; to start from "
            "these weights of 3 classes, give model.pretrained in place of old.weights",
        ),
        (["old.strip=net"], r"no name begins with 'net\.'; the names are module\."),
        (["old_model.name=resnet18"], r"names are missing: 'bn1.bias'.* names are unknown: 'blocks"),
        (["old.classes=eel,bee,fly"], "no class 'fly'"),
        (["old.mean=0.5", "old.std=0.5"], "old.mean=.*; expected 3 values"),
        (
            ["old.mean=124,116,104", "old.std=58,57,57"],
            r"old.mean=\[124.*; expected numbers up to 1, in units of pixel/255",
        ),
        (["old.weights=nowhere.safetensors"], "no file nowhere.safetensors"),
    ):
        with pytest.raises(InputError, match=message):
            prepared(*shared, *normalised, *more, folder=tmp_path / "refused")


def test_the_classes_of_a_released_model_come_first(prepared, features_file, tmp_path):
    shared = ("seeds=0", "model.name=linear", "update.methods=no_treatment", f"dataset.name={features_file}")
    mixed = prepared(*shared, "dataset.class_order=3,9,1,0,5,...")
    params, batch_stats = models.init(models.build("linear", 5), jax.random.key(0), (64,))
    old = models.Classifier(models.build("linear", 5), params, batch_stats, *mixed.normalization(0))
    note = {"steps": 0, "seconds": 0.0, "examples_per_second": 0.0}
    workdir.claim(mixed.workdir, stages._facts(mixed, "command"))
    releases.write(mixed, 0, selection.Member("old", METHODS["no_treatment"]), 0, jax.device_get(old), note)
    folder = mixed.folder(0, "old", 0)
    follows = prepared(*shared, f"update.old={folder}", folder=tmp_path / "next")
    assert follows.dataset.class_names == mixed.dataset.class_names
    with pytest.raises(InputError, match="another class order"):
        prepared(*shared, f"update.old={folder}", "dataset.class_order=seed:1", folder=tmp_path / "next")
