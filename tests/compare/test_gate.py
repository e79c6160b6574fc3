"""Rates against plain loops in float64, and limits at their edges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax import metrics
from mpt_jax.compare import gate
from mpt_jax.errors import InputError

CLASSES = ("a", "b", "c", "d")
ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=40).filter(
    lambda rows: any(label < 2 for label, _, _ in rows)
)


def measured(rows, confidence=0.95):
    labels, old, new = (np.array(column, np.int32) for column in zip(*rows, strict=True))
    return gate.measure(old, new, labels, classes=CLASSES, num_old_classes=2, confidence=confidence)


def wilson(successes, count, z=1.959963984540054):
    """Return the two roots of (p - s/n)^2 = z^2 p (1 - p) / n."""
    center = (successes + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * math.sqrt(successes * (count - successes) / count + z * z / 4)
    return [max(0.0, center - half), min(1.0, center + half)]


@given(ROWS)
def test_rates_and_intervals_agree_with_plain_loops(rows):
    found = measured(rows)
    for part, chosen in (("old_classes_rows", [r for r in rows if r[0] < 2]), ("all_rows", rows)):
        n, rates = len(chosen), found[part]
        negative = sum(old == label != new for label, old, new in chosen)
        positive = sum(old != label == new for label, old, new in chosen)
        right_old = sum(old == label for label, old, _ in chosen)
        wrong_new = sum(new != label for label, _, new in chosen)
        assert (rates["count"], rates["negative_flips"], rates["positive_flips"]) == (n, negative, positive)
        assert rates["nfr"] == negative / n and rates["accuracy_new"] == (n - wrong_new) / n
        relative = negative / n / (right_old / n * wrong_new / n) if right_old and wrong_new else 0.0
        assert rates["relative_nfr"] == pytest.approx(relative, abs=1e-12)
        changed = sum(old != new for _, old, new in chosen)
        counts = {"accuracy_old": right_old, "accuracy_new": n - wrong_new, "nfr": negative, "pfr": positive}
        for key, count in (counts | {"churn": changed}).items():
            assert rates["intervals"][key] == pytest.approx(wilson(count, n), abs=1e-9)
        if right_old:
            expected = [end * n / right_old for end in (wilson(negative, wrong_new) if wrong_new else (0, 1))]
            assert rates["intervals"]["relative_nfr"] == pytest.approx(expected, abs=1e-9)
            assert expected[0] - 1e-9 <= rates["relative_nfr"] <= expected[1] + 1e-9
        else:
            assert rates["intervals"]["relative_nfr"] is None
        flips = negative + positive
        tail = sum(math.comb(flips, k) for k in range(min(negative, positive) + 1)) / 2**flips
        assert rates["mcnemar_p"] == pytest.approx(min(1.0, 2 * tail))


@given(ROWS)
def test_rates_agree_with_the_metrics_of_a_run(rows):
    labels, old, new = (np.array(column) for column in zip(*rows, strict=True))
    run, found = metrics.class_growth_metrics(old, new, labels, num_old_classes=2), measured(rows)
    for key in ("nfr", "relative_nfr", "pfr", "nfi", "churn", "btc"):
        assert found["old_classes_rows"][key] == run[key]
    assert found["all_rows"]["nfr"] == run["nfr_all_classes"] and found["all_rows"]["accuracy_new"] == run["accuracy"]


@given(ROWS)
def test_classes_with_rows_are_listed_worst_first(rows):
    found = measured(rows)["per_class"]
    assert {row["class"] for row in found} == {CLASSES[label] for label, _, _ in rows}
    assert [row["nfr"] for row in found] == sorted((row["nfr"] for row in found), reverse=True)
    for row in found:
        own = [r for r in rows if CLASSES[r[0]] == row["class"]]
        assert row["count"] == len(own) and row["known"] == (row["class"] in "ab")
        assert row["negative_flips"] == sum(old == label != new for label, old, new in own)
        assert row["accuracy_new"] == sum(new == label for label, _, new in own) / len(own)
        assert row["interval"] == pytest.approx(wilson(row["negative_flips"], len(own)), abs=1e-9)


def table(negative, both_right=0, positive=0, both_wrong=0, label=0):
    """Return rows of class `label` with these counts."""
    other = 1 - label
    kinds = ((negative, label, other), (both_right, label, label), (positive, other, label), (both_wrong, other, other))
    return [(label, old, new) for count, old, new in kinds for _ in range(count)]


def passes(rows, confidence=0.95, **limits):
    return [check["passed"] for check in gate.checks(measured(rows, confidence), gate.Limits(**limits))]


def test_a_limit_met_exactly_passes():
    rows = table(1, 79, 10, 10)
    assert passes(rows, max_nfr=0.01, min_accuracy=0.89, max_relative_nfr=1 / 100 / (0.8 * 0.11)) == [True] * 3
    assert passes(rows, max_nfr=0.0099, min_accuracy=0.8901, max_relative_nfr=0.11) == [False] * 3
    assert passes(rows) == []
    assert passes(table(0, 10), max_nfr=0, max_class_nfr=0, max_relative_nfr=0, min_accuracy=1) == [True] * 4


def test_the_class_limit_applies_to_the_worst_old_class():
    rows = table(1, 99) + table(3, 7, label=1) + [(2, 0, 3)] * 5
    check = gate.checks(measured(rows), gate.Limits(max_class_nfr=0.2))[0]
    assert not check["passed"] and check["value"] == 0.3 and check["where"] == "class b, 10 rows"
    assert passes(rows, max_class_nfr=0.3, max_nfr=4 / 110) == [True, True]


@given(
    st.integers(0, 30), st.integers(1, 60), st.integers(0, 20), st.integers(0, 20), st.floats(0, 1, exclude_max=True)
)
def test_confident_is_stricter_and_more_so_at_a_higher_level(negative, right, positive, wrong, limit):
    rows = table(negative, right, positive, wrong)
    limits = {"max_nfr": limit, "max_class_nfr": limit, "max_relative_nfr": limit, "min_accuracy": limit}
    point, low, high = passes(rows, **limits), *(passes(rows, c, **limits, confident=True) for c in (0.5, 0.99))
    for a, b, c in zip(point, low, high, strict=True):
        assert c <= b <= a


def test_confident_fails_on_too_few_rows():
    assert passes(table(0, 50, 0, 1), max_nfr=0.01) == [True]
    assert passes(table(0, 50, 0, 1), max_nfr=0.01, confident=True) == [False]
    assert passes(table(0, 5000, 0, 1), max_nfr=0.01, confident=True) == [True]
    # Without errors any share of them may be flips; without a correct old prediction there is no interval.
    assert passes(table(0, 50), max_relative_nfr=0.9, confident=True) == [False]
    assert passes(table(0, 0, 5), max_relative_nfr=0.9) == [True]
    assert passes(table(0, 0, 5), max_relative_nfr=0.9, confident=True) == [False]


@pytest.mark.parametrize(
    "limits",
    [{"max_nfr": -0.1}, {"max_nfr": 2}, {"max_class_nfr": math.nan}, {"min_accuracy": 90}],
)
def test_invalid_limits_are_errors(limits):
    with pytest.raises(InputError, match="expected"):
        gate.Limits(**limits)


def judged(rows, **limits):
    options = {key: limits.pop(key) for key in ("min_rows", "undecided", "own") if key in limits}
    return gate.checks(measured(rows), gate.Limits(**limits), **options)


@given(ROWS)
def test_the_drop_of_accuracy_is_that_of_plain_loops(rows):
    (check,) = judged(rows, max_accuracy_drop=0)
    old = [row for row in rows if row[0] < 2]
    lost = sum((a == label) - (b == label) for label, a, b in old) / len(old)
    assert check["value"] == pytest.approx(lost) and check["passed"] == (lost < 1e-12)


def test_the_drop_of_recall_applies_to_each_old_class():
    rows = table(1, 999) + table(30, 60, 10, label=1)
    (check,) = judged(rows, max_recall_drop=0.05)
    assert check["where"] == "class b, 100 rows" and check["value"] == pytest.approx(0.2)
    assert check["verdict"] == "regression" and [g["group"] for g in check["groups"]["regression"]] == ["b"]


def test_churn_counts_changed_wrong_answers_too():
    rows = [(0, 0, 0)] * 60 + [(0, 1, 2)] * 40
    (check,) = judged(rows, max_churn=0.1)
    assert check["value"] == 0.4 and check["verdict"] == "regression"


def test_small_groups_are_left_out_and_named():
    rows = table(0, 200) + table(3, 4, label=1)
    (check,) = judged(rows, max_class_nfr=0.2, min_rows=50)
    assert check["passed"] and check["where"] == "class a, 200 rows"
    assert check["groups"]["not_judged"] == [{"group": "b", "rows": 7}]
    (none,) = judged(rows, max_class_nfr=0.2, min_rows=1000)
    assert none["verdict"] == "undecided" and none["value"] is None and not none["passed"]


def test_an_undecided_check_passes_if_allowed():
    rows = table(3, 200)
    assert [judged(rows, max_nfr=0.01, undecided=how)[0]["passed"] for how in ("fail", "pass")] == [False, True]
    assert not judged(table(30, 200), max_nfr=0.01, undecided="pass")[0]["passed"]


def test_a_class_may_have_a_limit_of_its_own():
    rows = table(10, 190) + table(10, 190, label=1)
    (check,) = judged(rows, max_class_nfr=0.1, own={"max_class_nfr": {"b": 0.0}})
    assert check["where"] == "class b, 200 rows" and check["allowed"] == 0 and check["verdict"] == "regression"
    (check,) = judged(rows, own={"max_class_nfr": {"a": 0.2}})
    assert check["passed"] and check["groups"]["count"] == 1


@pytest.mark.parametrize(("own", "verdict"), [(0.0, "regression"), (0.3, "undecided"), (0.5, "pass")])
def test_a_group_with_a_limit_of_its_own_is_judged_however_few_its_rows_are(own, verdict):
    rows = table(0, 200) + table(3, 4, label=1)
    limits = {"max_class_nfr": 0.2, "min_rows": 50}
    (check,) = judged(rows, **limits, own={"max_class_nfr": {"b": own}})
    assert check["verdict"] == verdict and not check["groups"]["not_judged"]
    (check,) = judged(rows, **limits, own={"max_class_nfr": {"a": own}})
    assert check["verdict"] == "pass" and check["groups"]["not_judged"] == [{"group": "b", "rows": 7}]


def test_every_error_of_the_new_model_may_be_a_flip():
    """Then the share of the errors that are flips is 1, which rounding must not exceed."""
    for errors in range(1, 12):
        rows = table(errors, 41, 3)
        (check,) = judged(rows, max_relative_nfr=0.6)
        assert check["verdict"] in ("undecided", "regression")


@pytest.mark.parametrize("limit", [0.0, 0.2])
@pytest.mark.parametrize("own", [{}, {"b": 0.0}])
def test_a_class_without_weight_passes_no_limit(limit, own):
    rows = table(0, 200) + table(30, 10, label=1)
    labels, old, new = (np.array(column) for column in zip(*rows, strict=True))
    weights = np.where(labels == 0, 1.0, 0.0)
    found = gate.measure(old, new, labels, classes=CLASSES, num_old_classes=2, weights=weights)
    limits = gate.Limits(max_class_nfr=limit, max_recall_drop=limit)
    for check in gate.checks(found, limits, own={name: own for name in gate.OF_CLASSES}):
        assert check["verdict"] == ("undecided" if own else "pass")
        assert [each["group"] for each in check["groups"]["undecided" if own else "not_judged"]] == ["b"]


@given(st.lists(st.sampled_from([1e-12, 1e-7, 1e-3, 1.0]), min_size=8, max_size=8))
def test_weights_of_any_spread_are_measured(weights):
    rows = table(1, 1, 1, 1) + table(1, 1, 1, 1, label=1)
    labels, old, new = (np.array(column) for column in zip(*rows, strict=True))
    scaled = np.array(weights) / max(weights)
    found = gate.measure(old, new, labels, classes=CLASSES, num_old_classes=2, weights=scaled)
    limits = gate.Limits(max_nfr=0.1, max_relative_nfr=0.6, max_class_nfr=0.2, max_accuracy_drop=0.1, min_accuracy=0.5)
    assert len(gate.checks(found, limits)) == 5


def test_the_rows_that_would_decide_are_rows_of_the_files():
    rows = table(0, 80, 10, 10)
    (check,) = judged(rows, max_relative_nfr=0.05)  # tested on the share of errors that are flips
    enough = -(-(len(rows) + check["more_rows"]) // len(rows))
    assert check["more_rows"] > 0 and judged(rows * enough, max_relative_nfr=0.05)[0]["more_rows"] is None
    (plain,) = judged(rows, max_nfr=0.01)
    labels, old, new = (np.array(column) for column in zip(*rows * 2, strict=True))
    half = np.repeat([1.0, 0.0], len(rows))  # rows without weight tell nothing
    found = gate.measure(old, new, labels, classes=CLASSES, num_old_classes=2, weights=half)
    (weighted,) = gate.checks(found, gate.Limits(max_nfr=0.01))
    assert weighted["more_rows"] == 2 * plain["more_rows"]
