"""A chain of versions: which pairs are compared, and the rows that any earlier version had right and the last lost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax import metrics
from mpt_jax.compare.pairs import Pair
from mpt_jax.errors import InputError

Step = tuple[int, int]  # positions of the old and the new version


def steps(count: int) -> list[Step]:
    """Return each version and the one after it.

    Raises:
      InputError: fewer than two versions.

    Examples:
      >>> steps(3)
      [(0, 1), (1, 2)]
    """
    if count < 2:
        raise InputError(f"a chain has {count} {'version' if count == 1 else 'versions'}; expected two or more")
    return [(place, place + 1) for place in range(count - 1)]


def against_ancestors(count: int) -> list[Step]:
    """Return each earlier version and the last one.

    Examples:
      >>> against_ancestors(3)
      [(0, 2), (1, 2)]
    """
    return [(place, count - 1) for place in range(count - 1)]


def lost_from_any(pairs: Iterable[Pair], *, confidence: float, examples: int) -> dict[str, Any]:
    """Find the rows that any earlier version had right and the last has wrong.

    A version counts on the rows whose class it knows; a row counts if any version does. With weights `rows` and `count`
    stay as they are, the rate is a share of weight, and the interval takes the effective number of rows.

    Args:
      pairs: each earlier version with the last, in one order of rows, the oldest first; one at a time is in memory.
      confidence: of the interval, between 0 and 1.
      examples: how many rows to list, the first of the first file.

    Returns:
      `rows` that count, the `count` of lost ones, their `rate` and its `interval` (Wilson), and `examples` with the
      names of the versions that had them right.
    """
    flips: list[tuple[str, np.ndarray]] = []
    known: np.ndarray | bool = False
    last: Pair | None = None
    for last in pairs:
        known = known | (last.labels < last.num_old_classes)
        flips.append((last.names[0], metrics.is_negative_flip(last.old, last.new, last.labels)))
    if last is None:
        raise ValueError("no pairs")
    lost = np.logical_or.reduce([flipped for _, flipped in flips])
    rows, count = int(np.sum(known)), int(lost.sum())
    weights, rate, effective = last.extras.weights, count / rows, float(rows)
    if weights is not None:
        total = float(weights[known].sum())
        rate = min(1.0, float(weights[lost].sum()) / total)
        effective = float(metrics.effective_rows(total, float((weights[known] ** 2).sum())))
    shown = np.flatnonzero(lost)[:examples]
    return {
        "rows": rows,
        "count": count,
        "rate": rate,
        "interval": list(metrics.wilson_interval(rate * effective, effective, confidence=confidence)),
        "examples": [
            {
                "id": id_,
                "label": last.classes[last.labels[row]],
                "right_in": [name for name, flipped in flips if flipped[row]],
                "new": last.classes[last.new[row]],
            }
            for id_, row in zip(last.ids(shown), shown, strict=True)
        ],
    }


def result(
    models: Sequence[str],
    compared: Mapping[Step, dict[str, Any]],
    lost: Mapping[str, Any],
    verdict: str | None,
) -> dict[str, Any]:
    """Return what `--json` writes for a chain.

    Args:
      models: names of the versions, the oldest first.
      compared: the result of `compare` for each of `steps` and `against_ancestors`.
      lost: as of `lost_from_any`.
      verdict: the worst of all comparisons.
    """
    count = len(models)
    return {
        "schema": 1,
        "kind": "chain",
        "models": list(models),
        "passed": all(each["passed"] for each in compared.values()),
        "verdict": verdict,
        "steps": [compared[step] for step in steps(count)],
        "against_ancestors": [compared[step] for step in against_ancestors(count)],
        "lost_from_any": dict(lost),
    }
