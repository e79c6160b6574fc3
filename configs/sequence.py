"""A sequence of five updates: digits 0-4, then one more digit with every release.

Each method's old model is its own release before, so flips add up along the way: the report shows negative flips
against the release before and against any release before, average incremental accuracy and forgetting. Students start
from the release before (`update.start=old`) and keep 10 images of each old class, as incremental learning does; with
`--config.update.memory=all` every update sees all images.

    python -m mpt_jax.train --config configs/sequence.py

Its table is in REPRODUCIBILITY.md, under "Earlier tables"; `reproduce sequence` makes another one, on CIFAR-100.
"""

from mpt_jax.config import default_config


def get_config():
    """0-4, then 5, 6, 7, 8, 9."""
    config = default_config()
    config.seeds = tuple(range(8))
    config.dataset.name = "digits"
    config.dataset.validation_per_class = 10
    config.model.name = "convnet"
    config.optimizer.learning_rate = 0.05
    config.optimizer.epochs = 20
    config.optimizer.batch_size = 24
    config["update"].schedule = (5, 6, 7, 8, 9, 10)
    config["update"].methods = (
        *("no_treatment", "pct_kl", "mpt_kl", "balanced_softmax", "balanced_softmax_kd", "posthoc_bias"),
    )
    config["update"].bias = "1"
    config["update"].start = "old"
    config["update"].memory = "per_class:10"
    config["update"].memory_by = "herding"
    return config
