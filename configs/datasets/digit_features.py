"""The digits' 64 pixels as frozen features, split by writer as in `mpt_jax.data.digits`; for `features.py:digits`."""

import numpy as np
from sklearn.datasets import load_digits

FIRST_TEST = 516  # four writers before it, nine others from it on


def get_dataset(data_dir):
    """Return features float32 ``[N, 64]`` from 0 to 1, digits as labels, positions in scikit-learn's array as ids."""
    digits = load_digits()
    arrays = {
        "features": (digits.data / 16).astype(np.float32),
        "labels": digits.target,
        "ids": np.arange(len(digits.target)),
    }
    parts = {"train": slice(0, FIRST_TEST), "test": slice(FIRST_TEST, None)}
    return {f"{part}_{name}": values[rows] for part, rows in parts.items() for name, values in arrays.items()}
