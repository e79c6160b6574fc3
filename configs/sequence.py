"""A sequence of five updates: digits 0-4, then one more digit with every release.

The old model of each method is its own previous release, so flips accumulate. The report shows negative flips against
the previous release and against any previous release, average incremental accuracy and forgetting. Students start from
the previous release (`update.start=old`) and keep 10 images of each old class, as in incremental learning; with
`--config.update.memory=all` every update uses all images.

    python -m mpt_jax.train --config configs/sequence.py

Its table is in docs/results/earlier.md. `reproduce sequence` trains another sequence, on CIFAR-100.
"""

from mpt_jax.config.shipped import common


def get_config():
    """Return digits 0-4, then 5, 6, 7, 8 and 9."""
    config = common.digits(epochs=20, batch_size=24)
    config["update"].schedule = (5, 6, 7, 8, 9, 10)
    config["update"].methods = (
        *("no_treatment", "pct_kl", "mpt_kl", "balanced_softmax", "balanced_softmax_kd", "posthoc_bias"),
    )
    config["update"].bias = "1"
    config["update"].start = "old"
    config["update"].memory = "per_class:10"
    config["update"].memory_by = "herding"
    return config
