"""The synthetic photographs: JPEG files of many sizes, deterministic."""

import io

import numpy as np
from PIL import Image

from mpt_jax.data import photos


def test_photographs_are_jpegs_that_depend_only_on_their_random_numbers():
    found = {}
    for pattern in photos.CLASSES:
        first, again = (photos.photograph(pattern, 60, 90, np.random.default_rng(5)) for _ in range(2))
        image = Image.open(io.BytesIO(first))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (90, 60)) and first == again
        found[pattern] = np.asarray(image)
    assert len({pixels.tobytes() for pixels in found.values()}) == len(photos.CLASSES)
    across, down = (found["vertical"].astype(int).mean((axis, 2)).std() for axis in (0, 1))
    assert across > 4 * down  # vertical stripes
