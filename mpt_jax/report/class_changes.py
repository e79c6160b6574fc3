"""What an update with a class map did to the images of each changed class: numbers, and the section of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax import class_map, metrics
from mpt_jax.report import comparison
from mpt_jax.report.blocks import Folded, Table, Text, interval, percent
from mpt_jax.update.class_change import ClassChange

COUNTS = ("count", "right_before", "right", "right_of_groups", "flips", "flips_of_groups")
RATES = {
    "nfr": "flips",
    "nfr_of_groups": "flips_of_groups",
    "accuracy": "right",
    "accuracy_of_groups": "right_of_groups",
}
"""The count behind each rate; "of groups" is the second reading."""


def count(
    change: ClassChange, old_predictions: np.ndarray, new_predictions: np.ndarray, labels: np.ndarray
) -> dict[str, list[int]]:
    """Count the images of each group of classes, see `class_map.groups`, and their flips in both readings.

    Args:
      change: of the classes.
      old_predictions: positions among the old classes, ``[n]``.
      new_predictions: positions among the new classes, ``[n]``.
      labels: positions among the new classes that are not new, ``[n]``.

    Returns:
      For each group: `count`; `right_before`; `right`, now; `right_of_groups`, now predicted as a class of its group,
      so that the parts of a split class count as one; `flips` and `flips_of_groups`, right before and not so now.
    """
    _, group_of = class_map.groups(change.allowed)
    before = metrics.as_new(old_predictions, new_predictions, labels, change.allowed)
    right, in_group = before == labels, group_of[new_predictions] == group_of[labels]
    found = {
        "count": np.ones_like(right),
        "right_before": right,
        "right": new_predictions == labels,
        "right_of_groups": in_group,
        "flips": metrics.is_negative_flip(before, new_predictions, labels),
        "flips_of_groups": right & ~in_group,
    }
    groups = int(group_of.max()) + 1
    return {key: np.bincount(group_of[labels[rows]], minlength=groups).tolist() for key, rows in found.items()}


def describe(
    change: ClassChange,
    counts: Mapping[str, Mapping[str, Sequence[Any]]],
    class_names: Sequence[str],
    compared: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the entry `class_changes` of a report.

    Args:
      change: of the classes.
      counts: `classes` of each method: `count` of each seed.
      class_names: of the run.
      compared: of `comparison.compare`.

    Returns:
      `digest` of the map; `groups`, one for each group with a changed class and a last one with all others: `old` and
      `new` names, `images`, and by method the sums over the seeds of `COUNTS`; `retired` names; `readings`, by method
      that has not diverged each of `RATES` on the images of old classes: `mean`, `interval` and `difference` from the
      baseline.
    """
    of_old, of_new = class_map.groups(change.allowed)
    sums = {m: {key: np.sum([seed[key] for seed in of["classes"]], 0) for key in COUNTS} for m, of in counts.items()}
    named = [
        (
            [name for name, g in zip(change.old_names, of_old, strict=True) if g == group],
            [name for name, g in zip(class_names, of_new, strict=False) if g == group],
        )
        for group in range(of_old.max() + 1)
    ]
    images = np.array(next(iter(counts.values()))["classes"][0]["count"])  # the same for all seeds and methods
    changed = [old != new for old, new in named]
    shown = [(old, new, [g]) for g, (old, new) in enumerate(named) if changed[g]]
    stays = [g for g, differs in enumerate(changed) if not differs]
    rows = [
        {
            "old": old,
            "new": new,
            "images": int(images[together].sum()),
            "methods": {m: {key: int(c[key][together].sum()) for key in COUNTS} for m, c in sums.items()},
        }
        for old, new, together in [*shown, *([([], [], stays)] if stays else [])]
    ]
    return {
        "digest": change.record()["digest"],
        "groups": rows,
        "retired": [name for name, g in zip(change.old_names, of_old, strict=True) if g < 0],
        "readings": _readings(counts, compared),
    }


def _readings(counts: Mapping[str, Mapping[str, Sequence[Any]]], compared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rates of each method, with intervals over seeds if there are enough; differences are paired."""
    rates = {
        method: {
            key: [sum(seed[count]) / sum(seed["count"]) for seed in counts[method]["classes"]]
            for key, count in RATES.items()
        }
        for method in compared["methods"]
    }
    base = rates.get(compared["baseline"], {})

    def estimate(values: Sequence[float]) -> dict[str, Any]:
        over_seeds = compared["interval_over"] == "seeds"
        return {"mean": float(np.mean(values)), "interval": comparison.student(values) if over_seeds else None}

    return {
        method: {
            key: {
                **estimate(values),
                "difference": estimate(np.subtract(values, base[key]).tolist()),
            }
            for key, values in of_method.items()
        }
        for method, of_method in rates.items()
    }


def blocks(report: Mapping[str, Any], methods: Sequence[str]) -> list[Any]:
    """Return the section, for some of the methods; nothing if no class changed."""
    found = report.get("class_changes")
    if not found:
        return []
    rows = []
    for group in found["groups"]:
        first = group["methods"][methods[0]]
        rates = [
            percent(of[key] / of["count"]) if of["count"] else "-"
            for of in (group["methods"][method] for method in methods)
            for key in ("flips", "flips_of_groups")
        ]
        right = percent(first["right_before"] / first["count"]) if first["count"] else "-"
        before, now = (", ".join(group[key]) or "all others" for key in ("old", "new"))
        rows.append([_change(group), before, now, str(group["images"]), right, *rates])
    left_out = [
        f"{each['count']:,} {each['what']}" for each in report["dataset"]["findings"] if each["outcome"] == "left out"
    ]
    rows += [["retired", name, "-", "-", "-", *["-"] * (2 * len(methods))] for name in found["retired"]]
    headings = ["change", "before", "now", "test images", "right before"]
    headings += [heading for method in methods for heading in (f"flips, {method}", "by groups")]
    table, kinds = Table(headings, rows, 3), [row[0] for row in rows]
    counted = [f"{kinds.count(kind)} {kind}" for kind in _KINDS if kind in kinds]
    retired = " Images of retired classes are in no rate" + (
        f": {', '.join(left_out)}." if left_out else "; the data have none."
    )
    return [
        Text(
            f"Classes of the old model: {', '.join(counted)}. It was right on an image if its prediction stands for "
            "the true class: a renamed or merged class for the new one, a split class for all its parts."
            + (retired if found["retired"] else "")
        ),
        Text(
            "Two readings of a flip. In all other sections, the new model is right if it predicts the true class. By "
            "groups, it is right if it predicts any part of what the old model's class became, so a confusion of two "
            "parts of a split class is no flip. Rates of the old classes' test images in %."
        ),
        *_both_readings(report),
        table if len(rows) <= _SHOWN else Folded("Changed classes", [table]),
    ]


def _both_readings(report: Mapping[str, Any]) -> list[Any]:
    """Return the rates of all methods in both readings, with their differences from the baseline."""
    found, baseline = report["class_changes"]["readings"], report["comparison"]["baseline"]
    if baseline not in found:
        return []
    rows = []
    for method, rates in found.items():
        row = [method]
        for key in ("nfr", "nfr_of_groups"):
            of, difference = rates[key], rates[key]["difference"]
            row.append(percent(of["mean"]) + interval(of["interval"]))
            row.append(
                "-"
                if method == baseline
                else f"{100 * difference['mean']:+.2f}{interval(difference['interval'], sign='+')}"
            )
        rows.append([*row, *(percent(rates[key]["mean"]) for key in ("accuracy", "accuracy_of_groups"))])
    against = f"against {baseline}"
    headings = ["method", "negative flips", against, "by groups", against, "accuracy", "accuracy by groups"]
    return [Table(headings, rows)]


_SHOWN = 12  # rows of a table that is not folded
_KINDS = ("renamed", "merged", "split", "merged and split", "retired")


def _change(group: Mapping[str, Any]) -> str:
    old, new = len(group["old"]), len(group["new"])
    if not old:
        return "stay"
    return {(False, False): "renamed", (True, False): "merged", (False, True): "split"}.get(
        (old > 1, new > 1), "merged and split"
    )
