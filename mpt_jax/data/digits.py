"""scikit-learn's handwritten digits as a TFDS builder that needs neither a network connection nor TensorFlow."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

# The images are ordered by writer, 13 in all (the sequence of labels restarts about every 130 images). The fifth writer
# begins at 516: train has 51 to 53 images of each digit, and test has 123 to 130, by other writers.
NUM_TRAIN = 516


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 grey images of 8 by 8 pixels in 10 classes: four writers for training, nine others for testing.

    Pixel values 0 .. 16 of the source are scaled to 0 .. 255. Ids ``digits_0000`` ... give the position in the source.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """

    VERSION = tfds.core.Version("1.0.0")  # of the prepared copy: raise it with every change of the data or the split

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 13 writers, 8x8 grey pixels, split by writer.",
            homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html#digits-dataset",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        from sklearn.datasets import load_digits  # takes a second, and reading a prepared copy does not need it

        digits = load_digits()
        images = ((digits.images * 255 + 8) // 16).astype(np.uint8)
        labels = digits.target.tolist()
        examples = [(f"digits_{i:04d}", images[i], labels[i]) for i in range(len(labels))]
        return {
            "train": self._generate_examples(examples[:NUM_TRAIN]),
            "test": self._generate_examples(examples[NUM_TRAIN:]),
        }

    def _generate_examples(self, examples):
        for name, image, label in examples:
            png = io.BytesIO()  # TFDS needs TensorFlow to encode an array, but not to store an encoded image
            Image.fromarray(image).save(png, format="PNG")
            png.seek(0)
            yield name, {"id": name, "image": png, "label": label}
