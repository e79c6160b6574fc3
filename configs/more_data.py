"""More data for the same classes: the old model trains on half of each digit's images, the new one on all.

No class is added, so b has no classes to act on, and `mpt_kl` is focal distillation from both models. The
positive-congruent methods are made for this case.

    python -m mpt_jax.train --config configs/more_data.py

The variant `configs/more_data.py:network` also changes the network, from the small convolutional one to a tiny vision
transformer.
"""

from mpt_jax.config.shipped import common


def get_config(variant=""):
    """Return ten classes on half of the images, then on all; `network`: also with another network."""
    common.require_variant(variant, "network")
    config = common.digits(epochs=20, batch_size=24)
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
