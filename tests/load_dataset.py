"""Load a data set from the keys of its config section."""

import pytest

from mpt_jax import data
from mpt_jax.errors import InputError


def load(name="digits", *, num_classes=10, seed=0, **settings):
    settings["data_dir"] = str(settings.get("data_dir", ""))
    return data.load(data.DatasetConfig(str(name), **settings), num_classes=num_classes, seed=seed)


def load_error(*args, **settings):
    """Return the message of the error, which is one line."""
    with pytest.raises(InputError) as caught:
        load(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load_photos(folder, **options):
    """Load the streamed photographs."""
    settings = {"image_size": (40, 48), "augmentation": "imagenet", "source": "stream", "test_split": "validation"}
    return load("photos", data_dir=folder, **{"num_classes": 8, **settings, **options})
