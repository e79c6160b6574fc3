"""Lists of names and cells of text become one text per set, in every format."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.compare import label_sets
from mpt_jax.errors import InputError
from mpt_jax.files.predictions import formats

NAMES = [["cat", "dog"], [], ["owl"], ["dog", "cat", "owl"]]
TABLE = {"id": ["a", "b", "c", "d"], "label": NAMES, "prediction": NAMES[::-1]}
TEXTS = [label_sets.as_text(each) for each in NAMES]


def read(source, separator="|", names=None):
    """Return the texts of the labels and the predictions."""
    opened = label_sets.with_texts(formats.open_source(source, "table"), separator, names)
    found = [batch for batch in opened.batches(["label", "prediction"])]
    return [[text for batch in found for text in batch[key].to_pylist()] for key in ("label", "prediction")]


def write(folder, kind):
    """Return the table in one of the kinds that people have."""
    if kind == "arrays":
        return TABLE
    if kind == "sets":
        return TABLE | {key: [set(each) for each in TABLE[key]] for key in ("label", "prediction")}
    if kind in ("pandas", "polars", "arrow", "large"):
        make = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table, "large": pa.table}[kind]
        large = {key: pa.array(TABLE[key], pa.large_list(pa.large_string())) for key in ("label", "prediction")}
        return make(TABLE | (large if kind == "large" else {}))
    path = folder / f"table.{kind.split()[0]}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pa.table(TABLE), path)
    elif kind == "parquet of categories":
        lists = {key: pa.array(TABLE[key], pa.list_(pa.string())) for key in ("label", "prediction")}
        coded = {
            key: pa.ListArray.from_arrays(each.offsets, each.values.dictionary_encode()) for key, each in lists.items()
        }
        pyarrow.parquet.write_table(pa.table(TABLE | coded), path)
    elif kind == "jsonl":
        rows = [dict(zip(TABLE, row, strict=True)) for row in zip(*TABLE.values(), strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[1:] + rows[:1]))
    elif kind == "csv of pandas":
        pd.DataFrame(TABLE).to_csv(path, index=False)
    elif kind == "csv of JSON":
        pd.DataFrame(TABLE | {key: list(map(json.dumps, TABLE[key])) for key in ("label", "prediction")}).to_csv(path)
    elif kind == "npz":
        np.savez(path, **{key: ["|".join(each) if key != "id" else each for each in TABLE[key]] for key in TABLE})
    else:
        between = " | " if "spaces" in kind else "|"
        pd.DataFrame(TABLE | {key: list(map(between.join, TABLE[key])) for key in ("label", "prediction")}).to_csv(path)
    return path


KINDS = ["arrays", "sets", "pandas", "polars", "arrow", "large", "parquet", "parquet of categories", "csv of pandas"]
KINDS += ["csv of JSON", "csv of separators", "csv with spaces", "npz", "jsonl"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_list_gives_the_same_sets(tmp_path, kind):
    labels, predictions = read(write(tmp_path, kind))
    if kind == "jsonl":  # its second row is its first here
        labels, predictions = labels[-1:] + labels[:-1], predictions[-1:] + predictions[:-1]
    assert labels == TEXTS and predictions == TEXTS[::-1]


@given(st.lists(st.lists(st.sampled_from(["a", "b", "ä b", "c,d", '"', "[x]"]), unique=True, max_size=4), min_size=1))
def test_lists_and_cells_of_text_are_one_thing(rows):
    texts = [label_sets.as_text(each) for each in rows]
    assert [set(label_sets.names_of(text)) for text in texts] == list(map(set, rows))
    for cells in (rows, list(map(json.dumps, rows))):
        table = pa.table({"label": cells, "prediction": cells})
        assert read(table) == [texts, texts]
    if not any(each[0].startswith("[") and each[-1].endswith("]") for each in rows if each):
        table = pa.table({"label": list(map("|".join, rows)), "prediction": list(map(" |".join, rows))})
        assert read(table) == [texts, texts]


def test_missing_is_not_empty_and_indices_have_names():
    lists = pa.table({"label": [[0, 1], None, []], "prediction": [[1], [0], None]})
    assert read(lists, names=("cat", "dog")) == [['["cat", "dog"]', None, "[]"], ['["dog"]', '["cat"]', None]]
    assert read(pa.table({"label": ["0|1", None, ""], "prediction": ["1", "0", None]}), names=("cat", "dog")) == [
        ['["cat", "dog"]', None, "[]"],
        ['["dog"]', '["cat"]', None],
    ]
    pythons = pa.table({"label": ["('a', 'b')", "{'a'}", "(a)"], "prediction": ["('a',)", "()", "[]"]})
    assert read(pythons) == [['["a", "b"]', '["a"]', '["(a)"]'], ['["a"]', "[]", "[]"]]
    one = pa.table({"label": [0, None, 1], "prediction": [1.0, float("nan"), 0.0]})
    assert read(one) == [['["0"]', None, '["1"]'], ['["1"]', None, '["0"]']]
    assert read(pa.table({"label": [[], []], "prediction": [[], []]})) == [["[]", "[]"]] * 2
    assert read({"label": [[], []], "prediction": np.zeros((2, 0))}) == [["[]", "[]"]] * 2


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[0, 1, 0]], "has '0' twice in '0', '1', '0'; expected each name once in a row"),
        (["0 1 0"], "has '0' twice"),
        ([["a", None]], "a list holds a missing name"),
        ([["a", ""]], "has the name ''"),
        ([[0.5]], "has the class 0.5"),
        ([[True]], "has the name True"),
        (["[a, b]"], r"has the cell '\[a, b\]'; expected a JSON list"),
        (["['a' 'b']"], "expected a JSON list"),
        (["['a', ['b']]"], r"has the name \['b'\]"),
        ([[["a"]]], "expected lists of names or indices"),
    ],
)
def test_cells_that_are_no_lists_of_names_are_refused(cells, message):
    with pytest.raises(InputError, match=message):
        read(pa.table({"label": cells, "prediction": cells}), " ")


def test_without_a_separator_text_is_a_list_in_json():
    assert read(pa.table({"label": ['["a|b"]', ""], "prediction": ["[1, 2]", "[]"]}), "list") == [
        ['["a|b"]', "[]"],
        ['["1", "2"]', "[]"],
    ]
    with pytest.raises(InputError, match=r"has the cell 'a\|b', not a list; expected a JSON list, or --multi-label"):
        read(pa.table({"label": ["a|b"], "prediction": ["a"]}), "list")


def test_names_joined_by_another_separator_are_found():
    assert not label_sets.joined({"red/green": 1, "a, b": 2}, "|")
    assert "'a, b' looks like several names between ','" in label_sets.joined({"a, b": 2, "b": 1}, "|")[0]
    assert "'a;b', 'b;c' look like" in label_sets.joined({"a;b": 2, "b;c": 1}, "|")[0]
    assert "'a b' looks like several names between ' '" in label_sets.joined({"a b": 2, "b": 1, "a": 1}, "|")[0]
    assert not label_sets.joined({"red car": 2, "red bus": 1, "blue bus": 3, "car": 1}, "|")
    assert not label_sets.joined({"a;b": 2, "b": 1}, "|", declared=["a;b"]) and not label_sets.joined({"a;b": 1}, ";")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("{a,b}", "has the cell '{a,b}'; expected a JSON list"),
        ("[" * 100_000 + "]", "expected a JSON list"),
        (["a\x1fb"], "a list has the name 'a.x1fb'; expected names without the character"),
    ],
)
def test_a_cell_that_is_no_list_is_not_taken_for_names(cell, message):
    source = formats.open_source({"id": [1], "label": [cell], "prediction": [cell]}, "it")
    with pytest.raises(InputError, match=message):
        list(label_sets.with_texts(source, "|").batches(["label"]))


def test_the_text_of_an_empty_set_and_sets_of_mixed_values():
    def texts(cells):
        values = np.empty(len(cells), object)
        values[:] = cells
        batch = next(label_sets.with_texts(formats.open_source({"label": values}, "it"), "|").batches(["label"]))
        return batch["label"].to_pylist()

    assert texts(["set()", "{'a'}", "a|b"]) == ["[]", '["a"]', '["a", "b"]']
    with pytest.raises(InputError, match="expected lists of names or indices"):
        texts([{1, "a"}])
