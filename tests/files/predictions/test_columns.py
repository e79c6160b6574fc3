"""Ids and scores are found in a prediction file by the names of its columns."""

import numpy as np
import pyarrow as pa
import pytest

from mpt_jax.errors import InputError
from mpt_jax.files.predictions import columns, formats


def source(table):
    return formats.open_source(table, "it")


def test_scores_are_read_with_ids_and_class_names_in_batches(monkeypatch):
    monkeypatch.setattr(formats, "ROWS", 2)
    values = np.arange(6.0).reshape(3, 2)
    by_column = {"id": [7, 8, 9], "logit_cat": values[:, 0], "logit_dog": values[:, 1]}
    matrix = {"id": ["7", "8", "9"], "scores": values}
    for table, names in (
        (by_column, ("cat", "dog")),
        (matrix, None),
        (matrix | {"class_names": ["x", "y"]}, ("x", "y")),
    ):
        found = list(columns.read_scores(source(table)))
        assert [ids for ids, _, _ in found] == [["7", "8"], ["9"]]
        np.testing.assert_array_equal(np.concatenate([scores for _, scores, _ in found]), values)
        assert all(of_batch == names for _, _, of_batch in found)


def test_predictions_come_before_scores():
    assert columns.prediction_columns(source({"prediction": [0], "scores": [[0.0, 1.0]]})) == ["prediction"]
    assert columns.prediction_columns(source({"score_a": [0.0], "x": [0], "score_b": [0.0]})) == ["score_a", "score_b"]
    assert columns.score_columns(source({"prediction": [0], "logits": [[0.0, 1.0]]})) == ["logits"]


@pytest.mark.parametrize(
    "table", [{"prediction": [0]}, {"scores": [[0]], "logits": [[0]]}, {"score_a": [0], "logit_b": [0]}]
)
def test_no_scores_or_several_kinds_are_an_error(table):
    with pytest.raises(InputError, match=r"it has the columns .*; expected one of 'logits'"):
        columns.score_columns(source(table))


@pytest.mark.parametrize(
    ("value", "names", "expected"),
    [
        *((missing, None, None) for missing in (None, "", b"", float("nan"))),
        *((("cat", None, "cat"), (b"cat", None, "cat"), (3, None, "3"), (3.0, None, "3"), ("3", None, "3"))),
        *(((1, ("a", "b"), "b"), ("1", ("a", "b"), "b"), ("a", ("a", "b"), "a"), ("c", ("a", "b"), "c"))),
        *(((-1, ("a", "b"), "-1"), ("1.0", None, "1"), ("1.0", ("a", "b"), "b"), ("1.0", ("1.0", "b"), "1.0"))),
        *((("1", ("1", "0"), "1"), (1, ("1", "0"), "0"), ("7", ("1", "0"), "7"))),  # names that are numbers
    ],
)
def test_a_class_is_a_name_or_an_index(value, names, expected):
    assert columns.class_name(value, names, "it") == expected


@pytest.mark.parametrize(("value", "names"), [(0.5, None), (2, ("a", "b")), ("2.0", ("a", "b"))])
def test_a_class_that_is_neither_is_an_error(value, names):
    with pytest.raises(InputError, match="has lost digits"):
        columns.class_name(2.0**60, names, "it")
    with pytest.raises(InputError, match=f"the class {str(value).removesuffix('.0')}.*; .*expected"):
        columns.class_name(value, names, "it")


def test_ids_are_text_in_every_type():
    for ids in (np.array([7, 8]), np.array(["7", "8"]), np.array([b"7", b"8"]), np.array([7.0, 8.0])):
        assert columns.texts(ids, "id", "it").to_pylist() == ["7", "8"]
    assert columns.texts(pa.array(["7", "8"]).dictionary_encode(), "id", "it").to_pylist() == ["7", "8"]
    for ids in (np.array([0.5]), np.array([[7]]), pa.array([b"\xff"]).cast(pa.string(), safe=False)):
        with pytest.raises(InputError, match=r"column 'id': .*; expected whole numbers or text"):
            columns.texts(ids, "id", "it")
