import pytest

from mpt_jax import config
from mpt_jax.data import RANDOM, DatasetConfig, Resizing


def test_the_section_dataset_of_a_config_has_these_keys():
    assert config.Config().dataset == DatasetConfig()
    assert set(config.default_config().dataset) == set(DatasetConfig.__dataclass_fields__)


def test_each_key_is_known_to_change_training_images_at_random_or_not_to():
    """Without one in `RANDOM`, a run with frozen features would compute them once from images without it."""
    keys = {
        *("name", "data_dir", "class_order", "image_size", "channels", "test_fraction", "on_bad_image", "mean", "std"),
        *("follow_links", "resize", "interpolation"),
        *("validation_per_class", "train_per_class", "imbalance", "source", "workers", "test_split", "augmentation"),
        *("labels", "label_changes"),
    }
    assert keys | {*RANDOM} == set(DatasetConfig.__dataclass_fields__)


@pytest.mark.parametrize(("image_size", "size"), [((), None), ((8,), (8, 8)), ((8, 6), (8, 6))])
def test_size(image_size, size):
    assert DatasetConfig(image_size=image_size).size == size


def test_images_just_cover_their_size_unless_imagenet_or_the_keys_set_it_otherwise():
    imagenet = {"augmentation": "imagenet", "image_size": (224,)}
    assert DatasetConfig(image_size=(224,)).resizing == Resizing() == DatasetConfig().resizing
    assert DatasetConfig(image_size=(224,), resize=256).resizing == (256, "bicubic")
    assert DatasetConfig(**imagenet).resizing == (256, "bilinear")
    assert DatasetConfig(**imagenet, resize=232, interpolation="bicubic").resizing == (232, "bicubic")
