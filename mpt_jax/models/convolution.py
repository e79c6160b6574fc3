"""Convolution and pooling in the fastest form for each platform; all forms are exact.

Accelerators use the native convolution. XLA's CPU convolution is slow on small maps, slow under ``vmap`` over kernels
(a grouped convolution), and tens of times slower inside ``lax.scan``; on a CPU convolutions are therefore matrix
products, as few as possible.
"""

import contextlib
import contextvars
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

_TINY_MAP = 2  # up to this output size most taps of a padded 3x3 kernel multiply only zeros
_CHANNELS = 32  # with fewer, Winograd's sums cost more than the products they save
_ROWS = 5  # of a map whose products are added at once; the sizes of maps in common networks are multiples of it
_SMALL_MAP = 16  # above this output size the product's inputs are recomputed in the backward pass
Sides = tuple[tuple[int, int], tuple[int, int]]  # zeros above and below, left and right
_only_native = contextvars.ContextVar("_only_native", default=False)


@contextlib.contextmanager
def native_convolutions() -> Iterator[None]:
    """Trace networks with native convolutions on a CPU too: for programs that are inspected, not run."""
    token = _only_native.set(True)
    try:
        yield
    finally:
        _only_native.reset(token)


def conv2d(images: Array, kernel: Array, *, stride: int = 1, padding: int | Sides = 0) -> Array:
    """Cross-correlate images and kernel with zero padding, as PyTorch's ``conv2d``.

    ``y[n, a, b] = sum_ij x[n, a * stride + i - padding, b * stride + j - padding] @ kernel[i, j]``

    Args:
        images: ``[batch, height, width, channels_in]``.
        kernel: ``[rows, columns, channels_in, channels_out]``, of the same dtype.
        stride: pixels between outputs, in both directions.
        padding: zeros added on each of the four sides, or ``((above, below), (left, right))``.

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


def native_conv2d(images: Array, kernel: Array, *, stride: int, padding: int | Sides) -> Array:
    """Compute `conv2d` with XLA's convolution."""
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), _sides(padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def matrix_conv2d(images: Array, kernel: Array, *, stride: int, padding: int | Sides) -> Array:
    """Compute `conv2d` by matrix products: Winograd's scheme, one product per position on tiny maps, or patches."""
    padding = _sides(padding)
    size = [
        _outputs(n, k, stride, sides) for n, k, sides in zip(images.shape[1:3], kernel.shape[:2], padding, strict=True)
    ]
    # With fewer than 24 bits of mantissa Winograd's sums lose precision.
    same_3x3 = (kernel.shape[:2], stride, padding) == ((3, 3), 1, ((1, 1), (1, 1))) and jnp.finfo(
        images.dtype
    ).bits >= 32
    if same_3x3 and size == [2, 2]:
        return _winograd(images, kernel, _TWO_PIXELS)
    if max(size) <= _TINY_MAP:
        return _by_position(images, kernel, stride, padding)
    if same_3x3 and not any(n % 2 for n in size) and min(kernel.shape[2:]) >= _CHANNELS:
        form = partial(_winograd, scheme=_TILES)
    else:
        form = partial(_by_patches, stride=stride, padding=padding)
    return form(images, kernel) if max(size) <= _SMALL_MAP else jax.checkpoint(form)(images, kernel)


def _sides(padding: int | Sides) -> Sides:
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding


def _outputs(size: int, taps: int, stride: int, sides: tuple[int, int]) -> int:
    return (size + sum(sides) - taps) // stride + 1


def _taps(x: Array, axis: int, size: int, stride: int, sides: tuple[int, int], fill: float = 0.0) -> list[Array]:
    """Return the inputs of each tap of a window along an axis: ``taps[i][a] = x[a * stride + i - before]``.

    ``x`` is split by phase first: gradients of many strided slices of ``x`` would each be padded before they are added.
    """
    count, reach = _outputs(x.shape[axis], size, stride, sides), (size - 1) // stride
    added = [(0, 0, 0)] * x.ndim
    added[axis] = (sides[0], stride * (count + reach) - sides[0] - x.shape[axis], 0)
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), added)
    phases = [lax.slice_in_dim(padded, phase, None, stride, axis) for phase in range(stride)]
    return [lax.slice_in_dim(phases[i % stride], i // stride, i // stride + count, axis=axis) for i in range(size)]


def _by_patches(images: Array, kernel: Array, stride: int, padding: Sides) -> Array:
    """Multiply all patches ``[batch, rows, columns, taps * channels_in]`` of the map by the kernel in one product."""
    rows, columns, _, channels = kernel.shape
    x = jnp.concatenate(_taps(images, 2, columns, stride, padding[1]), axis=-1)
    return _times(jnp.concatenate(_taps(x, 1, rows, stride, padding[0]), axis=-1), kernel.reshape(-1, channels))


def _times(x: Array, matrix: Array) -> Array:
    """Return ``x @ matrix`` by a product of two matrices; with more axes XLA transposes a copy for the gradient."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], -1)


# Winograd's schemes for a 3-tap kernel along one axis: m_i = (combination of pixels) * (combination of taps), and the
# outputs are combinations of the m_i. Rows and columns use the same scheme. The combinations of taps are
#     [k_0, (k_0 + k_1 + k_2) / 2, (k_0 - k_1 + k_2) / 2, k_2]  or, between zeros,  [k_1, k_2 - k_1, k_0 - k_1].
# Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016, F(2x2, 3x3).
def _tile_pixels(x: Array, axis: int) -> list[Array]:
    d = _taps(x, axis, 4, 2, (1, 1))
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
    """Convolve 3x3, stride 1, padding 1: 16 products instead of 36 for 2x2 outputs, 9 instead of 16 for a 2x2 map."""
    of_pixels, of_kernel, of_products = scheme
    pixels = [of_pixels(row, 2) for row in of_pixels(images, 1)]
    # The gradient of `unstack` is a stack. That of `kernel[0]` is a padded array; XLA's CPU backend fuses the sum of
    # nine of them into the update of the weights and would read all nine for each element.
    taps = [of_kernel(*jnp.unstack(row)) for row in of_kernel(*jnp.unstack(kernel))]
    products = [
        of_products([_times(*pair) for pair in zip(*row, strict=True)]) for row in zip(pixels, taps, strict=True)
    ]
    columns = [of_products([row[column] for row in products]) for column in (0, 1)]
    rows = [jnp.stack([column[row] for column in columns], axis=3) for row in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(*images.shape[:3], -1)


def _by_position(images: Array, kernel: Array, stride: int, padding: Sides) -> Array:
    """Compute one product per output position: the pixels under the kernel times the taps that overlap them."""

    def overlaps(size: int, taps: int, sides: tuple[int, int]) -> list[tuple[slice, slice]]:
        return [overlap(output, size, taps, sides[0]) for output in range(_outputs(size, taps, stride, sides))]

    def overlap(output: int, size: int, taps: int, before: int) -> tuple[slice, slice]:
        start = output * stride - before
        first, last = max(start, 0), min(start + taps, size)
        return slice(first, max(first, last)), slice(first - start, max(first, last) - start)

    batch, height, width, _ = images.shape
    taps_down, taps_across, _, channels = kernel.shape
    rows, columns = overlaps(height, taps_down, padding[0]), overlaps(width, taps_across, padding[1])
    outputs = [
        images[:, pixels_down, pixels_across].reshape(batch, -1) @ kernel[down, across].reshape(-1, channels)
        for pixels_down, down in rows
        for pixels_across, across in columns
    ]
    return jnp.stack(outputs, axis=1).reshape(batch, len(rows), len(columns), channels)


def same_padding(shape: Sequence[int], size: int, stride: int) -> Sides:
    """Return TensorFlow's ``SAME`` padding of images: ``ceil(n / stride)`` outputs, the odd pixel below and right.

    Args:
        shape: ``[batch, height, width, channels]`` of the images.
        size: rows and columns of the kernel.
        stride: pixels between outputs.

    Examples:
        >>> same_padding((1, 8, 7, 3), size=3, stride=2)
        ((0, 1), (1, 1))
    """
    totals = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in shape[1:3]]
    above, left = (total // 2 for total in totals)
    return (above, totals[0] - above), (left, totals[1] - left)


def depthwise_conv2d(images: Array, kernel: Array, *, stride: int = 1, padding: Sides) -> Array:
    """Cross-correlate each channel with its own kernel, with zero padding.

    ``y[n, a, b, c] = sum_ij x[n, a * stride + i - above, b * stride + j - left, c] * kernel[i, j, 0, c]``

    Args:
        images: ``[batch, height, width, channels]``.
        kernel: ``[rows, columns, 1, channels]``, of the same dtype.
        stride: pixels between outputs, in both directions.
        padding: zeros added, ``((above, below), (left, right))``; see `same_padding`.

    Returns:
        ``[batch, height_out, width_out, channels]``.

    Examples:
        >>> ones = jnp.ones((1, 4, 4, 2))
        >>> depthwise_conv2d(ones, jnp.ones((3, 3, 1, 2)), stride=2, padding=((0, 1), (0, 1)))[0, :, :, 1].tolist()
        [[9.0, 6.0], [6.0, 4.0]]
    """
    native = partial(native_depthwise_conv2d, stride=stride, padding=padding)
    if _only_native.get():
        return native(images, kernel)
    on_cpu = partial(shifted_depthwise_conv2d, stride=stride, padding=padding)
    return lax.platform_dependent(images, kernel, cpu=on_cpu, default=native)


def native_depthwise_conv2d(images: Array, kernel: Array, *, stride: int, padding: Sides) -> Array:
    """Compute `depthwise_conv2d` with XLA's grouped convolution."""
    return lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=images.shape[-1],
    )


@partial(jax.custom_vjp, nondiff_argnames=("stride", "padding"))
def shifted_depthwise_conv2d(images: Array, kernel: Array, stride: int, padding: Sides) -> Array:
    """Compute `depthwise_conv2d` as a sum of shifted images, each times the tap that meets it.

    The sum is one loop over the padded images. Its own gradient would be too many: one per tap, each over all images.
    """
    return _sum_of_shifted(_padded(images, padding), kernel, stride).astype(images.dtype)


def _sum_of_shifted(padded: Array, kernel: Array, stride: int) -> Array:
    wide = at_least_float32(padded.dtype)
    rows, columns = (_outputs(n, k, stride, (0, 0)) for n, k in zip(padded.shape[1:3], kernel.shape[:2], strict=True))
    total = jnp.zeros((), wide)
    for i, j in itertools.product(*map(range, kernel.shape[:2])):
        taps = padded[:, i : i + stride * rows : stride, j : j + stride * columns : stride].astype(wide)
        total += taps * kernel[i, j].astype(wide)[None, None]
    return total


def _padded(images: Array, sides: Sides) -> Array:
    """Add rows and columns of zeros; negative numbers remove some."""
    return lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *((*side, 0) for side in sides), (0, 0, 0)])


def _shifted_forward(images: Array, kernel: Array, stride: int, padding: Sides) -> tuple[Array, tuple[Array, Array]]:
    return shifted_depthwise_conv2d(images, kernel, stride, padding), (images, kernel)


def _shifted_backward(stride: int, padding: Sides, inputs: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    images, kernel = inputs
    of_images = _gradient_of_images(gradient, kernel, images.shape, stride, padding)
    of_kernel = _gradient_of_kernel(_padded(images, padding), gradient, kernel.shape, stride)
    return of_images.astype(images.dtype), of_kernel.astype(kernel.dtype)


shifted_depthwise_conv2d.defvjp(_shifted_forward, _shifted_backward)


def _gradient_of_images(gradient: Array, kernel: Array, shape: tuple[int, ...], stride: int, padding: Sides) -> Array:
    """Correlate the gradient with the flipped kernel, separately for the pixels of each phase of the stride.

    ``x[a]`` met tap ``i`` in output ``o`` if ``a = o * stride + i - before``: all pixels of a phase meet the same taps.
    """
    flipped = kernel[::-1, ::-1]

    def along(axis: int, phase: int) -> tuple[slice, tuple[int, int]]:
        """Return the flipped taps that meet the pixels of a phase, and the padding of the gradient."""
        size, taps, before = shape[1 + axis], kernel.shape[axis], padding[axis][0]
        first = (phase + before) % stride  # tap
        last = first + (taps - 1 - first) // stride * stride
        start = (phase + before - last) // stride  # output that meets the last tap at the first pixel of the phase
        end = start + -(-(size - phase) // stride) + (last - first) // stride  # one after the last output
        return slice(taps - 1 - last, taps - first, stride), (-start, end - gradient.shape[1 + axis])

    rows = []
    for phase in range(stride):
        down, above_below = along(0, phase)
        row = []
        for other in range(stride):
            across, left_right = along(1, other)
            row.append(_sum_of_shifted(_padded(gradient, (above_below, left_right)), flipped[down, across], 1))
        rows.append(_interleaved(row, 2, shape[2]))
    return _interleaved(rows, 1, shape[1])


def _interleaved(phases: list[Array], axis: int, size: int) -> Array:
    """Undo the splitting into phases: ``y[k * len(phases) + i] = phases[i][k]`` along the axis."""
    if len(phases) == 1:
        return phases[0]
    most = phases[0].shape[axis]
    phases = [jnp.pad(p, [(0, most - p.shape[axis] if a == axis else 0) for a in range(p.ndim)]) for p in phases]
    shape = (*phases[0].shape[:axis], most * len(phases), *phases[0].shape[axis + 1 :])
    return lax.slice_in_dim(jnp.stack(phases, axis + 1).reshape(shape), 0, size, axis=axis)


def _gradient_of_kernel(padded: Array, gradient: Array, shape: tuple[int, ...], stride: int) -> Array:
    """Return ``sum_nab x[n, a * stride + i, b * stride + j, c] * gradient[n, a, b, c]`` as ``[i, j, 0, c]``.

    One loop over the images computes all taps of a row of the kernel: sums over `_ROWS` rows of the map, whose sum is
    quick. XLA's sums of products over all positions read the images once for each tap, one number at a time.
    """
    wide = at_least_float32(padded.dtype)
    height, width = gradient.shape[1:3]
    groups = -(-height // _ROWS)
    gradient = _padded(gradient, ((0, groups * _ROWS - height), (0, 0)))
    span = (groups * _ROWS - 1) * stride + 1  # rows of images that a tap meets
    padded = _padded(padded, ((0, span + shape[0] - 1 - padded.shape[1]), (0, 0)))

    def of_row(i: Array) -> Array:
        images = lax.dynamic_slice_in_dim(padded, i, span, axis=1)
        sums = []
        for j in range(shape[1]):
            taps = images[:, ::stride, j : j + stride * width : stride].astype(wide)
            products = [taps[:, row::_ROWS] * gradient[:, row::_ROWS].astype(wide) for row in range(_ROWS)]
            sums.append(sum(products[1:], start=products[0]))
        # Without the barrier XLA would compute the products inside the sum, again one number at a time.
        return lax.optimization_barrier(jnp.stack(sums, axis=2)).sum(axis=(0, 1, 3))

    return lax.map(of_row, jnp.arange(shape[0]))[:, :, None]


def max_pool2d(images: Array, *, size: int, stride: int, padding: int = 0) -> Array:
    """Return the largest value of each window, never the padding; the first of equal values gets the gradient.

    Compares slices along rows and then along columns: the gradient of XLA's window reduction is tens of times slower on
    a CPU. NaN in a window gives NaN, as in PyTorch.

    Args:
        images: ``[batch, height, width, channels]``.
        size: rows and columns of a window.
        stride: pixels between windows.
        padding: pixels added on each of the four sides, at most half of ``size``.

    Returns:
        ``[batch, height_out, width_out, channels]``.

    Examples:
        >>> max_pool2d(jnp.arange(16.0).reshape(1, 4, 4, 1), size=3, stride=2, padding=1)[0, :, :, 0].tolist()
        [[5.0, 7.0], [13.0, 15.0]]
    """

    def along(x: Array, axis: int) -> Array:
        largest, *others = _taps(x, axis, size, stride, (padding, padding), fill=-jnp.inf)
        for value in others:
            # Not jnp.maximum, which divides the gradient among equal values.
            largest = jnp.where((value > largest) | jnp.isnan(value), value, largest)
        return largest

    return along(along(images, 2), 1)


def at_least_float32(dtype: Any) -> jnp.dtype:
    """Return the floating ``dtype``, or float32 if it is narrower.

    Examples:
        >>> [str(at_least_float32(d)) for d in ("bfloat16", "float32", "float64")]
        ['float32', 'float32', 'float64']
    """
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits > 32 else jnp.dtype(jnp.float32)
