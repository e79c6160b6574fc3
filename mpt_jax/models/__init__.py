"""Networks by name, and classifiers: a network with its weights and the normalisation of its inputs."""

from mpt_jax.models.classifier import (
    Classifier,
    dtype_of,
    features,
    fold,
    init,
    layer_order,
    logits,
    normalize,
    shapes,
    train_forward,
    warm_start,
)
from mpt_jax.models.registry import DTYPES, NETWORKS, ON_FEATURES, build

__all__ = [
    "DTYPES",
    "NETWORKS",
    "ON_FEATURES",
    "Classifier",
    "build",
    "dtype_of",
    "features",
    "fold",
    "init",
    "layer_order",
    "logits",
    "normalize",
    "shapes",
    "train_forward",
    "warm_start",
]
