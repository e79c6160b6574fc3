"""Every network by name: its constructor, and its weights in PyTorch's packages. A new network is a row here."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from mpt_jax.errors import InputError
from mpt_jax.models import clip, convnext, efficientnet_lite, own_network, resnet, twins, vit
from mpt_jax.models.convnet import ConvNet
from mpt_jax.models.dialect import Dialect
from mpt_jax.models.layers import at_least_float32
from mpt_jax.models.linear import LinearHead, MLPHead
from mpt_jax.models.twins import Twin


class Network(NamedTuple):
    """A network.

    Attributes:
        constructor: called with ``num_classes``, ``dtype``, ``param_dtype`` and those of `OPTIONS` that it takes.
        dialects: table of names by package.
        twins: the same network in these packages; the first is the one of an export unless another is requested.
    """

    constructor: Callable[..., nn.Module]
    dialects: Mapping[str, Dialect] = MappingProxyType({})
    twins: Mapping[str, Twin] = MappingProxyType({})


def _in_both(theirs: str, torchvisions: str = "", *, sized: bool = False) -> Mapping[str, Twin]:
    """Return the twins of a network by timm's name and, where torchvision has it, by torchvision's."""
    in_torchvision = {"torchvision": twins.torchvision(torchvisions, sized=sized)} if torchvisions else {}
    return {**in_torchvision, "timm": twins.timm(theirs, sized=sized)}


def _lite(number: int) -> Mapping[str, Twin]:
    return {
        "efficientnet_lite_pytorch": twins.efficientnet_lite_pytorch(f"efficientnet-lite{number}"),
        "timm": twins.timm(f"tf_efficientnet_lite{number}"),
    }


_BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_VIT_TINY = Twin(
    "timm",
    "import timm\n\nnet = timm.models.VisionTransformer(\n    img_size=({height}, {width}), patch_size=4, "
    "embed_dim=128, depth=6, num_heads=4, num_classes={classes}, in_chans={channels}\n)",
)

NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "convnet": Network(ConvNet),
        "resnet18": Network(resnet.ResNet18, resnet.DIALECTS, _in_both("resnet18", "resnet18")),
        "resnet34": Network(resnet.ResNet34, resnet.DIALECTS, _in_both("resnet34", "resnet34")),
        "resnet50": Network(resnet.ResNet50, resnet.DIALECTS, _in_both("resnet50", "resnet50")),
        "resnet101": Network(resnet.ResNet101, resnet.DIALECTS, _in_both("resnet101", "resnet101")),
        "vit_s16": Network(vit.ViTSmall, vit.DIALECTS, _in_both("vit_small_patch16_224", sized=True)),
        "vit_b16": Network(vit.ViTBase16, vit.DIALECTS, _in_both("vit_base_patch16_224", "vit_b_16", sized=True)),
        "vit_b32": Network(vit.ViTBase32, vit.DIALECTS, _in_both("vit_base_patch32_224", "vit_b_32", sized=True)),
        "vit_l14": Network(vit.ViTLarge, vit.DIALECTS, _in_both("vit_large_patch14_224", sized=True)),
        "vit_tiny": Network(vit.ViTTiny, vit.DIALECTS, {"timm": _VIT_TINY}),
        "clip_b32": Network(clip.CLIPBase32, clip.DIALECTS, twins.clip("ViT-B-32", 512, **_BASE, patch_size=32)),
        "clip_b16": Network(clip.CLIPBase16, clip.DIALECTS, twins.clip("ViT-B-16", 512, **_BASE, patch_size=16)),
        "clip_l14": Network(clip.CLIPLarge, clip.DIALECTS, twins.clip("ViT-L-14", 768, **_LARGE, patch_size=14)),
        "convnext_tiny": Network(convnext.ConvNeXtTiny, convnext.DIALECTS, _in_both("convnext_tiny", "convnext_tiny")),
        "convnext_small": Network(
            convnext.ConvNeXtSmall, convnext.DIALECTS, _in_both("convnext_small", "convnext_small")
        ),
        "convnext_base": Network(convnext.ConvNeXtBase, convnext.DIALECTS, _in_both("convnext_base", "convnext_base")),
        "efficientnet_lite0": Network(efficientnet_lite.EfficientNetLite0, efficientnet_lite.DIALECTS, _lite(0)),
        "efficientnet_lite1": Network(efficientnet_lite.EfficientNetLite1, efficientnet_lite.DIALECTS, _lite(1)),
        "efficientnet_lite2": Network(efficientnet_lite.EfficientNetLite2, efficientnet_lite.DIALECTS, _lite(2)),
        "efficientnet_lite3": Network(efficientnet_lite.EfficientNetLite3, efficientnet_lite.DIALECTS, _lite(3)),
        "efficientnet_lite4": Network(efficientnet_lite.EfficientNetLite4, efficientnet_lite.DIALECTS, _lite(4)),
        "linear": Network(LinearHead),
        "mlp": Network(MLPHead),
    }
)
ON_FEATURES = ("linear", "mlp")  # these take arrays of features, the other NETWORKS images
WITH_WEIGHTS = tuple(name for name, network in NETWORKS.items() if network.dialects)  # PyTorch's weights are read
DTYPES = ("bfloat16", "float16", "float32", "float64")
_RATE = (lambda rate: 0 <= rate < 1, "a probability from 0 to below 1")

OPTIONS: Mapping[str, tuple[Callable[[Any], bool], str]] = MappingProxyType(
    {
        "stem": (lambda stem: stem in resnet.STEMS, f"one of {', '.join(resnet.STEMS)}"),
        "activation": (lambda name: name in vit.ACTIVATIONS, f"one of {', '.join(vit.ACTIVATIONS)}"),
        "dropout": _RATE,
        "drop_path": _RATE,
    }
)
"""Option of a constructor -> its valid values, and what these are in words."""


def options_of(name: str) -> list[str]:
    """Return the `OPTIONS` that a network takes.

    Examples:
        >>> options_of("resnet18")
        ['stem', 'dropout', 'drop_path']
    """
    return [option for option in OPTIONS if option in inspect.signature(NETWORKS[name].constructor).parameters]


def build(name: str, num_classes: int, *, dtype: str = "float32", **options: Any) -> nn.Module:
    """Return the network of a name, to be called as ``module.apply(variables, x, train=..., mutable=...)``.

    Args:
        name: a key of `NETWORKS`, or a function of a file of your own, ``path/to/net.py:build``.
        num_classes: number of logits.
        dtype: of the computation, one of `DTYPES`; parameters and logits have at least float32.
        **options: of the network, some of `OPTIONS`: ResNets take ``stem``, ``imagenet`` or ``cifar``; CLIP's
            ``activation``, ``quick_gelu`` or ``gelu``; most ``dropout`` and ``drop_path``, probabilities in training. A
            network of your own takes ``sha256``, the digest of its file.

    Raises:
        InputError: unknown name, option or value; a file that fails, see `own_network.build`.

    Examples:
        >>> build("resnet18", 100, stem="cifar").stem
        'cifar'
        >>> build("convnet", 100, stem="cifar")
        Traceback (most recent call last):
        ...
        mpt_jax.errors.InputError: model 'convnet' has no option 'stem'; expected none
    """
    if name not in NETWORKS and not own_network.is_own(name):
        raise InputError(f"unknown model {name!r}; expected one of {', '.join(NETWORKS)}, or {own_network.EXAMPLE}")
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    if num_classes < 1:
        raise InputError(f"{num_classes} classes; expected at least 1")
    if own_network.is_own(name):
        sha256 = options.pop("sha256", "")
        if options:
            raise InputError(f"model {name!r} has no option {next(iter(options))!r}; expected none")
        return own_network.build(name, num_classes, dtype=dtype, sha256=sha256)
    known = options_of(name)
    for option, value in options.items():
        if option not in known:
            expected = f"one of {', '.join(known)}" if known else "none"
            raise InputError(f"model {name!r} has no option {option!r}; expected {expected}")
        accepts, expected = OPTIONS[option]
        if not accepts(value):
            raise InputError(f"unknown {option} {value!r}; expected {expected}")
    compute = jnp.dtype(dtype)
    constructor = NETWORKS[name].constructor
    return constructor(num_classes=num_classes, dtype=compute, param_dtype=at_least_float32(compute), **options)


def dialects(module: nn.Module) -> Mapping[str, Dialect]:
    """Return the tables of a network's weights by package.

    Raises:
        InputError: a network without tables.
    """
    for network in NETWORKS.values():
        if network.dialects and type(module) is getattr(network.constructor, "func", network.constructor):
            return network.dialects
    raise InputError(f"no PyTorch weights for a {type(module).__name__}; expected one of {', '.join(WITH_WEIGHTS)}")
