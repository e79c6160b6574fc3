"""Files of predictions hold what was written, appear completely or not at all, and can be compared."""

import csv
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpt_jax.compare import compare
from mpt_jax.files.predictions import writer
from mpt_jax.files.predictions.formats import open_source

HOSTILE = ("=cmd|' /C calc'!A0", "+1+A1", "-2\x1b[2J", "@x", "\t=1", "'=1", "'a\\x1b", "'s-Hertogenbosch", "a\nb", "-5")
CLASSES = ["cat", 'say "dog", owl', "7"]


def written(path, rows=10, labelled=True, scores="logits", size=3, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, 3)).astype(np.float32)
    ids = [f"train/ü,{row}.png" for row in range(rows)]
    labels = [None if row == 4 else CLASSES[row % 3] for row in range(rows)]
    with writer.open_writer(path, CLASSES, labelled=labelled, scores=scores) as add_rows:
        for start in range(0, rows, size):
            rows_here = slice(start, start + size)
            add_rows(ids[rows_here], labels[rows_here], logits[rows_here])
    return ids, labels, logits


def columns(path):
    """Return all columns of a file."""
    source = open_source(path, "it")
    found = {name: [] for name in source.columns}
    for batch in source.batches(source.columns):
        for name, values in batch.items():
            found[name] += values.tolist() if isinstance(values, np.ndarray) else values.to_pylist()
    return found, source.class_names


@pytest.mark.parametrize("ending", writer.FORMATS)
@pytest.mark.parametrize("scores", writer.SCORES)
def test_what_was_written_is_read_again(tmp_path, ending, scores):
    ids, labels, logits = written(tmp_path / f"a{ending}", scores=scores)
    found, names = columns(tmp_path / f"a{ending}")
    exponentials = np.exp(logits.astype(np.float64))
    expected = exponentials / exponentials.sum(1, keepdims=True) if scores == "probabilities" else logits
    if ending == ".npz":
        assert names == tuple(CLASSES)
        values = found.pop(scores, None)
    else:
        named = [name for name in found if name.partition("_")[0] in ("logit", "probability")]
        assert [name.partition("_")[2] for name in named] == ([] if scores == "none" else CLASSES)
        values = np.stack([found.pop(name) for name in named], -1) if named else None
    if scores != "none":
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=0 if scores == "logits" else 1e-7)
    predicted = [CLASSES[k] for k in logits.argmax(-1)]
    found["label"] = [label or "" for label in found["label"]]  # null in Parquet
    assert found == {"id": ids, "label": [label or "" for label in labels], "prediction": predicted}


@pytest.mark.parametrize("ending", writer.FORMATS)
def test_without_labels_the_column_is_absent(tmp_path, ending):
    written(tmp_path / f"a{ending}", labelled=False)
    assert "label" not in columns(tmp_path / f"a{ending}")[0]


@pytest.mark.parametrize("ending", writer.FORMATS)
def test_a_file_appears_completely_or_not_at_all(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    written(path)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), writer.open_writer(path, CLASSES, labelled=False) as add_rows:
        add_rows(["new"], [None], np.zeros((1, 3), np.float32))
        assert path.read_bytes() == before
        raise ZeroDivisionError
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_row_groups_of_parquet_are_bounded(tmp_path, monkeypatch):
    import pyarrow.parquet

    monkeypatch.setattr(writer, "_GROUP", 12)  # four rows of three scores
    written(tmp_path / "a.parquet", rows=20, size=2)
    with pyarrow.parquet.ParquetFile(tmp_path / "a.parquet") as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    assert groups == [4] * 5


@pytest.mark.parametrize("ending", writer.FORMATS)
def test_compare_takes_the_old_classes_from_the_file_even_if_they_are_numbers(tmp_path, ending):
    labels = ["0", "1", "2", "10"]
    for name, classes in (("old", ["0", "1", "2"]), ("new", ["0", "1", "2", "10"])):
        with writer.open_writer(tmp_path / f"{name}{ending}", classes, labelled=True) as add_rows:
            # the old model never predicts 2 but knows it
            add_rows(
                list("abcd"), labels, np.eye(4, len(classes), dtype=np.float32)[[0, 1, 0, 0 if name == "old" else 3]]
            )
    result = compare(tmp_path / f"old{ending}", tmp_path / f"new{ending}")
    assert result["old_classes_rows"]["count"] == 3


names = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=2, max_size=4, unique=True
)


@settings(max_examples=25)
@given(names, names)
def test_a_csv_gives_the_same_names_as_parquet(ids, classes):
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for ending in (".csv", ".parquet"):
            path = pathlib.Path(folder) / f"a{ending}"
            with writer.open_writer(path, classes, labelled=True) as add_rows:
                add_rows(ids, [classes[0]] * len(ids), np.eye(len(ids), len(classes), dtype=np.float32))
            found.append(columns(path)[0])
    assert found[0] == found[1]


def test_a_spreadsheet_finds_no_formula_and_a_terminal_no_escape(tmp_path):
    path = tmp_path / "a.csv"
    with writer.open_writer(path, HOSTILE, labelled=True) as add_rows:
        add_rows(HOSTILE, HOSTILE, np.eye(len(HOSTILE), dtype=np.float32))
    assert all(c.isprintable() or c == "\n" for c in path.read_text(encoding="utf-8"))
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert {cell for cell in cells if cell[:1] in "=+-@\t"} == {"-5"} and "'=cmd|' /C calc'!A0" in cells
    found, _ = columns(path)
    assert found["id"] == found["label"] == found["prediction"] == list(HOSTILE)
    assert [name.removeprefix("logit_") for name in found if name.startswith("logit_")] == list(HOSTILE)
