"""Counted work and the peak rate: model FLOP utilisation = counted FLOPs / seconds / peak rate."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mpt_jax import models
from mpt_jax.models.convolution import same_padding

PEAK_SIZE, PEAK_SIZE_ELSEWHERE = {"cpu": 2048}, 8192  # rows of the square product by platform
PEAK_CALLS, PEAK_PRODUCTS = 2, 4


class Work(NamedTuple):
    """Floating point operations; a multiply-add counts as two.

    `dense` counts every tap of every kernel at every output position, the convention of published numbers. `on_data`
    omits the taps that only meet zero padding, which an exact implementation need not compute.
    """

    dense: int
    on_data: int

    def plus(self, other: "Work", times: int = 1) -> "Work":
        """Return ``self + times * other``."""
        return Work(self.dense + times * other.dense, self.on_data + times * other.on_data)


def forward(module: nn.Module, image_shape: Sequence[int]) -> Work:
    """Count the forward pass of one image: convolutions and matrix products; the rest is one percent or less.

    The count uses shapes alone: a module that owns a ``kernel`` applies it once per output position. It therefore does
    not depend on how a platform computes a convolution.

    Examples:
      >>> forward(models.build("convnet", 10), (8, 8, 1))
      Work(dense=471040, on_data=354432)
    """
    total = Work(0, 0)

    def count(function, args, kwargs, context):
        nonlocal total
        result, kernel = function(*args, **kwargs), context.module.variables.get("params", {}).get("kernel")
        if context.method_name == "__call__" and kernel is not None:
            dense = 2 * math.prod(result.shape[1:-1]) * kernel.size
            total = total.plus(Work(dense, round(dense * _share_on_data(context.module, args[0].shape, kernel.shape))))
        return result

    def apply(params: Any, batch_stats: Any, images: jax.Array) -> Any:
        with nn.intercept_methods(count):
            return module.apply({"params": params, "batch_stats": batch_stats}, images, train=False)

    weights = jax.eval_shape(lambda: models.init(module, jax.random.key(0), tuple(image_shape)))
    jax.eval_shape(apply, *weights, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return total


def _share_on_data(module: nn.Module, images: Sequence[int], kernel: Sequence[int]) -> float:
    """Return the share of all (output position, tap) pairs whose pixel lies in the image; 1 if it is not known."""
    if len(kernel) < 4 or not hasattr(module, "stride"):  # a linear layer, or one that covers the image with patches
        return 1.0
    padding = getattr(module, "padding", "SAME")
    share, same = 1.0, same_padding(images, kernel[0], module.stride)
    for axis in range(2):
        before, after = (padding, padding) if isinstance(padding, int) else same[axis]
        size, taps = images[1 + axis], kernel[axis]
        outputs = (size + before + after - taps) // module.stride + 1
        pixels = [o * module.stride + t - before for o in range(outputs) for t in range(taps)]
        share *= sum(0 <= pixel < size for pixel in pixels) / len(pixels)
    return share


def step(
    student: nn.Module, teachers: Sequence[nn.Module], image_shape: Sequence[int], *, batch: int, students: int
) -> Work:
    """Count one train step: per student a forward pass and twice as much backward, per teacher a forward pass."""
    once = forward(student, image_shape)
    total = Work(0, 0).plus(once, 3 * students)
    for teacher in teachers:
        total = total.plus(forward(teacher, image_shape))
    return Work(0, 0).plus(total, batch)


def square_product(dtype: str, mesh: Mesh) -> tuple[Callable[[], float], float, str]:
    """Prepare a large square matrix product over all devices, whose rate is taken as the peak.

    Returns:
      A function that measures its milliseconds, its FLOPs, and a description.
    """
    size = PEAK_SIZE.get(jax.default_backend(), PEAK_SIZE_ELSEWHERE)
    keys = jax.random.split(jax.random.key(0))
    # Scaled so that the values neither grow nor vanish from product to product.
    left, right = (jax.random.normal(key, (size, size), dtype) * jnp.asarray(size**-0.5, dtype) for key in keys)
    rows = NamedSharding(mesh, P(mesh.axis_names))
    left, right = jax.device_put(left, rows), jax.device_put(right, NamedSharding(mesh, P()))
    multiply = jax.jit(jnp.matmul, out_shardings=rows)
    multiply(left, right).block_until_ready()

    def milliseconds() -> float:
        times = []
        for _ in range(PEAK_CALLS):
            started, product = time.perf_counter(), left
            for _ in range(PEAK_PRODUCTS):  # dispatched without waiting, so that the device never idles
                product = multiply(product, right)
            product.block_until_ready()
            times.append(time.perf_counter() - started)
        return 1e3 * min(times) / PEAK_PRODUCTS

    return milliseconds, 2.0 * size**3, f"best {dtype} product of two {size} x {size} matrices in this run"
