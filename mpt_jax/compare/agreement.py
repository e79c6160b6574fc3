"""Two models' predictions without labels: how often they agree, and from which class to which they change."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpt_jax import metrics


def measure(
    old: np.ndarray,
    new: np.ndarray,
    *,
    classes: Sequence[str],
    ids: Callable[[np.ndarray], list[str]],
    confidence: float = 0.95,
    examples: int = 1000,
) -> dict[str, Any]:
    """Measure agreement and churn, and count the changes from class to class.

    Args:
      old: predictions, positions in `classes`, ``[n]``.
      new: the same of the new model.
      classes: names.
      ids: returns the ids of some rows.
      confidence: of the intervals (Wilson), between 0 and 1.
      examples: how many changed rows, and how many kinds of changes, to list.

    Returns:
      - `all_rows`: `count`, `changed`, `churn`, `agreement`, `intervals`
      - `changes`: `kinds`, how many pairs of classes, and the `most_frequent` with `count` and `share` of all rows
      - `per_class`: rows of each class for each model, and how many left it and joined it; the most changed first
      - `changed`: how many rows, and `examples`

    Examples:
      >>> found = measure(np.array([0, 0, 1]), np.array([0, 1, 1]), classes="ab", ids=lambda rows: rows.tolist())
      >>> found["all_rows"]["changed"], found["changes"]["most_frequent"]
      (1, [{'old': 'a', 'new': 'b', 'count': 1, 'share': 0.3333333333333333}])
    """
    rows, differ = len(old), np.flatnonzero(old != new)
    count = len(differ)
    kinds, counts = np.unique(old[differ].astype(np.int64) * len(classes) + new[differ], return_counts=True)
    order = np.lexsort((kinds, -counts))[:examples]
    shown = differ[:examples]
    return {
        "all_rows": rates(count, rows, confidence),
        "changes": {
            "kinds": len(kinds),
            "most_frequent": [
                {
                    "old": classes[kinds[place] // len(classes)],
                    "new": classes[kinds[place] % len(classes)],
                    "count": int(counts[place]),
                    "share": int(counts[place]) / rows,
                }
                for place in order
            ],
        },
        "per_class": _per_class(old, new, classes),
        "changed": {
            "count": count,
            "examples": [
                {"id": id_, "old": classes[old[row]], "new": classes[new[row]]}
                for id_, row in zip(ids(shown), shown, strict=True)
            ],
        },
    }


def rates(changed: int, rows: int, confidence: float) -> dict[str, Any]:
    """Return churn and agreement if some of the rows changed.

    Examples:
      >>> found = rates(1, 4, 0.95)
      >>> found["churn"], found["agreement"], ["%.2f" % end for end in found["intervals"]["agreement"]]
      (0.25, 0.75, ['0.30', '0.95'])
    """
    low, high = metrics.wilson_interval(changed, rows, confidence=confidence)
    return {
        "count": rows,
        "changed": changed,
        "churn": changed / rows,
        "agreement": (rows - changed) / rows,
        "intervals": {"churn": [low, high], "agreement": [1 - high, 1 - low]},
    }


def _per_class(old: np.ndarray, new: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return how often each model predicts each class, those that the most rows left or joined first."""
    before, after, kept = (np.bincount(codes, minlength=len(classes)) for codes in (old, new, old[old == new]))
    found = [
        {
            "class": name,
            "rows_old": int(before[place]),
            "rows_new": int(after[place]),
            "left": int(before[place] - kept[place]),
            "joined": int(after[place] - kept[place]),
        }
        for place, name in enumerate(classes)
        if before[place] or after[place]
    ]
    return sorted(found, key=lambda row: (-row["left"] - row["joined"], row["class"]))
