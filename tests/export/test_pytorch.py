"""Weights under the names of PyTorch's packages: the real networks load them and give the release's logits."""

import json
import pathlib
import re
import textwrap

import jax
import numpy as np
import pytest
import random_weights
import safetensors.numpy
from PIL import Image, ImageOps

from mpt_jax import models
from mpt_jax.data import Resizing, images
from mpt_jax.export import __main__ as export
from mpt_jax.export import pytorch
from mpt_jax.files import released_model, weights
from mpt_jax.models import pytorch_weights, registry

SHAPE = (8, 8, 3)
PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs/to_pytorch.md").read_text("utf-8")


def random_release(folder, name, shape, *, calibrated=False, ensemble=None, **options):
    """Write a release whose parameters are all drawn, and return its classifier."""
    module = models.build(name, 5, **options)
    params, batch_stats = random_weights.drawn(module, shape, count=ensemble)
    if calibrated and batch_stats:  # for random images, so that the logits of a deep network depend on these
        noise = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
        for _ in range(40):
            _, _, batch_stats = jax.jit(models.train_forward, static_argnums=0)(module, params, batch_stats, noise)
    mean, std = np.float32([0.4, 0.5, 0.6])[: shape[-1]], np.float32([0.2, 0.3, 0.25])[: shape[-1]]
    if ensemble:
        mean, std = (np.tile(values, (ensemble, 1)) for values in (mean, std))
    classifier = models.Classifier(module, params, jax.device_get(batch_stats), mean, std, ensemble=bool(ensemble))
    card = {
        **{"name": folder.name, "method": "old", "release": 0, "seed": 0, "dataset": "made up", "steps": 1},
        **{"image_shape": list(shape), "classes": list("abcde"), "objective": {}, "parents": {}, "metrics": {}},
        **{
            "architecture": {"name": name, "options": options, "ensemble": bool(ensemble)},
            "seconds": 1.0,
            "examples_per_second": 1.0,
        },
    }
    released_model.write(folder, classifier, card)
    return classifier


def test_the_file_has_the_names_of_the_package_and_exactly_the_weights(tmp_path, capsys):
    classifier = random_release(tmp_path / "release", "vit_tiny", SHAPE)
    assert export.main([str(tmp_path / "release"), str(tmp_path / "out"), "--format=torch"]) == 0
    assert "release: 5 classes, names of timm" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.safetensors", "export.json", "README.md"}
    state = weights.read(tmp_path / "out/model.safetensors")
    assert set(state) == set(random_weights.timm_vit(5, 8, **random_weights.TIMM_VIT_TINY))
    again, _ = pytorch_weights.convert(state, classifier.module, SHAPE, dialect="timm")
    jax.tree.map(np.testing.assert_array_equal, again, classifier.params)
    metadata = json.loads((tmp_path / "out/export.json").read_text())
    assert metadata["classes"] == list("abcde") and metadata["input"]["shape"] == ["batch", 3, 8, 8]
    with safetensors.safe_open(tmp_path / "out/model.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["classes"]) == list("abcde")


def test_what_pytorch_does_not_have_is_one_line(tmp_path, capsys, monkeypatch):
    random_release(tmp_path / "convnet", "convnet", SHAPE)
    random_release(tmp_path / "grey", "vit_tiny", (8, 8, 1))
    random_release(tmp_path / "many", "vit_tiny", SHAPE, ensemble=2)
    back = pytorch_weights.back
    for arguments, words in (
        (["convnet", "--format=torch"], "no package of PyTorch has the network convnet; expected one of resnet18, "),
        (["grey", "--format=torch", "--names=torchvision"], "--names=torchvision, but vit_tiny is in timm; expected"),
        (["many", "--format=torch"], "is an ensemble, which PyTorch's packages do not have"),
        (["grey", "--names=timm"], "--names is for --format torch"),
        (["grey", "--format=torch", "--platforms=cpu"], "--platforms is for --format stablehlo"),
        (["grey", "--format=torch"], "model.safetensors has other weights than the release"),
    ):
        if "other weights" in words:
            changed = lambda *given: {name: array + 1 for name, array in back(*given).items()}  # noqa: E731
            monkeypatch.setattr(pytorch.pytorch_weights, "back", changed)
        assert export.main([str(tmp_path / arguments[0]), str(tmp_path / "out"), *arguments[1:]]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and words in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["convnet", "grey", "many"]


def test_the_names_are_by_default_those_of_the_pretrained_weights(tmp_path):
    classifier = random_release(tmp_path / "release", "resnet18", (32, 32, 3))
    card = released_model.read_card(tmp_path / "release")
    for came_from, expected in ((None, "torchvision"), ("timm", "timm"), ("gone", "torchvision")):
        pretrained = {"pretrained": {"source": "file", "digest": "", "names": came_from}} if came_from else {}
        released_model.write(tmp_path / "again", classifier, {**card, **pretrained})
        metadata = pytorch.write(tmp_path / "again", tmp_path / str(came_from))
        assert metadata["names"] == expected


@pytest.mark.parametrize("resizing", [(0, "bicubic"), (11, "bicubic"), (8, "bilinear")])
def test_the_readme_brings_an_image_to_the_size_as_the_run_did(resizing, tmp_path):
    classifier = random_release(tmp_path / "release", "vit_tiny", (8, 12, 3))
    card = released_model.read_card(tmp_path / "release")
    resizing = Resizing(*resizing)
    released_model.write(tmp_path / "release", classifier, {**card, "resizing": resizing._asdict()})
    pytorch.write(tmp_path / "release", tmp_path / "out")
    readme = (tmp_path / "out/README.md").read_text()
    (lines,) = re.findall(r"^    (image = ImageOps.exif_transpose.*?)^    pixels", readme, re.DOTALL | re.MULTILINE)
    for number, sides in enumerate([(40, 30), (31, 67), (8, 12)]):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (*sides, 3), np.uint8)).save(path)
        found = {"Image": Image, "ImageOps": ImageOps, "path": path}
        exec(textwrap.dedent(f"    {lines}"), found)
        expected = images.decode(path, channels=3, size=(8, 12), resizing=resizing)
        np.testing.assert_array_equal(np.asarray(found["image"]), expected)
    assert f"covers {resizing.resize or 8}x{(resizing.resize or 8) * 12 // 8} pixels" in readme


def run_readme(folder, monkeypatch):
    """Run the code of a README in its folder, and return its names."""
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    import pytorch_packages

    monkeypatch.chdir(folder)
    found = {}
    for code in re.findall("```python\n(.*?)```", pathlib.Path("README.md").read_text(), re.DOTALL):
        for line in re.findall(
            r"^(?:import|from) (timm|torchvision|open_clip|transformers|efficientnet\w*)", code, re.M
        ):
            pytorch_packages.package(line)
        exec(compile(code, "README.md", "exec"), found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "names", "shape", "options"),
    [
        ("resnet18", "torchvision", (64, 64, 3), {}),
        ("resnet50", "timm", (32, 32, 3), {"stem": "cifar"}),
        ("convnext_tiny", "torchvision", (64, 32, 3), {}),
        ("convnext_tiny", "timm", (32, 32, 3), {}),
        ("vit_tiny", "timm", (16, 24, 3), {}),
        ("vit_s16", "timm", (32, 48, 3), {}),
        ("vit_b32", "torchvision", (64, 64, 3), {}),
        ("efficientnet_lite0", "efficientnet_lite_pytorch", (64, 64, 3), {}),
        ("efficientnet_lite0", "timm", (64, 48, 3), {}),
        ("clip_b32", "openclip", (64, 64, 3), {}),
        ("clip_b32", "openclip", (64, 32, 3), {"activation": "gelu"}),
        ("clip_b32", "huggingface", (64, 64, 3), {"activation": "gelu"}),
    ],
)
def test_the_lines_of_the_readme_give_the_logits_of_the_release(name, names, shape, options, tmp_path, monkeypatch):
    classifier = random_release(tmp_path / "release", name, shape, calibrated=True, **options)
    pytorch.write(tmp_path / "release", tmp_path / "out", names=names)
    found = run_readme(tmp_path / "out", monkeypatch)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 90, 70, 3), np.uint8)
    for row, image in enumerate(pixels):
        Image.fromarray(image).save(f"{row}.png")
    ours = np.stack([images.decode(pathlib.Path(f"{row}.png"), channels=3, size=shape[:2]) for row in range(2)])
    expected = np.asarray(jax.jit(models.logits)(classifier, ours))
    theirs = found["predict"](found["torch"].stack([found["prepare"](f"{row}.png") for row in range(2)])).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()  # the logits depend on the image
    np.testing.assert_allclose(theirs, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_page_lists_every_network_and_package():
    rows = {}
    for networks, packages in re.findall(r"^\| (`\w+`.*?) \| (`\w+`.*?) \|$", PAGE, re.MULTILINE):
        found = re.findall(r"`(\w+)`", networks)
        if " to " in networks:
            found = [f"efficientnet_lite{number}" for number in range(5)]
        rows |= dict.fromkeys(found, re.findall(r"`(\w+)`", packages))
    assert rows == {name: list(registry.NETWORKS[name].twins) for name in registry.WITH_WEIGHTS}


@pytest.mark.slow
def test_the_code_of_the_page_takes_a_release_to_onnx(tmp_path):
    for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    import pytorch_packages

    pytorch_packages.package("torchvision")
    classifier = random_release(tmp_path / "release", "resnet18", (64, 64, 3), calibrated=True)
    pytorch.write(tmp_path / "release", tmp_path / "out", names="torchvision")
    (code,) = re.findall("```python\n(.*?)```", PAGE, re.DOTALL)
    page = {}
    exec(compile(code, "docs/to_pytorch.md", "exec"), page)
    export = page["to_onnx"](tmp_path / "out")
    for batch in (1, 5):
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, 64, 64, 3), np.uint8)
        expected = np.asarray(jax.jit(models.logits)(classifier, pixels))
        found = page["onnx_logits"](tmp_path / "out", export, pixels)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
