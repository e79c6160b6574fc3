"""Parameters by their paths, such as ``stage1_block1/conv1/kernel``: the ones that patterns freeze, and the others."""

import fnmatch
from collections.abc import Sequence
from typing import Any

import jax
import optax

HEAD = "head"  # the last layer of every network
BACKBONE = "backbone"  # the pattern of every parameter outside the head


def path_of(keys: Sequence[Any]) -> str:
    """Return the path of a leaf, from the keys of ``jax.tree_util``."""
    return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")


def paths(params: Any) -> list[str]:
    """Return the path of every parameter.

    Examples:
        >>> paths({"head": {"kernel": 1, "bias": 2}})
        ['head/bias', 'head/kernel']
    """
    return [path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)]


def with_paths(params: Any) -> list[tuple[str, Any]]:
    """Return every leaf with its path."""
    return [(path_of(keys), leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(params)]


def is_frozen(patterns: Sequence[str], path: str) -> bool:
    """Return whether a pattern matches a path or a leading part of it; ``backbone`` matches all outside the head.

    Args:
        patterns: of ``fnmatch``, case-sensitive.
        path: of a parameter, or of a module.

    Examples:
        >>> [is_frozen(["stage1*"], path) for path in ("stage1_block1/conv1/kernel", "stage2_block1/conv1/kernel")]
        [True, False]
        >>> [is_frozen(["backbone"], path) for path in ("position", "stem_conv/kernel", "head/kernel")]
        [True, True, False]
    """
    parts = path.split("/")
    leading = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(
        (pattern == BACKBONE and parts[0] != HEAD) or any(fnmatch.fnmatchcase(part, pattern) for part in leading)
        for pattern in patterns
    )


def matches(patterns: Sequence[str], path: str) -> bool:
    """Return whether a pattern matches a path or its last part.

    Examples:
        >>> [matches(["bias", "stage1*"], path) for path in ("norm1/bias", "stage1_block1/conv1/kernel", "head/kernel")]
        [True, True, False]
    """
    return any(fnmatch.fnmatchcase(part, pattern) for pattern in patterns for part in (path, path.split("/")[-1]))


def keeps_statistics(patterns: Sequence[str], layer: str) -> bool:
    """Return whether the parameters of a normalization are frozen.

    Args:
        patterns: of the frozen parameters.
        layer: path of the module.
    """
    return all(is_frozen(patterns, f"{layer}/{name}") for name in ("scale", "bias"))


def split(params: Any, freeze: Sequence[str]) -> tuple[Any, Any]:
    """Return the trained and the frozen parameters; each has an ``optax.MaskedNode`` in place of the other's leaves.

    Args:
        params: of a network.
        freeze: the patterns of the frozen ones.

    Examples:
        >>> trained, frozen = split({"body": {"kernel": 1}, "head": {"kernel": 2}}, ["backbone"])
        >>> jax.tree.leaves(trained), jax.tree.leaves(frozen)
        ([2], [1])
    """

    def keep(frozen: bool) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda keys, leaf: leaf if is_frozen(freeze, path_of(keys)) == frozen else optax.MaskedNode(), params
        )

    return keep(False), keep(True)


def merge(trained: Any, frozen: Any) -> Any:
    """Return the parameters of which `split` made these two parts.

    Examples:
        >>> params = {"body": {"kernel": 1}, "head": {"kernel": 2}}
        >>> merge(*split(params, ["head"])) == params
        True
    """

    def either(one: Any, other: Any) -> Any:
        return other if isinstance(one, optax.MaskedNode) else one

    return jax.tree.map(either, trained, frozen, is_leaf=lambda node: isinstance(node, optax.MaskedNode))
