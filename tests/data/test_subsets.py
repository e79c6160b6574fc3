import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.data import long_tail, long_tail_counts, part
from mpt_jax.data.subsets import by_class

COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(lambda counts: counts[-1])


def labels_of(counts):
    return np.repeat(np.arange(len(counts)), counts)


@given(st.lists(st.integers(0, 6), max_size=30), st.integers(0, 3), st.integers(0, 4))
def test_rows_by_class(labels, start, length):
    rows = by_class(np.array(labels, int), range(start, start + length))
    assert [r.tolist() for r in rows] == [
        [row for row, label in enumerate(labels) if label == c] for c in range(start, start + length)
    ]


@pytest.mark.parametrize(
    ("imbalance", "last", "total"), [(200, 2, 9502), (100, 5, 10847), (50, 10, 12608), (10, 50, 19573)]
)
def test_long_tailed_cifar_100_matches_the_papers(imbalance, last, total):
    counts = long_tail_counts([500] * 100, imbalance)
    assert (counts[0], counts[-1], counts.sum()) == (500, last, total)
    assert np.all(np.diff(counts) <= 0)


@given(st.integers(1, 2000), st.integers(1, 500), st.integers(2, 120))
def test_the_profile_is_the_floor_of_exact_powers(largest, imbalance, num_classes):
    counts = long_tail_counts([largest] * num_classes, imbalance)
    last = num_classes - 1
    for k in {0, 1, last // 2, last}:
        # n <= x < n + 1 with x = largest * imbalance ** (-k / last), all raised to the power `last`: exact integers.
        n, below = int(counts[k]), largest**last
        scale = imbalance**k
        assert n**last * scale <= below < (n + 1) ** last * scale


@given(COUNTS, st.floats(1, 300), st.floats(1, 300))
def test_a_stronger_long_tail_is_a_subset_of_a_weaker_one(counts, one, other):
    labels = labels_of(counts)
    weak, strong = (long_tail(labels, imbalance, seed=5) for imbalance in sorted((one, other)))
    assert set(strong) <= set(weak) and np.all(np.diff(weak) > 0)
    largest = max(counts)
    for k, available in enumerate(counts):
        exact = largest * math.exp(-math.log(min(one, other)) * k / max(len(counts) - 1, 1))
        kept = int((labels[weak] == k).sum())
        assert kept == available if available < exact - 1e-6 else exact - 1 <= kept <= exact + 1e-6


@given(COUNTS, st.integers(0, 20), st.integers(0, 20))
def test_a_smaller_part_is_a_subset_of_a_larger_one(counts, one, other):
    labels = labels_of(counts)
    small, large = (Fraction(1 + n, 21) for n in sorted((one, other)))
    rows, more = (part(labels, float(fraction), seed=2) for fraction in (small, large))
    assert set(rows) <= set(more) and np.all(np.diff(rows) > 0)
    for k, available in enumerate(counts):
        expected = math.floor(small * available + Fraction(1, 2))
        assert int((labels[rows] == k).sum()) == min(available, max(expected, 1))
    np.testing.assert_array_equal(part(labels, 1, seed=2), np.arange(len(labels)))


def test_the_draw_depends_on_seed_and_class_only():
    alone, among = part(np.zeros(40, int), 0.5, seed=3), part(labels_of([40, 7, 90]), 0.5, seed=3)
    np.testing.assert_array_equal(alone, among[among < 40])
    assert set(alone) != set(part(np.zeros(40, int), 0.5, seed=4))
    second = part(labels_of([40, 40]), 0.5, seed=3)
    assert set(second[second >= 40] - 40) != set(alone)  # another class, another draw


def test_all_images_are_equally_likely():
    drawn = np.concatenate([part(np.zeros(10, int), 0.3, seed=seed) for seed in range(1000)])
    assert abs(np.bincount(drawn, minlength=10) - 300).max() < 6 * math.sqrt(1000 * 0.3 * 0.7)


@pytest.mark.parametrize("imbalance", [0.5, 0, -1, math.inf, math.nan])
def test_invalid_imbalances(imbalance):
    with pytest.raises(ValueError, match="expected 1 or more"):
        long_tail_counts([10, 10], imbalance)


@pytest.mark.parametrize("fraction", [0, 1.01, -1, math.nan])
def test_invalid_fractions(fraction):
    with pytest.raises(ValueError, match="fraction="):
        part(np.zeros(3, int), fraction, seed=0)
