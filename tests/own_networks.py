"""Files of networks of one's own, in linen and in NNX, with BatchNorm and dropout, on the digits."""

LINEN = """
from flax import linen as nn


class Net(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.2, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(self.num_classes, name="head")(x)


class Headless(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(x.reshape(x.shape[0], -1))


def build(num_classes, dtype):
    return Net(num_classes)


def headless(num_classes, dtype):
    return Headless(num_classes)


def wrong_shape(num_classes, dtype):
    return Net(num_classes + 1)
"""
NNX = """
from flax import nnx


class Net(nnx.Module):
    def __init__(self, num_classes, dtype, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), strides=2, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(64, num_classes, rngs=rngs)

    def __call__(self, x):
        x = self.norm(nnx.relu(self.conv(x)))
        return self.head(self.dropout(x.reshape(x.shape[0], -1)))


def build(num_classes, dtype, rngs):
    return Net(num_classes, dtype, rngs)
"""
TEXTS = {"linen": LINEN, "nnx": NNX}


def options(net, workdir, *more):
    """Return the arguments of a short run of two seeds on the digits."""
    settings = {
        **{"model.name": net, "seeds": "0,1", "optimizer.epochs": 2, "optimizer.batch_size": 16},
        **{"optimizer.learning_rate": 0.1, "dataset.train_per_class": 16, "dataset.validation_per_class": 8},
        **{"update.methods": "no_treatment,pct_kl,mpt_kl", "update.tune": "{'bias': (0, 2)}"},
    }
    given = [f"--config.{key}={value}" for key, value in settings.items()]
    return ["--config", "digits", f"--workdir={workdir}", *given, *more]
