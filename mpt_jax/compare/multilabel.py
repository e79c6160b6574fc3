"""Flips of models that give each row several labels: pure functions on integers.

A flip is of a label in a row: a negative one if the old model was right about the label, present or absent, and the new
one is wrong. It is *missed* (a true label lost) or a *false alarm* (a wrong label that the old model did not give).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mpt_jax import metrics
from mpt_jax.compare import order


class Sets(NamedTuple):
    """Sets of classes: set `i` holds ``classes[offsets[i]:offsets[i + 1]]``, in increasing order."""

    offsets: np.ndarray
    classes: np.ndarray


def sets_of(members: Sequence[Sequence[int]]) -> Sets:
    """Return sets of positions of classes.

    Examples:
      >>> sets_of([[2, 0], []])
      Sets(offsets=array([0, 2, 2]), classes=array([0, 2]))
    """
    lengths = np.array([len(each) for each in members], np.int64)
    classes = np.array([place for each in members for place in sorted(each)], np.int64)
    return Sets(np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), classes)


def measure(
    labels: np.ndarray,
    old: np.ndarray,
    new: np.ndarray,
    sets: Sets,
    *,
    classes: Sequence[str],
    num_old_classes: int,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Measure flips of rows and of labels.

    Equal rows are counted once, so that the cost depends on how many different ones there are.

    Args:
      labels: positions in `sets`, ``[n]``; equal sets have the same position.
      old: the same for the old model's predictions.
      new: the same for the new model's.
      sets: of positions in `classes`.
      classes: names, those that the old model knows first.
      num_old_classes: how many the old model knows.
      confidence: of the intervals (Wilson), between 0 and 1.

    Returns:
      - `all_rows`: `count`; `negative_flips`, the rows with a negative flip; `nfr`, their share; `only_new_classes`,
        those whose flips are all false alarms of classes that the old model does not know; `accuracy_old` and
        `accuracy_new`, the rows with all labels right, and `error_new`; `churn`, the rows whose set changed; `empty`,
        the rows without labels and without predictions of each model; `intervals`
      - `labels`: the sums of `missed`, `false_alarms`, `gained` (a true label that only the new model gives) and
        `removed` (a wrong one that only the old model gives); `f1` of both models, micro- and macro-averaged, on
        `all_classes` and on `old_classes`, without those that are neither label nor prediction; `chance`, see
        `doubt_of_old`
      - `per_class`: the same of each class; `count`, the rows with this label; `nfr`, `missed` as a share of them, and
        its `interval`; recall as `accuracy_old` and `accuracy_new`; `f1_old` and `f1_new`; highest `nfr` first
      - `flipped`: whether each row has a negative flip, ``[n]``
      - `moved`: classes that the old model seems to have in another place, see `order.moved_labels`

    Examples:
      >>> sets = sets_of([[0, 1], [0], [2]])  # a row with labels 0 and 1, of which the new model loses 1
      >>> row = np.array([0]), np.array([0]), np.array([1])
      >>> found = measure(*row, sets, classes="abc", num_old_classes=3)
      >>> found["all_rows"]["negative_flips"], found["labels"]["missed"], found["per_class"][0]["class"]
      (1, 1, 'b')
    """
    rows, num_classes = len(labels), len(classes)
    kinds, inverse, counts = _distinct(labels, old, new, len(sets.offsets) - 1)
    true, before, after = (_keys(each, sets, num_classes) for each in kinds)

    def per_class(keys: np.ndarray) -> np.ndarray:
        """Return in how many rows each class has one of these keys."""
        found = np.bincount(keys % num_classes, weights=counts[keys // num_classes], minlength=num_classes)
        return found.astype(np.int64)

    def in_rows(keys: np.ndarray) -> np.ndarray:
        """Return which different rows have one of these keys."""
        found = np.zeros(len(counts), bool)
        found[keys // num_classes] = True
        return found

    had, has = _is_in(true, before), _is_in(true, after)
    missed, gained = true[had & ~has], true[~had & has]
    alarms = after[~_is_in(after, true) & ~_is_in(after, before)]
    removed = before[~_is_in(before, true) & ~_is_in(before, after)]
    flipped = in_rows(missed) | in_rows(alarms)
    of_old = in_rows(missed) | in_rows(alarms[alarms % num_classes < num_old_classes])
    label_set, old_set, new_set = kinds
    empty = np.flatnonzero(np.diff(sets.offsets) == 0)

    def total(mask: np.ndarray) -> int:
        return int(counts[mask].sum())

    numbers = {
        "negative_flips": total(flipped),
        "accuracy_old": total(label_set == old_set),
        "accuracy_new": total(label_set == new_set),
        "churn": total(old_set != new_set),
    }
    tally = {
        "count": per_class(true),
        "missed": per_class(missed),
        "false_alarms": per_class(alarms),
        "gained": per_class(gained),
        "removed": per_class(removed),
    }
    right = per_class(true[had]), per_class(true[has])
    given = per_class(before), per_class(after)
    f1 = [_f1(right[age], tally["count"], given[age]) for age in (0, 1)]
    seen = np.flatnonzero(tally["count"] + given[0] + given[1])
    known = seen[seen < num_old_classes]

    def scores(places: np.ndarray) -> dict[str, float]:
        found: dict[str, float] = {"classes": len(places)}
        for age, name in enumerate(("old", "new")):
            sums = (each[places].sum() for each in (right[age], tally["count"], given[age]))
            found |= {f"micro_{name}": float(_f1(*sums)), f"macro_{name}": float(f1[age][places].mean())}
        return found

    return {
        "all_rows": {
            "count": rows,
            "negative_flips": numbers["negative_flips"],
            "only_new_classes": total(flipped & ~of_old),
            "nfr": numbers["negative_flips"] / rows,
            "accuracy_old": numbers["accuracy_old"] / rows,
            "accuracy_new": numbers["accuracy_new"] / rows,
            "error_new": (rows - numbers["accuracy_new"]) / rows,
            "churn": numbers["churn"] / rows,
            "empty": {
                name: total(np.isin(each, empty))
                for name, each in (("label", label_set), ("old", old_set), ("new", new_set))
            },
            "intervals": {
                "nfr" if key == "negative_flips" else key: list(
                    metrics.wilson_interval(number, rows, confidence=confidence)
                )
                for key, number in numbers.items()
            },
        },
        "labels": {
            **{key: int(each.sum()) for key, each in tally.items()},
            "f1": {"all_classes": scores(seen), "old_classes": scores(known)},
            "chance": _chance(tally["count"][known], given[0][known], rows),
        },
        "per_class": sorted(
            (
                _class_row(
                    classes[place],
                    place < num_old_classes,
                    {key: int(each[place]) for key, each in tally.items()},
                    (int(right[0][place]), int(right[1][place])),
                    (float(f1[0][place]), float(f1[1][place])),
                    confidence,
                )
                for place in seen.tolist()
            ),
            key=lambda row: (-row["nfr"], -row["missed"] - row["false_alarms"], -row["count"], row["class"]),
        ),
        "flipped": flipped[inverse],
        "moved": order.moved_labels(true, before, counts, num_classes),
    }


def doubt_of_old(measured: dict[str, Any]) -> str:
    """Return why the old model's F1 on its own classes suggests labels in another order, or nothing.

    As of `gate.doubt_of_old`, with the micro-averaged F1 in place of the accuracy: in doubt if the upper end of its
    interval is below ``chance + (1 - chance) / 5``, where chance is its F1 if its predictions were dealt to the rows at
    random, or below the lower end of the new model's by more than ``1 / 4``; fewer than 30 rows say nothing. The
    intervals are those of a share of the rows, which the F1 of one label a row is.
    """
    found, chance = measured["labels"]["f1"]["old_classes"], measured["labels"]["chance"]
    rows, old, new = measured["all_rows"]["count"], found["micro_old"], found["micro_new"]
    reason = f"the old model has a micro-averaged F1 of {old:.2g} on its classes"
    if rows < 30:
        return ""
    highest = metrics.wilson_interval(round(old * rows), rows)[1]
    if chance < 1 and highest < chance + (1 - chance) / 5:
        reason += ", close to chance"
    elif highest < metrics.wilson_interval(round(new * rows), rows)[0] - 1 / 4:
        reason += f", the new one {new:.2g}"
    else:
        return ""
    return (
        f"{reason}; its wrong predictions can never be flips, so expected labels and predictions with the same classes "
        "in the same order (see --classes), or --allow-poor-old if it is that poor"
    )


def differences(label: Sequence[str], old: Sequence[str], new: Sequence[str]) -> dict[str, list[str]]:
    """Return the labels that a row missed and its false alarms.

    Examples:
      >>> differences(["a", "b"], ["a", "b"], ["a", "c"])
      {'missed': ['b'], 'false_alarms': ['c']}
    """
    true, before, after = set(label), set(old), set(new)
    return {"missed": sorted((true & before) - after), "false_alarms": sorted(after - true - before)}


def _distinct(
    labels: np.ndarray, old: np.ndarray, new: np.ndarray, count: int
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Return the different rows as three arrays ``[m]``, which of them each row is ``[n]``, and how many rows are."""
    pairs, of_pair = np.unique(labels.astype(np.int64) * count + old, return_inverse=True)
    triples, inverse, counts = np.unique(of_pair * count + new, return_inverse=True, return_counts=True)
    pair = pairs[triples // count]
    return (pair // count, pair % count, triples % count), inverse, counts


def _keys(places: np.ndarray, sets: Sets, num_classes: int) -> np.ndarray:
    """Return ``row * num_classes + class`` of every class in the sets of some rows, in increasing order."""
    starts, lengths = sets.offsets[places], sets.offsets[places + 1] - sets.offsets[places]
    ends = np.cumsum(lengths)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    rows = np.repeat(np.arange(len(places)), lengths)
    return rows * num_classes + sets.classes[np.repeat(starts, lengths) + within]


def _is_in(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which keys are among others; both are in increasing order."""
    if not len(others):
        return np.zeros(len(keys), bool)
    places = np.searchsorted(others, keys)
    return others[np.minimum(places, len(others) - 1)] == keys


def _f1(right: np.ndarray, true: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return ``2 right / (true + given)``, and 0 if there are none."""
    return np.asarray(2 * right / np.maximum(true + given, 1))


def _chance(true: np.ndarray, given: np.ndarray, rows: int) -> float:
    """Return the expected micro-averaged F1 if predictions were dealt to the rows at random."""
    return float(_f1((true * (given / rows)).sum(), true.sum(), given.sum()))


def _class_row(
    name: str,
    known: bool,
    counts: dict[str, int],
    right: tuple[int, int],
    f1: tuple[float, float],
    confidence: float,
) -> dict[str, Any]:
    count, missed = counts["count"], counts["missed"]
    return {
        "class": name,
        "known": known,
        **counts,
        "accuracy_old": right[0] / count if count else None,
        "accuracy_new": right[1] / count if count else None,
        "f1_old": f1[0],
        "f1_new": f1[1],
        "nfr": missed / count if count else 0.0,
        "interval": list(metrics.wilson_interval(missed, count, confidence=confidence)) if count else None,
    }
