"""Candidate numbers, and the choice among them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.objectives import METHODS
from mpt_jax.update import selection

rates = st.floats(0, 1)


def test_methods_with_a_margin_try_every_candidate():
    members = selection.candidates(("no_treatment", "mpt_kl", "mpt_lm_no_bias"), {"bias": (0.0, 1.0, 4.0)})
    assert [(m.method, m.objective.bias) for m in members] == [
        *(("no_treatment", 0.0), ("mpt_kl", 0.0), ("mpt_kl", 1.0), ("mpt_kl", 4.0), ("mpt_lm_no_bias", 0.0))
    ]
    assert members[2].objective == METHODS["mpt_kl"].replace(bias=1.0)
    assert [m.label(7) for m in members[:2]] == ["no_treatment b=0 seed=7", "mpt_kl b=0 seed=7"]


def test_published_numbers_are_used_without_candidates():
    assert [m.objective for m in selection.candidates(tuple(METHODS), {})] == list(METHODS.values())


def test_every_combination_of_the_numbers_that_a_method_uses_is_tried():
    grid = {"bias": (1.0, 2.0), "old.weight": (0.5, 1.0, 2.0), "ensemble.slack": (0.1,)}
    of_mpt = selection.candidates(["mpt_kl"], grid)
    assert [tuple(m.numbers.values()) for m in of_mpt] == list(itertools.product((1.0, 2.0), (0.5, 1.0, 2.0)))
    for member in of_mpt:
        assert member.objective.bias == member.numbers["bias"]
        assert [term.weight for term in member.objective.terms] == [member.numbers["old.weight"], 1.0]
    assert [dict(m.numbers) for m in selection.candidates(["pct_kl"], grid)] == [
        {"old.weight": weight} for weight in (0.5, 1.0, 2.0)
    ]
    assert [dict(m.numbers) for m in selection.candidates(["no_treatment"], grid)] == [{}]


def test_a_random_search_draws_the_same_combinations_every_time():
    grid = {"bias": tuple(map(float, range(10))), "old.weight": tuple(map(float, range(1, 11)))}
    drawn, again = (selection.candidates(["mpt_kl"], grid, trials=7) for _ in range(2))
    everything = [m.numbers for m in selection.candidates(["mpt_kl"], grid)]
    assert len(everything) == 100 and len(drawn) == 7 and drawn == again
    assert all(m.numbers in everything for m in drawn) and len({tuple(m.numbers.values()) for m in drawn}) == 7
    assert len(selection.candidates(["mpt_kl"], grid, trials=500)) == 100


def test_one_b_for_all_methods_that_have_one():
    members = selection.candidates(["mpt_kl", "mpt_kl_annealed", "pct_kl"], {}, bias=1.5)
    assert [m.objective.bias for m in members] == [1.5, 1.5, 0.0]


def test_a_worked_choice():
    accuracy, nfr = [0.90, 0.91, 0.89, 0.70], [0.05, 0.04, 0.02, 0.00]
    assert selection.choose(accuracy, nfr, required_accuracy=0.88) == 2  # fewest flips of the three that reach it
    assert selection.choose(accuracy, nfr, required_accuracy=0.90) == 1
    assert selection.choose(accuracy, nfr, required_accuracy=0.0) == 3
    assert selection.choose(accuracy, nfr, required_accuracy=0.95) == 1  # none reaches it: the most accurate
    assert selection.choose([0.9, 0.92, 0.92], [0.01, 0.01, 0.01], required_accuracy=0.5) == 1  # ties


@given(st.lists(st.tuples(rates, rates), min_size=1, max_size=6), rates)
def test_no_candidate_beats_the_chosen_one(tried, required):
    accuracy, nfr = zip(*tried, strict=True)
    best = selection.choose(accuracy, nfr, required_accuracy=required)
    if max(accuracy) >= required:
        assert accuracy[best] >= required
        assert all(nfr[best] <= n for a, n in tried if a >= required)
    else:
        assert accuracy[best] == max(accuracy)


@pytest.mark.parametrize("required", [0.0, 0.95])
def test_a_diverged_candidate_is_chosen_only_if_all_diverged(required):
    tried = [
        {"numbers": {"bias": 4.0}, "accuracy": 0.96, "nfr": 0.0, "diverged": True},
        {"numbers": {"bias": 0.0}, "accuracy": 0.90, "nfr": 0.1, "diverged": False},
    ]
    best, record = selection.select(tried, required_accuracy=required, images=9)
    assert best == record["chosen"] == 1 and record["candidates"] == tried
    assert selection.select(tried[:1], required_accuracy=required, images=9)[0] == 0


def test_a_number_fixed_by_a_name_is_neither_tuned_nor_replaced():
    members = selection.candidates(["mpt_kl@bias=3", "mpt_kl"], {"bias": (0.0, 1.0)}, bias=2.0)
    assert [(m.method, m.objective.bias, dict(m.numbers)) for m in members] == [
        ("mpt_kl@bias=3", 3.0, {}),
        ("mpt_kl", 0.0, {"bias": 0.0}),
        ("mpt_kl", 1.0, {"bias": 1.0}),
    ]
    assert [m.objective.bias for m in selection.candidates(["mpt_kl@bias=3", "mpt_kl"], {}, bias=2.0)] == [3.0, 2.0]
