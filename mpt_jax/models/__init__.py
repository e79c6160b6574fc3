"""Networks by name, and classifiers: a network with its weights and the normalisation of its inputs."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax.numpy as jnp
from flax import linen as nn

from mpt_jax.errors import InputError
from mpt_jax.models.classifier import (
    Classifier,
    features,
    fold,
    init,
    layer_order,
    logits,
    normalize,
    train_forward,
    warm_start,
)
from mpt_jax.models.convnet import ConvNet
from mpt_jax.models.efficientnet_lite import (
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
    EfficientNetLite3,
    EfficientNetLite4,
)
from mpt_jax.models.layers import at_least_float32
from mpt_jax.models.linear import LinearHead, MLPHead
from mpt_jax.models.resnet import STEMS, ResNet18, ResNet34, ResNet50
from mpt_jax.models.vit import ViTSmall, ViTTiny

__all__ = [
    "DTYPES",
    "MODELS",
    "ON_FEATURES",
    "Classifier",
    "build",
    "features",
    "fold",
    "init",
    "layer_order",
    "logits",
    "normalize",
    "train_forward",
    "warm_start",
]

MODELS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "convnet": ConvNet,
        "resnet18": ResNet18,
        "resnet34": ResNet34,
        "resnet50": ResNet50,
        "vit_s16": ViTSmall,
        "vit_tiny": ViTTiny,
        "efficientnet_lite0": EfficientNetLite0,
        "efficientnet_lite1": EfficientNetLite1,
        "efficientnet_lite2": EfficientNetLite2,
        "efficientnet_lite3": EfficientNetLite3,
        "efficientnet_lite4": EfficientNetLite4,
        "linear": LinearHead,
        "mlp": MLPHead,
    }
)
ON_FEATURES = ("linear", "mlp")  # these take arrays of features, the other MODELS images
DTYPES = ("bfloat16", "float16", "float32", "float64")

_OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType({"stem": STEMS})  # allowed values by option


def build(name: str, num_classes: int, *, dtype: str = "float32", **options: str) -> nn.Module:
    """Return the network of a name, to be called as ``module.apply(variables, x, train=..., mutable=...)``.

    Args:
        name: a key of ``MODELS``.
        num_classes: number of logits.
        dtype: of the computation, one of ``DTYPES``; parameters and logits have at least float32.
        **options: of the network; ResNets take ``stem``: ``imagenet`` or ``cifar``.

    Raises:
        InputError: unknown name, option or value.

    Examples:
        >>> build("resnet18", 100, stem="cifar").stem
        'cifar'
        >>> build("vit_tiny", 100, stem="cifar")
        Traceback (most recent call last):
        ...
        mpt_jax.errors.InputError: model 'vit_tiny' has no option 'stem'; expected none
    """
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; expected one of {', '.join(MODELS)}")
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    if num_classes < 1:
        raise InputError(f"{num_classes} classes; expected at least 1")
    known = [option for option in _OPTIONS if option in inspect.signature(MODELS[name]).parameters]
    for option, value in options.items():
        if option not in known:
            expected = f"one of {', '.join(known)}" if known else "none"
            raise InputError(f"model {name!r} has no option {option!r}; expected {expected}")
        if value not in _OPTIONS[option]:
            raise InputError(f"unknown {option} {value!r}; expected one of {', '.join(_OPTIONS[option])}")
    compute = jnp.dtype(dtype)
    return MODELS[name](num_classes=num_classes, dtype=compute, param_dtype=at_least_float32(compute), **options)
