"""The random crops of ImageNet training, as boxes in pixels of the original image."""

import math

import numpy as np

Box = tuple[float, float, float, float]  # left, top, right, bottom

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random crop: share of the image, and width over height
_TRIALS = 10


def random_box(width: int, height: int, random: np.random.Generator) -> Box:
    """Draw a box whose share of the image's area is uniform on `AREA` and whose aspect is log-uniform on `RATIO`.

    Its position is uniform. A box that does not fit is drawn again, up to ten times; then the result is the largest
    centred box whose aspect is within `RATIO`.

    Source: Szegedy et al., Going Deeper with Convolutions, 2015; the numbers are those of torchvision's
    ``RandomResizedCrop``.

    Examples:
      >>> left, top, right, bottom = random_box(500, 375, np.random.default_rng(0))
      >>> 0 <= left < right <= 500 and 0 <= top < bottom <= 375
      True
    """
    for _ in range(_TRIALS):
        area = width * height * random.uniform(*AREA)
        aspect = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
