"""The rates of a comparison and the checks of its limits: pure functions on integers."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from mpt_jax import metrics
from mpt_jax.errors import InputError

INTERVAL = (
    "Wilson's score interval; for the relative NFR, which is (NFR / new error) / old accuracy, that of the share of "
    "new errors that are negative flips, divided by the observed old accuracy"
)


@dataclass(frozen=True)
class Limits:
    """Limits on the new model, as fractions; None means no limit.

    Attributes:
      max_nfr: negative flips as a share of the rows whose label the old model knows.
      max_relative_nfr: `max_nfr` divided by the rate of two models with unrelated errors.
      max_class_nfr: negative flips as a share of the rows of each class.
      min_accuracy: accuracy of the new model on all rows.
      confident: compare the limits with the confidence bound instead of the point estimate, so that too few rows fail.
    """

    max_nfr: float | None = None
    max_relative_nfr: float | None = None
    max_class_nfr: float | None = None
    min_accuracy: float | None = None
    confident: bool = False

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            # A limit of 1 limits nothing, and is more often 1 % written as a percentage.
            most, inclusive = (math.inf if name == "max_relative_nfr" else 1), name == "min_accuracy"
            if not isinstance(value, Real) or not (0 <= value < most or (inclusive and value == most)):
                valid = f"a fraction {'up to' if inclusive else 'below'} 1" if most == 1 else "a ratio"
                raise InputError(f"{name} is {value}; expected {valid}, such as 0.01 for 1 %")
        if self.confident and not self.given():
            raise InputError("confident applies to limits, but none is given; expected max_nfr or another limit")

    def given(self) -> dict[str, float]:
        """Return the limits that are set."""
        values = {key: value for key, value in dataclasses.asdict(self).items() if key != "confident"}
        return {key: value for key, value in values.items() if value is not None}


def measure(
    old: np.ndarray,
    new: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[str],
    num_old_classes: int,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Measure flips on the rows of classes that the old model knows, on all rows, and per class.

    Args:
      old: predictions, integers below `num_old_classes`, ``[n]``.
      new: predictions, positions in `classes`, ``[n]``.
      labels: positions in `classes`, ``[n]``.
      classes: names, those that the old model knows first.
      num_old_classes: how many classes the old model knows.
      confidence: of the intervals, between 0 and 1.

    Returns:
      `old_classes_rows` and `all_rows` (`flip_metrics`, `intervals` as [low, high], and `mcnemar_p`, the p-value of
      equal accuracy on these rows), and `per_class`, highest NFR first.

    Examples:
      >>> found = measure(np.array([0, 1]), np.array([0, 2]), np.array([0, 1]), classes="abc", num_old_classes=2)
      >>> found["old_classes_rows"]["nfr"], found["per_class"][0]["class"]
      (0.5, 'b')
    """
    is_old = labels < num_old_classes
    per_class = metrics.per_class_flips(old, new, labels, num_classes=len(classes))
    rows = [
        _class_row(
            name, place < num_old_classes, {key: int(counts[place]) for key, counts in per_class.items()}, confidence
        )
        for place, name in enumerate(classes)
        if per_class["count"][place]
    ]
    return {
        "old_classes_rows": _rates(old[is_old], new[is_old], labels[is_old], confidence),
        "all_rows": _rates(old, new, labels, confidence),
        "per_class": sorted(rows, key=lambda row: (-row["nfr"], -row["negative_flips"], -row["count"])),
    }


def doubt_of_old(measured: dict[str, Any], num_old_classes: int) -> str:
    """Return why the old model's accuracy on its own classes suggests labels in another order, or nothing.

    A wrong prediction of the old model can never flip, so a gate is blind where the old model is wrong throughout. The
    accuracy is in doubt if the upper end of its interval is below ``chance + (1 - chance) / 5`` with chance
    ``1 / num_old_classes``, or below the lower end of the new model's by more than ``1 / 4``; fewer than 30 rows say
    nothing.

    Examples:
      >>> labels, wrong = np.arange(100) % 10, (np.arange(100) + 1) % 10
      >>> found = measure(wrong, labels, labels, classes="abcdefghij", num_old_classes=10)
      >>> doubt_of_old(found, 10).split(";")[0]
      'the old model is right on 0 of 100 rows of its classes, close to chance'
    """
    rows = measured["old_classes_rows"]
    old, new = rows["intervals"]["accuracy_old"], rows["intervals"]["accuracy_new"]
    chance, right = 1 / num_old_classes, rows["both_right"] + rows["negative_flips"]
    found = f"the old model is right on {right:,} of {rows['count']:,} rows of its classes"
    if rows["count"] < 30:
        return ""
    if num_old_classes > 1 and old[1] < chance + (1 - chance) / 5:
        found += ", close to chance"
    elif old[1] < new[0] - 1 / 4:
        found += f", the new one on {rows['both_right'] + rows['positive_flips']:,}"
    else:
        return ""
    return (
        f"{found}; its wrong predictions can never be flips, so expected labels and predictions with the same classes "
        "in the same order (see --classes), or --allow-poor-old if it is that poor"
    )


def checks(measured: dict[str, Any], limits: Limits) -> list[dict[str, Any]]:
    """Check each limit: the `value` found, its `interval`, the number `held` against the limit, whether it `passed`.

    With `confident` and no interval (the relative NFR of an old model that is never right), `held` is None and the
    check fails.

    Examples:
      >>> labels = np.arange(100) % 2
      >>> found = measure(labels, labels, labels, classes="ab", num_old_classes=2)
      >>> [check["passed"] for check in checks(found, Limits(max_nfr=0.01))]
      [True]
      >>> [check["passed"] for check in checks(found, Limits(max_nfr=0.01, confident=True))]  # too few rows
      [False]
    """
    old_classes, everything = measured["old_classes_rows"], measured["all_rows"]
    found = []
    for name, limit in limits.given().items():
        where = f"{old_classes['count']:,} rows of old classes"
        if name == "max_class_nfr":
            compared = (lambda row: row["interval"][1]) if limits.confident else (lambda row: row["nfr"])
            row = max((row for row in measured["per_class"] if row["known"]), key=compared)
            where, value, interval = f"class {row['class']}, {row['count']:,} rows", row["nfr"], row["interval"]
        elif name == "min_accuracy":
            where = f"all {everything['count']:,} rows"
            value, interval = everything["accuracy_new"], everything["intervals"]["accuracy_new"]
        else:
            key = name.removeprefix("max_")
            value, interval = old_classes[key], old_classes["intervals"][key]
        is_minimum = name.startswith("min_")
        held = value
        if limits.confident:
            held = interval[0 if is_minimum else 1] if interval else None
        passed = held is not None and (held >= limit if is_minimum else held <= limit)
        check = {"limit": name, "allowed": limit, "where": where, "value": value, "interval": interval, "held": held}
        found.append(check | {"passed": passed})
    return found


def _rates(old: np.ndarray, new: np.ndarray, labels: np.ndarray, confidence: float) -> dict[str, Any]:
    flips = metrics.flip_metrics(old, new, labels)
    keys = ("count", "both_right", "negative_flips", "positive_flips", "both_wrong")
    count, both_right, negative, positive, both_wrong = (int(flips[key]) for key in keys)
    right_old, wrong_new = both_right + negative, negative + both_wrong

    def interval(successes: int, out_of: int = count) -> list[float]:
        return list(metrics.wilson_interval(successes, out_of, confidence=confidence))

    intervals = {
        "accuracy_old": interval(right_old),
        "accuracy_new": interval(count - wrong_new),
        "nfr": interval(negative),
        "pfr": interval(positive),
        "churn": interval(round(flips["churn"] * count)),
        # Without new errors the share of them that are flips is unknown, as in Wilson's interval of 0 / 0.
        "relative_nfr": [end * count / right_old for end in (interval(negative, wrong_new) if wrong_new else (0, 1))]
        if right_old
        else None,
    }
    return {**flips, "intervals": intervals, "mcnemar_p": metrics.mcnemar_exact(negative, positive)}


def _class_row(name: str, known: bool, counts: dict[str, int], confidence: float) -> dict[str, Any]:
    count, negative = counts["count"], counts["negative_flips"]
    return {
        "class": name,
        "known": known,
        **counts,
        "accuracy_old": (counts["both_right"] + negative) / count,
        "accuracy_new": (counts["both_right"] + counts["positive_flips"]) / count,
        "nfr": negative / count,
        "interval": list(metrics.wilson_interval(negative, count, confidence=confidence)),
    }
