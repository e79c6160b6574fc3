"""Which margins are tried, which is chosen, and which stage draws from which random numbers."""

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax import update
from mpt_jax.objectives import METHODS

rates = st.floats(0, 1)


def test_methods_with_a_margin_are_tried_with_every_candidate():
    members = update.candidates(("no_treatment", "mpt_kl", "mpt_lm_no_bias"), (0.0, 1.0, 4.0))
    assert [(m.method, m.objective.bias) for m in members] == [
        *(("no_treatment", 0.0), ("mpt_kl", 0.0), ("mpt_kl", 1.0), ("mpt_kl", 4.0), ("mpt_lm_no_bias", 0.0))
    ]
    assert members[2].objective == METHODS["mpt_kl"].replace(bias=1.0)


def test_without_candidates_the_published_margin_stands():
    assert [m.objective for m in update.candidates(tuple(METHODS), ())] == list(METHODS.values())


def test_a_worked_choice():
    accuracy, nfr = [0.90, 0.91, 0.89, 0.70], [0.05, 0.04, 0.02, 0.00]
    assert update.choose(accuracy, nfr, required_accuracy=0.88) == 2  # fewest flips of the three that reach it
    assert update.choose(accuracy, nfr, required_accuracy=0.90) == 1
    assert update.choose(accuracy, nfr, required_accuracy=0.0) == 3
    assert update.choose(accuracy, nfr, required_accuracy=0.95) == 1  # none reaches it: the most accurate
    assert update.choose([0.9, 0.92, 0.92], [0.01, 0.01, 0.01], required_accuracy=0.5) == 1  # ties


@given(st.lists(st.tuples(rates, rates), min_size=1, max_size=6), rates)
def test_no_candidate_beats_the_chosen_one(tried, required):
    accuracy, nfr = zip(*tried, strict=True)
    best = update.choose(accuracy, nfr, required_accuracy=required)
    if max(accuracy) >= required:
        assert accuracy[best] >= required
        assert all(nfr[best] <= n for a, n in tried if a >= required)
    else:
        assert accuracy[best] == max(accuracy)


def test_every_seed_and_stage_has_random_numbers_of_its_own():
    keys = [jax.random.key_data(update._stage_key(seed, stage)) for seed in range(5) for stage in update.STAGES]
    assert len({tuple(np.asarray(key).tolist()) for key in keys}) == 15
