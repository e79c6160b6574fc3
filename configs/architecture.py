"""A new network with the update: a small convolutional network for digits 0-4, then a tiny vision transformer for 0-9.

Students learn from the old model's predictions, so the old network can be any that takes the same images.

    python -m mpt_jax.train --config configs/architecture.py

The same on CIFAR-100:

    python -m mpt_jax.train --config configs/cifar100.py --config.old_model.name=resnet18 --config.model.name=resnet50
"""

from mpt_jax.config.shipped import common


def get_config():
    """Return five classes with a convolutional network, then ten with a vision transformer."""
    config = common.digits(epochs=40, batch_size=48, num_seeds=4)
    config.old_model.name = "convnet"
    config.model.name = "vit_tiny"
    config["update"].methods = ("no_treatment", "pct_kl", "mpt_kl", "posthoc_bias")
    config["update"].tune = {"bias": (0.5, 1.0, 2.0)}
    return config
