"""Convolution and pooling in the form that is fast on the platform that runs them; all forms are exact.

Accelerators keep the native convolution. XLA's CPU convolution is slow on small maps, slow under ``vmap`` over kernels
(a grouped convolution) and tens of times slower inside ``lax.scan``; a CPU therefore multiplies matrices.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

_TINY_MAP = 2  # up to this output size most taps of a padded 3x3 kernel only ever multiply zeros
_SMALL_MAP = 8  # above this output size the patches are recomputed in the backward pass rather than kept


def conv2d(images: Array, kernel: Array, *, stride: int = 1, padding: int = 0) -> Array:
    """Cross-correlation with zero padding, as PyTorch's ``conv2d``.

    ``y[n, a, b] = sum_ij x[n, a * stride + i - padding, b * stride + j - padding] @ kernel[i, j]``

    Args:
        images: ``[batch, height, width, channels_in]``.
        kernel: ``[rows, columns, channels_in, channels_out]``, of the same dtype.
        stride: pixels between two outputs, in both directions.
        padding: zeros added to each of the four sides.

    Returns:
        ``[batch, height_out, width_out, channels_out]``.

    Examples:
        >>> conv2d(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), stride=2, padding=1)[0, :, :, 0].tolist()
        [[4.0, 6.0], [6.0, 9.0]]
    """
    on_cpu = partial(matrix_conv2d, stride=stride, padding=padding)
    return lax.platform_dependent(
        images, kernel, cpu=on_cpu, default=partial(native_conv2d, stride=stride, padding=padding)
    )


def native_conv2d(images: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    """`conv2d` as XLA's own convolution."""
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def matrix_conv2d(images: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    """`conv2d` as matrix products, which never multiply a tap that touches only padding."""
    size = max(_outputs(n, k, stride, padding) for n, k in zip(images.shape[1:3], kernel.shape[:2], strict=True))
    if size <= _TINY_MAP:
        return _by_position(images, kernel, stride, padding)
    form = partial(_by_patches, stride=stride, padding=padding)
    # Patches take rows * columns times the memory of the images.
    return form(images, kernel) if size <= _SMALL_MAP else jax.checkpoint(form)(images, kernel)


def _outputs(size: int, taps: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - taps) // stride + 1


def _by_patches(images: Array, kernel: Array, stride: int, padding: int) -> Array:
    """One product for the whole map: the patches ``[batch * positions, taps * channels_in]`` times the kernel."""
    rows, columns = (_outputs(n, k, stride, padding) for n, k in zip(images.shape[1:3], kernel.shape[:2], strict=True))
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    taps = [
        padded[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _by_position(images: Array, kernel: Array, stride: int, padding: int) -> Array:
    """One product per output position: the pixels under the kernel times the taps that meet them."""

    def meeting(output: int, size: int, taps: int) -> tuple[slice, slice]:
        start = output * stride - padding
        first, last = max(start, 0), min(start + taps, size)
        return slice(first, max(first, last)), slice(first - start, max(first, last) - start)

    batch, height, width, _ = images.shape
    taps_down, taps_across, _, channels = kernel.shape
    rows = [meeting(a, height, taps_down) for a in range(_outputs(height, taps_down, stride, padding))]
    columns = [meeting(b, width, taps_across) for b in range(_outputs(width, taps_across, stride, padding))]
    outputs = [
        images[:, pixels_down, pixels_across].reshape(batch, -1) @ kernel[down, across].reshape(-1, channels)
        for pixels_down, down in rows
        for pixels_across, across in columns
    ]
    return jnp.stack(outputs, axis=1).reshape(batch, len(rows), len(columns), channels)


def max_pool2d(images: Array, *, size: int, stride: int, padding: int = 0) -> Array:
    """Largest value of each window, the padding never chosen; of equal values the first one gets the gradient.

    Written as a comparison of strided slices: the gradient of XLA's window reduction is about nine times slower on a
    CPU. NaN in a window gives NaN, as in PyTorch.

    Args:
        images: ``[batch, height, width, channels]``.
        size: rows and columns of a window.
        stride: pixels between two windows.
        padding: pixels added to each of the four sides, at most half of ``size``.

    Returns:
        ``[batch, height_out, width_out, channels]``.

    Examples:
        >>> max_pool2d(jnp.arange(16.0).reshape(1, 4, 4, 1), size=3, stride=2, padding=1)[0, :, :, 0].tolist()
        [[5.0, 7.0], [13.0, 15.0]]
    """
    rows, columns = (_outputs(n, size, stride, padding) for n in images.shape[1:3])
    sides = (padding, padding)
    padded = jnp.pad(images, ((0, 0), sides, sides, (0, 0)), constant_values=-jnp.inf)
    largest = None
    for i in range(size):
        for j in range(size):
            value = padded[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
            # Not jnp.maximum, which splits the gradient between equal values.
            largest = value if largest is None else jnp.where((value > largest) | jnp.isnan(value), value, largest)
    return largest


class Conv(nn.Module):
    """`conv2d` without bias, its parameter named and shaped as that of ``nn.Conv``.

    Initialised normal with variance ``2 / (features * size ** 2)`` as torchvision's networks (Delving Deep into
    Rectifiers, He et al., 2015).
    """

    features: int
    size: int
    stride: int = 1
    padding: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """``[batch, height, width, channels] -> [batch, height_out, width_out, features]`` in ``dtype``."""
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        shape = (self.size, self.size, images.shape[-1], self.features)
        kernel = self.param("kernel", init, shape, self.param_dtype).astype(self.dtype)
        return conv2d(images.astype(self.dtype), kernel, stride=self.stride, padding=self.padding)


def batch_norm(images: Array, *, train: bool, dtype: Any, name: str) -> Array:
    """``nn.BatchNorm`` with PyTorch's constants, a part of the calling module under ``name``.

    Computed in at least float32 and returned in ``dtype``. The recorded variance is that of the batch, where PyTorch
    records ``n / (n - 1)`` times it.

    Args:
        images: ``[batch, ..., channels]``.
        train: uses and records the statistics of the batch rather than the running ones.
        dtype: of the result.
        name: of the parameters and of the statistics.
    """
    wide = at_least_float32(dtype)
    # Without the option flax promotes dtypes implicitly and keeps float32 statistics beside float64 parameters.
    norm = nn.BatchNorm(
        momentum=0.9, epsilon=1e-5, dtype=wide, param_dtype=wide, force_float32_reductions=False, name=name
    )
    return norm(images.astype(wide), use_running_average=not train).astype(dtype)


class Linear(nn.Module):
    """``x @ kernel + bias`` in at least float32, initialised uniform in ``+-1 / sqrt(inputs)`` as in PyTorch."""

    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """``[batch, inputs] -> [batch, features]``."""
        bound = inputs.shape[-1] ** -0.5

        def init(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        kernel = self.param("kernel", init, (inputs.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", init, (self.features,), self.param_dtype)
        dtype = at_least_float32(self.dtype)
        return inputs.astype(dtype) @ kernel.astype(dtype) + bias.astype(dtype)[None]


def at_least_float32(dtype: Any) -> jnp.dtype:
    """The floating ``dtype``, or float32 where it is narrower.

    Examples:
        >>> [str(at_least_float32(d)) for d in ("bfloat16", "float32", "float64")]
        ['float32', 'float32', 'float64']
    """
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits > 32 else jnp.dtype(jnp.float32)
