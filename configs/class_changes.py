"""Classes that are split or merged: the 20 superclasses and 100 classes of CIFAR-100, on frozen features.

The images have both labels, so either can be the older one. The network is that of `configs/pretrained.py`: the
features of EfficientNet-Lite0 are computed once, and every model is a head on them. Each update takes two commands. The
first trains the old model on half of the images, the second updates it to the other classes, trained on all images:

    python -m mpt_jax.train --config configs/class_changes.py:coarse --config.dataset.data_dir=DIR
    python -m mpt_jax.train --config configs/class_changes.py --config.dataset.data_dir=DIR

splits each of 20 superclasses into its five classes. The reverse merges 100 classes into 20:

    python -m mpt_jax.train --config configs/class_changes.py:fine --config.dataset.data_dir=DIR
    python -m mpt_jax.train --config configs/class_changes.py:merge --config.dataset.data_dir=DIR

DIR is a TFDS data folder with `cifar100/3.0.2`. No class is new, so MPT's bias b has no effect, and the rows are those
without it. `--config.training.features_dir=FOLDER` shares the features between the runs. What five seeds gave is in
docs/class_changes.md.

`configs/class_changes.py:coarse_smoke` and `configs/class_changes.py:smoke` test the code on a few small images.
"""

from mpt_jax.config.shipped import common

SUPERCLASSES = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""The classes of each superclass of CIFAR-100. Source: Krizhevsky, Learning Multiple Layers of Features, 2009."""


def get_config(variant=""):
    """Return the split of the superclasses, or the merge; `coarse` and `fine` train their old models."""
    common.require_variant(variant, "coarse", "fine", "merge", "coarse_smoke", "smoke")
    name, smoke = variant.removesuffix("smoke").rstrip("_"), variant.endswith("smoke")
    config = common.frozen_features()
    config.seeds = (0, 1, 2, 3, 4)
    config["update"].methods = ("no_treatment", "pct_kl", "pct_lm", "mpt_kl_no_bias", "mpt_lm_no_bias")
    config.dataset.labels = "coarse_label" if name == "coarse" else "label"
    if name in ("coarse", "fine"):
        count = 20 if name == "coarse" else 100
        config["update"].schedule = (count, count)
        config["update"].old_fraction = 0.5
        config["update"].methods = ("no_treatment",)
    else:
        before, sizes = ("fine", (100, 20)) if name == "merge" else ("coarse", (20, 100))
        before += "_smoke" if smoke else ""
        config["update"].old = f"runs/class_changes-{before}/releases/r0-old-seed{{seed}}"
        config["update"].schedule = sizes
        config["update"].class_map = {"merge" if name == "merge" else "split": SUPERCLASSES}
    if smoke:
        config.seeds = (0,)
        config.dataset.image_size = (64,)
        config.dataset.train_per_class = 40 if name == "coarse" else 8
        config.optimizer.epochs = 2
        config.optimizer.batch_size = 32
    return config
