import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mpt_jax.errors import InputError
from mpt_jax.posttraining import PosthocCurve
from mpt_jax.report.flips import Pair
from mpt_jax.reproduce import results

ACCURACY = {"no_treatment": [0.8, 0.7, 0.75], "mpt_kl": [0.82, 0.75, 0.74]}
NFR = {"no_treatment": [0.10, 0.12, 0.11], "mpt_kl": [0.06, 0.09, 0.05]}


def _run(seeds, validation=(), scenario=""):
    rows = [
        {"method": m, "seed": s, **dict.fromkeys(results.RATES, 0.5), "accuracy": ACCURACY[m][s], "nfr": NFR[m][s]}
        for m in ACCURACY
        for s in seeds
    ]
    return {"scenario": scenario, "seeds": list(seeds), "rows": rows, "validation": dict(validation), "tolerance": 0.01}


def test_seeds_of_several_runs_add_up_and_are_paired_with_their_own_baseline():
    found = results.summarize([_run([2]), _run([0, 1])])[""]["mpt_kl"]
    expected = stats.ttest_rel([0.05, 0.06, 0.09], [0.11, 0.10, 0.12])
    assert found["paired"]["nfr"]["p"] == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval(0.95)
    assert found["paired"]["nfr"]["interval"] == pytest.approx([interval.low, interval.high], rel=1e-9)
    assert found["nfr"]["mean"] == pytest.approx(0.2 / 3)
    assert found["nfr"]["std"] == pytest.approx(np.std(NFR["mpt_kl"], ddof=1))
    assert found["seeds"] == 3
    assert "paired" not in results.summarize([_run([0, 1])])[""]["no_treatment"]


def test_runs_that_are_done_replace_those_that_share_a_seed_of_their_scenario():
    run = lambda scenario, *seeds: {"scenario": scenario, "seeds": list(seeds)}  # noqa: E731
    standing = [run("a", 0, 1), run("b", 0, 1), run("a", 2)]
    done = [run("a", 1)]
    assert results.join(standing, done) == [run("b", 0, 1), run("a", 1), run("a", 2)]
    assert results.join(standing, []) == standing
    assert results.join([], done) == done


def test_the_sequences_of_several_runs_are_weighted_by_their_seeds():
    runs = [
        {"scenario": "", "seeds": seeds, "sequences": {"mpt_kl": {"nfr_against_previous": [None, nfr]}}}
        for seeds, nfr in (([0, 1], 0.3), ([2], 0.6))
    ]
    found = results.lineages(runs)[""]["mpt_kl"]["nfr_against_previous"]
    assert found == [None, pytest.approx((0.3 + 0.3 + 0.6) / 3)]
    assert results.lineages([{"scenario": "", "seeds": [0], "sequences": {}}]) == {}


def test_a_diverged_seed_is_counted_and_left_out_with_its_pair():
    run = _run([0, 1, 2])
    diverged = next(row for row in run["rows"] if row["method"] == "mpt_kl" and row["seed"] == 1)
    diverged |= {"diverged": True, **dict.fromkeys(results.RATES)}
    found = results.summarize([run])[""]["mpt_kl"]
    assert (found["seeds"], found["diverged"]) == (3, 1)
    assert found["paired"]["nfr"]["mean"] == pytest.approx(np.mean([0.06 - 0.10, 0.05 - 0.11]))


def test_validation_chooses_within_the_tolerance_and_does_not_break_ties():
    rates = lambda accuracy, nfr: {"accuracy": accuracy, "nfr": nfr}  # noqa: E731
    base, good, costly = rates(0.80, 0.10), rates(0.795, 0.05), rates(0.70, 0.01)
    choose = lambda **methods: results.choose([_run([0], {"no_treatment": base, **methods})])[""]  # noqa: E731
    assert choose(a=good, b=costly) == ["a"]
    assert choose(a=good, b=dict(good)) == ["a", "b"]
    assert choose(a=good, b=rates(0.80, 0.05)) == ["b"]
    assert choose(b=costly) == []
    assert results.choose([_run([0]), _run([1])]) == {"": []}
    # Every seed counts as much as any other: what a run holds is the mean over its own.
    one, other = {"a": rates(0.8, 0.05), "b": rates(0.8, 0.08)}, {"a": rates(0.8, 0.05), "b": rates(0.8, 0.01)}
    runs = [_run(seeds, {"no_treatment": base, **of}) for seeds, of in (([0, 1], one), ([2], other))]
    assert results.choose(runs) == {"": ["a"]}


@given(st.integers(0, 2**32 - 1))
def test_the_shift_curve_is_what_a_shift_of_the_logits_does(seed):
    rng = np.random.default_rng(seed)
    num_old, pair = 3, _pair(rng)
    curve = results.shift_curve(pair, num_old)
    for c in (-2.5, -0.3, 0.0, 0.7, 40.0):
        answers = (pair.new - c * (np.arange(5) >= num_old)).argmax(-1)
        step = np.searchsorted(curve.starts, c, "right") - 1
        known = pair.labels < num_old
        flips = known & (pair.old.argmax(-1) == pair.labels) & (answers != pair.labels)
        assert curve.accuracy[step] == pytest.approx((answers == pair.labels).mean())
        assert curve.nfr[step] == pytest.approx(flips.sum() / known.sum())


def test_at_equal_accuracy_a_model_is_no_better_than_itself_and_a_better_one_is():
    starts, accuracy = np.array([0.0, 1.0, 2.0]), np.array([0.7, 0.8, 0.6])
    curve = lambda nfr: PosthocCurve(starts, accuracy, accuracy, accuracy, np.array(nfr))  # noqa: E731
    same, better = curve([0.3, 0.2, 0.1]), curve([0.3, 0.1, 0.05])
    mine, theirs = results.equalized(same, same)
    assert mine == theirs
    mine, theirs = results.equalized(better, same, below=0.1)
    assert (mine, theirs) == pytest.approx((0.075, 0.15))  # halfway between the second and the third step
    low = PosthocCurve(starts, accuracy - 0.5, accuracy, accuracy, same.nfr)
    assert results.equalized(low, same)[1] == pytest.approx(0.1)  # which can be that bad with fewer flips than any


def _pair(rng):
    labels = np.sort(np.r_[0, rng.integers(0, 5, 20)])
    return Pair(labels, labels.astype(str), rng.normal(size=(21, 3)), rng.normal(size=(21, 5)).astype(np.float32))


def test_what_is_no_result_is_refused(tmp_path):
    for text in ("", "[]", '{"schema": 0, "runs": []}', '{"schema": 2, "runs": 3}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match="no result of this version"):
            results.read(tmp_path / "x.json")
