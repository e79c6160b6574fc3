"""Weights under a network's own names: the paths of its parameters, as `mpt_jax.export` writes them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from mpt_jax.errors import InputError, listed
from mpt_jax.models import weight_names
from mpt_jax.models.classifier import shapes

_ROOTS = ("params", "batch_stats")


def convert(
    state: Mapping[str, np.ndarray], module: nn.Module, image_shape: tuple[int, ...], *, prefix: str = ""
) -> tuple[Any, Any, str]:
    """Convert arrays into a network's parameters and running statistics, whose head has no columns.

    Args:
      state: arrays named by paths with dots or slashes, such as ``params.stage1_block1.conv1.kernel`` or
        ``stage1_block1/conv1/kernel``, and others beside them. The head may have any shape or be missing.
      module: the network.
      image_shape: of one input.
      prefix: of the names; empty: to be found.

    Returns:
      ``(params, batch_stats, prefix)``.

    Raises:
      InputError: no such names, missing or unknown names, wrong shapes, or values that are not finite.

    Examples:
      >>> from mpt_jax.models import build
      >>> convert({"hidden.bias": np.zeros(512)}, build("mlp", 2), (3,))
      Traceback (most recent call last):
      ...
      mpt_jax.errors.InputError: names are missing: 'hidden.kernel'
    """
    expected = names(module, image_shape)
    head = {name for name in expected if name.split(".")[0] == "head"}
    own, prefix = weight_names.select({_own(name): array for name, array in state.items()}, expected, prefix)
    problems = {
        "missing": [repr(name) for name in sorted(expected.keys() - own.keys() - head)],
        "unknown": [
            repr(name) for name in sorted(own.keys() - expected.keys()) if not name.startswith("normalization.")
        ],
        "of the wrong shape": [
            f"{name!r} {list(own[name].shape)} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in own and name not in head and own[name].shape != shape
        ],
        "not finite": [repr(name) for name in sorted(own) if not np.isfinite(own[name]).all()],
    }
    if any(problems.values()):
        texts = [f"names are {what}: {listed(names, most=3)}" for what, names in problems.items() if names]
        raise InputError("; ".join(texts))

    def converted(path: Any, leaf: Any) -> np.ndarray:
        name = _name(path)
        return np.zeros((*leaf.shape[:-1], 0), leaf.dtype) if name in head else own[name].astype(leaf.dtype)

    result = jax.tree_util.tree_map_with_path(converted, dict(zip(_ROOTS, shapes(module, image_shape), strict=True)))
    return result["params"], result["batch_stats"], prefix


def names(module: nn.Module, image_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter and running statistic by its path with dots."""
    tree = dict(zip(_ROOTS, shapes(module, image_shape), strict=True))
    return {_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def share(state: Mapping[str, np.ndarray], module: nn.Module, image_shape: tuple[int, ...]) -> float:
    """Return which share of the network's own names a file has, under any prefix."""
    expected = names(module, image_shape).keys()
    ends = {own[start:] for own in map(_own, state) for start in weight_names.starts(own)}
    return len(expected & ends) / len(expected)


def _own(name: str) -> str:
    """Return a name with dots and without the root that tells parameters from running statistics."""
    root, _, rest = name.replace("/", ".").partition(".")
    return rest if root in _ROOTS else name.replace("/", ".")


def _name(path: Any) -> str:
    return ".".join(str(key.key) for key in path[1:])
