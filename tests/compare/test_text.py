"""The sentences of a comparison agree with its numbers."""

import json

import numpy as np
import pytest

from mpt_jax.compare import compare, text


@pytest.mark.parametrize(
    ("wrong", "limits", "expected"),
    [
        (1004, {"max_nfr": 0.01}, "max_nfr: 1.004 % [{}] on 100,000 rows of old classes exceeds the limit of 1 %"),
        (124, {"max_nfr": 0.00123}, "max_nfr: 0.124 % [{}] on {} exceeds the limit of 0.123 %"),
        (125, {"max_nfr": 0.00125}, "max_nfr: 0.12 % [{}] on {} is within the limit of 0.125 %"),
        (
            2,
            {"min_accuracy": 0.99999},
            "min_accuracy: 99.998 % [{}] on all {} is below the limit of 99.999 %",
        ),
        (0, {"min_accuracy": 1}, "min_accuracy: 100.00 % [{}] on all 100,000 rows reaches the limit of 100 %"),
        (1004, {"max_relative_nfr": 1 / 3}, "max_relative_nfr: 1.00 [{}] on {} exceeds the limit of 0.333333333333"),
        (
            1000,
            {"max_nfr": 0.0106, "confident": True},
            "max_nfr: 1 % [0.9402, 1.064] on {}: the upper bound exceeds the limit of 1.06 %",
        ),
        (
            1000,
            {"min_accuracy": 0.9, "confident": True},
            "min_accuracy: 99.00 % [{}] on {}: the lower bound reaches the limit of 90 %",
        ),
    ],
)
def test_the_numbers_are_precise_enough_for_the_verdict(wrong, limits, expected):
    labels = np.zeros(100_000, int)
    old = {"id": np.arange(100_000), "label": labels, "prediction": labels}
    result = compare(old, old | {"prediction": (np.arange(100_000) < wrong).astype(int)}, **limits)
    found = text.sentence(result["checks"][0], result)
    start = 0
    for part in expected.split("{}"):
        assert part in found[start:]
        start = found.index(part, start) + len(part)
    assert start == len(found)


def test_a_limit_without_an_interval_fails_confidently():
    wrong = {"id": [1, 2], "label": ["a", "b"], "prediction": ["b", "a"]}
    found = compare(wrong, wrong, max_relative_nfr=0.5, confident=True)
    assert not found["passed"] and ": no confidence interval" in text.sentence(found["checks"][0], found)
    assert json.loads(json.dumps(found, allow_nan=False))["checks"][0]["held"] is None


def test_a_failure_names_examples():
    old = {"id": range(9), "label": [0, 1, 2] * 3, "prediction": [0, 1, 2] * 3}
    found = text.failure(compare(old, old | {"prediction": [0] * 9}, max_nfr=0.5))
    assert "exceeds the limit of 50 %\n6 negative flips, such as id '1' (label '1', old '1', new '0'); id '2'" in found
    assert found.count("; id") == 4


def test_what_weights_and_examples_that_must_pass_mean_is_said_first():
    old = {"id": range(60), "label": [0, 1, 2] * 20, "prediction": [0, 1, 0] * 20, "w": [1, 3, 1] * 20}
    new = old | {"prediction": [0, 0, 0] * 20}
    found = compare(old, new, old_classes=3, weight="w", must_pass=range(9), max_nfr=0.99, confident=True)
    assert text.notes(found) == [
        "Rates are weighted: 60 rows tell as much as 45 of equal weight",  # 100^2 / (40 + 9 * 20)
        "Examples that must pass and flipped: '1', '4', '7'",
        "Of 9 examples that must pass, 3 were wrong before and still are, which is no flip",
    ]
    limit, must_pass = found["checks"]
    assert "the upper bound is within" in text.sentence(limit, found)
    assert text.sentence(must_pass, found) == (
        "must_pass: 33.33 % on 9 examples that must pass exceeds the limit of 0 %"
    )
