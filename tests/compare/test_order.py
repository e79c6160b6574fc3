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
    found = order.doubt_of_old(order.moved((labels + 1) % 20, labels, 20), [f"c{i}" for i in range(20)])
    assert "'c1' for 100 of 100 rows of 'c0'" in found and "and 15 more;" in found
    assert order.doubt_of_old(order.moved(labels, labels, 20), [*"abcdefghijklmnopqrst"]) == ""


def keys_of(sets, num_classes):
    return np.array(sorted(row * num_classes + each for row, members in enumerate(sets) for each in members), int)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=80))
def test_with_one_label_a_row_both_forms_agree(pairs):
    labels, predictions = (np.array(column) for column in zip(*pairs, strict=True))
    sets = [keys_of([[each] for each in column], 4) for column in (labels, predictions)]
    assert order.moved_labels(*sets, np.ones(len(labels), int), 4) == order.moved(predictions, labels, 4)


@given(st.permutations(range(5)), st.integers(0, 2**32 - 1))
def test_classes_that_changed_places_are_found_among_several_labels_a_row(places, seed):
    """Each row has one of the classes 0 to 4, and some of 5 to 7, which the model mostly finds."""
    rng = np.random.default_rng(seed)
    main = np.arange(400) % 5
    others = [set((5 + np.flatnonzero(rng.random(3) < 0.4)).tolist()) for _ in main]
    true = [{int(label), *more} for label, more in zip(main, others, strict=True)]
    given = [
        {places[label], *(each for each in more if rng.random() < 0.8)}
        for label, more in zip(main, others, strict=True)
    ]
    found = order.moved_labels(keys_of(true, 8), keys_of(given, 8), np.ones(400, int), 8)
    assert [(each.label, each.prediction, each.rows, each.of) for each in found] == [
        (label, place, 80, 80) for label, place in enumerate(places) if label != place
    ]
