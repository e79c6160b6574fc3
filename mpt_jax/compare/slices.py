"""Rates of slices, the rows with one value of a further column, and a search for weak combinations of two values.

All rates are on rows whose label the old model knows, as those that limits apply to. Pure functions on integers.
"""

from collections.abc import Mapping
from itertools import combinations as pairs_of
from typing import Any, NamedTuple

import numpy as np

from mpt_jax import metrics
from mpt_jax.compare import evidence
from mpt_jax.compare.factors import Factor

KINDS = ("both_right", "negative_flips", "positive_flips", "both_wrong")
TESTED = 10  # combinations
FEWEST_ROWS = 30  # of a combination in the first half


def kinds(old: np.ndarray, new: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each row its position in `KINDS`, 8-bit integers ``[n]``.

    Examples:
      >>> kinds(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.zeros(4, int)).tolist()
      [0, 1, 2, 3]
    """
    return (2 * (old != labels) + (new != labels)).astype(np.uint8)


def measure(
    factors: Mapping[str, Factor],
    kinds: np.ndarray,
    known: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    confidence: float = 0.95,
) -> list[dict[str, Any]]:
    """Count and rate each slice, the worst first: the one with the highest lower end of its interval.

    Args:
      factors: codes ``[n]`` and names of each column, without missing values.
      kinds: what happened to each row, see `kinds`, ``[n]``.
      known: whether the old model knows the label, ``[n]``; the other rows are not counted.
      weights: how much each row counts in the rates, ``[n]``; None: all the same.
      confidence: of the intervals.

    Returns:
      Of each slice `column`, `value`, `rows`, the counts of `KINDS`, `accuracy_old`, `accuracy_new`, `nfr`, its Wilson
      `interval`, and `simultaneous`: the same at the confidence ``1 - (1 - c) / m``, m the number of slices, so that
      all of them together hold with confidence c (Bonferroni). With weights also `effective_rows`.

    Examples:
      >>> factor = Factor(np.array([0, 0, 1]), ("day", "night"))
      >>> found = measure({"time": factor}, np.array([0, 1, 0]), np.ones(3, bool))
      >>> [(row["value"], row["rows"], row["nfr"]) for row in found]
      [('day', 2, 0.5), ('night', 1, 0.0)]
    """
    together = 1 - (1 - confidence) / max(1, sum(len(factor.names) for factor in factors.values()))
    found: list[dict[str, Any]] = []
    for column, factor in factors.items():
        tally = _tally(factor.codes, len(factor.names), kinds, known, weights)
        rates = tally.rates()
        intervals, corrected = (
            metrics.wilson_intervals(rates[:, 1] * tally.effective, tally.effective, confidence=level)
            for level in (confidence, together)
        )
        for place, name in enumerate(factor.names):
            right, negative, positive, _ = rates[place].tolist()
            effective = {} if weights is None else {"effective_rows": float(tally.effective[place])}
            found.append(
                {
                    "column": column,
                    "value": name,
                    "rows": int(tally.rows[place].sum()),
                    **dict(zip(KINDS, tally.rows[place].tolist(), strict=True)),
                    **effective,
                    "accuracy_old": min(1.0, right + negative),
                    "accuracy_new": min(1.0, right + positive),
                    "nfr": negative,
                    "interval": intervals[place].tolist(),
                    "simultaneous": corrected[place].tolist(),
                }
            )
    return sorted(found, key=lambda row: (-row["interval"][0], -row["nfr"], -row["rows"], row["column"], row["value"]))


def combinations(
    factors: Mapping[str, Factor],
    kinds: np.ndarray,
    known: np.ndarray,
    second_half: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    fewest_rows: int = FEWEST_ROWS,
) -> list[dict[str, Any]]:
    """Search for combinations of two columns' values with many negative flips, and confirm them on other rows.

    In the first half of the rows, the combinations above the rate of that half are sorted by the lower end of their
    interval. The first `TESTED` of all pairs of columns are tested on the second half: the one-sided exact test of a
    share against the rate of that half, at 5 % with Holm's procedure. The search has not seen these rows, so that what
    it picked by chance fails the test. Combinations that have the same rows as a single slice are left out.

    Args:
      factors: as of `measure`.
      kinds: as of `measure`.
      known: as of `measure`.
      second_half: which half each row is in, ``[n]``.
      weights: as of `measure`.
      fewest_rows: rows of the first half that a combination needs.

    Returns:
      Of each combination that was tested, in the order of the search: `columns`, `values`, in `search` and
      `confirmation` the `rows`, `negative_flips` and `nfr` of one half with its `overall_nfr`, `p`, and whether it is
      `confirmed`.
    """
    overall = [_tally(np.zeros_like(kinds), 1, kinds, known & half, weights) for half in (~second_half, second_half)]
    rate = [float(each.rates()[0, 1]) for each in overall]
    candidates: list[tuple[float, dict[str, Any], float]] = []
    for first, second in pairs_of(factors, 2):
        width = len(factors[second].names)
        codes, combined = _compact(factors[first].codes.astype(np.int64) * width + factors[second].codes)
        before, after = (
            _tally(codes, len(combined), kinds, known & half, weights) for half in (~second_half, second_half)
        )
        nfr = before.rates()[:, 1]
        low = metrics.wilson_intervals(nfr * before.effective, before.effective)[:, 0]
        rows, (a_of, b_of) = before.rows.sum(-1) + after.rows.sum(-1), np.divmod(combined, width)
        in_slices = [np.bincount(of, rows) for of in (a_of, b_of)]
        is_slice = (rows == in_slices[0][a_of]) | (rows == in_slices[1][b_of])  # `measure` has it
        possible = np.flatnonzero((before.rows.sum(-1) >= fewest_rows) & (nfr > rate[0]) & ~is_slice)
        # All that tie with the last one: the order of the names decides among them, not that of the rows.
        least = np.sort(low[possible])[-TESTED:][:1]
        for place in possible[low[possible] >= least].tolist():
            a, b = divmod(int(combined[place]), width)
            found: dict[str, Any] = {
                "columns": [first, second],
                "values": [factors[first].names[a], factors[second].names[b]],
                "search": _half(before, place, rate[0]),
                "confirmation": _half(after, place, rate[1]),
            }
            effective = float(after.effective[place])
            tested = evidence.share(found["confirmation"]["nfr"] * effective, effective, rate[1])
            candidates.append((float(low[place]), found, tested.p_limit))
    chosen = sorted(candidates, key=lambda each: (-each[0], each[1]["columns"], each[1]["values"]))[:TESTED]
    p_values = [p for _, _, p in chosen]
    return [
        {**found, "p": p, "confirmed": confirmed}
        for (_, found, _), p, confirmed in zip(chosen, p_values, evidence.holm(p_values), strict=True)
    ]


class _Tally(NamedTuple):
    """Rows, weights and effective rows of some groups: ``[groups, kinds]`` twice, and ``[groups]``."""

    rows: np.ndarray
    weights: np.ndarray
    effective: np.ndarray

    def rates(self) -> np.ndarray:
        """Return the share of each kind, ``[groups, kinds]``, 0 in a group without weight."""
        total = self.weights.sum(-1, keepdims=True)
        return self.weights / np.where(total > 0, total, 1)


def _tally(codes: np.ndarray, groups: int, kinds: np.ndarray, chosen: np.ndarray, weights: np.ndarray | None) -> _Tally:
    """Count what happened in each group among the chosen rows."""
    keys = codes[chosen].astype(np.int64) * len(KINDS) + kinds[chosen]

    def total(weights: np.ndarray | None) -> np.ndarray:
        return np.bincount(keys, weights, minlength=groups * len(KINDS)).reshape(groups, len(KINDS))

    rows = total(None)
    if weights is None:
        return _Tally(rows, rows, rows.sum(-1).astype(float))
    weights = weights[chosen]
    sums = total(weights)
    return _Tally(rows, sums, metrics.effective_rows(sums.sum(-1), total(weights**2).sum(-1)))


def _half(tally: _Tally, place: int, overall: float) -> dict[str, Any]:
    return {
        "rows": int(tally.rows[place].sum()),
        "negative_flips": int(tally.rows[place, 1]),
        "nfr": float(tally.rates()[place, 1]),
        "overall_nfr": overall,
    }


def _compact(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers without gaps for the keys that occur, ``[n]``, and the key of each number."""
    size = int(keys.max(initial=-1)) + 1
    if size > 4 * len(keys):
        present, codes = np.unique(keys, return_inverse=True)
        return codes, present
    present = np.flatnonzero(np.bincount(keys, minlength=size))
    code = np.zeros(size, np.int64)
    code[present] = np.arange(len(present))
    return code[keys], present
