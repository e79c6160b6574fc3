"""Augmentation of uint8 images on the device, as a pure function of a key."""

import jax
import jax.numpy as jnp


def augment(key: jax.Array, images: jax.Array, *, crop_padding: int, flip: bool) -> jax.Array:
    """Crop each image at random from its zero-padded copy, then flip it horizontally with probability 1/2.

    The offsets are uniform on ``0 .. 2 * crop_padding`` in both directions. The padding is black, as in torchvision's
    ``RandomCrop(size, padding)`` on images that are not normalised yet. Without padding and flip, nothing changes.

    Args:
      key: a typed key; the same key gives the same result.
      images: ``uint8 [B, H, W, C]``.

    Returns:
      ``uint8 [B, H, W, C]``.

    Examples:
      >>> image = jnp.arange(4, dtype=jnp.uint8).reshape(1, 2, 2, 1)
      >>> augment(jax.random.key(2), image, crop_padding=1, flip=True)[0, :, :, 0].tolist()
      [[0, 1], [2, 3]]
    """
    if not crop_padding and not flip:
        return images
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
