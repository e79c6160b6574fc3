"""Limited memory: digits 0-4, then 0-9 with only a few images of each old class, selected by herding.

Plain cross-entropy then favours the new classes, which have more images. Balanced Softmax corrects for the counts, and
`balanced_meta_softmax` also learns how often to draw each class. `mpt_kl` shows what MPT does with the same memory.

    python -m mpt_jax.train --config configs/memory.py --config.update.memory=per_class:5

The sweep over 1, 2, 5, 10 and 20 images per class is in docs/results/memory-cpu.md. `--config.update.memory=total:25`
divides 25 images among the classes. `none` keeps no images; Balanced Softmax then has no counts and is rejected.
"""

from mpt_jax.config.shipped import common


def get_config():
    """Return five classes, then ten with a memory of 5 images of each old class."""
    config = common.digits(epochs=20, batch_size=24)
    config["update"].methods = (
        *("no_treatment", "balanced_softmax", "balanced_softmax_kd", "balanced_meta_softmax", "mpt_kl"),
        "posthoc_bias",
    )
    config["update"].bias = "1"
    config["update"].start = "old"
    config["update"].memory = "per_class:5"
    config["update"].memory_by = "herding"
    return config
