"""Weights saved by PyTorch: ResNets with torchvision's parameter names, vision transformers with timm's."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from mpt_jax.errors import InputError, listed
from mpt_jax.models.classifier import init
from mpt_jax.models.resnet import ResNet
from mpt_jax.models.vit import ViT

NETWORKS = ("resnet18", "resnet34", "resnet50", "vit_s16", "vit_tiny")  # the `MODELS` with known parameter names
_RESNET: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"stem_conv": "conv1",
    r"stem_norm": "bn1",
    r"stage(\d+)_block(\d+)": lambda found: f"layer{found[1]}.{int(found[2]) - 1}",
    r"norm(\d)": r"bn\1",
    r"project_conv": "downsample.0",
    r"project_norm": "downsample.1",
    r"head": "fc",
}
_VIT: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"patch_embedding": "patch_embed.proj",
    r"class_token": "cls_token",
    r"position_embedding": "pos_embed",
    r"block(\d+)": lambda found: f"blocks.{int(found[1]) - 1}",
    r"(qkv|proj)": r"attn.\1",
    r"(fc\d)": r"mlp.\1",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def names(module: nn.Module, image_shape: tuple[int, ...]) -> list[str]:
    """Return PyTorch's names of all parameters and running statistics of a network.

    Raises:
      InputError: a network without known names.
    """
    shapes = _shapes(module, image_shape)
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    return [_name(tuple(key.key for key in path[1:]), module) for path, _ in leaves]


def head_names(module: nn.Module) -> list[str]:
    """Return PyTorch's names of the weight and the bias of a network's head."""
    return [_name(("head", leaf), module) for leaf in ("kernel", "bias")]


def convert(
    state: Mapping[str, np.ndarray], module: nn.Module, image_shape: tuple[int, ...], *, head: bool = True
) -> tuple[Any, Any]:
    """Convert PyTorch's arrays into a network's parameters and running statistics ``(params, batch_stats)``.

    Args:
      state: float32 arrays with exactly the names of the network: torchvision's for a ResNet (timm's ResNets have the
        same), timm's for a vision transformer with class token.
      module: a ResNet or ViT of `mpt_jax.models.build`.
      image_shape: ``(height, width, channels)``; it fixes the number of a vision transformer's positions.
      head: whether the head is converted too; otherwise that of the file may have any shape or be missing, and that of
        the result has no columns.

    Raises:
      InputError: missing or unknown names, wrong shapes, or values that are not finite.

    Examples:
      >>> convert({"head.bias": np.zeros(10)}, ViT(10, patch=2, width=4, depth=0, heads=1), (4, 4, 3))
      Traceback (most recent call last):
      ...
      mpt_jax.errors.InputError: 7 names are missing: 'cls_token', 'head.weight', 'norm.bias' and 4 more
    """
    shapes = _shapes(module, image_shape)
    expected = {}  # name -> (shape in PyTorch, conversion of the layout)
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        keys = tuple(key.key for key in path[1:])
        expected[_name(keys, module)] = _layout(keys, leaf.shape, module)
    if not head:
        if not state.keys() - head_names(module):
            raise InputError(f"a head alone: {listed(sorted(state))}; expected the weights of the whole network")
        placeholders = {name: np.zeros(expected[name][0], np.float32) for name in head_names(module)}
        params, batch_stats = convert({**state, **placeholders}, module, image_shape)
        return {**params, "head": {name: leaf[..., :0] for name, leaf in params["head"].items()}}, batch_stats
    wrong = {
        name: array.shape for name, array in state.items() if name in expected and array.shape != expected[name][0]
    }
    problems = [
        f"{len(found)} {'name is' if len(found) == 1 else 'names are'} {what}: {listed(found, most=3)}"
        for what, found in (
            ("missing", [repr(name) for name in sorted(expected.keys() - state.keys())]),
            ("unknown", [repr(name) for name in sorted(state.keys() - expected.keys())]),
            (
                "of the wrong shape",
                [
                    f"{name!r} {list(shape)} instead of {list(expected[name][0])}"
                    for name, shape in sorted(wrong.items())
                ],
            ),
            ("not finite", [repr(name) for name in sorted(state) if not np.isfinite(state[name]).all()]),
        )
        if found
    ]
    if problems:
        raise InputError("; ".join(problems))

    def converted(path: Any, leaf: Any) -> np.ndarray:
        name = _name(tuple(key.key for key in path[1:]), module)
        return np.ascontiguousarray(expected[name][1](state[name]).reshape(leaf.shape))

    return jax.tree_util.tree_map_with_path(converted, shapes)


@functools.lru_cache(maxsize=64)
def _shapes(module: nn.Module, image_shape: tuple[int, ...]) -> Any:
    """Return the shapes of ``(params, batch_stats)``; to trace a deep network takes a second."""
    return jax.eval_shape(lambda: init(module, jax.random.key(0), image_shape))


def _name(keys: tuple[str, ...], module: nn.Module) -> str:
    """Return PyTorch's name of a leaf, `layer1.1.bn1.weight` for `("stage1_block2", "norm1", "scale")`."""
    parts = _RESNET if isinstance(module, ResNet) else _VIT if isinstance(module, ViT) else None
    if parts is None:
        raise InputError(f"no PyTorch weights for a {type(module).__name__}; expected one of {', '.join(NETWORKS)}")
    *blocks, leaf = keys
    names = [
        next((re.sub(pattern, theirs, key) for pattern, theirs in parts.items() if re.fullmatch(pattern, key)), key)
        for key in (*blocks, *([] if leaf in (*_LEAVES, "bias") else [leaf]))
    ]
    return ".".join([*names, *([_LEAVES.get(leaf, leaf)] if leaf in (*_LEAVES, "bias") else [])])


def _layout(
    keys: tuple[str, ...], shape: tuple[int, ...], module: nn.Module
) -> tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray]]:
    """Return a leaf's shape in PyTorch, and the function that reorders its axes."""
    convolution = lambda array: array.transpose(2, 3, 1, 0)  # noqa: E731
    if keys == ("patch_embedding", "kernel"):
        return (shape[1], shape[0] // module.patch**2, module.patch, module.patch), convolution
    if keys[-1] == "kernel":
        return ((shape[3], shape[2], *shape[:2]), convolution) if len(shape) == 4 else (shape[::-1], np.transpose)
    leading = {"class_token": (1, 1), "position_embedding": (1,)}.get(keys[0], ())
    return (*leading, *shape), lambda array: array
