"""The README of an exported model, for people who do not have this package."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax.data import Resizing
from mpt_jax.errors import printable


def resizing_of(card: Mapping[str, Any]) -> Resizing:
    """Return how image files were brought to the size of a release's inputs."""
    return Resizing(**card.get("resizing", {}))


def preparation(image_shape: Sequence[int], resizing: Resizing) -> str:
    """Return how an image file becomes an input, in a sentence of full lines.

    Examples:
      >>> print(preparation((224, 224, 3), Resizing(256, "bilinear")))
      An image is rotated upright, scaled with the bilinear filter until it covers 256x256 pixels (height x width), and
      cropped to 224x224 at the centre.
    """
    height, width, _ = image_shape
    tall, wide = (side * (resizing.resize or min(height, width)) // min(height, width) for side in (height, width))
    text = (
        f"An image is rotated upright, scaled with the {resizing.interpolation} filter until it covers {tall}x{wide} "
        f"pixels (height x width), and cropped to {height}x{width} at the centre."
    )
    return textwrap.fill(text, 114)


def render(metadata: Mapping[str, Any], named: Mapping[str, np.ndarray]) -> str:
    """Return the README as Markdown.

    Args:
      metadata: contents of `export.json`.
      named: weights by name.
    """
    shape, dtype = metadata["image_shape"], metadata["input"]["dtype"]
    differences = metadata["compared"]["largest_difference"]
    return _TEMPLATE.format(
        name=printable(metadata["name"]),
        count=len(metadata["classes"]),
        kind="images" if len(shape) == 3 else "features",
        preparation=f"{preparation(shape, Resizing(**metadata['resizing']))}\n\n" if len(shape) == 3 else "",
        dtype=dtype,
        inputs=", ".join(map(str, ["batch", *shape])),
        example=", ".join(map(str, [4, *shape])),
        platforms=", ".join(metadata["platforms"]),
        jax=metadata["versions"]["jax"],
        weights="".join(f"    {printable(name)}  {list(array.shape)}\n" for name, array in named.items()),
        tolerance=f"{metadata['compared']['tolerance']:g}",
        differences="".join(f"| {name} | {difference:.1e} |\n" for name, difference in differences.items()),
    )


_TEMPLATE = """# {name}

This classifier maps raw {kind}, `{dtype} [{inputs}]`, to logits, `float32 [batch, {count}]`, for any batch size. It
normalises its inputs itself. Logit `i` belongs to class `i` of `classes` in `export.json`.

{preparation}It was written by `python -m mpt_jax.export`, which you do not need to use it.

## model.stablehlo

Needs `pip install jax flatbuffers`, with jax {jax} or a version published up to six months later, as `jax.export`
guarantees. Runs on: {platforms}.

```python
import json
import jax.export
import numpy as np

with open("model.stablehlo", "rb") as file:
    model = jax.export.deserialize(bytearray(file.read()))
logits = model.call(np.zeros(({example}), np.{dtype}))
names = json.load(open("export.json"))["classes"]
print([names[i] for i in np.argmax(logits, axis=-1)])
```

## weights.safetensors

The weights as trained: parameters, running statistics of batch normalisation, and normalisation of the inputs. Kernels
are `[rows, columns, inputs, outputs]` or `[inputs, outputs]`.

{weights}
## Checked against the original model

Both files were read again and compared with the original model on random inputs. The largest difference of a logit,
divided by the largest logit, may be {tolerance}:

| file | difference |
| --- | --- |
{differences}"""
