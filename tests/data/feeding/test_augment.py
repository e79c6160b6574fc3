"""Every result is a crop of the padded image, perhaps flipped, with uniform offsets."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax.data import RANDOM, Augmentation
from mpt_jax.data.feeding import augment as module

KEY = jax.random.key(0)
ALL = {
    "random_resized_crop": (0.2, 1.0),
    "crop_padding": 2,
    "flip": True,
    "rand_augment": (2, 9.0),
    "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "random_erasing": 0.5,
}


jitted = jax.jit(module.augment, static_argnums=2)  # compiles faster than operation by operation


def augment(key, images, **settings):
    return jitted(key, images, Augmentation(**settings))


def pictures(batch, height, width, channels, seed=0):
    """Return random images without black pixels, so that padding is distinct from content."""
    return np.random.default_rng(seed).integers(1, 256, (batch, height, width, channels), dtype=np.uint8)


def candidates(image, padding, flip):
    """Yield every possible result for an image with its (top, left, flipped), as a crop of a padded copy."""
    height, width, _ = image.shape
    padded = np.zeros((height + 2 * padding, width + 2 * padding, image.shape[2]), np.uint8)
    padded[padding : padding + height, padding : padding + width] = image
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[top : top + height, left : left + width]
            yield (top, left, False), crop
            if flip:
                yield (top, left, True), crop[:, ::-1]


def draws(images, results, padding, flip):
    """Return for each image the only (top, left, flipped) that gives its result."""
    found = []
    for image, result in zip(images, np.asarray(results), strict=True):
        fits = [draw for draw, candidate in candidates(image, padding, flip) if np.array_equal(candidate, result)]
        assert len(fits) == 1
        found.append(fits[0])
    return found


@pytest.mark.parametrize("shape", [(40, 8, 8, 3), (40, 5, 9, 1)])
@pytest.mark.parametrize(("padding", "flip"), [(2, True), (4, False), (0, True)])
def test_every_result_is_a_crop_of_the_padded_image(shape, padding, flip):
    images = pictures(*shape)
    results = augment(KEY, jnp.asarray(images), crop_padding=padding, flip=flip)
    chex.assert_shape(results, shape)
    chex.assert_type(results, jnp.uint8)
    assert len(set(draws(images, results, padding, flip))) > 1  # each image has its own draw


def test_offsets_and_flips_are_uniform_and_independent():
    images = pictures(3600, 4, 4, 1)
    found = draws(images, augment(KEY, jnp.asarray(images), crop_padding=1, flip=True), 1, True)
    counts = np.array(
        [found.count((top, left, flip)) for top in range(3) for left in range(3) for flip in (False, True)]
    )
    assert counts.sum() == 3600
    # Chi-square with 17 degrees of freedom: exceeded once in 10,000 draws.
    assert ((counts - 200) ** 2 / 200).sum() < 44.0


def test_without_crop_and_flip_nothing_changes():
    images = jnp.asarray(pictures(3, 4, 4, 2))
    chex.assert_trees_all_equal(augment(KEY, images, crop_padding=0, flip=False), images)


def test_the_result_depends_on_the_key_alone():
    images = jnp.asarray(pictures(20, 6, 6, 1))
    transform = functools.partial(augment, crop_padding=2, flip=True)
    chex.assert_trees_all_equal(transform(KEY, images), transform(jax.random.key(0), images))
    assert (transform(KEY, images) != transform(jax.random.key(1), images)).any()


def test_jit_and_vmap_over_seeds_give_the_same_images():
    images = jnp.stack([jnp.asarray(pictures(6, 5, 7, 3, seed)) for seed in range(3)])
    keys = jax.random.split(KEY, 3)
    transform = functools.partial(augment, crop_padding=4, flip=True)
    expected = jnp.stack([transform(key, batch) for key, batch in zip(keys, images, strict=True)])
    chex.assert_trees_all_equal(jax.jit(jax.vmap(transform))(keys, images), expected)
    chex.assert_trees_all_equal(jax.jit(transform)(keys[0], images[0]), expected[0])
    shared = jax.vmap(transform, in_axes=(0, None))(keys, images[0])
    chex.assert_trees_all_equal(shared[0], expected[0])


def test_every_key_changes_images_by_itself_and_keeps_their_type():
    assert set(ALL) == set(RANDOM)
    images = jnp.asarray(pictures(6, 12, 10, 3))
    for name, value in ALL.items():
        transform = functools.partial(augment, **{name: value})
        found = transform(KEY, images)
        chex.assert_shape(found, images.shape)
        chex.assert_type(found, jnp.uint8)
        assert (found != images).any(), name
        chex.assert_trees_all_equal(found, transform(jax.random.key(0), images))
        assert (found != transform(jax.random.key(1), images)).any(), name
        same = np.asarray(transform(KEY, jnp.broadcast_to(images[:1], images.shape)))
        assert len({image.tobytes() for image in same}) > 1, name  # each image has its own draws


def test_settings_that_change_nothing():
    images = jnp.asarray(pictures(4, 9, 7, 3))
    chex.assert_trees_all_equal(augment(KEY, images, random_resized_crop=(1.0, 1.0)), images)
    chex.assert_trees_all_equal(augment(KEY, images, color_jitter=(0.0, 0.0, 0.0, 0.0)), images)
