"""Statistics over seeds, against scipy, and the choice on validation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mpt_jax.reproduce import results, summary

ACCURACY = {"no_treatment": [0.8, 0.7, 0.75], "mpt_kl": [0.82, 0.75, 0.74]}
NFR = {"no_treatment": [0.10, 0.12, 0.11], "mpt_kl": [0.06, 0.09, 0.05]}


def _run(seeds, validation=(), scenario=""):
    rows = [
        {"method": m, "seed": s, **dict.fromkeys(results.RATES, 0.5), "accuracy": ACCURACY[m][s], "nfr": NFR[m][s]}
        for m in ACCURACY
        for s in seeds
    ]
    return {"scenario": scenario, "seeds": list(seeds), "rows": rows, "validation": dict(validation), "tolerance": 0.01}


def test_seeds_of_several_runs_are_paired_with_their_own_baseline():
    found = summary.summarize([_run([2]), _run([0, 1])])[""]["mpt_kl"]
    expected = stats.ttest_rel([0.05, 0.06, 0.09], [0.11, 0.10, 0.12])
    assert found["paired"]["nfr"]["p"] == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval(0.95)
    assert found["paired"]["nfr"]["interval"] == pytest.approx([interval.low, interval.high], rel=1e-9)
    assert found["nfr"]["mean"] == pytest.approx(0.2 / 3)
    assert found["nfr"]["std"] == pytest.approx(np.std(NFR["mpt_kl"], ddof=1))
    assert found["seeds"] == 3
    assert "paired" not in summary.summarize([_run([0, 1])])[""]["no_treatment"]


def test_the_sequences_of_several_runs_are_weighted_by_their_seeds():
    runs = [
        {"scenario": "", "seeds": seeds, "sequences": {"mpt_kl": {"nfr_against_previous": [None, nfr]}}}
        for seeds, nfr in (([0, 1], 0.3), ([2], 0.6))
    ]
    found = summary.sequences(runs)[""]["mpt_kl"]["nfr_against_previous"]
    assert found == [None, pytest.approx((0.3 + 0.3 + 0.6) / 3)]
    assert summary.sequences([{"scenario": "", "seeds": [0], "sequences": {}}]) == {}


def test_a_diverged_seed_is_counted_and_excluded_with_its_pair():
    run = _run([0, 1, 2])
    diverged = next(row for row in run["rows"] if row["method"] == "mpt_kl" and row["seed"] == 1)
    diverged |= {"diverged": True, **dict.fromkeys(results.RATES)}
    found = summary.summarize([run])[""]["mpt_kl"]
    assert (found["seeds"], found["diverged"]) == (3, 1)
    assert found["paired"]["nfr"]["mean"] == pytest.approx(np.mean([0.06 - 0.10, 0.05 - 0.11]))


def test_two_rows_are_compared_by_their_flips_relative_to_the_baseline_at_equal_accuracy():
    equal = {
        "ours@bias=0": [(0.02, 0.04), (0.03, 0.05), (0.01, 0.03), (0.9, 0.9)],
        "ours@bias=1": [(0.04, 0.04), None, (0.02, 0.02), (0.5, 0.0)],  # the last has no flips to compare with
        "theirs": [(0.05, 0.04), (0.05, 0.05), (0.02, 0.03), None],
        "other": [(0.1, 0.1)] * 4,
    }
    rows = [
        {"method": method, "seed": seed, "at_equal_accuracy": found, "diverged": False}
        for method, of_seeds in equal.items()
        for seed, found in enumerate(of_seeds)
    ]
    runs = [{"scenario": "a", "rows": rows[::2]}, {"scenario": "a", "rows": rows[1::2]}]
    found = summary.against(runs, ("ours", "theirs"))["a"]
    assert {one: list(others) for one, others in found.items()} == {
        "ours@bias=0": ["theirs"],
        "ours@bias=1": ["theirs"],
    }
    ours, theirs = np.array([1 / 2, 3 / 5, 1 / 3]), np.array([5 / 4, 1, 2 / 3])
    first = found["ours@bias=0"]["theirs"]
    assert first["change"] == pytest.approx(ours.mean() / theirs.mean() - 1)
    assert first["p"] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert found["ours@bias=1"]["theirs"]["count"] == 2
    rows[0]["diverged"] = True
    assert summary.against(runs, ("ours", "theirs"))["a"]["ours@bias=0"]["theirs"]["count"] == 2
    assert summary.against(runs, ("ours", "missing")) == {}


def test_validation_chooses_within_the_tolerance_and_keeps_ties():
    rates = lambda accuracy, nfr: {"accuracy": accuracy, "nfr": nfr}  # noqa: E731
    base, good, costly = rates(0.80, 0.10), rates(0.795, 0.05), rates(0.70, 0.01)
    choose = lambda **methods: summary.choose([_run([0], {"no_treatment": base, **methods})])[""]  # noqa: E731
    assert choose(a=good, b=costly) == ["a"]
    assert choose(a=good, b=dict(good)) == ["a", "b"]
    assert choose(a=good, b=rates(0.80, 0.05)) == ["b"]
    assert choose(b=costly) == []
    assert summary.choose([_run([0]), _run([1])]) == {"": []}
    # Every seed counts as much as any other: what a run holds is the mean over its own.
    one, other = {"a": rates(0.8, 0.05), "b": rates(0.8, 0.08)}, {"a": rates(0.8, 0.05), "b": rates(0.8, 0.01)}
    runs = [_run(seeds, {"no_treatment": base, **of}) for seeds, of in (([0, 1], one), ([2], other))]
    assert summary.choose(runs) == {"": ["a"]}


@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.floats(0.1, 3.0))
def test_the_interval_of_a_change_has_what_the_paired_t_test_does_not_reject(seed, n, ratio):
    rng = np.random.default_rng(seed)
    b = rng.uniform(0.12, 0.2, n)  # far enough from 0 for a bounded interval
    a = ratio * b + rng.normal(0, 0.01, n)
    found = summary.relative_change(list(zip(a, b, strict=True)))
    assert found["change"] == pytest.approx(a.mean() / b.mean() - 1)
    low, high = found["interval_of_change"]
    assert low <= found["change"] <= high
    for end in (low, high):  # p is 0.05 exactly at the ends
        assert stats.ttest_1samp(a - (1 + end) * b, 0).pvalue == pytest.approx(0.05, rel=1e-6)
    assert (low <= 0 <= high) == (stats.ttest_rel(a, b).pvalue >= 0.05)


def test_a_change_without_flips_to_compare_with_or_with_two_seeds_has_no_interval():
    assert summary.relative_change([(0.1, 0.0), (0.1, 0.0), (0.2, 0.0)]) == {"change": None}
    assert summary.relative_change([(0.1, 0.2), (0.1, 0.2)]) == {"change": pytest.approx(-0.5)}
    unbounded = summary.relative_change([(0.1, 0.0), (0.1, 0.01), (0.2, 0.0)])  # the baseline's mean may be 0
    assert unbounded["change"] > 0 and "interval_of_change" not in unbounded
    same = summary.relative_change([(0.1, 0.1)] * 3)
    assert [same["change"], *same["interval_of_change"]] == pytest.approx([0, 0, 0], abs=1e-7)


def test_a_change_has_the_mean_and_the_interval_of_the_paired_rates():
    found = summary.summarize([_run([0, 1, 2])])[""]["mpt_kl"]["paired"]["nfr"]
    pairs = zip(NFR["mpt_kl"], NFR["no_treatment"], strict=True)
    assert {key: found[key] for key in ("change", "interval_of_change")} == summary.relative_change(list(pairs))


@pytest.mark.parametrize(
    ("trained", "validation", "expected"),
    [
        (("mpt_lm@bias=1", "mpt_kl@bias=1", "mpt_kl@bias=4"), {}, ("mpt_kl@bias=4", False)),  # the published b
        (("mpt_lm", "mpt_kl"), {}, ("mpt_kl", False)),
        (("mpt_kl@bias=1", "mpt_kl@bias=2"), {}, ("mpt_kl@bias=1", False)),
        (("mpt_lm@bias=2",), {}, ("mpt_lm@bias=2", False)),
        (("mpt_lm@bias=1", "mpt_kl@bias=4"), {"mpt_lm@bias=1": 0.05, "mpt_kl@bias=4": 0.06}, ("mpt_lm@bias=1", True)),
        (("mpt_lm@bias=1", "mpt_kl@bias=4"), {"mpt_lm@bias=1": 0.05, "mpt_kl@bias=4": 0.05}, ("mpt_kl@bias=4", False)),
        (("mpt_kl", "mpt_kl_ema"), {"mpt_kl": 0.05, "mpt_kl_ema": 0.01}, ("mpt_kl", True)),  # another row
    ],
)
def test_rows_are_represented_by_the_choice_on_validation_or_as_published(trained, validation, expected):
    of_validation = {m: {"accuracy": 0.8, "nfr": nfr} for m, nfr in {"no_treatment": 0.1, **validation}.items()}
    run = {"scenario": "s", "seeds": [0], "tolerance": 0.0, "validation": of_validation if validation else {}}
    run["rows"] = [{"method": method} for method in ("no_treatment", "pct_kl", *trained)]
    assert summary.representative([run], "mpt_kl", "mpt_lm") == {"s": expected}
    assert summary.representative([run], "elodi") == {}
