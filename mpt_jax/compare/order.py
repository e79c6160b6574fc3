"""Signs that a model's classes are in another order than the labels', found in what it confuses: pure functions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mpt_jax import metrics
from mpt_jax.errors import listed


class Moved(NamedTuple):
    """A class that a model predicts, for most of its rows, as another: positions of both, and numbers of rows."""

    label: int
    prediction: int
    rows: int
    of: int


def moved(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> list[Moved]:
    """Return the classes that a model seems to have in another place, in the order of the classes.

    A class with its rows predicted as another one has moved there if a third class, or the other one itself, has moved
    to its place: two classes that changed places, a cycle, or a list that is shifted by one. It has also moved if it is
    never predicted and the other class is seldom right or has no rows: a list of indices with a new class before its
    last one. "Most" means that the lower end of the 95 % interval (Wilson) of the share is above one half, "seldom"
    that the upper end is below, so that a few rows say nothing. Classes that look alike do not form such a chain: the
    model would have to take most of A for B and most of B for C. Nor does a new class that looks like an old one: the
    model would have to be wrong on the old one too.

    Args:
      predictions: positions of classes, ``[n]``.
      labels: positions of classes, ``[n]``.
      num_classes: how many classes there are.

    Examples:
      >>> labels = np.arange(30) % 3
      >>> [each[:2] for each in moved(np.array([1, 0, 2])[labels], labels, 3)]
      [(0, 1), (1, 0)]
      >>> moved(np.array([1, 1, 2])[labels], labels, 3)  # a class that the model has not learned
      []
    """
    rows = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels[predictions == labels], minlength=num_classes)
    suspects = (rows > 0) & (2 * right < rows)
    chosen = suspects[labels] & (predictions != labels)
    keys = labels[chosen].astype(np.int64) * num_classes + predictions[chosen]
    predicted = np.bincount(predictions, minlength=num_classes)
    return _chained(*np.unique(keys, return_counts=True), rows, right, predicted)


def moved_labels(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray, num_classes: int) -> list[Moved]:
    """Return the same of a model that gives each row several labels.

    A row has its label predicted as another class if it is predicted without the label, and with a class that is none
    of its labels.

    Args:
      labels: ``row * num_classes + class`` of every label, in increasing order.
      predictions: the same of every predicted class.
      counts: how many rows there are like each, ``[rows]``.
      num_classes: how many classes there are.

    Examples:
      >>> labels = np.array([0, 3, 4, 5])  # 0 in the first of two rows of three classes, and all three in the second
      >>> [each[:2] for each in moved_labels(labels, np.array([1, 3, 4, 5]), np.array([90, 10]), 3)]
      []
      >>> labels, predictions = np.array([0, 3 + 1, 6 + 2]), np.array([1, 3 + 0, 6 + 2])
      >>> [each[:2] for each in moved_labels(labels, predictions, np.array([9, 9, 9]), 3)]
      [(0, 1), (1, 0)]
    """

    def per_class(keys: np.ndarray) -> np.ndarray:
        return np.bincount(keys % num_classes, counts[keys // num_classes], num_classes).astype(np.int64)

    lost = labels[~np.isin(labels, predictions, assume_unique=True)]
    rows = per_class(labels)
    right = rows - per_class(lost)
    lost = lost[(2 * right < rows)[lost % num_classes]]
    extra = predictions[~np.isin(predictions, labels, assume_unique=True)]
    of_row = np.bincount(extra // num_classes, minlength=len(counts))
    first = np.cumsum(of_row) - of_row
    repeats = of_row[lost // num_classes]
    ends = np.cumsum(repeats)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - repeats, repeats)
    of = np.repeat(lost, repeats)
    to = extra[np.repeat(first[lost // num_classes], repeats) + within] % num_classes
    keys, inverse = np.unique(of % num_classes * num_classes + to, return_inverse=True)
    found = np.bincount(inverse, counts[of // num_classes], len(keys)).astype(np.int64)
    return _chained(keys, found, rows, right, per_class(predictions))


def _chained(
    keys: np.ndarray, counts: np.ndarray, rows: np.ndarray, right: np.ndarray, predicted: np.ndarray
) -> list[Moved]:
    """Return the classes that have moved, see `moved`.

    Args:
      keys: ``label * num_classes + prediction`` of wrong predictions, each once, in increasing order.
      counts: the rows of each.
      rows: the rows of each label.
      right: those of them with a right prediction.
      predicted: the rows of each prediction.
    """
    of, to = np.divmod(keys, max(len(rows), 1))
    most = metrics.wilson_intervals(counts.astype(float), rows[of].astype(float))[:, 0] > 1 / 2
    places = dict(zip(of[most].tolist(), to[most].tolist(), strict=True))
    seldom = metrics.wilson_intervals(right.astype(float), rows.astype(float))[:, 1] < 1 / 2
    chain = {
        label
        for label, place in places.items()
        if place in places or label in places.values() or (not predicted[label] and (seldom[place] or not rows[place]))
    }
    return [
        Moved(int(label), int(prediction), int(count), int(rows[label]))
        for label, prediction, count in zip(of[most], to[most], counts[most], strict=True)
        if int(label) in chain
    ]


def doubt_of_old(moved: Sequence[Moved], classes: Sequence[str]) -> str:
    """Return why the old model's predictions suggest classes in another order, or nothing.

    Where it is wrong no flip can be seen. Two of many classes that changed places lower its accuracy too little for
    `gate.doubt_of_old`.

    Args:
      moved: classes that seem to be in another place.
      classes: names of all.

    Examples:
      >>> classes = ["ant", "bee", "cat", "dog"]
      >>> doubt_of_old([Moved(2, 3, 10, 10), Moved(3, 2, 9, 10)], classes).split(";")[0]
      "the old model predicts 'dog' for 10 of 10 rows of 'cat', 'cat' for 9 of 10 rows of 'dog'"
    """
    found = [
        f"{classes[each.prediction]!r} for {each.rows:,} of {each.of:,} rows of {classes[each.label]!r}"
        for each in moved
    ]
    if not found:
        return ""
    return (
        f"the old model predicts {listed(found)}; its wrong predictions can never be flips, so expected the same "
        "classes in the same order for labels and predictions (see --classes), --class-map FILE if a class was "
        "renamed, or --allow-poor-old if it confuses these"
    )
