"""A long tail: CIFAR-100 with 500 images of the first class and 5 of the last, exponential between them.

The data of the Balanced Softmax papers (Ren et al., 2020: imbalance 200, 100, 10), as an update from 50 to 100 classes;
the release `balanced_softmax` is their model, `no_treatment` their baseline.

    python -m mpt_jax.train --config configs/long_tail.py --config.dataset.data_dir=DIR

`configs/long_tail.py:cpu` is what two CPU cores can pay of it: ResNet-18 with the ImageNet stem, 20 epochs in place of
200, and no `balanced_meta_softmax`.
`configs/long_tail.py:digits` is the same on the digits, with imbalance 8.
"""

from mpt_jax.config import default_config


def get_config(variant=""):
    """CIFAR-100-LT with imbalance 100 (`cpu`: the ImageNet stem, 20 epochs, a row less), or the digits with 8."""
    if variant not in ("", "cpu", "digits"):
        raise ValueError(f"unknown variant {variant!r}; valid: cpu, digits, or none")
    config = default_config()
    config["update"].methods = (
        *("no_treatment", "balanced_softmax", "balanced_softmax_kd", "balanced_meta_softmax", "mpt_kl"),
    )
    config["update"].bias = "1"
    if variant == "digits":
        config.seeds = tuple(range(8))
        config.dataset.name = "digits"
        config.dataset.validation_per_class = 10
        config.dataset.imbalance = 8.0
        config.model.name = "convnet"
        config.optimizer.learning_rate = 0.05
        config.optimizer.epochs = 30
        config.optimizer.batch_size = 24
        config["update"].schedule = (5, 10)
        return config
    config.dataset.name = "cifar100"
    config.dataset.imbalance = 100.0
    config.dataset.crop_padding = 4
    config.dataset.flip = True
    config.model.name = "resnet18"
    config.model.stem = "cifar"
    config.optimizer.learning_rate = 0.1
    config.optimizer.epochs = 200
    config.optimizer.batch_size = 128
    config["update"].schedule = (50, 100)
    if variant == "cpu":
        config.model.stem = "imagenet"
        config.optimizer.epochs = 20
        config.optimizer.schedule_unit = "step"
        config["update"].methods = ("no_treatment", "balanced_softmax", "balanced_softmax_kd", "mpt_kl")
        config.training.steps_per_dispatch = 20
        config.training.checkpoint_every = 200
    return config
