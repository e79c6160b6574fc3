"""More data for the same classes: the old model learns from half of each digit's images, the new one from all.

No class is added, so there is no margin to keep (b has no classes to act on, and `mpt_kl` is focal distillation from
both models); the positive-congruent methods are at home here.

    python -m mpt_jax.train --config configs/more_data.py

The variant `configs/more_data.py:network` also changes the network, from the small convolutional one to a tiny vision
transformer.
"""

from mpt_jax.config import default_config


def get_config(variant=""):
    """Ten classes before and after; half of the images, then all (and another network)."""
    if variant not in ("", "network"):
        raise ValueError(f"unknown variant {variant!r}; valid: network, or none")
    config = default_config()
    config.seeds = tuple(range(8))
    config.dataset.name = "digits"
    config.dataset.validation_per_class = 10
    config.model.name = "convnet"
    config.optimizer.learning_rate = 0.05
    config.optimizer.epochs = 20
    config.optimizer.batch_size = 24
    config["update"].schedule = (10, 10)
    config["update"].old_fraction = 0.5
    config["update"].methods = (
        *("no_treatment", "pct_naive", "pct_kl", "pct_lm", "mpt_kl_no_bias", "kd", "ldi", "elodi", "ensemble"),
    )
    if variant == "network":
        config.old_model.name = "convnet"
        config.model.name = "vit_tiny"
        config.optimizer.epochs = 40
    return config
