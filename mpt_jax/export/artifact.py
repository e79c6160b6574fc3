"""An exported model: a folder of files, checked against the release before it appears.

model.stablehlo        a program: uint8 ``[batch, H, W, C]`` or float32 ``[batch, D]`` -> float32 logits
weights.safetensors    the weights as trained, by name
export.json            classes in the logits' order, shapes, platforms, versions, digests, result of the comparison
README.md              how to use the files
"""

import json
import pathlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from mpt_jax import models
from mpt_jax.errors import InputError
from mpt_jax.export import named_weights, output, readme, stablehlo
from mpt_jax.files import released_model, storage
from mpt_jax.models import Classifier

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
TOLERANCE = {"float64": 1e-4, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}  # of the largest logit, by dtype
BATCH_SIZES = (1, 3)  # of the comparison

PROGRAM, WEIGHTS = "model.stablehlo", "weights.safetensors"


def write(release: pathlib.Path, folder: pathlib.Path, *, platforms: Sequence[str]) -> dict[str, Any]:
    """Export a release to a new or empty folder: all files or none.

    Args:
      release: folder of a released model.
      folder: target.
      platforms: some of `PLATFORMS`; the platform of this machine is added, on which the program is compared.

    Returns:
      Contents of `export.json`.

    Raises:
      InputError: not a release, a folder that is not empty, an unknown platform, a missing package, or logits that
        differ from those of the release.
      OSError: the disk is full, or cannot be written.
    """
    if unknown := [name for name in platforms if name not in PLATFORMS]:
        raise InputError(f"unknown platform {unknown[0]!r}; expected some of {', '.join(PLATFORMS)}")
    output.require_new(folder)
    save = output.package("safetensors.numpy").save
    output.package("flatbuffers")  # jax.export needs it to serialize a program
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    platforms = list(dict.fromkeys([*platforms, here]))
    classifier, card = released_model.read(release)
    named, shape = named_weights.to_names(classifier), card["image_shape"]
    with output.complete(folder) as unfinished:
        (unfinished / PROGRAM).write_bytes(stablehlo.serialize(classifier, shape, platforms))
        labels = {"classes": json.dumps(card["classes"]), "release": card["name"], "digest": card["digest"]}
        (unfinished / WEIGHTS).write_bytes(save(named, metadata=labels))
        metadata = {
            "schema": 1,
            **{key: card[key] for key in ("name", "method", "release", "seed", "dataset", "digest")},
            **{key: card[key] for key in ("architecture", "normalization", "image_shape", "classes", "metrics")},
            **({"resizing": readme.resizing_of(card)._asdict()} if len(shape) == 3 else {}),
            "input": {"dtype": str(stablehlo.input_dtype(shape)), "shape": ["batch", *shape]},
            "output": {"dtype": "float32", "shape": ["batch", len(card["classes"])]},
            "platforms": platforms,
            "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "safetensors")},
            "compared": _compare(classifier, shape, unfinished),
        }
        metadata["files"] = {path.name: output.digest(path) for path in sorted(unfinished.iterdir())}
        storage.write_text(unfinished / "export.json", json.dumps(metadata, indent=1) + "\n")
        storage.write_text(unfinished / "README.md", readme.render(metadata, named))
    return metadata


_logits = jax.jit(models.logits)


def _compare(classifier: Classifier, shape: Sequence[int], folder: pathlib.Path) -> dict[str, Any]:
    """Return, per file, the largest difference of its logits from the release's on noise, over the largest logit.

    Raises:
      InputError: a difference is above the tolerance.
    """
    restored = named_weights.from_names(classifier, output.package("safetensors.numpy").load_file(folder / WEIGHTS))
    functions = {
        PROGRAM: stablehlo.deserialize((folder / PROGRAM).read_bytes()),
        WEIGHTS: lambda inputs: _logits(restored, inputs),
    }
    tolerance, random = TOLERANCE[str(models.dtype_of(classifier))], np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in functions}
    for size in BATCH_SIZES:
        inputs = _noise(classifier, (size, *shape), random)
        logits = np.asarray(_logits(classifier, inputs), np.float32)
        for name, function in functions.items():
            found[name].append(np.abs(np.asarray(function(inputs)) - logits).max() / np.abs(logits).max())
    differences = {name: float(np.max(values)) for name, values in found.items()}  # may be NaN
    for name, difference in differences.items():
        if not difference <= tolerance:
            raise InputError(
                f"{name} gives logits that differ from the release's by {difference:.2g} of the largest; expected at "
                f"most {tolerance:g}; nothing was written"
            )
    return {"batches": list(BATCH_SIZES), "tolerance": tolerance, "largest_difference": differences}


def _noise(classifier: Classifier, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    if len(shape) == 4:
        return random.integers(0, 256, shape).astype(np.uint8)
    mean, std = (np.asarray(values).reshape(-1, shape[-1])[0] for values in (classifier.mean, classifier.std))
    return (mean + std * random.standard_normal(shape)).astype(np.float32)
