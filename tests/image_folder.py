"""Folders of small images that differ in colour, and checks of the data sets read from them."""

import load_dataset
import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "owl")


def save(path, number, size=(8, 8)):
    """Save an image of a colour that encodes its number, which lossless formats keep."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    Image.new("RGB", size[::-1], (number % 256, number // 256, 7)).save(path, **lossless)


def number(pixels):
    return int(pixels[0, 0, 0]) + 256 * int(pixels[0, 0, 1])


def pets(root, counts=(4, 3, 5), test=2, classes=CLASSES):
    """Make a folder of images, and return the class of every image by its number."""
    of = {}
    for name, count in zip(classes, counts, strict=True):
        for part, images in (("train", count), ("test", test)):
            for i in range(images):
                kind = ".webp" if i % 3 == 2 else ".png"
                save(root / part / name / f"{i}{kind}", len(of))
                of[len(of)] = name
    return of


def load(root, name="folder", num_classes=3, **options):
    return load_dataset.load(name, data_dir=root, num_classes=num_classes, **options)


def load_error(root, name="folder", num_classes=3, **options):
    return load_dataset.load_error(name, data_dir=root, num_classes=num_classes, **options)


def outcomes(dataset):
    return {finding.what: (finding.names, finding.outcome) for finding in dataset.findings}


def check(dataset, of):
    """Check that every image has the label of its class and occurs once; return the numbers of the images."""
    parts = (dataset.train, dataset.validation, dataset.test)
    numbers = [number(image) for part in parts for image in part.images]
    assert len(set(numbers)) == len(numbers) == len({i for part in parts for i in part.ids})
    assert [dataset.class_names[label] for part in parts for label in part.labels] == [of[n] for n in numbers]
    for part in parts:
        keys = list(zip(part.labels.tolist(), part.ids.tolist(), strict=True))
        assert keys == sorted(keys) and part.labels.dtype == np.int32 and part.images.dtype == np.uint8
    return set(numbers)
