"""Confidence intervals of the last release's numbers, and the best method."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax import metrics

CONFIDENCE = 0.95
_ENOUGH_SEEDS = 3  # with two, Student's interval extends nine standard deviations to either side
_NO_CANDIDATE = "ensemble"  # inference costs as much as several models


def compare(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    events: Mapping[str, Mapping[str, np.ndarray]],
    *,
    tolerance: float,
    baseline: str,
    reference: Sequence[str],
) -> dict[str, Any]:
    """Compute intervals of accuracy and negative flips, and of their differences from a baseline; pick the best method.

    With three or more seeds the intervals are Student's over seeds (for differences: of paired differences) and reflect
    chance in training. With fewer they are over test images (Wilson's; for differences normal and paired) and reflect
    the choice of images. The best method has the fewest negative flips among those that are at most `tolerance` less
    accurate than the baseline.

    Args:
      rows: method -> rows of the last release, one per seed.
      events: method -> rate -> for each image the share of seeds in which it counts; empty without predictions.
      tolerance: largest loss of accuracy of a candidate against the baseline, a fraction.
      baseline: the method that the others are compared with.
      reference: methods that are not candidates.

    Returns:
      `methods` with the intervals; `best`, None if no candidate has fewer flips; `answer`: "better" if the interval
      over seeds of the best method's difference in flips, widened for the number of candidates, is below 0, "unclear"
      if not or with too few seeds, "none" without a best method.
    """
    over = "seeds" if len(rows[baseline]) >= _ENOUGH_SEEDS else "images" if events else None
    methods: dict[str, Any] = {}
    for method, of_seeds in rows.items():
        if any(row.get("diverged") for row in (*of_seeds, *rows[baseline])):
            continue
        methods[method] = {}
        for key in ("accuracy", "nfr"):
            mine, others = ([row[key] for row in of] for of in (of_seeds, rows[baseline]))
            differences = [a - b for a, b in zip(mine, others, strict=True)]
            if over == "seeds":
                interval, of_difference = student(mine), student(differences)
            elif over == "images":
                mine, others = events[method][key], events[baseline][key]
                interval = list(metrics.wilson_interval(round(mine.sum()), len(mine)))
                of_difference = _normal(mine - others)
            else:
                interval, of_difference = None, None
            difference = {"mean": statistics.fmean(differences), "interval": of_difference}
            methods[method][key] = {"interval": interval, "difference": difference}
    least = statistics.fmean(row["accuracy"] for row in rows[baseline]) - tolerance if baseline in methods else 1.0
    flips = {
        method: statistics.fmean(row["nfr"] for row in rows[method])
        for method in methods
        if method not in (*reference, baseline, _NO_CANDIDATE)
        and statistics.fmean(row["accuracy"] for row in rows[method]) >= least
    }
    best = min(flips, key=flips.get, default=None)
    if best is None or methods[best]["nfr"]["difference"]["mean"] >= 0:
        best, answer = None, "none"
    else:
        differences = [mine["nfr"] - its["nfr"] for mine, its in zip(rows[best], rows[baseline], strict=True)]
        level = 1 - (1 - CONFIDENCE) / len(flips)  # Bonferroni: the best of many may be so by chance
        answer = "better" if over == "seeds" and student(differences, level)[1] < 0 else "unclear"
    return {
        "baseline": baseline,
        "best": best,
        "answer": answer,
        "candidates": len(flips),
        "interval_over": over,
        "confidence": CONFIDENCE,
        "methods": methods,
    }


def student(values: Sequence[float], confidence: float = CONFIDENCE) -> list[float]:
    """Return Student's interval of the mean, ``mean ± t s / sqrt(n)``.

    Examples:
      >>> [round(end, 4) for end in student([1.0, 2.0, 3.0])]  # t = 4.3027 with 2 degrees of freedom
      [-0.4841, 4.4841]

    Source: Student, The Probable Error of a Mean, 1908.
    """
    from scipy import stats

    n = len(values)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return [statistics.fmean(values) - half, statistics.fmean(values) + half]


def _normal(values: np.ndarray) -> list[float]:
    """Return the normal interval of the mean of many values."""
    half = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * float(values.std()) / math.sqrt(len(values))
    return [float(values.mean()) - half, float(values.mean()) + half]
