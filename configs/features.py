"""Frozen features: a linear head on embeddings of any network, trained on a CPU.

The file holds `train_features`, `train_labels`, `test_features`, `test_labels` and optionally `class_names` and ids
(see `mpt_jax/data/own/arrays.py`). With the digits' 64 pixels as features, for example:

    import numpy as np
    from sklearn.datasets import load_digits
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    np.savez("features.npz", train_features=x[:900], train_labels=y[:900], test_features=x[900:], test_labels=y[900:])

    python -m mpt_jax.train --config configs/features.py --config.dataset.name=features.npz

`configs/features.py:digits` needs no file: a program (`configs/datasets/digit_features.py`) returns the same pixels.
`--config.model.name=mlp` adds a hidden layer of 512 units; `--config.update.schedule=[50,100]` sets the classes.
"""

import os

from mpt_jax.config.shipped import common


def get_config(variant=""):
    """Return a linear head on `features.npz`, five classes and then ten; `digits`: on the digits' pixels."""
    common.require_variant(variant, "digits")
    config = common.digits(epochs=30, batch_size=48)
    program = common.FOLDER / "datasets" / "digit_features.py"
    config.dataset.name = os.path.relpath(program) if variant else "features.npz"
    config.model.name = "linear"
    config["update"].methods = ("no_treatment", "pct_kl", "mpt_kl", "mpt_lm", "balanced_softmax", "posthoc_bias")
    # In `reproduce features`, b = 4 halves the flips at higher accuracy, and b = 8 leaves a quarter at lower accuracy.
    config["update"].tune = {"bias": (0.0, 1.0, 2.0, 4.0, 8.0)}
    return config
