"""A long tail: CIFAR-100 with 500 images of the first class and 5 of the last, exponential in between.

The data of the Balanced Softmax papers (Ren et al., 2020: imbalance 200, 100, 10), as an update from 50 to 100 classes.
The release `balanced_softmax` is their model, `no_treatment` their baseline.

    python -m mpt_jax.train --config configs/long_tail.py --config.dataset.data_dir=DIR

`configs/long_tail.py:cpu` is for two CPU cores: ResNet-18 with the ImageNet stem, 20 epochs instead of 200, and no
`balanced_meta_softmax`. `configs/long_tail.py:digits` is the same update on the digits, with imbalance 8.
"""

from mpt_jax.config.shipped import common


def get_config(variant=""):
    """Return CIFAR-100-LT with imbalance 100 (`cpu`: ImageNet stem, 20 epochs, one method less), or `digits` with 8."""
    common.require_variant(variant, "cpu", "digits")
    if variant == "digits":
        config = common.digits(epochs=30, batch_size=24)
        config.dataset.imbalance = 8.0
    else:
        config = common.cifar100(epochs=200, stem="cifar")
        config.dataset.imbalance = 100.0
    config["update"].methods = (
        *("no_treatment", "balanced_softmax", "balanced_softmax_kd", "balanced_meta_softmax", "mpt_kl"),
    )
    config["update"].bias = "1"
    if variant == "cpu":
        config.model.stem = "imagenet"
        config.optimizer.epochs = 20
        config.optimizer.schedule_unit = "step"
        config["update"].methods = ("no_treatment", "balanced_softmax", "balanced_softmax_kd", "mpt_kl")
        config.training.steps_per_dispatch = 20
        config.training.checkpoint_every = 200
    return config
