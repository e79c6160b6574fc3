"""Rehearsal memory: the training images of old classes that an update may use.

The memory is a list with one array per old class: positions in the training part, in the order in which to keep them.
Each later memory is a prefix of it, class by class, so an image that was dropped never returns:

    memory = []
    for release ...:
        # train on the memory and on all images of the release's own classes, then
        memory = remember(policy, memory, rows, labels)    # rows of the release's own classes

The number of images kept of a class depends only on the policy and the counts, not on the draw or the features. So the
memories of all seeds have the same shape.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from mpt_jax.data import subsets
from mpt_jax.errors import InputError

_KINDS = ("all", "none", "per_class", "total")
_TIE = 1e-12  # of squared distances between unit vectors; far above rounding errors


@dataclasses.dataclass(frozen=True)
class Policy:
    """How many images of the old classes to keep: all, none, a number per class, or a number in total."""

    kind: str  # "all", "none", "per_class" or "total"
    number: int = 0  # of "per_class" and "total"

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}" if self.number else self.kind


def parse_policy(text: str, key: str = "update.memory") -> Policy:
    """Parse "all", "none", "per_class:K" or "total:K"; `str` of the policy gives the text.

    Raises:
      InputError: another text, or a number below 1; the message begins with `key`.

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
        raise InputError(f"{key}={text!r}; expected a number of 1 or more, such as '{kind}:{example}', or 'none'")
    return Policy(kind, int(number))


def kept_counts(policy: Policy, counts: ArrayLike) -> np.ndarray:
    """Return how many of its `counts` images each old class keeps, ``int64 [C]``.

    ``total:K`` gives each class ``floor(K / C)`` images, and one more to each of the first ``K mod C`` classes. A class
    with fewer images keeps all of them; its unused share is not given to others. So no share grows when classes are
    added, and later memories are subsets of earlier ones.

    Examples:
      >>> kept_counts(Policy("total", 11), [9, 9, 2]).tolist()
      [4, 4, 2]
      >>> kept_counts(Policy("per_class", 3), [9, 2]).tolist()
      [3, 2]
    """
    available = np.asarray(counts, np.int64)
    if policy.kind == "all":
        return available
    if policy.kind == "none":
        return np.zeros_like(available)
    if policy.kind == "per_class":
        return np.minimum(available, policy.number)
    share, rest = divmod(policy.number, max(len(available), 1))
    return np.minimum(available, share + (np.arange(len(available)) < rest))


def remember(
    policy: Policy,
    memory: Sequence[np.ndarray],
    rows: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 0,
    features: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Select the memory for the next release from a release's memory and the images of its own classes.

    With features, the images of a class are ordered by `herding`. Without, they are in a random order that depends only
    on the seed, the class and its number of images.

    Args:
      policy: how many images to keep.
      memory: the release's memory, position ``c`` for class ``c``; empty for the first release.
      rows: int ``[n]``, positions in the training part of all images of the release's own classes.
      labels: int ``[n]``, their labels: the classes that follow those of the memory.
      seed: seed of the random order.
      features: ``[n, D]``, of the same images from the release's network.

    Returns:
      One array per class: positions in the order in which to keep them.

    Raises:
      ValueError: rows, labels and features do not fit each other or the memory, or features are not finite.

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
        raise ValueError(f"label {labels.min()}, a class of the memory; expected labels from {len(memory)} on")
    classes = range(len(memory), int(labels.max(initial=len(memory) - 1)) + 1)
    members = subsets.by_class(labels, classes)
    kept = kept_counts(policy, [len(seen) for seen in [*memory, *members]])
    ranked = []
    for label, own, number in zip(classes, members, kept[len(memory) :], strict=True):
        if features is not None and policy.kind in (
            "per_class",
            "total",
        ):  # rank classes kept as a whole, too: they may shrink later
            ranked.append(rows[own[herding(features[own], number)]])
        else:
            ranked.append(subsets.shuffled(rows[own], label, seed=seed))
    return subsets.first([*memory, *ranked], kept)


def herding(features: np.ndarray, num: int | None = None) -> np.ndarray:
    """Choose images greedily so that their mean stays nearest to the mean of the class, ``int64 [num]`` in that order.

    With ``x`` the features scaled to unit length and ``m`` their mean, the k-th image is the one not chosen yet with
    the smallest ``|| m - (sum of the chosen + x_i) / k ||``. Ties (to ``1e-12`` in the squared distance of the sums) go
    to the first image. A smaller `num` gives a prefix. Computed in float64; features of length 0 stay 0.

    Args:
      features: ``[n, D]``, any real type.
      num: number of images; None: all.

    Raises:
      ValueError: not a matrix, or values that are not finite.

    Sources: Welling, Herding Dynamical Weights to Learn, 2009; Rebuffi et al., iCaRL: Incremental Classifier and
    Representation Learning, 2017, which also scales the mean ``m`` to unit length.

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
    order, ahead = np.empty(num, np.int64), np.zeros_like(mean)  # ahead: sum of the chosen minus k times the mean
    for k in range(num):
        ahead -= mean
        distances = 2 * (unit @ ahead) + squares  # squared, minus a term that is the same for all images
        distances[order[:k]] = np.inf
        order[k] = np.argmax(distances <= distances.min() + _TIE)
        ahead += unit[order[k]]
    return order
