"""Another network with the update: digits 0-4 by a small convolutional network, then 0-9 by a tiny vision transformer.

The old model is only asked for its answers, so its network may be any that takes the same images. On CIFAR-100:

    python -m mpt_jax.train --config configs/cifar100.py --config.old_model.name=resnet18 --config.model.name=resnet50

and here, on the digits:

    python -m mpt_jax.train --config configs/architecture.py
"""

from mpt_jax.config import default_config


def get_config():
    """Five classes and a convolutional network, then ten and a vision transformer."""
    config = default_config()
    config.seeds = tuple(range(4))
    config.dataset.name = "digits"
    config.dataset.validation_per_class = 10
    config.old_model.name = "convnet"
    config.model.name = "vit_tiny"
    config.optimizer.learning_rate = 0.05
    config.optimizer.epochs = 40
    config.optimizer.batch_size = 48
    config["update"].schedule = (5, 10)
    config["update"].methods = ("no_treatment", "pct_kl", "mpt_kl", "posthoc_bias")
    config["update"].tune = {"bias": (0.5, 1.0, 2.0)}
    return config
