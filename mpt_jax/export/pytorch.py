"""An exported model for PyTorch: a folder of files, compared with the release before it appears.

model.safetensors      the weights under the names of timm, torchvision, OpenCLIP, ... for ``load_state_dict``
export.json            classes in the logits' order, shapes, the package, digests
README.md              the lines that construct the network, load the weights and prepare an image
"""

import json
import pathlib
import textwrap
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from mpt_jax.data import COVER, Resizing
from mpt_jax.errors import InputError, printable
from mpt_jax.export import output, readme
from mpt_jax.files import released_model, storage, weights
from mpt_jax.models import Classifier, pytorch_weights, registry, twins

WEIGHTS = "model.safetensors"


def write(release: pathlib.Path, folder: pathlib.Path, *, names: str = "") -> dict[str, Any]:
    """Write a release's weights under the names of a PyTorch package to a new or empty folder: all files or none.

    Args:
      release: folder of a released model.
      folder: target.
      names: the package; empty: the one that the release's pretrained weights came from, else the network's first.

    Returns:
      Contents of `export.json`.

    Raises:
      InputError: not a release, an ensemble, a network or images that the package does not have, a folder that is not
        empty, a missing package, or weights that differ when they are read again.
      OSError: the disk is full, or cannot be written.
    """
    output.require_new(folder)
    save = output.package("safetensors.numpy").save
    classifier, card = released_model.read(release)
    name, shape = card["architecture"]["name"], tuple(card["image_shape"])
    if classifier.ensemble:
        raise InputError(f"{release} is an ensemble, which PyTorch's packages do not have; expected a single network")
    dialect = _dialect(card, names)
    twin = registry.NETWORKS[name].twins[dialect]
    try:
        code = twins.code(twin, classifier.module, shape)
    except InputError as error:
        raise InputError(f"{error}; expected another of --names={','.join(registry.NETWORKS[name].twins)}") from error
    state = pytorch_weights.back(classifier.params, classifier.batch_stats, classifier.module, shape, dialect)
    with output.complete(folder) as unfinished:
        labels = {"classes": json.dumps(card["classes"]), "release": card["name"], "digest": card["digest"]}
        (unfinished / WEIGHTS).write_bytes(save(state, metadata=labels))
        _compare(classifier, shape, dialect, unfinished / WEIGHTS)
        metadata = {
            "schema": 1,
            "format": "torch",
            **{key: card[key] for key in ("name", "method", "release", "seed", "dataset", "digest")},
            **{key: card[key] for key in ("architecture", "normalization", "image_shape", "classes", "metrics")},
            "resizing": readme.resizing_of(card)._asdict(),
            "names": dialect,
            "package": twin.package,
            "input": {"dtype": "float32", "shape": ["batch", shape[2], *shape[:2]]},
            "output": {"dtype": "float32", "shape": ["batch", len(card["classes"])]},
            "versions": {package: version(package) for package in ("jax", "flax", "safetensors")},
            "files": {WEIGHTS: output.digest(unfinished / WEIGHTS)},
        }
        storage.write_text(unfinished / "export.json", json.dumps(metadata, indent=1) + "\n")
        storage.write_text(unfinished / "README.md", _readme(metadata, code, twin.logits))
    return metadata


def _dialect(card: dict[str, Any], requested: str) -> str:
    """Return the package whose names are used."""
    name = card["architecture"]["name"]
    network = registry.NETWORKS.get(name)
    known = list(network.twins) if network else []
    if not known:
        have = ", ".join(name for name, network in registry.NETWORKS.items() if network.twins)
        raise InputError(f"no package of PyTorch has the network {name}; expected one of {have}, or --format stablehlo")
    if requested and requested not in known:
        raise InputError(f"--names={requested}, but {name} is in {', '.join(known)}; expected one of these")
    came_from = card.get("pretrained", {}).get("names", "")
    return requested or (came_from if came_from in known else known[0])


def _compare(classifier: Classifier, shape: tuple[int, ...], dialect: str, path: pathlib.Path) -> None:
    """Check that a file, read again, has exactly the weights of the classifier.

    Raises:
      InputError: it has not.
    """
    again = pytorch_weights.convert(weights.read(path), classifier.module, shape, dialect=dialect)
    pairs = zip(jax.tree.leaves(again), jax.tree.leaves((classifier.params, classifier.batch_stats)), strict=True)
    if not all(np.array_equal(ours, theirs) for ours, theirs in pairs):
        raise InputError(f"{path.name} has other weights than the release; nothing was written")


def _readme(metadata: dict[str, Any], code: str, logits: str) -> str:
    (height, width, channels), values = metadata["image_shape"], metadata["normalization"]
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels, "RGB")
    resizing = Resizing(**metadata["resizing"])
    return _TEMPLATE.format(
        name=printable(metadata["name"]),
        count=len(metadata["classes"]),
        packages=f"torch safetensors pillow numpy {metadata['package']}",
        code=textwrap.dedent(code),
        logits=logits,
        preparation=readme.preparation(metadata["image_shape"], resizing),
        resize=textwrap.indent(_resize_code(height, width, resizing), "    "),
        **{"height": height, "width": width, "channels": channels, "mode": mode},
        mean=[round(value, 8) for value in values["mean"]],
        std=[round(value, 8) for value in values["std"]],
    )


def _resize_code(height: int, width: int, resizing: Resizing) -> str:
    """Return the lines that bring a PIL image to the size of the inputs."""
    if resizing == COVER:
        return f"image = ImageOps.fit(image, ({width}, {height}), Image.Resampling.BICUBIC)"
    tall, wide = (side * (resizing.resize or min(height, width)) // min(height, width) for side in (height, width))
    return (
        "w, h = image.size\n"
        f"w, h = ({wide}, h * {wide} // w) if {wide} * h >= {tall} * w else (w * {tall} // h, {tall})\n"
        f"image = image.resize((w, h), Image.Resampling.{resizing.interpolation.upper()})\n"
        f"left, top = round((w - {width}) / 2), round((h - {height}) / 2)\n"
        f"image = image.crop((left, top, left + {width}, top + {height}))"
    )


_TEMPLATE = """# {name}

A classifier of {count} classes for PyTorch. `model.safetensors` has its weights under the names of the package below.
Logit `i` belongs to class `i` of `classes` in `export.json`. The file was read again and has exactly the weights of the
release.

    pip install {packages}

## Load

```python
import torch
{code}

from safetensors.torch import load_file

net.load_state_dict(load_file("model.safetensors"))
net.eval()
```

## Prepare an image

{preparation}
Pixels are divided by 255 and normalised with each channel's mean and standard deviation.

```python
import numpy as np
from PIL import Image, ImageOps

MEAN = {mean}
STD = {std}


def prepare(path):
    image = ImageOps.exif_transpose(Image.open(path)).convert("{mode}")
{resize}
    pixels = np.asarray(image, np.float32).reshape({height}, {width}, {channels}) / 255
    return torch.tensor((pixels - np.float32(MEAN)) / np.float32(STD)).permute(2, 0, 1)
```

## Predict

```python
def predict(images):
    with torch.no_grad():
        return {logits}


logits = predict(torch.zeros(2, {channels}, {height}, {width}))  # or torch.stack([prepare("a.jpg"), prepare("b.jpg")])
```
"""
