"""Slices against plain loops, and a search for weak combinations that finds what is there and nothing else."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.compare import evidence, slices
from mpt_jax.compare.factors import Factor

NAMES = ("x", "y", "z")
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 2)), min_size=1
)


def wilson(successes, count, z=1.959963984540054):
    """Return the two roots of (p - s/n)^2 = z^2 p (1 - p) / n."""
    center = (successes + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * math.sqrt(max(0, successes * (count - successes)) / count + z * z / 4)
    return [max(0.0, center - half), min(1.0, center + half)]


@pytest.mark.parametrize("weighted", [False, True])
@given(rows=ROWS)
def test_every_slice_agrees_with_plain_loops(weighted, rows):
    kinds, known, weights, codes = (np.array(column) for column in zip(*rows, strict=True))
    found = slices.measure({"c": Factor(codes, NAMES)}, kinds, known, weights=weights if weighted else None)
    assert {row["value"] for row in found} == set(NAMES)
    for row in found:
        own = [
            (kind, w if weighted else 1.0)
            for kind, is_known, w, code in rows
            if is_known and NAMES[code] == row["value"]
        ]
        total, squares = sum(w for _, w in own), sum(w * w for _, w in own)
        assert row["rows"] == len(own)
        for place, name in enumerate(slices.KINDS):
            assert row[name] == sum(kind == place for kind, _ in own)

        def share(*chosen, own=own, total=total):
            return sum(w for kind, w in own if kind in chosen) / total if total else 0.0

        assert row["nfr"] == pytest.approx(share(1))
        assert row["accuracy_old"] == pytest.approx(share(0, 1)) and row["accuracy_new"] == pytest.approx(share(0, 2))
        effective = total**2 / squares if squares else 0.0
        assert row.get("effective_rows", row["rows"]) == pytest.approx(effective)
        for key, z in (("interval", 1.959963984540054), ("simultaneous", 2.3939797998185104)):  # 5 % / 2, / 6
            expected = wilson(share(1) * effective, effective, z) if effective else [0, 1]
            assert row[key] == pytest.approx(expected, abs=1e-9)
    lows = [row["interval"][0] for row in found]
    assert lows == sorted(lows, reverse=True)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_codes_does_not_matter(rows, random):
    def found(rows, names):
        kinds, known, _, codes = (np.array(column) for column in zip(*rows, strict=True))
        factors = {"a": Factor(codes, names), "b": Factor((codes + kinds) % 3, NAMES)}
        half = (codes + kinds) % 2 == 0
        return slices.measure(factors, kinds, known), slices.combinations(factors, kinds, known, half, fewest_rows=1)

    order = random.sample([0, 1, 2], 3)
    turned = [(*row[:3], order.index(row[3])) for row in rows]
    first, again = found(rows, NAMES)[0], found(turned, tuple(NAMES[place] for place in order))[0]
    assert [row for row in first if row["column"] == "a"] == [row for row in again if row["column"] == "a"]
    assert found(random.sample(rows, len(rows)), NAMES) == found(rows, NAMES)


def test_among_combinations_that_tie_the_names_decide_and_not_the_order_of_the_rows(monkeypatch):
    monkeypatch.setattr(slices, "TESTED", 2)
    a, b = (each.ravel() for each in np.meshgrid(range(3), range(3)))
    a, b = np.tile(a, 8), np.tile(b, 8)
    kinds = (np.arange(72) // 9 < 4).astype(np.uint8) * (a == b)
    names, found = np.array([*"xyz"]), []
    for order in ([0, 1, 2], [2, 0, 1]):
        place = np.argsort(order)
        factors = {name: Factor(place[codes], tuple(names[order])) for name, codes in (("a", a), ("b", b))}
        half = np.arange(72) // 9 % 2 == 0
        found.append(slices.combinations(factors, kinds, np.ones(72, bool), half, fewest_rows=1))
    assert found[0] == found[1] and [each["values"] for each in found[0]] == [["x", "x"], ["y", "y"]]


def data(rng, count, weak=0.0):
    """Return rows with 3 % of flips, and `weak` of them where a = 1 and b = 2; in random halves."""
    a, b = rng.integers(0, 4, count), rng.integers(0, 5, count)
    rate = np.where((a == 1) & (b == 2), max(weak, 0.03), 0.03)
    kinds = (rng.random(count) < rate).astype(np.uint8)
    factors = {"a": Factor(a, tuple("pqrs")), "b": Factor(b, tuple("vwxyz"))}
    return factors, kinds, np.ones(count, bool), rng.random(count) < 0.5


def test_a_weak_combination_is_found_and_confirmed_with_the_numbers_of_both_halves():
    factors, kinds, known, half = data(np.random.default_rng(0), 20_000, weak=0.12)
    found = slices.combinations(factors, kinds, known, half)
    assert len(found) <= slices.TESTED
    assert [each["values"] for each in found if each["confirmed"]] == [["q", "x"]]
    chosen = (factors["a"].codes == 1) & (factors["b"].codes == 2)
    for key, mask in (("search", ~half), ("confirmation", half)):
        rows, flips = int((chosen & mask).sum()), int((chosen & mask & (kinds == 1)).sum())
        assert found[0][key] == {
            "rows": rows,
            "negative_flips": flips,
            "nfr": pytest.approx(flips / rows),
            "overall_nfr": pytest.approx((kinds[mask] == 1).mean()),
        }
    n, k, p = rows, flips, (kinds[half] == 1).mean()
    tail = sum(
        math.exp(
            math.lgamma(n + 1)
            - math.lgamma(i + 1)
            - math.lgamma(n - i + 1)
            + i * math.log(p)
            + (n - i) * math.log1p(-p)
        )
        for i in range(k, n + 1)
    )
    assert found[0]["p"] == pytest.approx(tail)


def test_chance_is_confirmed_in_at_most_five_percent():
    rng = np.random.default_rng(1)
    trials = [slices.combinations(*data(rng, 2000)) for _ in range(300)]
    assert all(trial for trial in trials)  # the search always picks some
    # 5 % of 300, and three standard deviations
    assert sum(any(each["confirmed"] for each in trial) for trial in trials) <= 15 + 12


def test_a_combination_with_the_rows_of_a_slice_is_left_out():
    rng = np.random.default_rng(3)
    factors, kinds, known, half = data(rng, 20_000)
    inside = np.where(factors["a"].codes == 1, 2, factors["b"].codes)  # a = q is always x, and x is also elsewhere
    kinds = np.where((factors["a"].codes == 1) & (rng.random(len(kinds)) < 0.3), 1, kinds)
    found = slices.combinations(factors | {"b": Factor(inside, (*NAMES, "v", "w"))}, kinds, known, half)
    assert found == []  # q with x flips most, but so does the slice q


def test_small_combinations_are_not_searched():
    factors, kinds, known, half = data(np.random.default_rng(0), 500, weak=1.0)
    counts = defaultdict(int)
    for a, b, second in zip(factors["a"].codes, factors["b"].codes, half, strict=True):
        counts[a, b] += not second
    assert max(counts.values()) < 30 and slices.combinations(factors, kinds, known, half) == []
    assert slices.combinations(factors, kinds, known, half, fewest_rows=5)[0]["values"] == ["q", "x"]


def test_columns_of_many_values_and_without_flips():
    rng = np.random.default_rng(2)
    factors = {key: Factor(rng.integers(0, 5000, 3000), tuple(map(str, range(5000)))) for key in "ab"}
    for factor in factors.values():
        factor.codes[:2] = 7  # two rows, so that neither is a slice
    factors["a"].codes[2], factors["b"].codes[3], factors["b"].codes[1] = 7, 7, 8
    kinds, known, half = np.ones(3000, np.uint8), np.ones(3000, bool), rng.random(3000) < 0.5
    assert slices.combinations(factors, kinds, known, half, fewest_rows=1) == []  # none is above the rate of all
    kinds[0] = 1
    kinds[1:] = 0
    found = slices.combinations(factors, kinds, known, np.arange(3000) % 2 == 1, fewest_rows=1)
    assert found[0]["search"]["rows"] == 1 and not found[0]["confirmed"] and found[0]["p"] == 1.0


@pytest.mark.parametrize("spread", [0.5, 1.5])
def test_a_true_rate_at_the_limit_is_seldom_a_regression_with_weights_of_any_spread(spread):
    rng, limit, trials = np.random.default_rng(4), 0.02, 400
    rejected = 0
    for _ in range(trials):
        weights = rng.lognormal(0, spread, 2000)
        (row,) = slices.measure(
            {"c": Factor(np.zeros(2000, int), ("x",))},
            (rng.random(2000) < limit).astype(np.uint8),
            np.ones(2000, bool),
            weights=weights / weights.max(),
        )
        rows = row["effective_rows"]
        rejected += evidence.share(row["nfr"] * rows, rows, limit).p_limit <= 0.05
    assert rejected / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
