"""Old data is not kept: digits 0-4, then 0-9 with only a few images of each old class, chosen by herding.

Plain cross-entropy then favours the new classes, which it sees more often; Balanced Softmax corrects for the counts,
and `balanced_meta_softmax` draws its batches accordingly. `mpt_kl` under the same memory shows what MPT means there.

    python -m mpt_jax.train --config configs/memory.py --config.update.memory=per_class:5

The sweep over 1, 2, 5, 10 and 20 images a class is in REPRODUCIBILITY.md. `--config.update.memory=total:25` shares a
number of images among the classes; `none` keeps none (Balanced Softmax then has no counts to go by, and is refused).
"""

from mpt_jax.config import default_config


def get_config():
    """Five classes, then ten with a memory of 5 images of each old one."""
    config = default_config()
    config.seeds = tuple(range(8))
    config.dataset.name = "digits"
    config.dataset.validation_per_class = 10
    config.model.name = "convnet"
    config.optimizer.learning_rate = 0.05
    config.optimizer.epochs = 20
    config.optimizer.batch_size = 24
    config["update"].schedule = (5, 10)
    config["update"].methods = (
        *("no_treatment", "balanced_softmax", "balanced_softmax_kd", "balanced_meta_softmax", "mpt_kl"),
        "posthoc_bias",
    )
    config["update"].bias = "1"
    config["update"].start = "old"
    config["update"].memory = "per_class:5"
    config["update"].memory_by = "herding"
    return config
