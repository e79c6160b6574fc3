"""Crops, flips, affine maps and erased boxes of uint8 images, each image with its own numbers."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from mpt_jax.data.feeding.crops import RATIO

_TRIALS = 10  # of a random box
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # of a box: share of the image, and height over width


def crop_and_flip(key: Array, images: Array, *, crop_padding: int, flip: bool) -> Array:
    """Crop each image at random from its zero-padded copy, then flip it horizontally with probability 1/2.

    The offsets are uniform on ``0 .. 2 * crop_padding`` in both directions. The padding is black, as in torchvision's
    ``RandomCrop(size, padding)`` on images that are not normalised yet.

    Args:
      key: a typed key.
      images: ``[B, H, W, C]``.

    Returns:
      The same shape and dtype.
    """
    batch, height, width, _ = images.shape
    crop_key, flip_key = jax.random.split(key)
    # One gather from the images themselves: no padded copy, and a flip costs no more than its index.
    rows = jnp.broadcast_to(jnp.arange(height, dtype=jnp.int32)[None, :], (batch, height))
    columns = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32)[None, :], (batch, width))
    if flip:
        columns = jnp.where(jax.random.bernoulli(flip_key, 0.5, (batch, 1)), width - 1 - columns, columns)
    if crop_padding:
        shift = jax.random.randint(crop_key, (2, batch, 1), -crop_padding, crop_padding + 1, dtype=jnp.int32)
        rows, columns = rows + shift[0], columns + shift[1]
    gather = jax.vmap(lambda image, row, column: image.at[row[:, None], column[None, :]].get(mode="clip"))
    pixels = gather(images, rows, columns)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return jnp.where(inside[:, :, :, None], pixels, jnp.zeros((), images.dtype))


def random_boxes(key: Array, number: int, height: int, width: int, *, least: float, most: float) -> Array:
    """Draw boxes whose share of the image is uniform on ``[least, most]`` and whose aspect is log-uniform on `RATIO`.

    Their position is uniform. Of ten draws the first that fits is taken; if none fits, the largest centred box whose
    aspect is within `RATIO`.

    Source: Szegedy et al., Going Deeper with Convolutions, 2015; the numbers are those of torchvision's
    ``RandomResizedCrop``.

    Returns:
      Top, left, height and width in pixels, float32 ``[4, number]``.
    """
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    area = height * width * jax.random.uniform(area_key, (_TRIALS, number), minval=least, maxval=most)
    low, high = (math.log(ratio) for ratio in RATIO)
    ratio = jnp.exp(jax.random.uniform(ratio_key, (_TRIALS, number), minval=low, maxval=high))
    heights, widths = jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)
    fits = (heights <= height) & (widths <= width)
    first = fits.argmax(0)[None]
    fallback = min(height, width / RATIO[0]), min(width, height * RATIO[1])
    box_height, box_width = (
        jnp.where(fits.any(0), jnp.take_along_axis(sides, first, 0)[0], whole)
        for sides, whole in ((heights, fallback[0]), (widths, fallback[1]))
    )
    place = jnp.where(fits.any(0)[None], jax.random.uniform(place_key, (2, number)), 0.5)
    return jnp.stack([place[0] * (height - box_height), place[1] * (width - box_width), box_height, box_width])


def random_resized_crop(key: Array, images: Array, *, least: float, most: float) -> Array:
    """Crop each image to a box of `random_boxes`, and bring it back to the image's size by linear interpolation.

    Args:
      key: a typed key.
      images: ``uint8 [B, H, W, C]``.
      least: smallest share of the image's area in a crop.
      most: largest share.

    Returns:
      ``uint8 [B, H, W, C]``.
    """
    batch, height, width, _ = images.shape
    top, left, *sides = random_boxes(key, batch, height, width, least=least, most=most)
    scale = jnp.stack([height / sides[0], width / sides[1]], -1)
    move = -jnp.stack([top, left], -1) * scale

    def one(image, scale, move):
        return jax.image.scale_and_translate(image, image.shape, (0, 1), scale, move, method="linear")

    return to_uint8(jax.vmap(one)(images.astype(jnp.float32), scale, move))


def affine(images: Array, matrix: Array) -> Array:
    """Move pixels by an affine map about the centre of the image; the nearest pixel is taken, and outside is black.

    ``y[a, b] = x[matrix @ (a, b, 1)]``, with coordinates (row, column) from the centre.

    Args:
      images: ``[B, H, W, C]``.
      matrix: from the result to the source, float32 ``[B, 2, 3]``.
    """
    _, height, width, _ = images.shape
    rows = (jnp.arange(height, dtype=jnp.float32) - (height - 1) / 2)[None, :, None]
    columns = (jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2)[None, None, :]
    m = matrix[:, :, :, None, None]

    def source(axis, size):
        place = m[:, axis, 0] * rows + m[:, axis, 1] * columns + m[:, axis, 2] + (size - 1) / 2
        return jnp.round(place).astype(jnp.int32)

    from_rows, from_columns = source(0, height), source(1, width)
    pixels = jax.vmap(lambda image, row, column: image.at[row, column].get(mode="clip"))(
        images, from_rows, from_columns
    )
    inside = (from_rows >= 0) & (from_rows < height) & (from_columns >= 0) & (from_columns < width)
    return jnp.where(inside[..., None], pixels, jnp.zeros((), images.dtype))


def random_erasing(key: Array, images: Array, *, probability: float) -> Array:
    """Replace a box of some images by noise: uniform pixels.

    The box's share of the image is uniform on `ERASED_AREA`, its aspect log-uniform on `ERASED_RATIO`; a box that does
    not fit is cut at the image's sides.

    Source: Zhong et al., Random Erasing Data Augmentation, AAAI 2020, with random values.
    """
    batch, height, width, _ = images.shape
    use_key, area_key, ratio_key, place_key, noise_key = jax.random.split(key, 5)
    area = height * width * jax.random.uniform(area_key, (batch,), minval=ERASED_AREA[0], maxval=ERASED_AREA[1])
    low, high = (math.log(ratio) for ratio in ERASED_RATIO)
    ratio = jnp.exp(jax.random.uniform(ratio_key, (batch,), minval=low, maxval=high))
    place = jax.random.uniform(place_key, (2, batch))

    def within(size: int, side: Array, place: Array) -> Array:
        side = jnp.clip(jnp.round(side), 1, size)
        start = jnp.floor(place * (size - side + 1))
        pixels = jnp.arange(size, dtype=jnp.float32)[None]
        return (pixels >= start[:, None]) & (pixels < (start + side)[:, None])

    rows, columns = within(height, jnp.sqrt(area * ratio), place[0]), within(width, jnp.sqrt(area / ratio), place[1])
    used = jax.random.bernoulli(use_key, probability, (batch, 1, 1))
    noise = jax.random.bits(noise_key, images.shape, jnp.uint8)
    return jnp.where((used & rows[:, :, None] & columns[:, None, :])[..., None], noise, images)


def to_uint8(pixels: Array) -> Array:
    """Return floats from 0 to 255 as the nearest uint8; others are clipped."""
    return jnp.clip(jnp.round(pixels), 0, 255).astype(jnp.uint8)
