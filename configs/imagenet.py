"""Class growth on ImageNet: 500 -> 1000 classes, ResNet-18, images decoded and cropped when they are needed.

Reproduces: the ImageNet setting of Yan et al., "Positive-Congruent Training" (CVPR 2021, arXiv 2011.09161) and of Ricci
et al., "Margin preserving training" (AAAI 2026, arXiv 2511.08322). The recipe is that of PCT's public code:

- SGD with momentum 0.9 and weight decay 1e-4 for 90 epochs.
- Learning rate 0.1 for a batch of 256 images, times 0.1 after every 30 epochs. PCT's batch is 160 images per GPU; here
  it is 256 in total.
- Random resized crops of 224 pixels with flips. Evaluation on the centre crop of images scaled to 256.
- The validation split of ImageNet as test.

The methods' own numbers (alpha 1, beta 5, temperature 5, b 4) are MPT's; b was chosen on CIFAR-100.
No result has been measured yet.

    python -m mpt_jax.train --config configs/imagenet.py --config.dataset.data_dir=DIR

DIR is a TFDS folder with `imagenet2012/5.1.0` as ArrayRecord files. TFDS prepares it, with TensorFlow
(`pip install -e '.[prepare]'`), from the archives of image-net.org. `configs/imagenet.py:resnet50` trains ResNet-50;
`configs/imagenet.py:smoke` runs the same code in a few minutes on 240 synthetic photographs (192 to train on, 48 to
test on).
"""

from mpt_jax.config import default_config
from mpt_jax.config.shipped import common


def get_config(variant=""):
    """Return the published setting with ResNet-18 or `resnet50`, or a small run on synthetic images (`smoke`)."""
    common.require_variant(variant, "resnet50", "smoke")
    config = default_config()
    config.dataset.name = "imagenet2012"
    config.dataset.test_split = "validation"
    config.dataset.source = "stream"
    config.dataset.augmentation = "imagenet"
    config.dataset.image_size = (224, 224)
    config.dataset.mean = (0.485, 0.456, 0.406)
    config.dataset.std = (0.229, 0.224, 0.225)

    config.model.name = "resnet18"
    config.model.stem = "imagenet"

    config.optimizer.learning_rate = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.optimizer.epochs = 90
    config.optimizer.batch_size = 256
    config.optimizer.schedule = "thirds"

    config["update"].schedule = (500, 1000)
    config["update"].methods = common.PUBLISHED_METHODS
    config.training.evaluation_batch = 500

    if variant == "resnet50":
        config.model.name = "resnet50"
    elif variant == "smoke":
        config.dataset.name = "photos"
        config.dataset.image_size = (48, 48)
        config.optimizer.epochs = 2
        config.optimizer.batch_size = 32
        config["update"].schedule = (4, 8)
        config["update"].methods = ("no_treatment", "mpt_kl")
        config.training.evaluation_batch = 48
    return config
