"""Colour of uint8 images: brightness, contrast, saturation and hue, each image with its own strength.

A factor of 1 changes nothing; 0 gives black, grey of one value, or grey. The formulas are those of torchvision's
``ColorJitter``.
"""

import jax
import jax.numpy as jnp
from jax import Array

from mpt_jax.data.feeding.geometry import to_uint8

GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue


def jitter(key: Array, images: Array, *, brightness: float, contrast: float, saturation: float, hue: float) -> Array:
    """Change brightness, contrast, saturation and hue at random, in this order.

    The factors are uniform on ``[max(0, 1 - strength), 1 + strength]``, the shift of the hue on ``[-hue, hue]`` turns.

    Args:
      key: a typed key.
      images: ``uint8 [B, H, W, C]``.
    """
    keys = jax.random.split(key, 4)

    def factor(key: Array, strength: float) -> Array:
        shape = (images.shape[0], 1, 1, 1)
        return jax.random.uniform(key, shape, minval=max(0.0, 1.0 - strength), maxval=1.0 + strength)

    x = images.astype(jnp.float32)
    if brightness:
        x = blend(x, jnp.zeros_like(x), factor(keys[0], brightness))
    if contrast:
        x = blend(x, mean_grey(x), factor(keys[1], contrast))
    if saturation and images.shape[-1] == 3:
        x = blend(x, grey(x), factor(keys[2], saturation))
    if hue and images.shape[-1] == 3:
        turns = jax.random.uniform(keys[3], (images.shape[0], 1, 1), minval=-hue, maxval=hue)
        x = shift_hue(x, turns)
    return to_uint8(x)


def blend(x: Array, other: Array, factor: Array) -> Array:
    """Return ``factor * x + (1 - factor) * other``, clipped to pixels."""
    return jnp.clip(factor * x + (1 - factor) * other, 0, 255)


def grey(x: Array) -> Array:
    """Return the grey of each pixel in all channels, ``[B, H, W, C]``."""
    if x.shape[-1] != 3:
        return x
    return jnp.broadcast_to((x @ jnp.array(GREY, x.dtype))[..., None], x.shape)


def mean_grey(x: Array) -> Array:
    """Return the mean grey of each image in all pixels, ``[B, H, W, C]``."""
    return jnp.broadcast_to(grey(x).mean((1, 2, 3), keepdims=True), x.shape)


def shift_hue(x: Array, turns: Array) -> Array:
    """Turn the hue of red, green and blue in the space of hue, saturation and value.

    Args:
      x: ``[B, H, W, 3]``, from 0 to 255.
      turns: ``[B, 1, 1]``; 1 is once around.
    """
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value, least = x.max(-1), x.min(-1)
    chroma = value - least
    safe = jnp.where(chroma == 0, 1.0, chroma)
    sector = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = (sector + 6 * turns) % 6

    def channel(offset: float) -> Array:
        place = (offset + hue) % 6
        return value - chroma * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], -1)
