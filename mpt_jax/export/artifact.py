"""A released model for use elsewhere: a StableHLO program and safetensors weights, both checked against the release.

model.stablehlo        a program of `jax.export`: uint8 ``[batch, H, W, C]`` or float32 ``[batch, D]`` -> float32 logits
weights.safetensors    the weights as trained, by name
export.json            classes in the logits' order, shapes, platforms, versions, digests, what was compared
README.md              how to use them
"""

import hashlib
import importlib
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from mpt_jax import models
from mpt_jax.errors import InputError
from mpt_jax.files import released_model, storage
from mpt_jax.models import Classifier

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
TOLERANCE = {"float64": 1e-4, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}  # of the largest logit, by dtype
BATCHES = (1, 3)  # sizes that are compared

PROGRAM, WEIGHTS = "model.stablehlo", "weights.safetensors"


def write(release: pathlib.Path, folder: pathlib.Path, *, platforms: Sequence[str]) -> dict[str, Any]:
    """Write the files above to a folder, which is made or is empty and gets all of them or none.

    Returns:
      What `export.json` holds.

    Raises:
      InputError: not a release, a folder that holds something, an unknown platform, a package that is missing, or
        logits that are not those of the release.
      OSError: the disk is full, or cannot be written.
    """
    if unknown := [name for name in platforms if name not in PLATFORMS]:
        raise InputError(f"unknown platform {unknown[0]!r}; expected some of {', '.join(PLATFORMS)}")
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not empty; expected a new folder")
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent} is not a folder; make it first")
    save = _package("safetensors.numpy").save
    _package("flatbuffers")  # without which jax.export can make a program, but not write it
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    platforms = list(dict.fromkeys([*platforms, here]))  # or it could not be compared here
    classifier, card = released_model.read(release)
    named, shape = weights(classifier), card["image_shape"]
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        (unfinished / PROGRAM).write_bytes(program(classifier, shape, platforms))
        metadata = {"classes": json.dumps(card["classes"]), "release": card["name"], "digest": card["digest"]}
        (unfinished / WEIGHTS).write_bytes(save(named, metadata=metadata))
        sheet = {
            "schema": 1,
            **{key: card[key] for key in ("name", "method", "release", "seed", "dataset", "digest")},
            **{key: card[key] for key in ("architecture", "normalization", "image_shape", "classes", "metrics")},
            "input": {"dtype": str(_dtype(shape)), "shape": ["batch", *shape]},
            "output": {"dtype": "float32", "shape": ["batch", len(card["classes"])]},
            "platforms": platforms,
            "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "safetensors")},
            "compared": _compare(classifier, shape, unfinished),
        }
        sheet["files"] = {path.name: _digest(path) for path in sorted(unfinished.iterdir())}
        storage.write_text(unfinished / "export.json", json.dumps(sheet, indent=1) + "\n")
        storage.write_text(unfinished / "README.md", readme(sheet, named))
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return sheet


def program(classifier: Classifier, shape: Sequence[int], platforms: Sequence[str]) -> bytes:
    """Raw inputs to float32 logits, of any batch size and normalised inside, for all of these platforms."""
    (batch,) = jax.export.symbolic_shape("batch")
    inputs = jax.ShapeDtypeStruct((batch, *shape), _dtype(shape))
    return bytes(jax.export.export(jax.jit(_function(classifier)), platforms=tuple(platforms))(inputs).serialize())


def weights(classifier: Classifier) -> dict[str, np.ndarray]:
    """The weights as trained, by name: the path in the network after ``params`` or ``batch_stats``, joined by dots.

    Beside them ``normalization.mean`` and ``normalization.std``. Those of an ensemble have one more axis in front.

    Examples:
      >>> module = models.build("linear", 2)
      >>> params, batch_stats = models.init(module, jax.random.key(0), (3,))
      >>> sorted(weights(Classifier(module, params, batch_stats, mean=np.zeros(3), std=np.ones(3))))
      ['normalization.mean', 'normalization.std', 'params.head.bias', 'params.head.kernel']
    """
    tree = {
        "params": classifier.params,
        "batch_stats": classifier.batch_stats,
        "normalization": {"mean": classifier.mean, "std": classifier.std},
    }
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(str(key.key) for key in path): np.ascontiguousarray(leaf) for path, leaf in leaves}


def with_weights(classifier: Classifier, named: Mapping[str, np.ndarray]) -> Classifier:
    """The classifier with what `weights` named in the place of its own."""

    def place(tree: Any, start: str) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: named[".".join([start, *(str(key.key) for key in path)])], tree
        )

    return classifier.replace(
        params=place(classifier.params, "params"),
        batch_stats=place(classifier.batch_stats, "batch_stats"),
        mean=named["normalization.mean"],
        std=named["normalization.std"],
    )


def _function(classifier: Classifier) -> Any:
    folded = models.fold(classifier)
    return lambda inputs: models.logits(folded, inputs).astype(jnp.float32)


def _dtype(shape: Sequence[int]) -> np.dtype:
    return np.dtype(np.uint8 if len(shape) == 3 else np.float32)


_logits = jax.jit(models.logits)


def _compare(classifier: Classifier, shape: Sequence[int], folder: pathlib.Path) -> dict[str, Any]:
    """The largest difference of each file's logits to those of the release, on noise, over the largest logit.

    Raises:
      InputError: it is above the tolerance.
    """
    read = _package("safetensors.numpy").load_file
    called = {
        PROGRAM: jax.export.deserialize(bytearray((folder / PROGRAM).read_bytes())).call,
        WEIGHTS: lambda inputs: _logits(with_weights(classifier, read(folder / WEIGHTS)), inputs),
    }
    tolerance, random = TOLERANCE[str(jnp.dtype(classifier.module.dtype))], np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in called}
    for size in BATCHES:
        inputs = random.integers(0, 256, (size, *shape)).astype(np.uint8)
        if len(shape) == 1:
            mean, std = (np.reshape(values, (-1, *shape))[0] for values in (classifier.mean, classifier.std))
            inputs = (mean + std * random.standard_normal((size, *shape))).astype(np.float32)
        logits = np.asarray(_logits(classifier, inputs), np.float32)
        for name, function in called.items():
            found[name].append(np.abs(np.asarray(function(inputs)) - logits).max() / np.abs(logits).max())
    differences = {name: float(np.max(values)) for name, values in found.items()}  # of which one may be NaN
    for name, difference in differences.items():
        if not difference <= tolerance:
            raise InputError(
                f"{name} gives logits that differ from the release's by {difference:.2g} of the largest; expected at "
                f"most {tolerance:g}, so nothing was written"
            )
    return {"batches": list(BATCHES), "tolerance": tolerance, "largest_difference": differences}


def readme(sheet: Mapping[str, Any], named: Mapping[str, np.ndarray]) -> str:
    """How to use the files, for people who do not have this package."""
    shape, dtype = sheet["image_shape"], sheet["input"]["dtype"]
    what = "images of uint8 pixels" if len(shape) == 3 else "features as float32"
    compared = "".join(f"- {k}: {v:.1e}\n" for k, v in sheet["compared"]["largest_difference"].items())
    return _README.format(
        name=sheet["name"],
        count=len(sheet["classes"]),
        what=what,
        dtype=dtype,
        inputs=", ".join(map(str, ["batch", *shape])),
        zeros=", ".join(map(str, [4, *shape])),
        platforms=", ".join(sheet["platforms"]),
        jax=sheet["versions"]["jax"],
        weights="".join(f"    {name}  {list(array.shape)}\n" for name, array in named.items()),
        tolerance=f"{sheet['compared']['tolerance']:g}",
        compared=compared,
    )


_README = """# {name}

Takes {what} `{dtype} [{inputs}]` of any batch size, normalises them itself, and gives `float32 [batch, {count}]`:
a logit for each of the `classes` in `export.json`. Made by `python -m mpt_jax.export`, which is not needed to use it.

## model.stablehlo

`pip install jax flatbuffers`; jax {jax}, or one published up to six months after it, as `jax.export` promises.
Runs on: {platforms}.

```python
import json
import jax.export
import numpy as np

with open("model.stablehlo", "rb") as file:
    model = jax.export.deserialize(bytearray(file.read()))
logits = model.call(np.zeros(({zeros}), np.{dtype}))
names = json.load(open("export.json"))["classes"]
print([names[i] for i in np.argmax(logits, axis=-1)])
```

## weights.safetensors

The weights as trained, running statistics of batch normalisation beside the parameters; kernels are
`[rows, columns, inputs, outputs]` or `[inputs, outputs]`:

{weights}
## What was compared

The largest difference of a logit to the release's, over the largest logit; allowed is {tolerance}:

{compared}"""


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InputError(f"export needs {package}, which is not installed: `pip install 'mpt_jax[export]'`") from error


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
