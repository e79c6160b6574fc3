"""What the rows of a comparison can show about a limit: exact tests, corrected for the number of groups.

There are three verdicts on a limit, see `judge`: a pass, a regression that chance does not explain, and undecided: the
rate is beyond the limit, but on so few rows that chance may explain it.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

LEVEL = 0.05  # of the test that rejects "within the limit", over all groups of a limit together
MISSED = (
    0.1  # of the test that rejects "twice the limit", in each group; a regression of that size is found with 1 - MISSED
)
MOST_ROWS = 10**9  # beyond this no number of rows is named

PASS, REGRESSION, UNDECIDED = "pass", "regression", "undecided"


class Evidence(NamedTuple):
    """What the rows of one group show.

    Attributes:
      value: the rate that was observed.
      limit: that it is held against.
      rows: how many rows there are; with weights the effective number, which may be a fraction.
      p_limit: p-value of "the true rate is at most the limit", against larger rates.
      p_twice: p-value of "the true rate is at least twice the limit", against smaller rates.
      rows_to_find: the rows at which a test of some level finds a true rate with probability 1 - `MISSED`.
    """

    value: float
    limit: float
    rows: float
    p_limit: float
    p_twice: float
    rows_to_find: Callable[[float, float], int | None]


class Judged(NamedTuple):
    """The verdict on a group, and how many more rows show a rate of twice the limit: None if these do or none can."""

    verdict: str
    more_rows: int | None


def share(count: float, rows: float, limit: float) -> Evidence:
    """Test a share of rows against a limit by exact binomial tails.

    ``P(X >= k | n, p) = I_p(k, n - k + 1)`` with the regularised incomplete beta function, which also takes the
    fractions that weights give. Source: Clopper and Pearson, 1934.

    Examples:
      >>> found = share(5, 100, 0.01)
      >>> round(found.p_limit, 4), round(found.p_twice, 4)
      (0.0034, 0.9845)
    """
    twice = min(2 * limit, 1.0)
    # Without a tolerance, 0.1 * 10 rows in floating-point numbers could count as more than one row.
    count = min(round(count, 6), rows)
    return Evidence(
        value=count / rows if rows else 0.0,
        limit=limit,
        rows=rows,
        p_limit=_at_least(count, rows, limit),
        p_twice=_at_most(count, rows, twice),
        rows_to_find=lambda rate, level: _rows_of_share(limit, rate, level),
    )


def difference(negative: float, positive: float, rows: float, limit: float) -> Evidence:
    """Test how much accuracy was lost, ``(negative - positive) / rows`` of paired answers, against a limit.

    For a limit of 0 this is McNemar's exact test, one-sided; else the score test of Tango, 1998, see `score`.

    Args:
      negative: rows that only the old model has right.
      positive: rows that only the new model has right.
      rows: all rows.
      limit: the loss that is allowed, at least 0.

    Examples:
      >>> found = difference(20, 5, 1000, 0.0)
      >>> round(found.value, 3), round(found.p_limit, 4)
      (0.015, 0.002)
    """
    exact = _at_least(negative, negative + positive, 0.5)
    value = (negative - positive) / rows if rows else 0.0
    changed = (negative + positive + 1) / (rows + 2)  # never 0, which a few rows cannot show

    def rows_to_find(rate: float, level: float) -> int | None:
        if rate == limit:
            return None
        spread = math.sqrt(max(changed - value**2, 0.0))
        quantiles = -special.ndtri(level) - special.ndtri(MISSED)
        return _within(math.ceil((quantiles * spread / (rate - limit)) ** 2))

    return Evidence(
        value=value,
        limit=limit,
        rows=rows,
        p_limit=float(special.ndtr(-score(negative, positive, rows, limit))) if limit else exact,
        p_twice=float(special.ndtr(score(negative, positive, rows, 2 * limit))),
        rows_to_find=rows_to_find,
    )


def score(negative: Any, positive: Any, rows: Any, loss: Any) -> np.ndarray:
    """Return the score statistic of a paired difference of shares, standard normal if the true difference is `loss`.

    ``z = (b - c - n d) / sqrt(n (2 q + d (1 - d)))``, where q is the larger root of
    ``2 n q^2 + ((2 n - b + c) d - b - c) q - c d (1 - d) = 0``: the share of positive flips that is most likely if the
    difference is d. Without rows it is 0. Numbers or arrays of one shape. Source: Tango, Equivalence test and
    confidence interval for the difference in proportions for the paired-sample design, 1998.
    """
    linear = (2 * rows - negative + positive) * loss - negative - positive
    constant = -positive * loss * (1 - loss)
    root = (np.sqrt(np.maximum(linear**2 - 8 * rows * constant, 0.0)) - linear) / (4 * np.maximum(rows, 1e-300))
    variance = rows * (2 * root + loss * (1 - loss))
    distance = negative - positive - rows * loss
    certain = np.where(distance == 0, 0.0, np.copysign(np.inf, distance))
    return np.where(variance > 0, distance / np.sqrt(np.where(variance > 0, variance, 1.0)), certain)


def difference_interval(negative: Any, positive: Any, rows: Any, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses that the two-sided score test does not reject, by bisection; of numbers or of arrays.

    Examples:
      >>> low, high = difference_interval(20, 5, 1000, 0.95)
      >>> round(float(low), 4), round(float(high), 4)
      (0.0057, 0.0263)
    """
    quantile, value = -special.ndtri((1 - confidence) / 2), (negative - positive) / np.maximum(rows, 1e-300)

    def end(sign: int) -> np.ndarray:
        inside, outside = np.asarray(value, float), np.full(np.shape(value), float(sign))
        for _ in range(50):
            middle = (inside + outside) / 2
            is_in = -sign * score(negative, positive, rows, middle) <= quantile
            inside, outside = np.where(is_in, middle, inside), np.where(is_in, outside, middle)
        return inside

    return end(-1), end(1)


def estimate(value: float, error: float, rows: float, limit: float) -> Evidence:
    """Test an estimate with a standard error, such as of a bootstrap, against a limit by the normal distribution."""

    def rows_to_find(rate: float, level: float) -> int | None:
        if rate == limit:
            return None
        quantiles = -special.ndtri(level) - special.ndtri(MISSED)
        return _within(math.ceil(rows * (quantiles * error / (rate - limit)) ** 2))

    def below(bound: float) -> float:
        """Return the probability of a smaller estimate if the true value is the bound."""
        return float(special.ndtr((value - bound) / error)) if error else float(value > bound)

    return Evidence(value, limit, rows, 1 - below(limit), below(2 * limit), rows_to_find)


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Return which hypotheses are rejected so that any is rejected wrongly with probability `level` at most.

    The i-th smallest of m p-values is compared with ``level / (m - i)``, i from 0, until one is not below.
    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.

    Examples:
      >>> holm([0.01, 0.04, 0.03])
      [True, False, False]
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    below = p[order] <= level / (len(p) - np.arange(len(p)))
    rejected = np.zeros(len(p), bool)
    rejected[order] = np.logical_and.accumulate(below)
    return rejected.tolist()


def judge(
    groups: Sequence[Evidence], within: Sequence[bool], *, family: bool = False, bound: float | None = None
) -> list[Judged]:
    """Judge the groups of one limit.

    Regression: Holm's procedure rejects that the true rate is within the limit. Pass: what was observed is within the
    limit or, since among many groups some exceed it by chance, the rows of the group exclude twice the limit. A pass
    on rows that cannot exclude twice the limit tells how many more can.

    Args:
      groups: the evidence of each; a family has one limit for several classes or slices.
      within: whether the observed rate of each group is within its limit; with `bound` the confidence bound.
      family: whether the observed rate of a group may exceed its limit by chance.
      bound: level of the one-sided test that the confidence bound is; None: the observed rate decides.

    Examples:
      >>> [judge([share(count, 200, 0.01)], [count <= 2])[0].verdict for count in (2, 3, 9)]
      ['pass', 'undecided', 'regression']
      >>> judge([share(0, 50, 0.01)], [True])
      [Judged(verdict='pass', more_rows=1190)]
    """
    judged = []
    rejected = holm([each.p_limit for each in groups])
    for found, is_within, is_rejected in zip(groups, within, rejected, strict=True):
        excluded = found.rows > 0 and (found.p_twice <= MISSED or (found.limit == 0 and found.value <= 0))
        passes = is_within or (family and bound is None and excluded)
        verdict = REGRESSION if is_rejected and not is_within else PASS if passes else UNDECIDED
        enough = verdict == REGRESSION or (passes and (excluded or bound is not None))
        judged.append(Judged(verdict, None if enough else _more_rows(found, len(groups), family, bound)))
    return judged


def _more_rows(found: Evidence, groups: int, family: bool, bound: float | None) -> int | None:
    """Return how many more rows decide, if the true rate is the one observed or twice the limit."""
    level = LEVEL / groups
    needed = [found.rows_to_find(min(2 * found.limit, 1.0), level)] if found.limit else []
    if found.value > found.limit and not family:
        needed.append(found.rows_to_find(found.value, level))
    if bound is not None and found.value < found.limit:
        needed.append(found.rows_to_find(found.value, bound))
    if not needed or None in needed:
        return None
    return max(1, max(each for each in needed if each is not None) - math.floor(found.rows))


@functools.lru_cache(maxsize=4096)  # groups of one limit ask the same
def _rows_of_share(limit: float, rate: float, level: float) -> int | None:
    """Return the fewest rows at which the exact test of a share finds a true rate, above or below the limit."""
    if rate == limit or not 0 < limit < 1:
        return None
    if rate < limit:  # rows that are not counted exceed a limit of theirs
        limit, rate = 1 - limit, 1 - rate
    if rate <= limit:  # equal but for rounding
        return None
    spread = -special.ndtri(level) * math.sqrt(limit * (1 - limit)) + -special.ndtri(MISSED) * math.sqrt(
        rate * (1 - rate)
    )
    guess = (spread / (rate - limit)) ** 2
    if guess > MOST_ROWS:
        return None
    rows = np.unique(np.ceil(np.geomspace(max(1, guess / 8), 8 * guess + 64, 1000)))
    fewest = stats.binom.isf(level, rows, limit) + 1  # that the test takes for a higher rate
    found = stats.binom.sf(fewest - 1, rows, rate) >= 1 - MISSED
    return _within(int(rows[found.argmax()])) if found.any() else None


def _within(rows: int) -> int | None:
    return rows if rows <= MOST_ROWS else None


def _at_least(count: float, rows: float, rate: float) -> float:
    return float(special.betainc(count, rows - count + 1, rate)) if count > 0 else 1.0


def _at_most(count: float, rows: float, rate: float) -> float:
    return float(special.betaincc(count + 1, rows - count, rate)) if count < rows else 1.0
