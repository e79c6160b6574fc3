"""Comparison at equal accuracy, against shifted logits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.posttraining import PosthocCurve
from mpt_jax.report.flips import Pair
from mpt_jax.reproduce import collection


def _pair(rng):
    labels = np.sort(np.r_[0, rng.integers(0, 5, 20)])
    return Pair(labels, labels.astype(str), rng.normal(size=(21, 3)), rng.normal(size=(21, 5)).astype(np.float32))


@given(st.integers(0, 2**32 - 1))
def test_the_shift_curve_agrees_with_shifted_logits(seed):
    rng = np.random.default_rng(seed)
    num_old, pair = 3, _pair(rng)
    curve = collection.shift_curve(pair, num_old)
    for c in (-2.5, -0.3, 0.0, 0.7, 40.0):
        predictions = (pair.new - c * (np.arange(5) >= num_old)).argmax(-1)
        step = np.searchsorted(curve.starts, c, "right") - 1
        known = pair.labels < num_old
        flips = known & (pair.old.argmax(-1) == pair.labels) & (predictions != pair.labels)
        assert curve.accuracy[step] == pytest.approx((predictions == pair.labels).mean())
        assert curve.nfr[step] == pytest.approx(flips.sum() / known.sum())


def test_at_equal_accuracy_a_model_is_no_better_than_itself_and_a_better_one_is():
    starts, accuracy = np.array([0.0, 1.0, 2.0]), np.array([0.7, 0.8, 0.6])
    curve = lambda nfr: PosthocCurve(starts, accuracy, accuracy, accuracy, np.array(nfr))  # noqa: E731
    same, better = curve([0.3, 0.2, 0.1]), curve([0.3, 0.1, 0.05])
    mine, theirs = collection.equalized(same, same)
    assert mine == theirs
    mine, theirs = collection.equalized(better, same, below=0.1)
    assert (mine, theirs) == pytest.approx((0.075, 0.15))  # halfway between the second and the third step
    low = PosthocCurve(starts, accuracy - 0.5, accuracy, accuracy, same.nfr)
    assert collection.equalized(low, same)[1] == pytest.approx(0.1)  # reached with fewer flips than any other point
