"""The README names the inputs, the weights and the result of the comparison."""

import numpy as np
import pytest

from mpt_jax.export import readme


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ([8, 8, 3], "uint8", "raw images, `uint8 [batch, 8, 8, 3]`, to logits, `float32 [batch, 2]`"),
        ([8, 8, 3], "uint8", "bicubic filter until it covers 9x9 pixels (height x width), and cropped to 8x8"),
        ([5], "float32", "raw features, `float32 [batch, 5]`, to logits, `float32 [batch, 2]`"),
    ],
)
def test_it_describes_the_model(shape, dtype, words):
    metadata = {
        **{"name": "r1-mpt_kl-seed0", "image_shape": shape, "classes": ["a", "b"], "platforms": ["cpu", "tpu"]},
        **{"input": {"dtype": dtype}, "versions": {"jax": "0.10.2"}},
        **({"resizing": {"resize": 9, "interpolation": "bicubic"}} if len(shape) == 3 else {}),
        "compared": {"tolerance": 1e-4, "largest_difference": {"model.stablehlo": 2.5e-7}},
    }
    text = readme.render(metadata, {"params.head.bias": np.zeros(2)})
    assert text.startswith("# r1-mpt_kl-seed0\n") and words in text.replace("\n", " ")
    example = ", ".join(map(str, [4, *shape]))
    assert f"np.zeros(({example}), np.{dtype})" in text and "Runs on: cpu, tpu." in text
    assert "    params.head.bias  [2]\n" in text and "| model.stablehlo | 2.5e-07 |" in text and "may be 0.0001" in text
    assert "{" not in text.replace("{name}", "") and max(map(len, text.splitlines())) <= 120
