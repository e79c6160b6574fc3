"""Flips of several labels a row, against sets in plain Python and against the gate for one label."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mpt_jax import metrics
from mpt_jax.compare import gate, multilabel

CLASSES = "abcd"
LABELS = st.frozensets(st.integers(0, 3), max_size=4)
ROWS = st.lists(st.tuples(LABELS, st.frozensets(st.integers(0, 2)), LABELS), min_size=1, max_size=20)


def measured(rows, **options):
    """Measure rows of (labels, old, new), each a set of positions in `CLASSES`; the old model knows three."""
    members = sorted({each for row in rows for each in row}, key=sorted)
    codes = np.array([[members.index(each) for each in row] for row in rows])
    options = {"classes": CLASSES, "num_old_classes": 3} | options
    return multilabel.measure(*codes.T, multilabel.sets_of([tuple(each) for each in members]), **options)


def f1(rows, which, classes):
    """Return the micro- and the macro-averaged F1 of the old (1) or the new (2) model, from its definition."""
    right = {c: sum(c in row[0] and c in row[which] for row in rows) for c in classes}
    wrong = {c: sum((c in row[0]) != (c in row[which]) for row in rows) for c in classes}
    each = [2 * right[c] / (2 * right[c] + wrong[c]) if right[c] else 0.0 for c in classes]
    total = 2 * sum(right.values()) + sum(wrong.values())
    return (2 * sum(right.values()) / total if total else 0.0), sum(each) / len(each)


@given(ROWS)
def test_every_count_agrees_with_sets_in_plain_python(rows):
    seen = sorted({c for row in rows for each in row for c in each})
    known = [c for c in seen if c < 3]
    assume(known)
    found = measured(rows)
    missed = [(y & a) - b for y, a, b in rows]
    alarms = [b - y - a for y, a, b in rows]
    gained = [(y & b) - a for y, a, b in rows]
    removed = [a - y - b for y, a, b in rows]
    flipped = [bool(m or f) for m, f in zip(missed, alarms, strict=True)]
    assert found["flipped"].tolist() == flipped
    every = found["all_rows"]
    assert every["count"] == len(rows) and every["negative_flips"] == sum(flipped)
    assert every["only_new_classes"] == sum(not m and f == {3} for m, f in zip(missed, alarms, strict=True))
    assert every["nfr"] == sum(flipped) / len(rows)
    assert every["accuracy_old"] == sum(y == a for y, a, _ in rows) / len(rows)
    assert every["accuracy_new"] == sum(y == b for y, _, b in rows) / len(rows)
    assert every["churn"] == sum(a != b for _, a, b in rows) / len(rows)
    assert every["empty"] == {key: sum(not row[i] for row in rows) for i, key in enumerate(("label", "old", "new"))}
    kinds = {"missed": missed, "false_alarms": alarms, "gained": gained, "removed": removed}
    for key, sets in kinds.items():
        assert found["labels"][key] == sum(map(len, sets))
    assert {row["class"] for row in found["per_class"]} == {CLASSES[c] for c in seen}
    for row in found["per_class"]:
        c = CLASSES.index(row["class"])
        assert row["count"] == sum(c in y for y, _, _ in rows) and row["known"] == (c < 3)
        for key, sets in kinds.items():
            assert row[key] == sum(c in each for each in sets)
        if row["count"]:
            assert row["nfr"] == row["missed"] / row["count"]
            assert row["accuracy_old"] == sum(c in y & a for y, a, _ in rows) / row["count"]
            assert row["accuracy_new"] == sum(c in y & b for y, _, b in rows) / row["count"]
            assert tuple(row["interval"]) == metrics.wilson_interval(row["missed"], row["count"])
        for key, which in (("f1_old", 1), ("f1_new", 2)):
            assert row[key] == pytest.approx(f1(rows, which, [c])[1])
    for part, classes in (("all_classes", seen), ("old_classes", known)):
        scores = found["labels"]["f1"][part]
        assert scores["classes"] == len(classes)
        for key, which in (("old", 1), ("new", 2)):
            assert (scores[f"micro_{key}"], scores[f"macro_{key}"]) == pytest.approx(f1(rows, which, classes))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=30))
def test_with_one_label_a_row_the_labels_lost_are_the_negative_flips_of_each_class(rows):
    labels, old, new = map(np.array, zip(*rows, strict=True))
    assume((labels < 3).any())
    alone = gate.measure(old, new, labels, classes=CLASSES, num_old_classes=3)
    found = measured([tuple(frozenset([each]) for each in row) for row in rows])
    of_class = {row["class"]: row for row in found["per_class"]}
    for row in alone["per_class"]:
        both = of_class[row["class"]]
        assert both["missed"] == row["negative_flips"] and both["gained"] == row["positive_flips"]
        assert [both[key] for key in ("count", "nfr", "interval")] == [row[key] for key in ("count", "nfr", "interval")]
        assert both["accuracy_old"] == row["accuracy_old"] and both["accuracy_new"] == row["accuracy_new"]
    for key in ("accuracy_old", "accuracy_new", "churn"):
        assert found["all_rows"][key] == alone["all_rows"][key]
    # A row where both are wrong in different ways has a false alarm in place of a flip.
    moved = ((old != labels) & (new != labels) & (old != new)).sum()
    assert found["all_rows"]["negative_flips"] == alone["all_rows"]["negative_flips"] + moved


def test_an_old_model_with_its_classes_in_another_order_is_doubted():
    labels = [frozenset([i % 10, (i + 3) % 10]) for i in range(100)]
    shifted = [frozenset((c + 1) % 10 for c in each) for each in labels]
    half = [each if i % 2 else frozenset([10]) for i, each in enumerate(labels)]

    def doubt(old, new):
        rows = list(zip(labels, old, new, strict=True))
        found = measured(rows, classes="abcdefghijk", num_old_classes=11)
        return multilabel.doubt_of_old(found)

    assert "F1 of 0 on its classes, close to chance" in doubt(shifted, shifted)
    assert "the new one 1;" in doubt(half, labels) and not doubt(half, half) and not doubt(labels, shifted)


def test_chance_is_the_f1_of_predictions_that_are_dealt_at_random():
    rng = np.random.default_rng(0)
    true, given_ = rng.random((300, 3)) < [0.9, 0.3, 0.1], rng.random((300, 3)) < [0.8, 0.5, 0.1]
    rows = [tuple(frozenset(np.flatnonzero(each)) for each in row) for row in zip(true, given_, given_, strict=True)]
    dealt = [2 * (true & rng.permutation(given_)).sum() / (true.sum() + given_.sum()) for _ in range(300)]
    assert measured(rows)["labels"]["chance"] == pytest.approx(np.mean(dealt), abs=0.005)


def test_what_a_row_lost_is_named():
    assert multilabel.differences(["b", "a"], ["a", "b", "x"], ["x", "c"]) == {
        "missed": ["a", "b"],
        "false_alarms": ["c"],
    }
