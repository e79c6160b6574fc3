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
    if not suspects.any():
        return []
    chosen = suspects[labels] & (predictions != labels)
    keys, counts = np.unique(labels[chosen].astype(np.int64) * num_classes + predictions[chosen], return_counts=True)
    of, to = np.divmod(keys, num_classes)
    most = metrics.wilson_intervals(counts.astype(float), rows[of].astype(float))[:, 0] > 1 / 2
    places = dict(zip(of[most].tolist(), to[most].tolist(), strict=True))
    predicted = np.bincount(predictions, minlength=num_classes)
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


def doubt_of_old(predictions: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str:
    """Return why the old model's predictions suggest classes in another order, or nothing.

    Where it is wrong no flip can be seen. Two of many classes that changed places lower its accuracy too little for
    `gate.doubt_of_old`.

    Examples:
      >>> labels = np.arange(40) % 4
      >>> doubt_of_old(np.array([0, 1, 3, 2])[labels], labels, ["ant", "bee", "cat", "dog"]).split(";")[0]
      "the old model predicts 'dog' for 10 of 10 rows of 'cat', 'cat' for 10 of 10 rows of 'dog'"
    """
    found = [
        f"{classes[each.prediction]!r} for {each.rows:,} of {each.of:,} rows of {classes[each.label]!r}"
        for each in moved(predictions, labels, len(classes))
    ]
    if not found:
        return ""
    return (
        f"the old model predicts {listed(found)}; its wrong predictions can never be flips, so expected the same "
        "classes in the same order for labels and predictions (see --classes), --class-map FILE if a class was "
        "renamed, or --allow-poor-old if it confuses these"
    )
