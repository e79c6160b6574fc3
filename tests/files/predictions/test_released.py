"""The predictions of released models come back bit by bit, or the file counts as missing."""

import numpy as np
import pytest

from mpt_jax.errors import InputError
from mpt_jax.files import sealed
from mpt_jax.files.predictions import released


def readable(path):
    try:
        released.read(path)
    except InputError as error:
        assert str(path) in str(error) and "run the same command again to regenerate it" in str(error)
        return False
    return True


def test_what_was_written_is_read_again(tmp_path):
    path = tmp_path / "one.npz"
    labels, ids = np.arange(3, dtype=np.int32), np.array(["a", "bc", "ä"])
    released.write(path, labels=labels, logits=np.eye(3), ids=ids)
    arrays = released.read(path)
    assert arrays["logits"].dtype == np.float32
    for name, expected in (("labels", labels), ("logits", np.eye(3)), ("ids", ids)):
        np.testing.assert_array_equal(arrays[name], expected)
    assert [p.name for p in tmp_path.iterdir()] == ["one.npz"]
    assert readable(path) and not readable(tmp_path / "two.npz")
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:100] + b"?" * 20 + content[120:]):
        path.write_bytes(damaged)
        assert not readable(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.arange(8)},
        {"labels": np.zeros(9)},
        {"labels": np.int64(0)},
        {"logits": np.eye(9)},
        {"logits": np.zeros((9, 0), np.float32)},
        {"logits": np.zeros(9, np.float32)},
        {"logits": np.zeros((9, 9, 1), np.float32)},
        {"ids": np.arange(8).astype(str)},
        {"ids": np.zeros((9, 1))},
        {"ids": np.full(9, b"a")},
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused_although_their_digest_fits(tmp_path, changes):
    path = tmp_path / "one.npz"
    arrays = {"labels": np.arange(9), "logits": np.eye(9, dtype=np.float32), "ids": np.arange(9).astype(str)}
    sealed.write_arrays(path, arrays)
    released.read(path)
    sealed.write_arrays(path, {**arrays, **changes})
    with pytest.raises(InputError, match=r"one\.npz is damaged: it holds ids .*; expected ids \[n\], .*; run the same"):
        released.read(path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, True),
        ({"class_names": []}, True),
        ({"class_names": ["a", "b"]}, False),
        ({"class_names": [1, 2, 3]}, False),
        ({"label_names": []}, True),
        ({"label_names": ["a", "b", "c", "d"]}, False),
        ({"label_names": [["a", "b", "c", "d", "e"]]}, False),
    ],
)
def test_the_names_of_classes_are_those_of_the_logits_and_of_the_labels(tmp_path, changes, named):
    path = tmp_path / "one.npz"
    arrays = {"labels": np.array([4, 0]), "logits": np.eye(3, dtype=np.float32)[:2], "ids": np.array(["x", "y"])}
    names = {"class_names": ["a", "b", "cä"], "label_names": ["a", "b", "cä", "d", "e"], **changes}
    released.write(path, **arrays, **names)
    if named:
        assert released.read(path).keys() == arrays.keys()
        assert {key: np.load(path)[key].tolist() for key in released.NAMES if names[key]} == {
            key: values for key, values in names.items() if values
        }
    else:
        assert not readable(path)


def test_a_flipped_bit_or_other_arrays_are_never_used(tmp_path):
    path, random = tmp_path / "one.npz", np.random.default_rng(0)
    arrays = {"labels": np.arange(9, dtype=np.int32), "logits": np.eye(9, dtype=np.float32), "ids": np.arange(9)}
    released.write(path, **arrays)
    content = path.read_bytes()
    found = 0
    for bit in random.permutation(8 * len(content))[:400]:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        if readable(path):  # a date of the archive: the arrays are bit-identical
            for name, array in released.read(path).items():
                np.testing.assert_array_equal(array, arrays[name])
        else:
            found += 1
    assert found > 200
    np.savez(path, **{**arrays, "logits": 2 * arrays["logits"]}, digest=sealed.digest(arrays))
    with pytest.raises(InputError, match="run the same command again to regenerate it"):
        released.read(path)
    np.savez(path, **arrays)
    assert not readable(path)


def test_predictions_of_another_release_or_of_other_data_are_refused(tmp_path):
    path, about = tmp_path / "one.npz", {"release": "r1-a-seed0", "weights": "00ff", "test data": "11ee"}
    arrays = {"labels": np.arange(3), "logits": np.eye(3, dtype=np.float32), "ids": np.arange(3)}
    released.write(path, **arrays, about=about)
    assert released.read(path, about).keys() == released.read(path).keys() == arrays.keys()
    assert released.check(path, about) and released.check(path, {"release": "r1-a-seed0"})
    for changed, words in (
        ({"release": "r1-b-seed0"}, "holds other predictions, those of r1-a-seed0; run the same command again"),
        ({"weights": "0"}, "of other weights; run"),
        ({"weights": "0", "test data": "0"}, "of other weights, test data; run"),
    ):
        for look in (released.read, released.check):
            with pytest.raises(InputError, match=words):
                look(path, about | changed)


def test_predictions_of_a_version_that_did_not_record_what_they_are_of_are_read(tmp_path):
    path, about = tmp_path / "one.npz", {"release": "r1-a-seed0"}
    released.write(path, labels=np.arange(3), logits=np.eye(3), ids=np.arange(3))
    assert not released.check(path, about)
    np.testing.assert_array_equal(released.read(path, about)["logits"], np.eye(3))


@pytest.mark.parametrize("text", ["[1]", "nothing", "null"])
def test_what_a_file_says_must_be_an_object(text, tmp_path):
    path = tmp_path / "one.npz"
    arrays = {"labels": np.arange(3), "logits": np.eye(3, dtype=np.float32), "ids": np.arange(3)}
    sealed.write_arrays(path, {**arrays, "about": np.array(text)})
    for look in (released.read, released.check):
        with pytest.raises(InputError, match=r"one\.npz"):
            look(path, {"release": "r1-a-seed0"})
