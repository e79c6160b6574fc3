"""The mean F1 against scikit-learn, and its error against repeated sampling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from mpt_jax.compare import compare
from mpt_jax.compare.f1 import macro_f1, standard_error

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.5, 1.0, 2.0])), min_size=1)


@given(ROWS, st.booleans())
def test_scikit_learn_agrees(rows, weighted):
    labels, predictions, weights = (np.array(column) for column in zip(*rows, strict=True))
    weights = weights if weighted else None
    found = macro_f1(predictions, labels, num_classes=4, weights=weights)
    expected = sklearn_metrics.f1_score(
        *(labels, predictions), labels=np.unique(labels), average="macro", sample_weight=weights, zero_division=0
    )
    assert found.value == pytest.approx(expected)


@given(ROWS)
def test_the_influence_is_the_derivative_by_the_weight(rows):
    labels, predictions, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = macro_f1(predictions, labels, num_classes=4, weights=weights)
    for row in range(len(rows)):
        more, less = weights.copy(), weights.copy()
        more[row] += 1e-5
        less[row] -= 1e-5
        values = [macro_f1(predictions, labels, num_classes=4, weights=each).value for each in (more, less)]
        assert found.influence[row] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-6)


def test_the_error_is_that_of_repeated_samples():
    random, rows = np.random.default_rng(0), 2000

    def sample():
        labels = random.choice(3, rows, p=[0.5, 0.3, 0.2])
        predictions = np.where(random.random(rows) < 0.2, random.integers(0, 3, rows), labels)
        return macro_f1(predictions, labels, num_classes=3)

    samples = [sample() for _ in range(400)]
    spread = np.std([each.value for each in samples])
    assert standard_error(samples[0].influence) == pytest.approx(spread, rel=0.15)


def test_limits_on_the_mean_f1():
    labels = np.arange(3000) % 3
    old = {"id": np.arange(3000), "label": labels, "prediction": labels}
    new = old | {"prediction": np.where(np.arange(3000) % 30 == 0, 1, labels)}  # a tenth of class 0
    found = compare(old, new, min_macro_f1=0.98, max_macro_f1_drop=0.01)
    expected = sklearn_metrics.f1_score(labels, new["prediction"], average="macro")
    assert found["checks"][0]["value"] == pytest.approx(expected) and found["checks"][0]["verdict"] == "regression"
    assert found["checks"][1]["value"] == pytest.approx(1 - expected) and found["checks"][1]["verdict"] == "regression"
    low, high = found["checks"][0]["interval"]
    assert low < expected < high < low + 0.03
    assert compare(old, new, min_macro_f1=0.9, max_macro_f1_drop=0.1)["verdict"] == "pass"
    assert compare(old, old, max_macro_f1_drop=0, min_macro_f1=1)["verdict"] == "pass"


def test_a_row_with_nearly_all_of_the_weight_tells_as_much_as_one_row():
    influence = np.array([0.01, 0.3, -0.3, 0.2])
    for dominating, least in ((1e9, 0.99), (10.0, 0.01), (1.0, 0.0)):
        weights = np.array([dominating, 1.0, 1.0, 1.0]) / dominating
        assert least <= standard_error(influence, weights) <= 1
    equal = standard_error(influence, np.ones(4))
    assert equal == pytest.approx(standard_error(influence) * np.sqrt(4 / 3))
