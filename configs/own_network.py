"""A network of your own: an NNX module in this file, on the digits, 0-4 -> 0-9.

    python -m mpt_jax.train --config configs/own_network.py

`model.name` is a file and a function, here this file and `build`. `docs/own_network.md` states what such a network must
be. The run took 3 minutes on 2 cores of an Intel Xeon that also did other work (2.3 minutes of CPU time; jax 0.10.2).
Mean and standard deviation over four seeds, in %:

    method         accuracy     old classes   new classes   negative flips   b
    independent    91.4 ± 0.9    92.2 ± 0.8    90.6 ± 1.6      4.6 ± 0.9     0
    no_treatment   91.4 ± 0.9    91.8 ± 0.5    91.1 ± 1.4      5.2 ± 0.3     0
    pct_kl         91.0 ± 0.6    91.6 ± 1.0    90.5 ± 0.5      5.0 ± 1.0     0
    mpt_kl         92.0 ± 0.8    95.2 ± 1.0    88.8 ± 0.9      2.1 ± 0.5     8 (chosen on held-out images)
"""

import os

from flax import nnx

from mpt_jax.config.shipped import common


class Net(nnx.Module):
    """Two convolutions with batch normalisation, dropout, and a linear head."""

    def __init__(self, num_classes, dtype, rngs):
        """Make the layers; `rngs` has the keys of the initial weights and of dropout."""
        self.conv1 = nnx.Conv(1, 16, (3, 3), dtype=dtype, rngs=rngs)
        self.norm1 = nnx.BatchNorm(16, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), strides=2, dtype=dtype, rngs=rngs)
        self.norm2 = nnx.BatchNorm(32, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(4 * 4 * 32, num_classes, rngs=rngs)

    def __call__(self, images):
        """Map normalised images ``[batch, 8, 8, 1]`` to logits ``[batch, num_classes]``."""
        x = nnx.relu(self.norm1(self.conv1(images)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        return self.head(self.dropout(x.reshape(x.shape[0], -1)))


def build(num_classes, dtype, rngs):
    """Return the network for so many classes."""
    return Net(num_classes, dtype, rngs)


def get_config():
    """Return five classes, then ten, with the network of this file."""
    config = common.digits(epochs=30, batch_size=48, num_seeds=4, validation_per_class=20)
    config.model.name = f"{os.path.relpath(__file__)}:build"
    config["update"].methods = ("no_treatment", "pct_kl", "mpt_kl")
    config["update"].tune = {"bias": (0.0, 1.0, 4.0, 8.0)}
    return config
