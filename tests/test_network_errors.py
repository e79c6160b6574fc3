"""The train command refuses networks, weights and features that do not fit: one line, status 2, nothing written."""

import json

import numpy as np
import own_networks
import pytest
from random_weights import TIMM_VIT_TINY, timm_vit
from releases import release

from mpt_jax import train
from mpt_jax.files.sealed import sealed

pytestmark = pytest.mark.usefixtures("one_device", "without_plots")

TINY = timm_vit(1000, 8, **TIMM_VIT_TINY)
HEAD = {name: array for name, array in TINY.items() if name.startswith("head.")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images in colour and in grey, weights of PyTorch, a released network, and networks of one's own."""
    safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra 'weights'")
    folder = tmp_path_factory.mktemp("given")
    rng = np.random.default_rng(0)
    for name, channels in (("photos", 3), ("grey", 1)):
        arrays = {f"{part}_images": rng.integers(0, 256, (40, 8, 8, channels), np.uint8) for part in ("train", "test")}
        labels = {f"{part}_labels": np.arange(40) % 5 for part in ("train", "test")}
        np.savez(folder / f"{name}.npz", class_names=["ant", "bee", "cat", "dog", "eel"], **arrays, **labels)
    safetensors.save_file(TINY, folder / "tiny.safetensors")
    safetensors.save_file(HEAD, folder / "head.safetensors")
    release(folder / "convnet", "convnet", (8, 8, 3), classes=tuple("abc"))
    (folder / "net.py").write_text(own_networks.LINEN)
    return folder


@pytest.fixture
def command(folder, tmp_path, monkeypatch, capsys):
    """A function from overrides to the exit status of the command, run in the folder, and its lines on stderr."""
    monkeypatch.chdir(folder)
    settings = (
        *("dataset.name=photos.npz", "dataset.validation_per_class=0", "update.schedule=[3,5]", "seeds=0,"),
        *("update.methods=no_treatment", "update.tune={}", "optimizer.batch_size=8", "optimizer.epochs=1"),
    )

    def run(*overrides, workdir=tmp_path / "run"):
        capsys.readouterr()
        given = [f"--config.{override}" for override in (*settings, *overrides)]
        status = train.main(["--config", "digits", f"--workdir={workdir}", *given])
        return status, capsys.readouterr().err.splitlines()

    return run


VIT = ("model.name=vit_tiny", "model.pretrained=tiny.safetensors")
CONVNET = ("model.name=convnet", "model.pretrained=convnet", "dataset.channels=3")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.name=resnet18", "model.pretrained=tiny.safetensors"],
            "these are weights of vit_tiny: expected model.name=vit_tiny",
        ),
        (
            ["model.name=vit_tiny", "model.pretrained=head.safetensors"],
            "a head alone: head.bias, head.weight; expected",
        ),
        (
            [*VIT, "dataset.name=grey.npz"],
            "these weights are for images of 3 channels, and the run has 1: expected dataset.channels=3",
        ),
        (
            [*CONVNET, "optimizer.freeze=conv9"],
            "optimizer.freeze=conv9 matches no parameter of model.name=convnet; nearest: conv",
        ),
        (["optimizer.name=adamw", "optimizer.options.nestrov=true"], "did you mean 'nesterov'?"),
        (["optimizer.name=adamm"], "unknown optimizer.name='adamm'; did you mean 'adam'?"),
        (
            ["model.name=net.py:bild"],
            "model.name=net.py:bild: the file has no function bild; expected bild(num_classes, dtype)",
        ),
        (["model.name=net.py"], "model.name=net.py names no function; expected path/to/net.py:build"),
        (["model.name=gone.py:build"], "model.name=gone.py:build: no file gone.py; expected path/to/net.py:build"),
        (
            ["model.name=net.py:wrong_shape"],
            "returns float32 of shape [2, 4] in training; expected floats of shape [2, 3], [batch, num_classes]",
        ),
        (
            ["model.name=net.py:headless", "update.methods=bct"],
            "update.methods=bct needs the last layer of model.name=net.py:headless, but it has no layer called head",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_and_status_2_and_writes_nothing(command, overrides, message, tmp_path, folder):
    before = sorted(folder.rglob("*"))
    status, lines = command(*overrides)
    assert status == 2 and len(lines) == 1 and lines[0].startswith("error: ")
    assert message in lines[0]
    assert not list(tmp_path.iterdir()) and sorted(folder.rglob("*")) == before


def test_features_of_another_network_in_the_cache_are_one_line_and_status_2_and_stay(command, tmp_path):
    frozen = (*CONVNET, "optimizer.freeze=backbone", f"training.features_dir={tmp_path}/features")
    assert command(*frozen, workdir=tmp_path / "first")[0] == 0
    (facts,) = (tmp_path / "features").glob("*/facts.json")
    facts.write_text(json.dumps(sealed({**json.loads(facts.read_text()), "weights": "other"})))
    before = {path: path.read_bytes() for path in facts.parent.iterdir()}
    status, lines = command(*frozen)
    assert status == 2 and len(lines) == 1
    assert f"{facts.parent} holds features of another network: weights is 'other', not '" in lines[0]
    assert not (tmp_path / "run").exists() and {path: path.read_bytes() for path in facts.parent.iterdir()} == before
