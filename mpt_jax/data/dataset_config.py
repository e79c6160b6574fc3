"""The section `dataset` of a config: its keys, types and defaults."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

SOURCES = ("auto", "memory", "stream")
AUGMENTATIONS = ("crop_flip", "imagenet")
POLICIES = ("error", "skip")
LINKS = ("error", "skip", "follow")
INTERPOLATIONS = ("bicubic", "bilinear")

IMAGENET_MARGIN = (256, 224)  # in the evaluation of ImageNet: side of the scaled image, side of the crop


class Resizing(NamedTuple):
    """How an image file is brought to a requested size: it is scaled, and cropped at the centre.

    Attributes:
      resize: the image is scaled until it covers ``resize / min(size)`` times the requested size. For a square size,
        this makes its shorter side so many pixels long, as torchvision's ``Resize``. 0: until it covers the size.
      interpolation: PIL's filter, one of `INTERPOLATIONS`, antialiased.
    """

    resize: int = 0
    interpolation: str = "bicubic"

    def scaled(self, width: int, height: int, size: Sequence[int]) -> tuple[int, int]:
        """Return width and height of the scaled image, before the crop to ``size``, ``(height, width)``.

        Examples:
          >>> Resizing(256).scaled(640, 480, (224, 224)), Resizing().scaled(640, 480, (224, 224))
          ((341, 256), (298, 224))
        """
        tall, wide = (side * (self.resize or min(size)) // min(size) for side in size)
        if wide * height >= tall * width:
            return wide, height * wide // width
        return width * tall // height, tall


COVER = Resizing()
"""The default: an image just covers its size."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training images change at random; the keys of the section `dataset`, in the order in which they are applied.

    Attributes:
      random_resized_crop: smallest and largest share of the image in a crop that is brought back to the image's size.
      crop_padding: pixels of black padding of a random crop.
      flip: mirror horizontally with probability 1/2.
      rand_augment: number of operations and their magnitude, 0 to 30.
      color_jitter: strength of brightness, contrast, saturation and hue.
      random_erasing: probability that a box becomes noise.
    """

    random_resized_crop: tuple[float, ...] = ()
    crop_padding: int = 0
    flip: bool = False
    rand_augment: tuple[float, ...] = ()
    color_jitter: tuple[float, ...] = ()
    random_erasing: float = 0.0


RANDOM = tuple(field.name for field in dataclasses.fields(Augmentation))
"""The keys that change training images at random."""


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """Which images to read, which classes to use in which order, and how to split and prepare the images.

    `mpt_jax.config.check` checks the ranges of the values.

    Examples:
      >>> DatasetConfig("folder", data_dir="pets", image_size=(224,)).size
      (224, 224)
    """

    name: str = "digits"  # a TFDS data set, "folder", or a .csv, .parquet, .npz or .py file
    data_dir: str = ""  # TFDS data folder, folder of images, or base of a relative file name; empty: default
    class_order: str | tuple = "natural"  # "natural", "seed:N" (numpy RandomState) or a list; a final "...": the rest
    image_size: tuple[int, ...] = ()  # resize image files to height and width, or to one side length; empty: as stored
    resize: int = 0  # shorter side of an image before the centre crop to `image_size`; 0: it just covers `image_size`
    interpolation: str = ""  # PIL's "bicubic" or "bilinear" filter; empty: bicubic, of augmentation="imagenet" bilinear
    channels: int = 0  # of image files: 1 (grey) or 3 (RGB); 0: as stored in TFDS, 3 for your own files
    test_fraction: float = 0.2  # share of your own images to hold out for testing if they have no test part
    on_bad_image: str = "error"  # unreadable images, images in both train and test, ...: "error", or "skip" and count
    follow_links: str = "error"  # links to folders or out of your folder: "error", "skip" and count, or "follow"
    validation_per_class: int = 0  # validation images taken from each class of train, if there is no validation part
    train_per_class: int = 0  # maximum number of training images per class; 0: all
    imbalance: float = 1.0  # long tail: number of images of the first class over the last, exponential in between
    mean: tuple[float, ...] = ()  # per channel, in units of pixel/255; empty: from the first release's training images
    std: tuple[float, ...] = ()
    source: str = "auto"  # decode images once into "memory", or when needed as a "stream"; "auto": by their size
    augmentation: str = "crop_flip"  # crop_padding and flip, or "imagenet": random resized crops and flips, streamed
    workers: int = 0  # processes that decode a stream; 0: threads, one per core, at most 16
    test_split: str = "test"  # of a TFDS data set
    label_changes: str = ""  # file of corrected labels, with the columns id, old_label and new_label
    labels: str = "label"  # feature of a TFDS data set with the classes, such as "coarse_label" of cifar100
    crop_padding: int = 0  # random crop after padding with this many black pixels
    flip: bool = False  # random horizontal flip
    random_resized_crop: tuple[float, ...] = ()  # smallest and largest share of the image in a random crop
    rand_augment: tuple[float, ...] = ()  # RandAugment: number of operations, magnitude from 0 to 30
    color_jitter: tuple[float, ...] = ()  # strength of random brightness, contrast, saturation and hue
    random_erasing: float = 0.0  # probability that a random box becomes noise

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width to which images are resized; None if they keep their size."""
        return (self.image_size[0], self.image_size[-1]) if self.image_size else None

    @property
    def resizing(self) -> Resizing:
        """How images are brought to `size`, except for the random crops of augmentation="imagenet"."""
        imagenet = self.augmentation == "imagenet"
        scaled, cropped = IMAGENET_MARGIN
        default = min(self.size) * scaled // cropped if imagenet and self.size else 0
        return Resizing(self.resize or default, self.interpolation or ("bilinear" if imagenet else "bicubic"))

    @property
    def is_listed(self) -> bool:
        """Whether image files are listed by a folder or a table, which may have a validation part."""
        return self.name == "folder" or pathlib.PurePath(self.name).suffix in (".csv", ".parquet")

    @property
    def random_changes(self) -> Augmentation:
        """How training images change at random."""
        return Augmentation(**{key: getattr(self, key) for key in RANDOM})
