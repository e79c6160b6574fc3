"""Intervals against scipy's, and the conclusion from them."""

import numpy as np
import pytest
from scipy import stats

from mpt_jax.report import comparison


def compare(nfr, accuracy=None, events=None, tolerance=0.01):
    """Compare methods with these rates, one per seed; the first method is the baseline."""
    rows = {
        method: [
            {"nfr": f, "accuracy": a} for f, a in zip(values, (accuracy or {}).get(method, [0.9] * 9), strict=False)
        ]
        for method, values in nfr.items()
    }
    return comparison.compare(
        rows, events or {}, tolerance=tolerance, baseline=next(iter(nfr)), reference=("independent",)
    )


NONE = [0.050, 0.060, 0.055, 0.052]


def test_intervals_over_seeds_are_students_and_differences_are_paired():
    mine = [0.02, 0.035, 0.022, 0.026]
    found = compare({"none": NONE, "mine": mine})
    assert (found["best"], found["answer"], found["interval_over"]) == ("mine", "better", "seeds")
    expected = stats.t.interval(0.95, 3, np.mean(mine), stats.sem(mine))
    assert found["methods"]["mine"]["nfr"]["interval"] == pytest.approx(list(expected))
    test = stats.ttest_rel(mine, NONE).confidence_interval(0.95)
    difference = found["methods"]["mine"]["nfr"]["difference"]
    assert difference["interval"] == pytest.approx([test.low, test.high])
    assert difference["mean"] == pytest.approx(np.mean(mine) - np.mean(NONE))


def test_the_best_of_many_needs_a_wider_interval_than_the_best_of_one():
    mine = [n - d for n, d in zip(NONE, (0.004, 0.016, 0.006, 0.014), strict=True)]
    assert compare({"none": NONE, "mine": mine})["answer"] == "better"
    many = {f"m{i}": NONE for i in range(9)}
    found = compare({"none": NONE, "mine": mine, **many})
    assert (found["best"], found["candidates"], found["answer"]) == ("mine", 10, "unclear")


def test_a_method_beyond_the_tolerance_is_no_candidate():
    nfr = {"none": NONE, "cheap": [0.0] * 4, "mine": [0.04] * 4, "independent": [0.0] * 4, "ensemble": [0.0] * 4}
    found = compare(nfr, accuracy={"cheap": [0.88] * 4})
    assert found["best"] == "mine" and found["candidates"] == 1
    assert compare(nfr, accuracy={"cheap": [0.88] * 4}, tolerance=0.03)["best"] == "cheap"
    found = compare({"none": NONE, "mine": [0.06] * 4})
    assert (found["best"], found["answer"]) == (None, "none")


def test_with_few_seeds_the_intervals_are_over_images_and_the_answer_is_unclear():
    rng = np.random.default_rng(0)
    none, mine = (rng.random(400) < 0.3).astype(float), (rng.random(400) < 0.1).astype(float)
    events = {m: {"nfr": e, "accuracy": 1 - e} for m, e in (("none", none), ("mine", mine))}
    found = compare({"none": [none.mean()], "mine": [mine.mean()]}, events=events)
    assert (found["best"], found["answer"], found["interval_over"]) == ("mine", "unclear", "images")
    low, high = stats.binomtest(int(mine.sum()), 400).proportion_ci(0.95, "wilson")
    assert found["methods"]["mine"]["nfr"]["interval"] == pytest.approx([low, high])
    low, high = found["methods"]["mine"]["nfr"]["difference"]["interval"]
    half = 1.959964 * (mine - none).std() / 20
    assert (low, high) == pytest.approx(((mine - none).mean() - half, (mine - none).mean() + half))
    without = compare({"none": [0.3], "mine": [0.1]})
    assert without["interval_over"] is None and without["methods"]["mine"]["nfr"]["interval"] is None


def test_a_diverged_method_is_no_candidate():
    rows = {
        "none": [{"nfr": 0.1, "accuracy": 0.9}] * 3,
        "mine": [{"nfr": None, "accuracy": None, "diverged": True}, *[{"nfr": 0.0, "accuracy": 0.9}] * 2],
    }
    for baseline, candidates in (("none", 0), ("mine", 0)):
        found = comparison.compare(rows, {}, tolerance=0.0, baseline=baseline, reference=())
        assert found["best"] is None and "mine" not in found["methods"] and found["candidates"] == candidates
