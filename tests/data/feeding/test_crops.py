"""Random boxes have the distribution of ImageNet training."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from mpt_jax.data import images
from mpt_jax.data.feeding import crops


def test_random_boxes_lie_in_the_image_with_the_specified_shares_and_aspects():
    random = np.random.default_rng(0)
    boxes = np.array([crops.random_box(500, 375, random) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (right <= 500).all() and (bottom <= 375).all()
    share = (right - left) * (bottom - top) / (500 * 375)
    aspect = np.log((right - left) / (bottom - top))
    assert 0.075 < share.min() < 0.09 and 0.9 < share.max() <= 1
    # Large boxes that do not fit are drawn again, so only small shares keep their uniform density.
    small = share[(share > 0.08) & (share < 0.54)]
    assert abs(np.median(small) - 0.31) < 0.015
    assert abs(aspect[share < 0.3].mean()) < 0.02 and abs(aspect[share < 0.3].std() - math.log(4 / 3) / 3**0.5) < 0.01
    assert (np.abs(aspect) <= math.log(4 / 3) + 0.03).all()


@pytest.mark.parametrize(("width", "height", "expected"), [(10, 1000, (0, 493, 10, 506)), (900, 30, (430, 0, 470, 30))])
def test_images_in_which_no_box_fits_give_their_centre(width, height, expected):
    assert crops.random_box(width, height, np.random.default_rng(0)) == expected


def test_a_box_is_cut_out_scaled_and_upright():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 20:50] = (200, 100, 50)
    file, image = io.BytesIO(), Image.fromarray(pixels)
    image.save(file, format="png")
    inner = images.decode_box(file.getvalue(), lambda w, h: (20, 10, 50, 30), channels=3, size=(6, 9))
    assert inner.shape == (6, 9, 3) and (inner[1:-1, 1:-1] == (200, 100, 50)).all()
    part = {"box": lambda w, h: (0, 5, 40, 25), "channels": 3, "size": (8, 8)}
    plain, flipped = (images.decode_box(file.getvalue(), **part, flip=flip) for flip in (False, True))
    np.testing.assert_array_equal(flipped, plain[:, ::-1])
    assert not np.array_equal(flipped, plain)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    file = io.BytesIO()
    image.save(file, format="png", exif=exif)
    seen = []
    for as_stored in (False, True):
        images.decode_box(
            file.getvalue(),
            lambda w, h: seen.append((w, h)) or (0, 0, w, h),
            channels=3,
            size=(4, 4),
            as_stored=as_stored,
        )
    assert seen == [(40, 60), (60, 40)]


def test_data_other_than_images_are_refused():
    with pytest.raises(ValueError, match="not JPEG"):
        images.decode_box(b"text", lambda w, h: (0, 0, w, h), channels=3, size=(4, 4))
