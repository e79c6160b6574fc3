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


@pytest.mark.parametrize("new", [[8], [7], [0], [7, 8], [2, 8], [8, 9], [3]])
def test_indices_with_new_classes_inserted_anywhere_are_found(new):
    num_classes = 9 + len(new)
    old = [place for place in range(num_classes) if place not in new]  # the label of each of the old model's classes
    labels = np.random.default_rng(0).permutation(np.arange(3000) % num_classes)
    of_new = np.random.default_rng(1).integers(0, 9, 3000)
    predictions = np.where(np.isin(labels, new), of_new, np.searchsorted(old, labels))
    moved = [place for place, label in enumerate(old) if place != label]
    found = [(each.label, each.prediction) for each in order.moved(predictions, labels, num_classes)]
    assert set(found) == {(old[place], place) for place in moved}
    without_new = ~np.isin(labels, new)  # the test set need not have rows of a new class
    found = [each.label for each in order.moved(predictions[without_new], labels[without_new], num_classes)]
    assert set(found) == {old[place] for place in moved}


def test_a_new_class_that_looks_like_an_old_one_is_no_sign_of_another_order():
    labels = np.arange(3000) % 10
    looks_alike = np.where(labels == 9, 8, labels)
    assert not order.moved(looks_alike, labels, 10)
    hard = np.where((labels == 8) & (np.arange(3000) < 1600), 0, looks_alike)  # about half of the old one is wrong
    assert not order.moved(hard, labels, 10)


def test_the_sentence_names_some_of_many():
    labels = np.arange(2000) % 20
    found = order.doubt_of_old((labels + 1) % 20, labels, [f"c{i}" for i in range(20)])
    assert "'c1' for 100 of 100 rows of 'c0'" in found and "and 15 more;" in found
    assert order.doubt_of_old(labels, labels, [*"abcdefghijklmnopqrst"]) == ""
