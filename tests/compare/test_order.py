"""Classes that a model has in another order, among plain errors, against a search by loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.compare import order


@given(st.permutations(range(6)), st.integers(0, 2**32 - 1))
def test_every_class_that_changed_its_place_is_found_whatever_the_other_errors(places, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(600) % 6
    predictions = np.array(places)[labels]
    wrong = rng.random(600) < 0.2
    predictions[wrong] = rng.integers(0, 6, wrong.sum())
    found = order.moved(predictions, labels, 6)
    assert [(each.label, each.prediction) for each in found] == [
        (i, place) for i, place in enumerate(places) if i != place
    ]
    for each in found:
        of_label = labels == each.label
        assert (each.rows, each.of) == (np.sum(predictions[of_label] == each.prediction), of_label.sum())


@pytest.mark.parametrize(
    "places",
    [
        [0, 1, 2, 3],
        [1, 1, 2, 3],  # one class is taken for another
        [1, 1, 1, 1],  # everything is
        [3, 3, 2, 3],
    ],
)
def test_a_class_that_the_model_has_not_learned_is_no_sign_of_another_order(places):
    labels = np.arange(400) % 4
    assert not order.moved(np.array(places)[labels], labels, 4)


def test_a_shifted_list_is_found_and_a_few_rows_or_half_of_them_say_nothing():
    labels = np.arange(400) % 4
    assert [each.label for each in order.moved(np.array([0, 0, 1, 2])[labels], labels, 4)] == [1, 2, 3]
    for count in (2, 4, 6):
        swapped = np.array([1, 0, *[0] * count, *[1] * count])
        assert not order.moved(1 - swapped[2:], swapped[2:], 2) or count > 3
    half = np.where(np.arange(400) < 200, labels, np.array([1, 0, 2, 3])[labels])
    assert not order.moved(half, labels, 4)


def test_the_sentence_names_some_of_many():
    labels = np.arange(2000) % 20
    found = order.doubt_of_old((labels + 1) % 20, labels, [f"c{i}" for i in range(20)])
    assert "'c1' for 100 of 100 rows of 'c0'" in found and "and 15 more;" in found
    assert order.doubt_of_old(labels, labels, [*"abcdefghijklmnopqrst"]) == ""
