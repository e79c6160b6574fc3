"""Flip metrics: a worked example, the identities they must obey, and what bad input gets."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.metrics import MEANINGS, class_growth_metrics, flip_metrics

# image    0  1  2  3  4  5  6  7  8  9
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
OLD = [0, 0, 0, 1, 1, 1, 0, 1, 2, 0]  # right: 0 1 2 4 5 8
NEW = [0, 0, 1, 0, 1, 0, 2, 1, 2, 0]  # right: 0 1 3 4 8
# both right 0 1 4 8; negative flips 2 5; positive flip 3; both wrong 6 (differently) 7 9 (alike); differ on 2 3 5 6


def test_worked_example():
    assert flip_metrics(OLD, NEW, LABELS) == pytest.approx(
        {
            "count": 10,
            "both_right": 4,
            "negative_flips": 2,
            "positive_flips": 1,
            "both_wrong": 3,
            "accuracy_old": 0.6,
            "accuracy_new": 0.5,
            "error_old": 0.4,
            "error_new": 0.5,
            "nfr": 0.2,
            "relative_nfr": 2 / 3,  # 0.2 / (0.6 * 0.5)
            "pfr": 0.1,
            "nfi": 0.4,  # 2 of 5 errors
            "pfi": 0.2,  # 1 of 5 right answers
            "churn": 0.4,
            "nfr_mc": 0.3,  # images 2, 5, 6
            "btc": 4 / 6,
            "bec": 3 / 5,
            "bec_old": 3 / 4,
        },
        abs=1e-15,
    )


def test_worked_example_of_class_growth():
    # class 2 is new: images 7 8 9, on which a model of the classes 0 and 1 is always wrong
    old = [0, 0, 0, 1, 1, 1, 0, 1, 0, 0]
    assert class_growth_metrics(old, NEW, LABELS, num_old_classes=2) == pytest.approx(
        {
            "accuracy": 0.5,
            "accuracy_old_classes": 4 / 7,
            "accuracy_new_classes": 1 / 3,
            "accuracy_previous": 5 / 7,
            "nfr": 2 / 7,
            "relative_nfr": (2 / 7) / (5 / 7 * 3 / 7),
            "pfr": 1 / 7,
            "nfi": 2 / 3,
            "churn": 4 / 7,
            "btc": 3 / 5,
            "nfr_all_classes": 0.2,
        },
        abs=1e-15,
    )


def test_published_relative_rates():
    # Positive-Congruent Training, ImageNet class growth, no treatment: ER_new 23.65 %, NFR 8.05 %, relative NFR 41.90 %
    # on 100,000 images; the old model's accuracy follows from the three numbers.
    count, wrong_new, negative = 100_000, 23_650, 8_050
    right_old = round(0.0805 / (0.4190 * 0.2365) * count)
    old = np.where(np.arange(count) < right_old, 0, 1)
    new = np.zeros(count, int)
    new[:negative] = 1
    new[count - (wrong_new - negative) :] = 1
    assert flip_metrics(old, new, np.zeros(count, int))["relative_nfr"] == pytest.approx(0.4190, abs=1e-5)


@st.composite
def comparisons(draw, classes=4):
    count = draw(st.integers(1, 40))
    column = st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)
    return tuple(np.array(draw(column)) for _ in range(3))


@given(comparisons())
def test_identities(comparison):
    old, new, labels = comparison
    m = flip_metrics(*comparison)
    assert m["count"] == m["both_right"] + m["negative_flips"] + m["positive_flips"] + m["both_wrong"] == labels.size
    close = pytest.approx
    assert m["error_new"] - m["error_old"] == close(m["nfr"] - m["pfr"], abs=1e-12)
    assert m["accuracy_old"] + m["error_old"] == close(1, abs=1e-12)
    assert m["accuracy_new"] + m["error_new"] == close(1, abs=1e-12)
    assert m["nfr"] <= m["error_new"] and m["nfr"] <= 1 - m["error_old"] + 1e-12
    assert m["pfr"] <= m["error_old"] and m["pfr"] <= m["accuracy_new"]
    assert m["nfr"] + m["pfr"] <= m["churn"] + 1e-12  # whoever flips has changed
    assert m["churn"] <= 1 - m["both_right"] / m["count"] + 1e-12
    assert m["nfr"] <= m["nfr_mc"] <= min(m["churn"], m["error_new"])
    assert m["churn"] == close(m["nfr_mc"] + m["pfr"], abs=1e-12)  # a change ends wrong, or right where it was wrong
    assert m["nfi"] * m["error_new"] == close(m["nfr"], abs=1e-12)
    assert m["pfi"] * m["accuracy_new"] == close(m["pfr"], abs=1e-12)
    assert m["relative_nfr"] * m["accuracy_old"] * m["error_new"] == close(m["nfr"], abs=1e-12)
    assert (1 - m["btc"]) * m["accuracy_old"] == close(m["nfr"], abs=1e-12)
    assert m["bec"] * m["error_new"] == close(m["bec_old"] * m["error_old"], abs=1e-12)
    if m["error_new"]:
        assert m["nfi"] + m["bec"] == close(1, abs=1e-12)
    assert all(0 <= value <= 1 for key, value in m.items() if key != "relative_nfr" and isinstance(value, float))
    assert m["churn"] == sum(int(a) != int(b) for a, b in zip(old, new, strict=True)) / labels.size


@given(comparisons())
def test_a_model_against_itself(comparison):
    old, _, labels = comparison
    m = flip_metrics(old, old, labels)
    assert m["nfr"] == m["pfr"] == m["churn"] == m["nfr_mc"] == m["relative_nfr"] == 0
    assert m["btc"] == (m["accuracy_old"] > 0)


@given(comparisons())
def test_swapping_the_models_swaps_the_flips(comparison):
    old, new, labels = comparison
    forward, backward = flip_metrics(old, new, labels), flip_metrics(new, old, labels)
    for there, back in (("nfr", "pfr"), ("accuracy_old", "accuracy_new"), ("bec", "bec_old"), ("churn", "churn")):
        assert forward[there] == backward[back]


@given(comparisons(), st.randoms(use_true_random=False))
def test_order_of_images_and_names_of_classes_do_not_matter(comparison, random):
    order = list(range(comparison[2].size))
    random.shuffle(order)
    names = random.sample(range(100), 4)
    changed = [np.array(names)[column][order] for column in comparison]
    assert flip_metrics(*changed) == flip_metrics(*comparison)


@given(comparisons())
def test_class_growth_is_composed_of_flips(comparison):
    old, new, labels = comparison
    old, labels = old % 2, np.append(labels[1:], 0)  # an old model of two classes, and at least one old image
    row = class_growth_metrics(old, new, labels, num_old_classes=2)
    on_old = flip_metrics(old[labels < 2], new[labels < 2], labels[labels < 2])
    on_all = flip_metrics(old, new, labels)
    for key in ("nfr", "relative_nfr", "pfr", "nfi", "churn", "btc"):
        assert row[key] == on_old[key]
    assert row["accuracy_old_classes"] == on_old["accuracy_new"]
    assert row["accuracy_previous"] == on_old["accuracy_old"]
    assert row["accuracy"] == on_all["accuracy_new"]
    share_old = (labels < 2).mean()  # new classes cannot flip negatively
    assert row["nfr_all_classes"] == pytest.approx(row["nfr"] * share_old, abs=1e-12)
    by_group = share_old * row["accuracy_old_classes"] + (1 - share_old) * (row["accuracy_new_classes"] or 0)
    assert row["accuracy"] == pytest.approx(by_group, abs=1e-12)


def test_nothing_to_divide_by_is_0():
    right, wrong = [1, 1], [0, 0]
    perfect = flip_metrics(right, right, right)
    assert perfect["relative_nfr"] == perfect["nfi"] == perfect["bec"] == perfect["bec_old"] == 0
    hopeless = flip_metrics(wrong, wrong, right)
    assert hopeless["relative_nfr"] == hopeless["pfi"] == hopeless["btc"] == 0


def test_no_images_of_new_classes():
    assert class_growth_metrics([0, 1], [0, 1], [0, 1], num_old_classes=2)["accuracy_new_classes"] is None


def test_results_are_json_and_any_integers_do():
    expected = flip_metrics(OLD, NEW, LABELS)
    assert {type(value) for value in expected.values()} == {int, float}
    row = class_growth_metrics([0, 1, 0], [0, 0, 2], [0, 1, 2], num_old_classes=2)
    assert {type(value) for value in row.values()} == {float}
    assert json.loads(json.dumps([expected, row])) == [expected, row]
    kinds = (np.uint8, np.int64, jnp.int32)
    for a, b, c in (kinds, kinds[::-1]):
        arrays = (jnp.asarray(OLD, a) if a is jnp.int32 else np.asarray(OLD, a), np.asarray(NEW, b))
        assert flip_metrics(*arrays, np.asarray(LABELS, c)) == expected


def test_every_key_has_a_meaning():
    keys = flip_metrics(OLD, NEW, LABELS).keys() | class_growth_metrics([0], [0], [0], num_old_classes=1).keys()
    assert keys == MEANINGS.keys()
    assert all(f"`{key}`" in flip_metrics.__doc__ for key in flip_metrics(OLD, NEW, LABELS))
    assert all(meaning.endswith(".") for meaning in MEANINGS.values())


def test_large_counts_stay_exact():
    count = 200_000  # products of counts pass 2**31
    labels = np.zeros(count, np.int32)
    old, new = labels.copy(), labels.copy()
    old[:1], new[1:] = 1, 1
    assert flip_metrics(old, new, labels)["relative_nfr"] == count / (count - 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0.0, 1.0], [0, 1], [0, 1]), TypeError, "old_predictions have dtype float64; expected integers"),
        (([0, 1], [True, False], [0, 1]), TypeError, "new_predictions have dtype bool"),
        (([0, 1], [0, 1], [0.1, 0.9]), TypeError, "labels"),
        (([0, 1], [0], [0, 1]), ValueError, "shapes do not fit"),
        (([[0, 1]], [[0, 1]], [[0, 1]]), ValueError, "shapes do not fit"),
        (([], [], []), ValueError, "no images"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        flip_metrics(*arguments)


def test_bad_input_of_class_growth():
    with pytest.raises(ValueError, match="hold class 2; expected the old classes 0 to 1"):
        class_growth_metrics([0, 2], [0, 1], [0, 1], num_old_classes=2)
    with pytest.raises(ValueError, match="no image of an old class"):
        class_growth_metrics([0, 1], [2, 3], [2, 3], num_old_classes=2)
    with pytest.raises(TypeError, match="expected integers"):
        class_growth_metrics([0, 1], [0.5, 1.0], [0, 1], num_old_classes=2)
