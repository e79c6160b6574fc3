"""Convolution and pooling in the form that is fast on the platform that runs them; all forms are exact.

Accelerators keep the native convolution. XLA's CPU convolution is slow on small maps, slow under ``vmap`` over kernels
(a grouped convolution) and tens of times slower inside ``lax.scan``; a CPU therefore multiplies matrices, and the fewer
the better.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

_TINY_MAP = 2  # up to this output size most taps of a padded 3x3 kernel only ever multiply zeros
_CHANNELS = 32  # below, Winograd's sums cost more than the products they save
_SMALL_MAP = 16  # above this output size what the product reads is made again in the backward pass rather than kept
_only_native = contextvars.ContextVar("_only_native", default=False)


@contextlib.contextmanager
def as_on_accelerators() -> Iterator[None]:
    """Networks traced in this block are made of native convolutions on a CPU too: programs to be looked at, not run."""
    token = _only_native.set(True)
    try:
        yield
    finally:
        _only_native.reset(token)


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
    native = partial(native_conv2d, stride=stride, padding=padding)
    if _only_native.get():
        return native(images, kernel)
    on_cpu = partial(matrix_conv2d, stride=stride, padding=padding)
    return lax.platform_dependent(images, kernel, cpu=on_cpu, default=native)


def native_conv2d(images: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    """`conv2d` as XLA's own convolution."""
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def matrix_conv2d(images: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    """`conv2d` as matrix products: by Winograd's scheme, position by position on tiny maps, else on patches."""
    size = [_outputs(n, k, stride, padding) for n, k in zip(images.shape[1:3], kernel.shape[:2], strict=True)]
    # In fewer than 24 bits Winograd's sums would lose what the products are made of.
    same_3x3 = (kernel.shape[:2], stride, padding) == ((3, 3), 1, 1) and jnp.finfo(images.dtype).bits >= 32
    if same_3x3 and size == [2, 2]:
        return _winograd(images, kernel, _TWO_PIXELS)
    if max(size) <= _TINY_MAP:
        return _by_position(images, kernel, stride, padding)
    if same_3x3 and not any(n % 2 for n in size) and min(kernel.shape[2:]) >= _CHANNELS:
        form = partial(_winograd, scheme=_TILES)
    else:
        form = partial(_by_patches, stride=stride, padding=padding)
    return form(images, kernel) if max(size) <= _SMALL_MAP else jax.checkpoint(form)(images, kernel)


def _outputs(size: int, taps: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - taps) // stride + 1


def _taps(x: Array, axis: int, size: int, stride: int, padding: int, fill: float = 0.0) -> list[Array]:
    """What each tap of a window sees along an axis: ``taps[i][a] = x[a * stride + i - padding]``.

    Split by phase first: of many strided slices straight from `x` the gradients would each be spread out before they
    are added.
    """
    count, reach = _outputs(x.shape[axis], size, stride, padding), (size - 1) // stride
    sides = [(0, 0, 0)] * x.ndim
    sides[axis] = (padding, stride * (count + reach) - padding - x.shape[axis], 0)
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), sides)
    phases = [lax.slice_in_dim(padded, phase, None, stride, axis) for phase in range(stride)]
    return [lax.slice_in_dim(phases[i % stride], i // stride, i // stride + count, axis=axis) for i in range(size)]


def _by_patches(images: Array, kernel: Array, stride: int, padding: int) -> Array:
    """One product for the whole map: the patches ``[batch, rows, columns, taps * channels_in]`` times the kernel."""
    rows, columns, _, channels = kernel.shape
    x = jnp.concatenate(_taps(images, 2, columns, stride, padding), axis=-1)
    return _times(jnp.concatenate(_taps(x, 1, rows, stride, padding), axis=-1), kernel.reshape(-1, channels))


def _times(x: Array, matrix: Array) -> Array:
    """``x @ matrix`` as a product of two matrices: of more dimensions XLA would transpose a copy for the gradient."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], -1)


# Winograd's schemes for a 3-tap kernel along one axis: m_i = (combination of pixels) * (combination of taps), and the
# outputs as combinations of the m_i. Images take the same along rows and columns. Of both the taps' part is
#     [k_0, (k_0 + k_1 + k_2) / 2, (k_0 - k_1 + k_2) / 2, k_2]  or, between zeros,  [k_1, k_2 - k_1, k_0 - k_1].
# Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016, F(2x2, 3x3).
def _tile_pixels(x: Array, axis: int) -> list[Array]:
    d = _taps(x, axis, 4, 2, 1)
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _tile_kernel(first: Array, middle: Array, last: Array) -> list[Array]:
    ends, half = first + last, jnp.asarray(0.5, middle.dtype)
    return [first, (ends + middle) * half, (ends - middle) * half, last]


_TILES = (_tile_pixels, _tile_kernel, lambda m: [m[0] + m[1] + m[2], m[1] - m[2] - m[3]])


def _pair_pixels(x: Array, axis: int) -> list[Array]:
    first, second = (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, 1))
    return [first + second, second, first]


def _pair_kernel(first: Array, middle: Array, last: Array) -> list[Array]:
    return [middle, last - middle, first - middle]


_TWO_PIXELS = (_pair_pixels, _pair_kernel, lambda m: [m[0] + m[1], m[0] + m[2]])


def _winograd(images: Array, kernel: Array, scheme: tuple) -> Array:
    """3x3, stride 1, padding 1: 16 products where 2x2 outputs take 36, or 9 where a whole map of 2x2 takes 16."""
    of_pixels, of_kernel, of_products = scheme
    pixels = [of_pixels(row, 2) for row in of_pixels(images, 1)]
    # By `unstack`, whose gradient is a stack; that of `kernel[0]` is a padded array, and XLA's CPU, which fuses these
    # sums into the update of the weights, would look at nine of them for each element.
    taps = [of_kernel(*jnp.unstack(row)) for row in of_kernel(*jnp.unstack(kernel))]
    products = [
        of_products([_times(*pair) for pair in zip(*row, strict=True)]) for row in zip(pixels, taps, strict=True)
    ]
    columns = [of_products([row[column] for row in products]) for column in (0, 1)]
    rows = [jnp.stack([column[row] for column in columns], axis=3) for row in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(*images.shape[:3], -1)


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

    Written as comparisons of slices, along rows and then along columns: the gradient of XLA's window reduction is tens
    of times slower on a CPU. NaN in a window gives NaN, as in PyTorch.

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

    def along(x: Array, axis: int) -> Array:
        largest, *others = _taps(x, axis, size, stride, padding, fill=-jnp.inf)
        for value in others:
            # Not jnp.maximum, which splits the gradient between equal values.
            largest = jnp.where((value > largest) | jnp.isnan(value), value, largest)
        return largest

    return along(along(images, 2), 1)
