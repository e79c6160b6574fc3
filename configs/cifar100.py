"""The published protocol of MPT on CIFAR-100: 50 -> 100 classes, ResNet-18 with the ImageNet stem.

Reproduces: Ricci, Biondi, Pernici, Del Bimbo, "Margin preserving training" (AAAI 2026, arXiv 2511.08322), class growth
on CIFAR-100, with the constants of the published script, its normalisation (CIFAR-10's) and its rate per epoch among
them; `--config.dataset.mean="()" --config.dataset.std="()"` takes the data set's own normalisation instead. All 50,000
training images are trained on, so nothing is held out and b is the published one.

    python -m mpt_jax.train --config configs/cifar100.py --config.dataset.data_dir=DIR

DIR is a TFDS data folder that holds `cifar100/3.0.2`; without one, `pip install -e '.[prepare]'` lets TFDS download and
prepare it. `--config.update.methods=mpt_kl,pct_kl` picks rows. Three variants cost less. `configs/cifar100.py:cpu` has
the same classes and all 50,000 images, 20 of each class held out for choices, for 8 epochs, and the main rows at
several b: a night of two CPU cores. `configs/cifar100.py:small` is
what two CPU cores can pay (71 minutes beside other work): all rows that train from scratch, on 10 -> 20 classes, 200
training images of each, 8 epochs (its table is in REPRODUCIBILITY.md);
`configs/cifar100.py:smoke` runs the code on ten classes and a few batches.
"""

from mpt_jax.config import default_config
from mpt_jax.methods import DERIVED
from mpt_jax.objectives import METHODS


def get_config(variant=""):
    """The published protocol, or a CPU's part of it: a night (`cpu`), an hour (`small`), a few minutes (`smoke`)."""
    config = default_config()
    config.dataset.name = "cifar100"
    config.dataset.class_order = "natural"
    config.dataset.mean = (0.4914, 0.4822, 0.4465)
    config.dataset.std = (0.2023, 0.1994, 0.2010)
    config.dataset.crop_padding = 4
    config.dataset.flip = True

    config.model.name = "resnet18"
    config.model.stem = "imagenet"

    config.optimizer.learning_rate = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 5e-4
    config.optimizer.epochs = 100
    config.optimizer.batch_size = 128
    config.optimizer.schedule = "cosine"
    config.optimizer.schedule_unit = "epoch"

    config["update"].schedule = (50, 100)
    config["update"].methods = (
        *("no_treatment", "pct_naive", "pct_kl", "pct_lm", "mpt_no_distillation"),
        *("mpt_kl_no_bias", "mpt_lm_no_bias", "mpt_kl", "mpt_lm"),
    )

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
        config["update"].methods = (*METHODS, *(m for m, row in DERIVED.items() if not row.fine_tuned))
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
    elif variant:
        raise ValueError(f"unknown variant {variant!r}; valid: cpu, small, smoke, or none")
    return config
