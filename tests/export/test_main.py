"""The command: an exported model runs without this package, and bad input leaves nothing behind."""

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
import safetensors.numpy
from releases import release

from mpt_jax import models
from mpt_jax.export import __main__ as export
from mpt_jax.export import artifact

# What a user has: jax, numpy and flatbuffers, but neither this package nor flax.
SCRIPT = """
import sys
sys.modules["mpt_jax"] = sys.modules["flax"] = None
{readme}
with np.load("inputs.npz") as file:
    np.savez("logits.npz", **{{name: model.call(values) for name, values in file.items()}})
print(model.platforms)
"""


def run_without_this_package(folder, code):
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=1", "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


logits_of = jax.jit(models.logits)


def test_an_exported_model_runs_without_this_package(tmp_path, capsys):
    classifier = release(tmp_path / "release")
    assert export.main([str(tmp_path / "release"), str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "uint8 ['batch', 8, 8, 1], 10 classes" in output and f"ok: {tmp_path / 'out'}, for cpu, cuda, tpu" in output
    batches = {"of 3": np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)}  # the README's example uses 4
    np.savez(tmp_path / "out/inputs.npz", **batches)
    (code,) = re.findall("```python\n(.*?)```", (tmp_path / "out/README.md").read_text(), re.DOTALL)
    names, platforms = run_without_this_package(tmp_path / "out", SCRIPT.format(readme=code)).splitlines()
    assert names.count("'") == 2 * 4 and platforms == "('cpu', 'cuda', 'tpu')"
    with np.load(tmp_path / "out/logits.npz") as file:
        for name, images in batches.items():
            assert file[name].dtype == np.float32
            np.testing.assert_allclose(file[name], logits_of(classifier, images), rtol=1e-4, atol=1e-4)
    named = safetensors.numpy.load_file(tmp_path / "out" / artifact.WEIGHTS)
    np.testing.assert_array_equal(named["batch_stats.norm1.var"], classifier.batch_stats["norm1"]["var"])
    metadata = json.loads((tmp_path / "out/export.json").read_text())
    assert np.ptp(logits_of(classifier, batches["of 3"]), axis=0).min() > 1e-3  # logits depend on the images
    assert metadata["classes"] == list("0123456789") and max(metadata["compared"]["largest_difference"].values()) < 1e-4


def test_a_release_in_a_bucket_is_exported_like_a_local_one(store, bucket, tmp_path):
    for name, place in (("local", tmp_path), ("remote", bucket)):
        release(place / "model", "linear", (2,), ("a", "b"))
        assert export.main([str(place / "model"), str(tmp_path / name)]) == 0
    local, remote = (safetensors.numpy.load_file(tmp_path / name / artifact.WEIGHTS) for name in ("local", "remote"))
    chex.assert_trees_all_equal(local, remote)
    assert json.loads((tmp_path / "remote/export.json").read_text())["classes"] == ["a", "b"]


def test_bad_arguments_are_refused_and_an_empty_folder_is_used(tmp_path, capsys, monkeypatch):
    release(tmp_path / "release", "linear", (2,), ("a", "b"))
    monkeypatch.chdir(tmp_path)
    pathlib.Path("full").mkdir()
    pathlib.Path("full/mine").write_text("mine")
    pathlib.Path("file").write_text("mine")
    pathlib.Path("empty").mkdir()
    for arguments, words in (
        (["release", "full"], "full exists and is not empty"),
        (["release", "file"], "file exists and is not empty"),
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


def test_a_full_disk_is_status_3_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    release(tmp_path / "release", "linear", (2,), ("a", "b"))

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights")

    monkeypatch.setattr(artifact.storage, "write_text", full)
    assert export.main([str(tmp_path / "release"), str(tmp_path / "out")]) == 3
    assert "No space left" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
