"""Rehearsal memory: which training images of the old classes an update may still use.

The memory is a list with one array per old class: positions in the training part, the one most worth keeping first.
Every later memory is a prefix of it, class by class, so an image once forgotten never comes back:

    memory = []
    for release ...:
        # train on the memory and on all images of the release's own classes, then
        memory = remember(policy, memory, rows, labels)    # rows of the release's own classes

How many images of a class stay depends on the policy and the counts alone, not on the draw or the features: the
memories of several seeds have the same shape.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mpt_jax.data import subsets
from mpt_jax.errors import InputError

_KINDS = ("all", "none", "per_class", "total")
_TIE = 1e-12  # squared distance between unit vectors, far above rounding and far below what features mean


@dataclasses.dataclass(frozen=True)
class Policy:
    """How many images of the old classes stay: all, none, a number of each class, or a number in total."""

    kind: str  # "all", "none", "per_class" or "total"
    number: int = 0  # of "per_class" and "total"

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}" if self.number else self.kind


def parse_policy(text: str, key: str = "update.memory") -> Policy:
    """The policy that a config's text names: "all", "none", "per_class:K" or "total:K"; `str` gives the text again.

    Raises:
      InputError: another text, or a number below 1; it names `key`.

    Examples:
      >>> parse_policy("per_class:20")
      Policy(kind='per_class', number=20)
      >>> str(parse_policy("all"))
      'all'
    """
    kind, colon, number = text.strip().partition(":") if isinstance(text, str) else ("", "", "")
    if kind not in _KINDS or (kind in ("all", "none") and colon):
        raise InputError(f"{key}={text!r}; expected 'all', 'none', 'per_class:20' or 'total:2000'")
    if kind in ("all", "none"):
        return Policy(kind)
    if not (number.isascii() and number.isdecimal() and int(number) > 0):
        example = {"per_class": 20, "total": 2000}[kind]
        raise InputError(f"{key}={text!r}; expected a number from 1 on, such as '{kind}:{example}', or 'none'")
    return Policy(kind, int(number))


def kept_counts(policy: Policy, counts: Sequence[int]) -> np.ndarray:
    """How many of its `counts` images each old class keeps, ``int64 [C]``.

    ``total: K`` gives every class ``floor(K / C)`` and one more to each of the first ``K mod C`` classes. A class with
    fewer images keeps all of them, and what it leaves is not given to others; so no class's share grows when classes
    are added, and later memories are contained in earlier ones.

    Examples:
      >>> kept_counts(Policy("total", 11), [9, 9, 2]).tolist()
      [4, 4, 2]
      >>> kept_counts(Policy("per_class", 3), [9, 2]).tolist()
      [3, 2]
    """
    counts = np.asarray(counts, np.int64)
    if policy.kind == "all":
        return counts
    if policy.kind == "none":
        return np.zeros_like(counts)
    if policy.kind == "per_class":
        return np.minimum(counts, policy.number)
    share, rest = divmod(policy.number, max(len(counts), 1))
    return np.minimum(counts, share + (np.arange(len(counts)) < rest))


def remember(
    policy: Policy,
    memory: Sequence[np.ndarray],
    rows: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 0,
    features: np.ndarray | None = None,
) -> list[np.ndarray]:
    """The memory after a release, out of what the release could see: its memory, and images of its own classes.

    Without features the images of a class stay in a random order that depends only on the seed, the class and how
    many images it has; with features in the order of `herding`.

    Args:
      policy: how many images stay.
      memory: the release's memory, position ``c`` for class ``c``; empty for the first release.
      rows: int ``[n]``, positions in the training part of the images of the release's own classes, all that it saw.
      labels: int ``[n]``, their labels: the classes after the memory's.
      seed: of the random order.
      features: ``[n, D]``, of the same images from the release's network.

    Returns:
      One array per class, the memory of the next release; positions in the order of their worth.

    Raises:
      ValueError: rows, labels and features that do not fit each other or the memory; features that are not finite.

    Examples:
      >>> memory = remember(Policy("total", 4), [], np.arange(6), np.repeat([0, 1], 3))
      >>> [len(rows) for rows in memory]
      [2, 2]
      >>> later = remember(Policy("total", 4), memory, np.arange(6, 9), np.repeat([2], 3))
      >>> [len(rows) for rows in later], set(later[1]) < set(memory[1])
      ([2, 1, 1], True)
    """
    rows, labels = np.asarray(rows), np.asarray(labels)
    if rows.ndim != 1 or rows.shape != labels.shape or (features is not None and len(features) != len(rows)):
        lengths = f"{rows.shape}, {labels.shape}" + ("" if features is None else f", {np.shape(features)}")
        raise ValueError(f"rows, labels and features of shapes {lengths}; expected one of each per image")
    if labels.size and labels.min() < len(memory):
        raise ValueError(f"an image of class {labels.min()}, which the memory of classes below {len(memory)} holds")
    classes = range(len(memory), int(labels.max(initial=len(memory) - 1)) + 1)
    members = subsets.by_class(labels, classes)
    kept = kept_counts(policy, [len(seen) for seen in [*memory, *members]])
    ranked = []
    for label, own, number in zip(classes, members, kept[len(memory) :], strict=True):
        if features is not None and policy.kind in ("per_class", "total"):  # a class kept whole now may shrink later
            ranked.append(rows[own[herding(features[own], number)]])
        else:
            ranked.append(subsets.shuffled(rows[own], label, seed=seed))
    return subsets.first([*memory, *ranked], kept)


def herding(features: np.ndarray, num: int | None = None) -> np.ndarray:
    """The `num` images of a class whose mean stays nearest to the class's, greedily, ``int64 [num]`` in that order.

    With ``x`` the features of unit length and ``m`` their mean, the k-th image is the one not chosen yet with the
    smallest ``|| m - (sum of the chosen + x_i) / k ||``. Ties (to ``1e-12`` in the squared distance of the sums) go to
    the first image. A smaller `num` gives a prefix. In float64; features of length 0 stay 0.

    Args:
      features: ``[n, D]``, any real type.
      num: how many; None: all of them.

    Raises:
      ValueError: not a matrix, or values that are not finite.

    Sources: Welling, Herding Dynamical Weights to Learn, 2009; Rebuffi et al., iCaRL: Incremental Classifier and
    Representation Learning, 2017 (which besides scales the mean ``m`` to unit length).

    Examples:
      >>> herding(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])).tolist()
      [1, 0, 2]
    """
    unit = np.array(features, np.float64)
    if unit.ndim != 2 or not np.isfinite(unit).all():
        raise ValueError(f"features of shape {unit.shape}; expected finite numbers [n, D]")
    lengths = np.linalg.norm(unit, axis=1, keepdims=True)
    unit /= np.where(lengths > 0, lengths, 1.0)
    num = len(unit) if num is None else min(int(num), len(unit))
    mean = unit.mean(0) if len(unit) else unit.sum(0)
    squares = np.einsum("nd,nd->n", unit, unit)
    order, ahead = np.empty(num, np.int64), np.zeros_like(mean)  # ahead: the sum of the chosen less k times the mean
    for k in range(num):
        ahead -= mean
        distances = 2 * (unit @ ahead) + squares  # squared, less what all images have in common
        distances[order[:k]] = np.inf
        order[k] = np.argmax(distances <= distances.min() + _TIE)
        ahead += unit[order[k]]
    return order
