"""Examples with labels and ids, and the parts of a data set."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from mpt_jax.data.feeding.stream import Stream
from mpt_jax.data.findings import Finding

PARTS = ("train", "validation", "test")  # of a data set


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples sorted by label, then by id, so that the classes of a release are a prefix."""

    images: np.ndarray | Stream  # uint8 [N, H, W, C]; or features, float32 [N, D]
    labels: np.ndarray  # int32 [N], positions in the run's class order
    ids: np.ndarray  # str [N]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with the run's classes: names in the run's order, three disjoint parts, and findings."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    findings: tuple[Finding, ...] = ()
    corrected: Mapping[str, str] = dataclasses.field(default_factory=dict)  # id of a test image -> its former label


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """The examples of the chosen classes by part, the faults of skipped examples, and other findings."""

    train: Split
    test: Split
    faults: Mapping[str, Sequence[str]]  # kind of fault -> examples that have it
    findings: tuple[Finding, ...] = ()
    validation: Split | None = None  # None: drawn from train
    corrected: Mapping[str, str] = dataclasses.field(default_factory=dict)  # id of a test image -> its former label


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A data set of which only the metadata has been read: what each kind of data provides to `loading`."""

    class_names: Sequence[str]  # in the order of the data set
    read: Callable[[tuple[int, ...]], Parts]  # takes the class order; to be called once
    published: bool = False  # training images that are also in test are kept, so that results stay comparable


def count(split: Split, num_classes: int) -> int:
    """Return the number of examples of the first `num_classes` classes: their images are ``split.images[:count]``.

    Examples:
      >>> labels = np.array([0, 0, 1, 2], np.int32)
      >>> count(Split(np.zeros((4, 8, 8, 1), np.uint8), labels, np.array(list("abcd"))), 2)
      3
    """
    return int(np.searchsorted(split.labels, num_classes))


def class_counts(split: Split, num_classes: int) -> np.ndarray:
    """Return the number of examples of each of the first `num_classes` classes, ``int64 [num_classes]``.

    Examples:
      >>> labels = np.array([0, 0, 2], np.int32)
      >>> class_counts(Split(np.zeros((3, 8, 8, 1), np.uint8), labels, np.array(list("abc"))), 4).tolist()
      [2, 0, 1, 0]
    """
    return np.diff(np.searchsorted(split.labels, np.arange(num_classes + 1)))


def take(split: Split, indices: ArrayLike) -> Split:
    """Return the examples at these positions, in any order, as a split sorted by label and id.

    The result is a view if the positions are consecutive.

    Args:
      indices: int ``[n]``, unique.

    Raises:
      TypeError: not a list of integers.
      ValueError: a position out of range, or one given twice.

    Examples:
      >>> labels = np.array([0, 0, 1, 2], np.int32)
      >>> split = Split(np.zeros((4, 8, 8, 1), np.uint8), labels, np.array(list("abcd")))
      >>> take(split, [3, 0]).ids.tolist()
      ['a', 'd']
    """
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise TypeError(f"indices of shape {chosen.shape} and dtype {chosen.dtype}; expected integers [n]")
    chosen = np.sort(chosen.astype(np.int64))
    if chosen.size and not 0 <= chosen[0] <= chosen[-1] < len(split):
        raise ValueError(f"indices from {chosen[0]} to {chosen[-1]}; expected 0 to {len(split) - 1}")
    if np.any(chosen[1:] == chosen[:-1]):
        raise ValueError(f"index {chosen[1:][chosen[1:] == chosen[:-1]][0]} is given twice; expected it once")
    return pick(split, chosen)


def pick(split: Split, rows: np.ndarray) -> Split:
    """Return the examples of these rows in this order: a view if the rows are consecutive, else a copy."""
    consecutive = rows.size and np.all(np.diff(rows) == 1)
    chosen = slice(rows[0], rows[-1] + 1) if consecutive else rows
    return Split(split.images[chosen], split.labels[chosen], split.ids[chosen])
