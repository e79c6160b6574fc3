import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.data import Split, class_counts, count, take


def split_of(counts):
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    images = np.arange(len(labels) * 4, dtype=np.uint8).reshape(-1, 2, 2, 1)
    return Split(images, labels, np.array([f"id_{row:03d}" for row in range(len(labels))], dtype="<U6"))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.data())
def test_take_sorts_and_keeps_rows_aligned(counts, data):
    split = split_of(counts)
    chosen = data.draw(st.lists(st.integers(0, max(len(split) - 1, 0)), unique=True, max_size=len(split)))
    part = take(split, chosen)
    assert part.ids.tolist() == [f"id_{row:03d}" for row in sorted(chosen)]
    np.testing.assert_array_equal(part.labels, [split.labels[row] for row in sorted(chosen)])
    np.testing.assert_array_equal(part.images.reshape(-1, 4)[:, 0], [4 * row % 256 for row in sorted(chosen)])
    assert (part.images.dtype, part.labels.dtype) == (np.uint8, np.int32)
    for number in range(len(counts) + 2):
        in_class = [int((part.labels == label).sum()) for label in range(number)]
        assert class_counts(part, number).tolist() == in_class and count(part, number) == sum(in_class)


def test_consecutive_rows_are_not_copied():
    split = split_of([3, 2, 4])
    for rows in (range(9), [4, 3, 2], np.arange(5)):
        assert np.shares_memory(take(split, rows).images, split.images)
    assert not np.shares_memory(take(split, [0, 2]).images, split.images)


@pytest.mark.parametrize(
    ("indices", "error", "words"),
    [
        ([0, 9], ValueError, "indices from 0 to 9; expected 0 to 8"),
        ([-1], ValueError, "indices from -1 to -1"),
        ([3, 1, 3], ValueError, "index 3 is given twice"),
        ([0.0, 1.0], TypeError, "float64"),
        (np.ones(9, bool), TypeError, "bool"),
        ([[1], [2]], TypeError, "shape"),
    ],
)
def test_invalid_indices(indices, error, words):
    with pytest.raises(error, match=words):
        take(split_of([3, 2, 4]), indices)
