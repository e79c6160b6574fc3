"""Weights saved by PyTorch's packages become a network's, and back. The tables are in the files of the networks."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from mpt_jax.errors import InputError, listed
from mpt_jax.models import dialect as dialects
from mpt_jax.models import registry, weight_names
from mpt_jax.models.classifier import shapes
from mpt_jax.models.dialect import Dialect, Leaf


class Found(NamedTuple):
    """The weights of one network in a file.

    Attributes:
      state: arrays by the names of the package, without a prefix.
      dialect: the package.
      prefix: of the names in the file.
    """

    state: dict[str, np.ndarray]
    dialect: str
    prefix: str


def names(module: nn.Module, image_shape: tuple[int, ...], dialect: str = "") -> list[str]:
    """Return PyTorch's names of all parameters and running statistics of a network.

    Args:
      module: a network of `mpt_jax.models.build`.
      image_shape: ``(height, width, channels)``.
      dialect: the package; empty: the first one that has the network.

    Raises:
      InputError: a network without known names.
    """
    return [name for leaf in _leaves(module, image_shape, _table(module, dialect)) for name in leaf.names]


def head_names(module: nn.Module, dialect: str = "") -> list[str]:
    """Return PyTorch's names of the weight and the bias of a network's head."""
    table = _table(module, dialect)
    shapes = {"kernel": (1, 1), "bias": (1,)}
    return [dialects.leaf(("head", key), shape, module, table).names[0] for key, shape in shapes.items()]


def select(state: Mapping[str, np.ndarray], module: nn.Module, image_shape: tuple[int, ...], prefix: str = "") -> Found:
    """Find a network's weights among the arrays of a file: whose names they have, and under which prefix.

    The dialect is the one with most names in the file. Names of other towers of the same model are left out.

    Args:
      state: the arrays of a file by name.
      module: a network of `mpt_jax.models.build`.
      image_shape: ``(height, width, channels)``.
      prefix: of the weights; empty: to be found.

    Raises:
      InputError: a network without known names, no name has the prefix, or several prefixes fit.
    """
    ends = {name[start:] for name in state for start in weight_names.starts(name)}
    found = []
    for name in registry.dialects(module):
        known = names(module, image_shape, name)
        # `visual.`, which is missing if the tower was saved alone
        tower = weight_names.common([one for one in known if one not in head_names(module, name)])
        for root in dict.fromkeys(("", tower)):
            found.append((len(ends.intersection(one.removeprefix(root) for one in known)), name, root))
    _, dialect, root = max(found, key=lambda each: each[0])
    full = {name.removeprefix(root): name for name in names(module, image_shape, dialect)}
    selected, prefix = weight_names.select(state, full, prefix)
    selected = {full.get(name, root + name): array for name, array in selected.items()}
    beside = _table(module, dialect).beside
    own = {name: array for name, array in selected.items() if not (beside and re.fullmatch(beside, name))}
    return Found(own, dialect, prefix)


def convert(
    state: Mapping[str, np.ndarray],
    module: nn.Module,
    image_shape: tuple[int, ...],
    *,
    dialect: str = "",
    head: bool = True,
) -> tuple[Any, Any]:
    """Convert PyTorch's arrays into a network's parameters and running statistics ``(params, batch_stats)``.

    Args:
      state: float32 arrays with exactly the names of the network in the dialect.
      module: a network of `mpt_jax.models.build`.
      image_shape: ``(height, width, channels)``; it fixes the number of a vision transformer's positions.
      dialect: the package; empty: the one with most of the names.
      head: whether the head is converted too; otherwise that of the file may have any shape or be missing, and that of
        the result has no columns. Positions of another image size are then interpolated.

    Raises:
      InputError: missing or unknown names, wrong shapes, or values that are not finite.

    Examples:
      >>> module = registry.build("vit_tiny", 10).clone(patch=2, width=4, depth=0, heads=1)
      >>> convert({"head.bias": np.zeros(10)}, module, (4, 4, 3), dialect="timm")
      Traceback (most recent call last):
      ...
      mpt_jax.errors.InputError: 7 names are missing: 'cls_token', 'head.weight', 'norm.bias' and 4 more
    """
    dialect = dialect or _closest(state, module, image_shape)
    table = _table(module, dialect)
    leaves = {leaf.path: leaf for leaf in _leaves(module, image_shape, table)}
    own_head = [name for path, leaf in leaves.items() if path.startswith("head.") for name in leaf.names]
    if not head:
        if state and not state.keys() - own_head:
            raise InputError(f"a head alone: {listed(sorted(state))}; expected the weights of the whole network")
        state = {name: array for name, array in state.items() if name not in own_head}
        leaves = {path: leaf for path, leaf in leaves.items() if not path.startswith("head.")}
    resized = {path: _resizing(table, path) for path in leaves} if not head else {}
    _check(state, [(leaf, resized.get(path) is not None) for path, leaf in leaves.items()])

    def converted(path: Any, shape: Any) -> np.ndarray:
        found = leaves.get(".".join(key.key for key in path[1:]))
        if found is None:
            return np.zeros((*shape.shape[:-1], 0), shape.dtype)
        array = found.to_ours([state[name] for name in found.names])
        resize = resized.get(found.path)
        return array if array.shape == found.shape or resize is None else resize(array, module, image_shape)

    return jax.tree_util.tree_map_with_path(converted, shapes(module, image_shape))


def back(
    params: Any, batch_stats: Any, module: nn.Module, image_shape: tuple[int, ...], dialect: str
) -> dict[str, np.ndarray]:
    """Return a network's weights under PyTorch's names, so that `convert` of them returns the same arrays.

    BatchNorm's counts of batches are among them, because ``load_state_dict`` expects them; they are 0.

    Args:
      params: of the network.
      batch_stats: its running statistics.
      module: the network.
      image_shape: ``(height, width, channels)``.
      dialect: the package whose names are used.

    Raises:
      InputError: a network without names, or a package that does not have it.
    """
    arrays = {
        ".".join(key.key for key in path[1:]): array
        for path, array in jax.tree_util.tree_leaves_with_path((params, batch_stats))
    }
    state = {
        name: theirs
        for leaf in _leaves(module, image_shape, _table(module, dialect))
        for name, theirs in leaf.to_theirs(arrays[leaf.path]).items()
    }
    counts = [re.sub("running_mean$", "num_batches_tracked", name) for name in state if name.endswith("running_mean")]
    return {**state, **{name: np.zeros((), np.int64) for name in counts}}


def _leaves(module: nn.Module, image_shape: tuple[int, ...], table: Dialect) -> list[Leaf]:
    """Return all arrays of a network."""
    return [
        dialects.leaf([key.key for key in path[1:]], leaf.shape, module, table)
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes(module, image_shape))
    ]


def _table(module: nn.Module, dialect: str = "") -> Dialect:
    known = registry.dialects(module)
    if dialect and dialect not in known:
        raise InputError(f"no names of {dialect!r} for a {type(module).__name__}; expected one of {', '.join(known)}")
    return known[dialect or next(iter(known))]


def _closest(state: Mapping[str, Any], module: nn.Module, image_shape: tuple[int, ...]) -> str:
    """Return the dialect with most names among those of the arrays."""
    known = registry.dialects(module)
    return max(known, key=lambda dialect: len(state.keys() & names(module, image_shape, dialect)))


def resized(params: Any, module: nn.Module, image_shape: tuple[int, ...]) -> Any:
    """Return a network's parameters for images of another size: positions are interpolated, the rest stays.

    Args:
      params: of a network of this architecture.
      module: the network.
      image_shape: ``(height, width, channels)`` of the new images.

    Raises:
      InputError: positions that cannot be interpolated.
    """
    try:
        tables = registry.dialects(module)
    except InputError:  # a network without tables has no positions that are known
        return params
    functions = {pattern: function for table in tables.values() for pattern, function in table.resized.items()}
    expected, _ = shapes(module, image_shape)

    def resize(path: Any, array: Any, like: Any) -> Any:
        name = ".".join(key.key for key in path)
        function = next((function for pattern, function in functions.items() if re.fullmatch(pattern, name)), None)
        return array if function is None or array.shape == like.shape else function(array, module, image_shape)

    return jax.tree_util.tree_map_with_path(resize, params, expected)


def _resizing(table: Dialect, path: str) -> Any:
    return next((function for pattern, function in table.resized.items() if re.fullmatch(pattern, path)), None)


def _check(state: Mapping[str, np.ndarray], leaves: list[tuple[Leaf, bool]]) -> None:
    """Check the names, shapes and values of all arrays; those that are resized may have another first axis in ours.

    Raises:
      InputError: naming all that is wrong.
    """
    expected = {name: (leaf.their_shape, resized) for leaf, resized in leaves for name in leaf.names}
    wrong = {
        name: state[name].shape
        for name, (shape, resized) in expected.items()
        if name in state
        and state[name].shape != shape
        and not (resized and state[name].ndim == len(shape) and state[name].shape[-1] == shape[-1])
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
