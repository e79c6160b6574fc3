"""A weight file with its own head becomes a release, through the command, and predicts as the network it came from."""

import csv
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from random_weights import TIMM_VIT_TINY, timm_vit

from mpt_jax import models, predict
from mpt_jax.data import Resizing, images
from mpt_jax.export import __main__ as export
from mpt_jax.files import released_model, weights
from mpt_jax.models import pytorch_weights

LINE = ["--format=release", "--model=vit_tiny", "--image-size=8"]
NAMES = ["ant", "bee", "cat", "dog", "emu"]


@pytest.fixture
def state(tmp_path, monkeypatch):
    """Random weights of a network for images of 8 pixels and five classes, in `vit.safetensors` of this folder."""
    monkeypatch.chdir(tmp_path)
    state = timm_vit(5, 8, **TIMM_VIT_TINY)
    safetensors.numpy.save_file(state, "vit.safetensors")
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    return state


def test_the_release_has_the_network_of_the_file_with_its_head(state, tmp_path, capsys):
    resized = ["--resize=9", "--interpolation=bilinear", "--classes=names.txt"]
    assert export.main(["vit.safetensors", "out", *LINE, *resized]) == 0
    printed = capsys.readouterr().out
    assert "vit.safetensors: vit_tiny under timm's names, 5 classes" in printed and "covers 9x9 pixels" in printed
    classifier, card = released_model.read(tmp_path / "out")
    assert card["classes"] == NAMES and card["image_shape"] == [8, 8, 3]
    params, _ = pytorch_weights.convert(state, models.build("vit_tiny", 5), (8, 8, 3), dialect="timm")
    jax.tree.map(np.testing.assert_array_equal, classifier.params, params)
    np.testing.assert_allclose(classifier.mean, [0.5, 0.5, 0.5])  # of timm's vision transformers
    picture = np.random.default_rng(0).integers(0, 256, (30, 21, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(picture).save("photos/a.png")
    assert predict.main(["out", "photos", "--output=o.csv", "--no-compilation-cache"]) == 0
    with open("o.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    options = {"channels": 3, "size": (8, 8)}
    seen = images.decode(tmp_path / "photos/a.png", resizing=Resizing(9, "bilinear"), **options)
    expected = np.asarray(jax.jit(models.logits)(classifier, seen[None]))[0]
    np.testing.assert_allclose([float(row[f"logit_{name}"]) for name in NAMES], expected, rtol=1e-4, atol=1e-4)
    assert not np.array_equal(seen, images.decode(tmp_path / "photos/a.png", **options))
    assert export.main(["out", "back", "--format=torch"]) == 0  # under the names that it came with
    again = weights.read(tmp_path / "back/model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert json.loads((tmp_path / "back/export.json").read_text())["resizing"] == {
        "resize": 9,
        "interpolation": "bilinear",
    }


def test_normalisation_and_numbers_of_classes_are_as_given(state, tmp_path):
    assert export.main(["vit.safetensors", "out", *LINE, "--mean=0.1,0.2,0.3", "--std=1,2,3"]) == 0
    classifier, card = released_model.read(tmp_path / "out")
    np.testing.assert_allclose(np.stack([classifier.mean, classifier.std]), [[0.1, 0.2, 0.3], [1, 2, 3]], rtol=1e-6)
    assert card["classes"] == list("01234") and card["resizing"] == {"resize": 0, "interpolation": "bicubic"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vit.safetensors", "names.txt", *LINE], "names.txt exists and is not empty"),
        (["gone.safetensors", "out", *LINE], "no file gone.safetensors"),
        (["package:gone_package", "out", *LINE], "package 'gone_package' is not installed"),
        ([".", "out", *LINE], ". is a folder; expected a weight file"),
        (["vit.safetensors", "out", *LINE[:1], "--model=vit_tin", LINE[2]], "did you mean 'vit_tiny'"),
        pytest.param(  # builds every network
            ["vit.safetensors", "out", *LINE[:1], "--model=resnet18", LINE[2]],
            "these are weights of vit_tiny: expected --model vit_tiny",
            marks=pytest.mark.slow,
        ),
        (["vit.safetensors", "out", *LINE[:2], "--image-size=16"], "expected --image-size as in its training"),
        (
            ["headless.safetensors", "out", *LINE],
            "2 names are missing: 'head.bias', 'head.weight'; expected the weights of a class",
        ),
        (["vit.safetensors", "out", *LINE, "--classes=gone.txt"], "--classes gone.txt cannot be read"),
        (["vit.safetensors", "out", *LINE, "--classes=four.txt"], "four.txt has 4 lines, but the head has 5 outputs"),
        (["vit.safetensors", "out", *LINE, "--classes=twice.txt"], "empty or repeated names: 'ant', ''; expected"),
        (["vit.safetensors", "out", *LINE, "--mean=0,0"], "--mean has 2 values and --std 0; expected one per channel"),
        (["vit.safetensors", "out", *LINE, "--mean=0,0,0", "--std=1,1,0"], "std above 0"),
        (["vit.safetensors", "out", *LINE, "--stem=cifar"], "has no option 'stem'"),
        (["vit.safetensors", "out", *LINE, "--resize=7"], "--resize 7 is less than --image-size"),
        (["vit.safetensors", "out", *LINE[:2]], "--format release needs --image-size"),
        (["vit.safetensors", "out", LINE[1]], "--model is for --format release"),
        (["vit.safetensors", "out", *LINE, "--names=timm"], "--names is for --format torch"),
    ],
)
def test_what_does_not_fit_is_one_line_and_writes_nothing(state, arguments, words, tmp_path, capsys):
    (tmp_path / "four.txt").write_text("a\nb\nc\nd\n\n")
    (tmp_path / "twice.txt").write_text("ant\n\nbee\nant\ncat\n")
    headless = {name: array for name, array in state.items() if not name.startswith("head.")}
    safetensors.numpy.save_file(headless, "headless.safetensors")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert export.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and words in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before
