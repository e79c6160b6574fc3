"""The names and layouts that a PyTorch package gives to a network's weights: one table per package and network.

A network file holds its tables as data; `pytorch_weights` reads them in both directions.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn

Shape = tuple[int, ...]
Layout = Callable[[Shape, nn.Module], tuple[Shape, Shape]]
"""``(shape, module) -> (split, axes)``: theirs are ours, reshaped to ``split``, with the ``axes`` in this order."""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, in units of pixel / 255."""

Name = str | Callable[[re.Match[str], Any], str]
"""A template of ``re.Match.expand``, or a function of the match and the network."""

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


class Dialect(NamedTuple):
    """A package's names for the weights of a network.

    Attributes:
        names: a pattern of one or more parts of our dotted path -> their name. The first pattern that fits at a part
            counts; parts without one stay. ``{q,k,v}`` in a name stands for three arrays, joined along their first
            axis.
        layouts: a pattern of a whole path -> the layout of the array, where it is not that of PyTorch's convolution,
            linear layer or vector.
        statistics: of the inputs that the package's weights expect.
        beside: pattern of names that belong to no classifier, such as those of a text tower.
        resized: a pattern of a whole path -> the function ``(array, module, image_shape) -> array`` that brings an
            array in our layout from another image size to this one.
    """

    names: Mapping[str, Name]
    layouts: Mapping[str, Layout] = MappingProxyType({})
    statistics: Statistics = IMAGENET
    beside: str = ""
    resized: Mapping[str, Callable[[np.ndarray, Any, Shape], np.ndarray]] = MappingProxyType({})


class Leaf(NamedTuple):
    """An array of a network, and what it is in PyTorch.

    Attributes:
        path: ours, with dots.
        shape: ours.
        names: theirs; several arrays are joined along the first axis.
        split: shape into which ours is reshaped before its axes are reordered.
        axes: of the split array, in their order.
    """

    path: str
    shape: Shape
    names: tuple[str, ...]
    split: Shape
    axes: Shape

    @property
    def their_shape(self) -> Shape:
        """The shape of each of their arrays."""
        first, *rest = (self.split[axis] for axis in self.axes)
        return (first // len(self.names), *rest)

    def to_ours(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Return our array from theirs; its first axis is as long as theirs makes it."""
        joined = np.concatenate(arrays) if len(arrays) > 1 else np.asarray(arrays[0])
        ours = joined.transpose(np.argsort(self.axes)).reshape(-1, *self.shape[1:])
        return np.ascontiguousarray(ours)

    def to_theirs(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Return their arrays by name from ours."""
        joined = np.asarray(array).reshape(self.split).transpose(self.axes)
        parts = np.split(joined, len(self.names)) if len(self.names) > 1 else [joined]
        return {name: np.ascontiguousarray(part) for name, part in zip(self.names, parts, strict=True)}


def leaf(keys: Sequence[str], shape: Shape, module: nn.Module, dialect: Dialect) -> Leaf:
    """Return what a leaf is in PyTorch.

    Args:
        keys: of its path, such as ``("stage1_block2", "norm1", "scale")``.
        shape: ours.
        module: the network; layouts may depend on its attributes.
        dialect: the table.

    Examples:
        >>> table = Dialect({r"block(\\d)": r"layers.\\1", "qkv": "{q,k,v}_proj"})
        >>> found = leaf(("block1", "qkv", "kernel"), (4, 12), nn.Dense(12), table)
        >>> found.names[0], found.their_shape
        ('layers.1.q_proj.weight', (4, 4))
    """
    path = ".".join(keys)
    split, axes = shape, tuple(range(len(shape)))
    layout = next((layout for pattern, layout in dialect.layouts.items() if re.fullmatch(pattern, path)), None)
    if layout is not None:
        split, axes = layout(shape, module)
    elif keys[-1] == "kernel":
        axes = (3, 2, 0, 1) if len(shape) == 4 else (1, 0)
    return Leaf(path, shape, _expanded(_translated(keys, module, dialect)), split, axes)


def _translated(keys: Sequence[str], module: nn.Module, dialect: Dialect) -> str:
    rest, theirs = ".".join([*keys[:-1], _LEAVES.get(keys[-1], keys[-1])]), []
    while rest:
        for pattern, name in dialect.names.items():
            if found := re.match(rf"(?:{pattern})(?=\.|$)", rest):
                theirs.append(found.expand(name) if isinstance(name, str) else name(found, module))
                rest = rest[found.end() + 1 :]
                break
        else:
            part, _, rest = rest.partition(".")
            theirs.append(part)
    return ".".join(theirs)


def _expanded(name: str) -> tuple[str, ...]:
    """Return the names that braces stand for, as in a shell."""
    parts = [part.split(",") if i % 2 else [part] for i, part in enumerate(re.split(r"\{(.*?)\}", name))]
    return tuple("".join(choice) for choice in itertools.product(*parts))
