"""One model's rows: labels and predictions as codes, the classes it knows, and unusable rows."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mpt_jax.compare import rows
from mpt_jax.errors import InputError
from mpt_jax.files.predictions import formats


def read(table, shared=None, own=None):
    return rows.read(formats.open_source(table, "it"), shared, own)


def test_codes_are_positions_in_the_classes_in_order_of_appearance():
    found = read({"id": [1, 2, 3], "label": ["b", "a", ""], "prediction": ["a", "a", "c"]})
    assert found.classes == ("b", "a", "c") and found.known is None and found.ids_complete
    assert found.labels.tolist() == [0, 1, -1] and found.predictions.tolist() == [1, 1, 2]
    assert found.labelled_classes() == ("b", "a") and found.predicted_classes() == ("a", "c")
    assert found.problems == () and rows.named(found, np.array([2]), "no label") == "1 row of it with no label: '3'"


def test_an_index_may_mean_another_class_as_a_label_than_as_a_prediction():
    table = {"id": [1, 2], "label": [0, 2], "prediction": [0, 1], "class_names": ["a", "b"], "label_names": list("bca")}
    found = read(table)
    assert found.labelled_classes() == ("b", "a") and found.predicted_classes() == ("b", "a")
    assert found.labels.tolist() == [0, 1] and found.predictions.tolist() == [1, 0] and found.known == ("a", "b")
    assert read(table, shared=("b", "c", "a"), own=("a", "b")).labels.tolist() == [0, 1]
    with pytest.raises(InputError, match="index 0 is 'b' by its label_names, and 'a' by classes"):
        read(table, shared=("a", "b", "c"))
    with pytest.raises(InputError, match="the class 3; there are 3 class names"):
        read(table | {"label": [0, 3]})


def test_scores_without_names_are_known_as_such():
    scores = {"id": [1, 2], "label": [0, 1], "logits": np.eye(2)}
    assert read(scores).unnamed
    assert not read(scores, shared=("a", "b")).unnamed and not read(scores, own=("a", "b")).unnamed
    assert not read(scores | {"class_names": ["a", "b"]}).unnamed
    assert not read({"id": [1], "label": ["a"], "score_a": [1.0], "score_b": [0.0]}).unnamed
    assert not read({"id": [1], "label": [0], "prediction": [0]}).unnamed


def test_the_known_classes_are_those_of_scores_also_beside_predictions():
    scores = {"id": [1, 2], "label": ["a", "b"], "score_a": [1.0, 1.0], "score_b": [0.0, 0.0]}
    for table in (scores, scores | {"prediction": ["a", "a"]}):
        found = read(table)
        assert found.known == ("a", "b") and found.predicted_classes() == ("a",)
    assert read(scores, own=("a", "b", "c")).known == ("a", "b", "c")


def test_ids_are_read_again_in_any_order(monkeypatch):
    monkeypatch.setattr(formats, "ROWS", 2)
    source = formats.open_source({"id": np.arange(7), "label": [0] * 7}, "it")
    assert rows.ids_of(source, np.array([5, 0, 5, 2])) == ["5", "0", "5", "2"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"label": [0], "prediction": [0]}, "expected one called 'id'"),
        ({"id": [1], "ids": [1], "label": [0], "prediction": [0]}, "expected one called 'id'"),
        ({"id": [1], "prediction": [0]}, "expected one called 'label'"),
        ({"id": [1], "label": [0]}, "expected one 'prediction', or"),
        ({"id": [1], "label": [0], "scores": [[1.0, 0.0]], "logits": [[1.0, 0.0]]}, "expected one 'prediction', or"),
        ({"id": [], "label": [], "prediction": []}, "has no rows"),
        ({"id": [0.5], "label": [0], "prediction": [0]}, "whole numbers or text"),
        ({"id": [[1]], "label": [0], "prediction": [0]}, "whole numbers or text"),
        ({"id": [1], "label": [0.5], "prediction": [0]}, "the class 0.5; expected a name or an index"),
        ({"id": [1], "label": [[0]], "prediction": [0]}, "expected names or indices"),
        ({"id": [1], "label": [0], "scores": [1.0]}, "a number per class"),
        ({"id": [1], "label": [0], "scores": [[1.0]]}, "scores of 1 class"),
        (
            {"id": [1], "label": [0], "score_0": [[1.0]], "score_1": [[0.0]]},
            r"shape \(1, 1\); expected a number per class",
        ),
        (
            {"id": [1], "label": ["9" * 5000], "prediction": [0], "class_names": ["a", "b"]},
            "9999; there are 2 class names",
        ),
        ({"id": [1], "label": [0], "scores": [["a", "b"]]}, "a number per class"),
        ({"id": [1], "label": [0], "scores": [[1.0, 2.0]], "class_names": ["a"]}, "2 classes, but 1 class names"),
        ({"id": [1], "label": [2], "scores": [[1.0, 2.0]], "class_names": ["a", "b"]}, "there are 2 class names"),
        ({"id": [1], "label": ["cat"], "prediction": [3]}, "the label 'cat' and the prediction '3'"),
        ({"id": [1], "label": [3], "prediction": ["cat"]}, "the label '3' and the prediction 'cat'"),
    ],
)
def test_a_table_that_has_no_meaning_is_an_error(table, message):
    with pytest.raises(InputError, match=message):
        rows.read(formats.open_source(table, "it"), None, None)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_scores_as_objects_may_have_another_order_in_another_part(tmp_path, suffix):
    parts = [
        [{"id": 1, "label": "cat", "scores": {"cat": 2.0, "dog": 1.0}}],
        [{"id": 2, "label": "cat", "scores": {"dog": 1.0, "cat": 2.0}}],
        [{"id": 3, "label": "cat", "scores": {"owl": 1.0, "cat": 2.0}}],
    ]
    for number, part in enumerate(parts):
        path = tmp_path / f"part-{number}{suffix}"
        if suffix == ".parquet":
            pyarrow.parquet.write_table(pa.Table.from_pylist(part), path)
        else:
            path.write_text(json.dumps(part) if suffix == ".json" else "\n".join(map(json.dumps, part)))
    with pytest.raises(InputError, match="has scores of 'cat', 'owl' after row 2, and of 'cat', 'dog' before"):
        rows.read(formats.open_source(tmp_path, str(tmp_path)), None, None)
    (tmp_path / f"part-2{suffix}").unlink()
    found = rows.read(formats.open_source(tmp_path, str(tmp_path)), None, None)
    assert [found.classes[code] for code in found.predictions] == ["cat", "cat"]


def test_numbers_that_a_float_cannot_tell_apart_are_refused():
    for value in (2.0**53, 2.0**53 + 2, -(2.0**53)):
        with pytest.raises(InputError, match="lost digits"):
            rows.read(formats.open_source({"id": [1], "label": [value], "prediction": [value]}, "it"), None, None)
        with pytest.raises(InputError, match="lost digits"):
            rows.read(formats.open_source({"id": [value], "label": [1], "prediction": [1]}, "it"), None, None)
    for odd in (np.array([[2**53 + 1, 2**53]]), np.array([[1j, 2.0]]), np.array([["2020", "2021"]], "datetime64[D]")):
        with pytest.raises(InputError, match="expected a number per class in each row"):
            rows.read(formats.open_source({"id": [1], "label": [1], "scores": odd}, "it"), None, None)
