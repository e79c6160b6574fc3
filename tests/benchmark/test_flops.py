"""Counted work against a count by hand."""

import jax.numpy as jnp
import pytest

from mpt_jax import models
from mpt_jax.benchmark import flops
from mpt_jax.models.convolution import native_conv2d

# (side of the map, kernel, stride, channels in, channels out), and how often
CONVNET = {(8, 3, 1, 1, 16): 1, (8, 3, 2, 16, 32): 1, (4, 3, 1, 32, 32): 1}
RESNET18 = {
    **{(32, 7, 2, 3, 64): 1, (8, 3, 1, 64, 64): 4},
    **{(8, 3, 2, 64, 128): 1, (4, 3, 1, 128, 128): 3, (8, 1, 2, 64, 128): 1},
    **{(4, 3, 2, 128, 256): 1, (2, 3, 1, 256, 256): 3, (4, 1, 2, 128, 256): 1},
    **{(2, 3, 2, 256, 512): 1, (1, 3, 1, 512, 512): 3, (2, 1, 2, 256, 512): 1},
}


@pytest.mark.parametrize(
    ("module", "shape", "convolutions", "head"),
    [
        (models.build("convnet", 10), (8, 8, 1), CONVNET, 512 * 10),
        (models.build("resnet18", 100), (32, 32, 3), RESNET18, 512 * 100),
    ],
)
def test_forward_counts_every_layer_as_by_hand(module, shape, convolutions, head):
    dense = on_data = head
    for (side, taps, stride, inputs, outputs), times in convolutions.items():
        # Over ones, a convolution counts the taps that meet data.
        ones = native_conv2d(
            jnp.ones((1, side, side, 1)), jnp.ones((taps, taps, 1, 1)), stride=stride, padding=taps // 2
        )
        on_data += times * inputs * outputs * int(ones.sum())
        dense += times * inputs * outputs * taps**2 * ones.size
    assert flops.forward(module, shape) == flops.Work(2 * dense, 2 * on_data)


def test_depthwise_convolutions_and_same_padding_are_counted():
    work = flops.forward(models.build("efficientnet_lite0", 1000), (224, 224, 3))
    assert work.dense / 2 == pytest.approx(0.39e9, rel=0.02)  # the published count of multiply-adds
    assert 0.9 * work.dense < work.on_data < work.dense


def test_the_products_of_a_vision_transformer_are_counted():
    width, tokens = 128, 65  # vit_tiny
    products = 64 * 48 * width + 6 * tokens * 12 * width**2 + width * 10
    assert flops.forward(models.build("vit_tiny", 10), (32, 32, 3)) == flops.Work(2 * products, 2 * products)


def test_a_step_counts_three_forward_passes_per_student_and_one_per_teacher():
    student, old = (models.build("convnet", classes) for classes in (10, 5))
    one, teacher = (flops.forward(module, (8, 8, 1)) for module in (student, old))
    counted = flops.step(student, [old], (8, 8, 1), batch=7, students=4)
    assert counted == flops.Work(7 * (12 * one.dense + teacher.dense), 7 * (12 * one.on_data + teacher.on_data))
