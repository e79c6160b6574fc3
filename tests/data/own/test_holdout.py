"""Test parts chosen by the content of the files."""

import collections

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.data.own import holdout


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
)
def test_copies_of_an_image_stay_together_and_every_class_has_both_parts(rows, fraction):
    # Copies only occur within a class: copies in two classes are a fault of the data.
    labels = np.array([label for label, _ in rows])
    digests = [bytes([label + 4 * value]) * 32 for label, value in rows]
    in_test = holdout.held_out(digests, labels, fraction)
    of_digest = collections.defaultdict(set)
    for digest, test in zip(digests, in_test.tolist(), strict=True):
        of_digest[digest].add(test)
    assert all(len(parts) == 1 for parts in of_digest.values())
    for label in set(labels.tolist()):
        different = {digest for digest, other in zip(digests, labels, strict=True) if other == label}
        assert set(in_test[labels == label].tolist()) == ({True, False} if len(different) > 1 else {False})
    below = np.array([int.from_bytes(digest, "big") / 2**256 < fraction for digest in digests])
    for label in set(labels.tolist()):
        mine = below[labels == label]
        if mine.any() and not mine.all():
            np.testing.assert_array_equal(in_test[labels == label], mine)
