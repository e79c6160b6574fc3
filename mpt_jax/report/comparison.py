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
    methods = {
        method: {key: _estimate(rows, events, key, method, baseline, over) for key in ("accuracy", "nfr")}
        for method in rows
        if not any(row.get("diverged") for row in (*rows[method], *rows[baseline]))
    }
    means = {
        method: {key: statistics.fmean(r[key] for r in rows[method]) for key in methods[method]} for method in methods
    }
    flips = {
        method: rates["nfr"]
        for method, rates in means.items()
        if method not in (*reference, baseline, _NO_CANDIDATE)
        and rates["accuracy"] >= means[baseline]["accuracy"] - tolerance
    }
    best = min(flips, key=lambda method: flips[method], default=None)
    if best is None or methods[best]["nfr"]["difference"]["mean"] >= 0:
        best, answer = None, "none"
    else:
        level = 1 - (1 - CONFIDENCE) / len(flips)  # Bonferroni: the best of many may be so by chance
        significant = over == "seeds" and student(_differences(rows[best], rows[baseline], "nfr"), level)[1] < 0
        answer = "better" if significant else "unclear"
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


def _estimate(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    events: Mapping[str, Mapping[str, np.ndarray]],
    key: str,
    method: str,
    baseline: str,
    over: str | None,
) -> dict[str, Any]:
    """Return the interval of a rate, and the mean and interval of its difference from the baseline."""
    differences = _differences(rows[method], rows[baseline], key)
    interval, of_difference = None, None
    if over == "seeds":
        interval, of_difference = student([row[key] for row in rows[method]]), student(differences)
    elif over == "images":
        of_images = events[method][key]
        interval = list(metrics.wilson_interval(round(of_images.sum()), len(of_images)))
        of_difference = _normal(of_images - events[baseline][key])
    return {"interval": interval, "difference": {"mean": statistics.fmean(differences), "interval": of_difference}}


def _differences(rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [mine[key] - other[key] for mine, other in zip(rows, others, strict=True)]


def _normal(values: np.ndarray) -> list[float]:
    """Return the normal interval of the mean of many values."""
    half = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * float(values.std()) / math.sqrt(len(values))
    return [float(values.mean()) - half, float(values.mean()) + half]
