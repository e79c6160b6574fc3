"""Statistics over seeds, against scipy, and the choice on validation."""

import numpy as np
import pytest
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
