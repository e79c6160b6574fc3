"""Exported files are compared with the release before the folder appears."""

import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from releases import release

from mpt_jax import models
from mpt_jax.errors import InputError
from mpt_jax.export import artifact, named_weights, stablehlo

logits_of = jax.jit(models.logits)


def inputs_of(shape, size):
    random = np.random.default_rng(size)
    if len(shape) == 1:
        return random.normal(size=(size, *shape)).astype(np.float32)
    return random.integers(0, 256, (size, *shape), np.uint8)


@pytest.mark.parametrize(
    ("name", "shape", "more"),
    [("linear", (4, 4, 3), {"dtype": "bfloat16"}), ("mlp", (5,), {"ensemble": 2})],
)
def test_the_files_of_features_ensembles_and_half_precision(name, shape, more, tmp_path):
    classifier = release(tmp_path / "release", name, shape, ("a", "b", "c"), **more)
    metadata = artifact.write(tmp_path / "release", tmp_path / "out", platforms=["tpu"])
    assert metadata["platforms"] == ["tpu", "cpu"]  # this machine's is always included
    call = stablehlo.deserialize((tmp_path / "out" / artifact.PROGRAM).read_bytes())
    inputs = inputs_of(shape, 3)
    expected, tolerance = logits_of(classifier, inputs), metadata["compared"]["tolerance"]
    np.testing.assert_allclose(call(inputs), expected, atol=tolerance * np.abs(expected).max())
    named = safetensors.numpy.load_file(tmp_path / "out" / artifact.WEIGHTS)
    assert {"params.head.kernel", "params.head.bias", "normalization.mean", "normalization.std"} <= set(named)
    np.testing.assert_array_equal(named["params.head.kernel"], classifier.params["head"]["kernel"])


def test_logits_that_differ_are_refused_and_nothing_is_written(tmp_path, monkeypatch):
    release(tmp_path / "release", "linear", (4, 4, 1))
    serialize, to_names = stablehlo.serialize, named_weights.to_names
    with monkeypatch.context() as patched:
        patched.setattr(stablehlo, "serialize", lambda c, *rest: serialize(c.replace(mean=c.mean + 0.01), *rest))
        with pytest.raises(InputError, match=r"model\.stablehlo gives logits that differ"):
            artifact.write(tmp_path / "release", tmp_path / "out", platforms=["cpu"])
    monkeypatch.setattr(named_weights, "to_names", lambda c: {k: v * 1.01 for k, v in to_names(c).items()})
    with pytest.raises(InputError, match=r"weights\.safetensors gives logits that differ"):
        artifact.write(tmp_path / "release", tmp_path / "out", platforms=["cpu"])
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_a_missing_package_has_a_remedy(tmp_path, monkeypatch):
    release(tmp_path / "release", "linear", (4, 4, 1))
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(InputError, match=r"needs flatbuffers; install it: pip install 'mpt_jax\[export\]'"):
        artifact.write(tmp_path / "release", tmp_path / "out", platforms=["cpu"])


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"stem": "cifar"}, {}, {"dtype": "bfloat16"}])
def test_a_resnet_is_exported(options, tmp_path):
    release(tmp_path / "release", "resnet18", (32, 32, 3), ("a", "b", "c"), **options)
    metadata = artifact.write(tmp_path / "release", tmp_path / "out", platforms=["cpu", "cuda", "tpu"])
    assert max(metadata["compared"]["largest_difference"].values()) <= metadata["compared"]["tolerance"]
