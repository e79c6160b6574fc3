"""RandAugment on the device: each image gets operations drawn from 14, all with one magnitude.

Source: Cubuk et al., RandAugment: Practical automated data augmentation with a reduced search space, 2020; the ranges
are those of torchvision's ``RandAugment``.

The images of a batch have different operations. So each kind of operation is applied to all images, with numbers that
change nothing where another one was drawn: a table of 256 values per channel, an affine map, and two blends.
"""

import jax
import jax.numpy as jnp
from jax import Array

from mpt_jax.data.feeding import color, geometry

TABLES = ("identity", "auto_contrast", "equalize", "solarize", "posterize", "contrast", "brightness")
MAPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = (*TABLES, *MAPS, "color", "sharpness")
MOST = 30  # magnitude

_VALUES = tuple(range(256))


def rand_augment(key: Array, images: Array, *, operations: int, magnitude: float) -> Array:
    """Apply so many random operations to each image, one after the other.

    Args:
      key: a typed key.
      images: ``uint8 [B, H, W, C]``.
      operations: how many.
      magnitude: 0 (nothing but `auto_contrast` and `equalize`) to `MOST`.
    """
    for number in range(operations):
        choice_key, sign_key = jax.random.split(jax.random.fold_in(key, number))
        choice = jax.random.randint(choice_key, (images.shape[0],), 0, len(OPERATIONS))
        sign = jnp.where(jax.random.bernoulli(sign_key, 0.5, (images.shape[0],)), 1.0, -1.0)
        images = apply(images, choice, sign * magnitude / MOST)
    return images


def apply(images: Array, choice: Array, strength: Array) -> Array:
    """Apply one of `OPERATIONS` to each image.

    Args:
      images: ``uint8 [B, H, W, C]``.
      choice: int ``[B]``, positions in `OPERATIONS`.
      strength: float32 ``[B]``, from -1 to 1; the sign is a direction where the operation has one.
    """
    images = jax.vmap(jax.vmap(lambda table, plane: table[plane], (0, -1), -1))(
        _tables(images, choice, strength), images
    )
    images = geometry.affine(images, _matrices(images, choice, strength))
    x = images.astype(jnp.float32)

    def factor(name: str) -> Array:
        return jnp.where(choice == OPERATIONS.index(name), 1 + 0.9 * strength, 1.0)[:, None, None, None]

    x = color.blend(x, color.grey(x), factor("color"))
    return geometry.to_uint8(color.blend(x, _smooth(x), factor("sharpness")))


def _tables(images: Array, choice: Array, strength: Array) -> Array:
    """Return the new value of each value, ``uint8 [B, C, 256]``."""
    x = images.astype(jnp.float32)
    batch, channels = images.shape[0], images.shape[-1]
    values = jnp.broadcast_to(jnp.array(_VALUES, jnp.float32)[None, None], (batch, channels, 256))
    size, signed = jnp.abs(strength)[:, None, None], strength[:, None, None]
    low, high = (
        each.transpose(0, 3, 1, 2)[..., 0] for each in (x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True))
    )
    mean = color.mean_grey(x)[:, :1, 0, 0][:, :, None]
    step = jnp.exp2(jnp.round(4 * size))  # posterizing drops the last bits
    tables = {
        "identity": values,
        "auto_contrast": jnp.where(high > low, (values - low) * 255 / jnp.maximum(high - low, 1), values),
        "equalize": _equalizing(images),
        "solarize": jnp.where((values >= 255 * (1 - size)) & (size > 0), 255 - values, values),
        "posterize": jnp.floor(values / step) * step,
        "contrast": color.blend(values, mean, 1 + 0.9 * signed),
        "brightness": color.blend(values, jnp.zeros_like(values), 1 + 0.9 * signed),
    }
    chosen = values
    for name in TABLES[1:]:
        chosen = jnp.where((choice == OPERATIONS.index(name))[:, None, None], tables[name], chosen)
    return geometry.to_uint8(chosen)


def _equalizing(images: Array) -> Array:
    """Return the table that makes the values of each channel as frequent as each other, float32 ``[B, C, 256]``.

    ``y = (number of pixels below + step / 2) // step`` with ``step = (pixels - pixels of the largest value) // 255``.
    """
    batch, _, _, channels = images.shape
    planes = images.transpose(0, 3, 1, 2).reshape(batch, channels, -1)
    count = jax.vmap(jax.vmap(lambda plane: jnp.zeros(256, jnp.int32).at[plane].add(1)))(planes)
    last = jnp.take_along_axis(count, planes.max(-1, keepdims=True).astype(jnp.int32), -1)
    step = (planes.shape[-1] - last) // 255
    below = jnp.cumsum(count, -1) - count
    values = jnp.broadcast_to(jnp.array(_VALUES, jnp.int32)[None, None], count.shape)
    spread = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, spread, values).astype(jnp.float32)


def _matrices(images: Array, choice: Array, strength: Array) -> Array:
    """Return the affine maps from the result to the source, ``[B, 2, 3]``."""
    _, height, width, _ = images.shape

    def amount(name: str, most: float) -> Array:
        return jnp.where(choice == OPERATIONS.index(name), most * strength, 0.0)

    angle = amount("rotate", jnp.pi / 6)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rows = [cos, sin + amount("shear_y", 0.3), amount("translate_y", 150 / 331 * height)]
    columns = [-sin + amount("shear_x", 0.3), cos, amount("translate_x", 150 / 331 * width)]
    return jnp.stack([jnp.stack(rows, -1), jnp.stack(columns, -1)], 1)


def _smooth(x: Array) -> Array:
    """Return the mean of each pixel, five times, and its eight neighbours; the border stays."""
    if min(x.shape[1:3]) < 3:
        return x
    around = sum(x[:, i : x.shape[1] - 2 + i, j : x.shape[2] - 2 + j] for i in range(3) for j in range(3))
    inner = jnp.round((around + 4 * x[:, 1:-1, 1:-1]) / 13)
    return x.at[:, 1:-1, 1:-1].set(inner)
