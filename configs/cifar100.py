"""The published protocol of MPT on CIFAR-100: 50 -> 100 classes, ResNet-18 with the ImageNet stem.

Reproduces: Ricci, Biondi, Pernici, Del Bimbo, "Margin preserving training" (AAAI 2026, arXiv 2511.08322), class growth
on CIFAR-100, with the constants of the published script. These include its normalization (CIFAR-10's) and its learning
rate per epoch; `--config.dataset.mean="()" --config.dataset.std="()"` uses the normalization of the data set instead.
The protocol trains on all 50,000 training images, so there are no validation images and b is the published one.

    python -m mpt_jax.train --config configs/cifar100.py --config.dataset.data_dir=DIR

DIR is a TFDS data folder with `cifar100/3.0.2`. After `pip install -e '.[prepare]'`, TFDS can also download and prepare
it. `--config.update.methods=mpt_kl,pct_kl` selects methods. Three variants are cheaper:

- `configs/cifar100.py:cpu`: a night on two CPU cores. The same classes and all 50,000 images, of which 20 per class are
  validation images, 8 epochs, and the main methods at several b.
- `configs/cifar100.py:small`: 71 minutes on two CPU cores that also did other work. All methods that train from
  scratch, 10 -> 20 classes, 200 training images per class, 8 epochs. Its table is in docs/results/earlier.md.
- `configs/cifar100.py:smoke`: a test of the code on ten classes and a few batches.
"""

from mpt_jax.config.shipped import common


def get_config(variant=""):
    """Return the published protocol, or a variant for a CPU: a night (`cpu`), an hour (`small`), minutes (`smoke`)."""
    common.require_variant(variant, "cpu", "small", "smoke")
    config = common.cifar100(epochs=100, stem="imagenet")
    config.dataset.class_order = "natural"
    config.dataset.mean = (0.4914, 0.4822, 0.4465)
    config.dataset.std = (0.2023, 0.1994, 0.2010)
    config.optimizer.schedule_unit = "epoch"
    config["update"].methods = common.PUBLISHED_METHODS
    config.training.steps_per_dispatch = 20
    config.training.checkpoint_every = 1000

    if variant == "smoke":
        config.dataset.train_per_class = 64
        config.optimizer.epochs = 2
        config.optimizer.batch_size = 64
        config["update"].schedule = (5, 10)
        config["update"].methods = ("no_treatment", "pct_kl", "mpt_kl")
        config.training.steps_per_dispatch = 5
    elif variant == "small":
        config.dataset.train_per_class = 200
        config.dataset.validation_per_class = 50
        config.optimizer.epochs = 8
        config.optimizer.schedule_unit = "step"
        config["update"].schedule = (10, 20)
        config["update"].methods = common.FROM_SCRATCH
        config["update"].bias = "1"  # the published 4 is for a hundred epochs
        config["update"].ensemble_size = 4
    elif variant == "cpu":
        config.dataset.validation_per_class = 20
        config.optimizer.epochs = 8
        config.optimizer.schedule_unit = "step"
        config["update"].methods = (
            *("no_treatment", "pct_kl", *(f"mpt_no_distillation@bias={b}" for b in (1, 2, 4))),
            *(f"{method}@bias={b}" for method in ("mpt_lm", "mpt_kl") for b in (0, 1, 2, 4)),
            "posthoc_bias",
        )
        config.training.checkpoint_every = 200
    return config
