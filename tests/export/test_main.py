"""Exported models give the release's logits without this package, for any batch size; nothing half-written."""

import errno
import json
import os
import pathlib
import re
import subprocess
import sys

import chex
import jax
import jax.export
import numpy as np
import pytest
import safetensors.numpy
from releases import release

from mpt_jax import models
from mpt_jax.export import __main__ as export
from mpt_jax.export import artifact
from mpt_jax.models import convolution

# What a user has: jax, numpy and flatbuffers, and neither this package nor flax.
ALONE = """
import sys
sys.modules["mpt_jax"] = sys.modules["flax"] = None
{readme}
with np.load("inputs.npz") as file:
    np.savez("logits.npz", **{{name: model.call(values) for name, values in file.items()}})
print(model.platforms)
"""


def alone(folder, code):
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=1", "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


logits_of = jax.jit(models.logits)


def inputs_of(shape, size):
    random = np.random.default_rng(size)
    if len(shape) == 1:
        return random.normal(size=(size, *shape)).astype(np.float32)
    return random.integers(0, 256, (size, *shape), np.uint8)


def test_it_runs_without_this_package_on_batches_of_any_size(tmp_path, capsys):
    classifier = release(tmp_path / "release")
    assert export.main([str(tmp_path / "release"), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "uint8 ['batch', 8, 8, 1], 10 classes" in said and f"ok: {tmp_path / 'out'}, for cpu, cuda, tpu" in said
    batches = {"of 3": inputs_of((8, 8, 1), 3)}  # the README's own lines take 4
    np.savez(tmp_path / "out/inputs.npz", **batches)
    # the README's own lines run as they stand
    (code,) = re.findall("```python\n(.*?)```", (tmp_path / "out/README.md").read_text(), re.DOTALL)
    names, platforms = alone(tmp_path / "out", ALONE.format(readme=code)).splitlines()
    assert names.count("'") == 2 * 4 and platforms == "('cpu', 'cuda', 'tpu')"
    with np.load(tmp_path / "out/logits.npz") as file:
        for name, images in batches.items():
            assert file[name].dtype == np.float32
            np.testing.assert_allclose(file[name], logits_of(classifier, images), rtol=1e-4, atol=1e-4)
    named = safetensors.numpy.load_file(tmp_path / "out" / artifact.WEIGHTS)
    np.testing.assert_array_equal(named["batch_stats.norm1.var"], classifier.batch_stats["norm1"]["var"])
    sheet = json.loads((tmp_path / "out/export.json").read_text())
    assert np.ptp(logits_of(classifier, batches["of 3"]), axis=0).min() > 1e-3  # they do depend on the images
    assert sheet["classes"] == list("0123456789") and max(sheet["compared"]["largest_difference"].values()) < 1e-4


def test_a_release_in_a_bucket_is_exported_like_a_local_one(store, bucket, tmp_path):
    for name, place in (("local", tmp_path), ("remote", bucket)):
        release(place / "model", "linear", (2,), ("a", "b"))
        assert export.main([str(place / "model"), str(tmp_path / name)]) == 0
    local, remote = (safetensors.numpy.load_file(tmp_path / name / artifact.WEIGHTS) for name in ("local", "remote"))
    chex.assert_trees_all_equal(local, remote)
    assert json.loads((tmp_path / "remote/export.json").read_text())["classes"] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "shape", "more"),
    [("linear", (4, 4, 3), {"dtype": "bfloat16"}), ("mlp", (5,), {"ensemble": 2})],
)
def test_other_networks_and_what_their_files_hold(name, shape, more, tmp_path):
    classifier = release(tmp_path / "release", name, shape, ("a", "b", "c"), **more)
    sheet = artifact.write(tmp_path / "release", tmp_path / "out", platforms=["tpu"])
    assert sheet["platforms"] == ["tpu", "cpu"]  # this machine's is always among them
    model = jax.export.deserialize(bytearray((tmp_path / "out" / artifact.PROGRAM).read_bytes()))
    inputs = inputs_of(shape, 3)
    expected, tolerance = logits_of(classifier, inputs), sheet["compared"]["tolerance"]
    np.testing.assert_allclose(model.call(inputs), expected, atol=tolerance * np.abs(expected).max())
    named = safetensors.numpy.load_file(tmp_path / "out" / artifact.WEIGHTS)
    assert {"params.head.kernel", "params.head.bias", "normalization.mean", "normalization.std"} <= set(named)
    np.testing.assert_array_equal(named["params.head.kernel"], classifier.params["head"]["kernel"])
    blank = classifier.replace(params=jax.tree.map(np.zeros_like, classifier.params))
    chex.assert_trees_all_equal(artifact.with_weights(blank, named), classifier)


@pytest.mark.parametrize(
    ("side", "channels", "taps", "stride", "padding"),
    [(8, (32, 32), 3, 1, 1), (20, (2, 3), 3, 2, 1), (2, (4, 4), 3, 1, 1), (3, (4, 4), 3, 2, 1), (9, (3, 8), 7, 2, 3)],
)
def test_every_form_of_a_convolution_takes_a_batch_of_any_size(side, channels, taps, stride, padding):
    random = np.random.default_rng(0)
    kernel = random.normal(size=(taps, taps, *channels)).astype(np.float32)

    def layer(images):
        pooled = convolution.max_pool2d(images, size=3, stride=1, padding=1)
        return convolution.conv2d(pooled, kernel, stride=stride, padding=padding)

    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, side, side, channels[0]), np.float32)
    exported = jax.export.export(jax.jit(layer), platforms=("cpu", "cuda", "tpu"))(images)
    images = random.normal(size=(3, side, side, channels[0])).astype(np.float32)
    pooled = jax.lax.reduce_window(images, -np.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    expected = convolution.native_conv2d(pooled, kernel, stride=stride, padding=padding)
    np.testing.assert_allclose(exported.call(images), expected, rtol=1e-4, atol=1e-3)


def test_logits_that_differ_are_found_out_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    release(tmp_path / "release", "linear", (4, 4, 1))
    original = artifact.program
    monkeypatch.setattr(artifact, "program", lambda c, *rest: original(c.replace(mean=c.mean + 0.01), *rest))
    assert export.main([str(tmp_path / "release"), str(tmp_path / "out")]) == 2
    assert "model.stablehlo gives logits that differ" in capsys.readouterr().err
    monkeypatch.undo()
    weights = artifact.weights
    monkeypatch.setattr(artifact, "weights", lambda c: {k: v * 1.01 for k, v in weights(c).items()})
    assert export.main([str(tmp_path / "release"), str(tmp_path / "out")]) == 2
    assert "weights.safetensors gives logits that differ" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_a_folder_with_something_in_it_is_refused_and_an_empty_one_taken(tmp_path, capsys, monkeypatch):
    release(tmp_path / "release", "linear", (2,), ("a", "b"))
    monkeypatch.chdir(tmp_path)
    pathlib.Path("full").mkdir()
    pathlib.Path("full/mine").write_text("mine")
    pathlib.Path("file").write_text("mine")
    pathlib.Path("empty").mkdir()
    for arguments, words in (
        (["release", "full"], "full is there already"),
        (["release", "file"], "file is there already"),
        (["release", "no/folder"], "is not a folder"),
        (["nowhere", "out"], "no released model"),
        (["release", "out", "--platforms=cpu,abacus"], "abacus"),
        (["release"], "OUTPUT_DIR"),
    ):
        assert export.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and words in error
    assert sorted(os.listdir()) == ["empty", "file", "full", "release"] and os.listdir("full") == ["mine"]
    assert export.main(["release", "empty", "--platforms=cpu"]) == 0
    files = {"README.md", "export.json", "model.stablehlo", "weights.safetensors"}
    assert {*os.listdir("empty")} == files


def test_a_full_disk_is_status_3_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    release(tmp_path / "release", "linear", (2,), ("a", "b"))

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights")

    monkeypatch.setattr(artifact.storage, "write_text", full)
    assert export.main([str(tmp_path / "release"), str(tmp_path / "out")]) == 3
    assert "No space left" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"stem": "cifar"}, {}, {"dtype": "bfloat16"}])
def test_a_resnet_is_exported(options, tmp_path):
    release(tmp_path / "release", "resnet18", (32, 32, 3), ("a", "b", "c"), **options)
    sheet = artifact.write(tmp_path / "release", tmp_path / "out", platforms=["cpu", "cuda", "tpu"])
    assert max(sheet["compared"]["largest_difference"].values()) <= sheet["compared"]["tolerance"]
