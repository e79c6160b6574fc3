"""Boxes have the stated distributions, resampling keeps what it must, and erased boxes are boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax.data.feeding import geometry
from mpt_jax.data.feeding.crops import RATIO

KEY = jax.random.key(0)


def pictures(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(60, 40), (32, 32), (10, 90)])
def test_boxes_are_inside_the_image_and_within_the_ranges(shape):
    top, left, height, width = np.asarray(geometry.random_boxes(KEY, 2000, *shape, least=0.1, most=0.6), float)
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= shape[0] * (1 + 1e-5)).all() and (left + width <= shape[1] * (1 + 1e-5)).all()
    ratio = width / height
    assert ratio.min() >= RATIO[0] * (1 - 1e-4) and ratio.max() <= RATIO[1] * (1 + 1e-4)


def test_areas_are_uniform():
    _, _, height, width = np.asarray(geometry.random_boxes(KEY, 5000, 100, 100, least=0.1, most=0.5), float)
    share = height * width / 1e4
    counts = np.histogram(share, 10, (0.1, 0.5))[0]
    assert counts.sum() == 5000 and ((counts - 500) ** 2 / 500).sum() < 34  # exceeded once in 10,000 draws


def test_a_box_that_never_fits_is_the_largest_centred_one():
    top, left, height, width = np.asarray(geometry.random_boxes(KEY, 50, 90, 10, least=1.0, most=1.0))
    np.testing.assert_allclose(width, 10)
    np.testing.assert_allclose(height, 10 / RATIO[0], rtol=1e-6)
    np.testing.assert_allclose(top, (90 - 10 / RATIO[0]) / 2, rtol=1e-6)
    assert not left.any()


def test_a_crop_of_a_ramp_is_a_ramp_over_the_box():
    ramp = np.broadcast_to(np.linspace(0, 252, 64)[None, :, None], (64, 64, 1))
    images = jnp.asarray(np.repeat(ramp[None], 20, 0).round().astype(np.uint8))
    found = np.asarray(geometry.random_resized_crop(KEY, images, least=0.2, most=0.7), float)
    _, left, _, width = np.asarray(geometry.random_boxes(KEY, 20, 64, 64, least=0.2, most=0.7), float)
    centres = left[:, None] + (np.arange(64) + 0.5) / 64 * width[:, None] - 0.5
    expected = np.clip(centres, 0, 63) * 4
    np.testing.assert_allclose(found[:, 32, :, 0], expected, atol=1.01)


def test_affine_maps_move_whole_pixels():
    images = jnp.asarray(pictures(3, 6, 8, 2))
    same, right, turned = ([[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 1, -2]], [[-1, 0, 0], [0, -1, 0]])
    found = np.asarray(geometry.affine(images, jnp.array([same, right, turned], jnp.float32)))
    images = np.asarray(images)
    np.testing.assert_array_equal(found[0], images[0])
    np.testing.assert_array_equal(found[1, :, 2:], images[1, :, :-2])
    assert not found[1, :, :2].any()
    np.testing.assert_array_equal(found[2], images[2, ::-1, ::-1])


def test_an_erased_part_is_one_box_of_the_stated_size():
    images = jnp.zeros((400, 50, 40, 1), jnp.uint8)
    found = np.asarray(geometry.random_erasing(KEY, images, probability=0.75))[..., 0] > 0
    used = found.any((1, 2))
    assert 0.66 < used.mean() < 0.84
    for mask in found[used]:
        rows, columns = mask.any(1), mask.any(0)
        assert (np.diff(np.flatnonzero(rows)) == 1).all() and (np.diff(np.flatnonzero(columns)) == 1).all()
        assert mask.sum() > 0.9 * rows.sum() * columns.sum()  # noise has a few zeros
        assert rows.sum() * columns.sum() < 0.4 * mask.size
