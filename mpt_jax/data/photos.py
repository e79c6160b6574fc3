"""Synthetic photographs as a TFDS builder that needs neither a network connection nor TensorFlow.

They are JPEG files of many sizes with the splits of ImageNet, generated in a second, to try streaming. Accuracies on
them are meaningless.
"""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

CLASSES = ("horizontal", "vertical", "rising", "falling", "rings", "checks", "plain", "dots")
TRAIN_PER_CLASS, TEST_PER_CLASS = 24, 6


class Photos(tfds.core.GeneratorBasedBuilder):
    """240 colour JPEGs with sides of 72 to 200 pixels, in 8 classes of patterns, with splits train and validation."""

    VERSION = tfds.core.Version("1.0.0")  # of the prepared copy: raise it with every change of the data

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Synthetic colour patterns of many sizes.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=list(CLASSES)),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(0, TRAIN_PER_CLASS),
            "validation": self._generate_examples(TRAIN_PER_CLASS, TRAIN_PER_CLASS + TEST_PER_CLASS),
        }

    def _generate_examples(self, first, end):
        for label, pattern in enumerate(CLASSES):
            for number in range(first, end):
                random = np.random.default_rng((label, number))
                height, width = random.integers(72, 201, 2).tolist()
                jpeg = io.BytesIO(photograph(pattern, height, width, random))
                name = f"{pattern}_{number:02d}"
                yield name, {"id": name, "image": jpeg, "label": label}


def photograph(pattern: str, height: int, width: int, random: np.random.Generator, *, quality: int = 90) -> bytes:
    """Return a JPEG of one of the patterns in `CLASSES` with random colours, a gradient of brightness, and noise."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    period, phase = random.uniform(12, 30), random.uniform(0, 2 * np.pi)
    waves = [np.sin(2 * np.pi * along / period + phase) for along in (y, x)]
    value = {
        "horizontal": lambda: waves[0],
        "vertical": lambda: waves[1],
        "rising": lambda: np.sin(2 * np.pi * (x + y) / period + phase),
        "falling": lambda: np.sin(2 * np.pi * (x - y) / period + phase),
        "rings": lambda: np.sin(2 * np.pi * np.hypot(y - height / 2, x - width / 2) / period + phase),
        "checks": lambda: np.sign(waves[0] * waves[1]),
        "plain": lambda: np.zeros_like(x),
        "dots": lambda: (waves[0] * waves[1] > 0.6) * 2.0 - 1.0,
    }[pattern]()
    dark, bright = random.uniform(20, 120, 3), random.uniform(130, 235, 3)
    light = 1 + random.uniform(-0.3, 0.3) * (x / width - 0.5) + random.uniform(-0.3, 0.3) * (y / height - 0.5)
    pixels = (dark + (value[..., None] + 1) / 2 * (bright - dark)) * light[..., None]
    pixels += random.normal(0, 8, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, format="JPEG", quality=quality)
    return file.getvalue()
