"""Augmentation of uint8 images on the device, as a pure function of a key."""

import jax

from mpt_jax.data.dataset_config import Augmentation
from mpt_jax.data.feeding import color, geometry, rand_augment


def augment(key: jax.Array, images: jax.Array, settings: Augmentation) -> jax.Array:
    """Change images at random; each image has its own draws. Without settings, nothing changes.

    Args:
      key: a typed key; the same key gives the same result.
      images: ``uint8 [B, H, W, C]``.

    Returns:
      ``uint8 [B, H, W, C]``: a teacher sees the pixels that the student sees.

    Examples:
      >>> image = jax.numpy.arange(4, dtype="uint8").reshape(1, 2, 2, 1)
      >>> augment(jax.random.key(2), image, Augmentation(crop_padding=1, flip=True))[0, :, :, 0].tolist()
      [[0, 1], [2, 3]]
    """
    crop_key, rand_key, color_key, erase_key = (jax.random.fold_in(key, number) for number in range(4))
    if settings.random_resized_crop:
        least, most = settings.random_resized_crop
        images = geometry.random_resized_crop(crop_key, images, least=least, most=most)
    if settings.crop_padding or settings.flip:
        images = geometry.crop_and_flip(key, images, crop_padding=settings.crop_padding, flip=settings.flip)
    if settings.rand_augment:
        operations, magnitude = settings.rand_augment
        images = rand_augment.rand_augment(rand_key, images, operations=int(operations), magnitude=magnitude)
    if settings.color_jitter:
        brightness, contrast, saturation, hue = settings.color_jitter
        images = color.jitter(
            color_key, images, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
        )
    if settings.random_erasing:
        images = geometry.random_erasing(erase_key, images, probability=settings.random_erasing)
    return images
