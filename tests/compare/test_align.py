"""Fingerprints and matching against plain Python dictionaries."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.compare import align, compare
from mpt_jax.errors import InputError

TEXTS = st.lists(st.text(alphabet="ab\0é1", max_size=4), max_size=30)


def hashed(texts):
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)])
    return align.fingerprints(np.frombuffer(b"".join(encoded), np.uint8), offsets)


@given(TEXTS)
def test_fingerprints_are_equal_only_for_equal_texts(texts):
    first, second = hashed(texts)
    assert first.dtype == second.dtype == np.uint64 and len(first) == len(second) == len(texts)
    for keys in (first, second):
        assert len(set(keys.tolist())) == len(set(texts))


def test_fingerprints_do_not_depend_on_neighbours_or_blocks():
    texts = ["x" * length + str(length) for length in (0, 5, align._BLOCK - 3, align._BLOCK + 9, 70, 0, 70)]
    together = np.stack(hashed(texts * 2))
    alone = np.concatenate([np.stack(hashed([text])) for text in texts], 1)
    np.testing.assert_array_equal(together, np.concatenate([alone, alone], 1))
    assert len(set(map(tuple, alone.T.tolist()))) == len(set(texts))


def test_a_million_similar_texts_have_different_fingerprints():
    first, second = hashed([f"image_{i:07d}.jpg" for i in range(1_000_000)])
    assert len(np.unique(first)) == len(np.unique(second)) == 1_000_000


@given(TEXTS, TEXTS, st.booleans(), st.randoms(use_true_random=False))
def test_match_agrees_with_dictionaries(old, new, same_ids, random):
    if same_ids:
        new = random.sample(old, len(old))
    found = align.match(hashed(old), hashed(new))
    in_old, in_new = collections.Counter(old), collections.Counter(new)
    assert [old[i] for i in found.repeated_old] == [t for t in dict.fromkeys(old) if in_old[t] > 1]
    assert [new[i] for i in found.repeated_new] == [t for t in dict.fromkeys(new) if in_new[t] > 1]
    if found.new_of_old is not None:
        assert [new[i] for i in found.new_of_old] == old
        assert max(in_old.values(), default=1) == 1 and found.only_old.size == found.only_new.size == 0
    else:
        assert in_old != in_new or max(in_old.values()) > 1
        assert [old[i] for i in found.only_old] == [t for t in dict.fromkeys(old) if t not in in_new]
        assert [new[i] for i in found.only_new] == [t for t in dict.fromkeys(new) if t not in in_old]


def test_ids_that_share_one_of_the_two_hashes_are_distinguished():
    first = np.array([7, 7, 9, 7], np.uint64)
    old = first, np.array([3, 1, 1, 2], np.uint64)
    rows = np.array([2, 0, 3, 1])
    found = align.match(old, (first[rows], old[1][rows]))
    assert found.new_of_old.tolist() == [1, 3, 0, 2]
    other = align.match(old, (first[rows], np.array([1, 3, 2, 4], np.uint64)))
    assert other.new_of_old is None and other.only_old.tolist() == [1] and other.only_new.tolist() == [3]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("\u00e90", "e\u03010", "Unicode form"),
        (" a1", "a1", "white space"),
        ("IMG_1", "img_1", "case"),
        ("0042", "42", "leading zeros"),
        ("000", "0", "leading zeros"),
        ("C:\\photos\\a.png", "a.png", "their folder"),
        ("a/b.png", "a/b.jpg", "their ending"),
        ("IMG_0.png", "img-0.png", "case or punctuation"),
        ("a/b.png", "a/b", "their ending"),
    ],
)
def test_ids_that_are_only_written_otherwise_are_named_so_that_the_difference_shows(old, new, what):
    for one, other in ((old, new), (new, old)):
        found = align.written_otherwise(["x", one], ["y", other])
        assert found == f"{one!a} and {other!a} differ only in {what}: expected the same text in both"
    assert not align.written_otherwise([old, "a"], ["b", "c"])


def test_an_error_says_how_ids_are_written_otherwise():
    table = {"id": ["0", "1"], "label": ["cat", "dog"], "prediction": ["cat", "dog"]}
    with pytest.raises(InputError, match="'a/0' and '0' differ only in their folder"):
        compare(table | {"id": ["a/0", "a/1"]}, table)
