"""How sure the numbers of the last release are, and which method they speak for."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax import metrics

CONFIDENCE = 0.95
_ENOUGH_SEEDS = 3  # with two, Student's interval is nine standard deviations wide on either side
_ONCE = "ensemble"  # its inference costs several models'


def compare(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    events: Mapping[str, Mapping[str, np.ndarray]],
    *,
    tolerance: float,
    baseline: str,
    reference: Sequence[str],
) -> dict[str, Any]:
    """Intervals of every method's accuracy and negative flips and of their differences from a baseline; the best one.

    With three seeds or more the intervals are Student's over the seeds (of the paired differences), chance in
    training; with fewer over the test images (Wilson's, and the normal one of the paired differences), chance in them.
    The best method has the fewest negative flips of those no less accurate than the baseline but for the tolerance.

    Args:
      rows: of the last release, per method one a seed.
      events: per method and rate, per image the share of the seeds in which it counts; none without predictions.
      tolerance: by how much less accurate than the baseline a candidate may be, a fraction.
      reference: methods that are no candidates.

    Returns:
      `answer` is "better" where the whole interval over the seeds of the best one's difference in flips, widened for
      the number of candidates, is below 0; "unclear" where not, or with too few seeds; "none" where no candidate has
      fewer flips, and `best` is then None.
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
        if method not in (*reference, baseline, _ONCE)
        and statistics.fmean(row["accuracy"] for row in rows[method]) >= least
    }
    best = min(flips, key=flips.get, default=None)
    if best is None or methods[best]["nfr"]["difference"]["mean"] >= 0:
        best, answer = None, "none"
    else:
        differences = [mine["nfr"] - its["nfr"] for mine, its in zip(rows[best], rows[baseline], strict=True)]
        sure = 1 - (1 - CONFIDENCE) / len(flips)  # Bonferroni: the best one of many may be so by chance
        answer = "better" if over == "seeds" and student(differences, sure)[1] < 0 else "unclear"
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
    """Student's interval of the mean, ``mean ± t s / sqrt(n)``.

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
    """The normal interval of the mean of many values."""
    half = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * float(values.std()) / math.sqrt(len(values))
    return [float(values.mean()) - half, float(values.mean()) + half]
