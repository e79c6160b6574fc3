"""Random subsets of each class: a subset is a prefix of a random order of the class.

The order depends only on the seed, the class and its number of images. So a smaller subset is contained in a larger
one, and the images kept of a class do not depend on other classes.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def shuffled(rows: np.ndarray, label: int, *, seed: int) -> np.ndarray:
    """Return the rows of one class, ``int [n]``, in a random order that depends on (seed, label, n)."""
    return np.random.default_rng([seed, label]).permutation(rows)


def first(ranked: Sequence[np.ndarray], counts: Iterable[int]) -> list[np.ndarray]:
    """Return the first `counts` rows of each class.

    Examples:
      >>> [rows.tolist() for rows in first([np.array([4, 2, 3]), np.array([9])], [2, 1])]
      [[4, 2], [9]]
    """
    return [rows[:number] for rows, number in zip(ranked, counts, strict=True)]


def part(labels: np.ndarray, fraction: float, *, seed: int) -> np.ndarray:
    """Return sorted positions of a random part of each class: ``round(fraction * n_k)`` of ``n_k``, and at least one.

    With it, an old model is trained on a part of the data, and a new one on all.

    Args:
      labels: int ``[N]``, 0 or more.
      fraction: above 0 and at most 1; halves are rounded up.
      seed: seed of the order; for a given seed, a smaller fraction gives a subset of a larger one.

    Raises:
      ValueError: a fraction out of range.

    Examples:
      >>> labels = np.repeat([0, 1], [4, 2])
      >>> labels[part(labels, 0.5, seed=0)].tolist()
      [0, 0, 1]
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction}; expected above 0 and at most 1")
    counts = np.bincount(labels)
    return _draw(
        labels, np.clip(np.floor(fraction * counts + 0.5).astype(np.int64), np.minimum(counts, 1), counts), seed
    )


def long_tail(labels: np.ndarray, imbalance: float, *, seed: int) -> np.ndarray:
    """Return sorted positions of a random long-tailed part, with class sizes from `long_tail_counts`.

    Args:
      labels: int ``[N]``, positions in the run's class order.
      imbalance: number of images of the largest class over the smallest, 1 or more.
      seed: seed of the order; for a given seed, a larger imbalance gives a subset of a smaller one.

    Raises:
      ValueError: an imbalance below 1.

    Examples:
      >>> labels = np.repeat([0, 1, 2], 8)
      >>> np.bincount(labels[long_tail(labels, 4, seed=0)]).tolist()
      [8, 4, 2]
    """
    return _draw(labels, long_tail_counts(np.bincount(labels), imbalance), seed)


def long_tail_counts(counts: ArrayLike, imbalance: float) -> np.ndarray:
    """Return class sizes with an exponential profile, ``n_k = floor(n_max * imbalance ** (-k / (K - 1)))``, ``[K]``.

    ``n_max`` is the size of the largest class. A class with fewer than ``n_k`` images keeps all of them. With
    ``n_max < imbalance`` the last classes get 0.

    Args:
      counts: number of images of each class, ``[K]``, in the run's class order.
      imbalance: ``n_0 / n_(K-1)``, 1 or more; 100 gives CIFAR-100-LT from CIFAR-100.

    Raises:
      ValueError: an imbalance below 1, or not finite.

    Sources: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019; Cao et al., Learning
    Imbalanced Datasets with Label-Distribution-Aware Margin Loss, 2019.

    Examples:
      >>> cifar_lt = long_tail_counts([500] * 100, 100)
      >>> int(cifar_lt[0]), int(cifar_lt[-1]), int(cifar_lt.sum())
      (500, 5, 10847)
    """
    if not 1 <= imbalance < np.inf:
        raise ValueError(f"imbalance={imbalance}; expected 1 or more")
    available = np.asarray(counts, np.int64)
    powers = np.arange(len(available)) / max(len(available) - 1, 1)
    # The small addition keeps rounding errors of the power from turning an exact 5 into 4.
    profile = np.floor(available.max(initial=0) * float(imbalance) ** -powers + 1e-9).astype(np.int64)
    return np.minimum(profile, available)


def _draw(labels: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    rows = by_class(labels, range(len(counts)))
    ranked = [shuffled(members, label, seed=seed) for label, members in enumerate(rows)]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *first(ranked, counts)]))


def by_class(labels: np.ndarray, classes: range) -> list[np.ndarray]:
    """Return the ascending positions of each of these classes.

    Examples:
      >>> [rows.tolist() for rows in by_class(np.array([1, 0, 1, 3]), range(1, 3))]
      [[0, 2], []]
    """
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], range(classes.start, classes.stop + 1))
    return [order[start:end] for start, end in itertools.pairwise(ends)]
