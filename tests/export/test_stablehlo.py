"""Programs give the logits of the classifier for any batch size, on every platform."""

import jax
import jax.export
import numpy as np
import pytest
import random_weights

from mpt_jax import models
from mpt_jax.export import stablehlo
from mpt_jax.models import Classifier, convolution


@pytest.mark.parametrize(("name", "shape"), [("convnet", (8, 8, 1)), ("mlp", (5,))])
def test_a_program_gives_the_logits_of_raw_inputs_for_any_batch_size(name, shape):
    module = models.build(name, 3)
    params, batch_stats = random_weights.init(module, jax.random.key(0), shape)
    classifier = Classifier(module, params, batch_stats, np.full(shape[-1], 0.3, np.float32), np.float32([0.4]))
    program = stablehlo.serialize(classifier, shape, ["cpu", "tpu"])
    assert jax.export.deserialize(bytearray(program)).platforms == ("cpu", "tpu")
    call = stablehlo.deserialize(program)
    for size in (1, 4):
        inputs = np.random.default_rng(size).integers(0, 256, (size, *shape)).astype(stablehlo.input_dtype(shape))
        expected = jax.jit(models.logits)(classifier, inputs)
        np.testing.assert_allclose(call(inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("side", "channels", "taps", "stride", "padding"),
    [(8, (32, 32), 3, 1, 1), (20, (2, 3), 3, 2, 1), (2, (4, 4), 3, 1, 1), (3, (4, 4), 3, 2, 1), (9, (3, 8), 7, 2, 3)],
)
def test_every_form_of_a_convolution_can_be_exported_for_any_batch_size(side, channels, taps, stride, padding):
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
