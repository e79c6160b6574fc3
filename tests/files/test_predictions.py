"""Files of answers hold what was given to them, whole or not at all, and `compare` reads each of them."""

import numpy as np
import pytest

from mpt_jax.compare import compare
from mpt_jax.compare.formats import open_source
from mpt_jax.files import predictions

CLASSES = ["cat", 'say "dog", owl', "7"]


def written(path, rows=10, labelled=True, scores="logits", size=3, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, 3)).astype(np.float32)
    ids = [f"train/ü,{row}.png" for row in range(rows)]
    labels = [None if row == 4 else CLASSES[row % 3] for row in range(rows)]
    with predictions.writing(path, CLASSES, labelled=labelled, scores=scores) as write:
        for start in range(0, rows, size):
            rows_here = slice(start, start + size)
            write(ids[rows_here], labels[rows_here], logits[rows_here])
    return ids, labels, logits


def columns(path):
    """All columns of a file, by a reader that is not the writer."""
    source = open_source(path, "it")
    found = {name: [] for name in source.columns}
    for batch in source.batches(source.columns):
        for name, values in batch.items():
            found[name] += values.tolist() if isinstance(values, np.ndarray) else values.to_pylist()
    return found, source.class_names


@pytest.mark.parametrize("ending", predictions.FORMATS)
@pytest.mark.parametrize("scores", predictions.SCORES)
def test_what_was_written_is_read_again(tmp_path, ending, scores):
    ids, labels, logits = written(tmp_path / f"a{ending}", scores=scores)
    found, names = columns(tmp_path / f"a{ending}")
    exponentials = np.exp(logits.astype(np.float64))
    expected = exponentials / exponentials.sum(1, keepdims=True) if scores == "probabilities" else logits
    if ending == ".npz":
        assert names == tuple(CLASSES)
        values = found.pop(scores, None)
    else:
        called = [name for name in found if name.partition("_")[0] in ("logit", "probability")]
        assert [name.partition("_")[2] for name in called] == ([] if scores == "none" else CLASSES)
        values = np.stack([found.pop(name) for name in called], -1) if called else None
    if scores != "none":
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=0 if scores == "logits" else 1e-7)
    answers = [CLASSES[k] for k in logits.argmax(-1)]
    found["label"] = [label or "" for label in found["label"]]  # null in Parquet
    assert found == {"id": ids, "label": [label or "" for label in labels], "prediction": answers}


@pytest.mark.parametrize("ending", predictions.FORMATS)
def test_without_labels_there_is_no_such_column(tmp_path, ending):
    written(tmp_path / f"a{ending}", labelled=False)
    assert "label" not in columns(tmp_path / f"a{ending}")[0]


@pytest.mark.parametrize("ending", predictions.FORMATS)
def test_a_file_appears_whole_or_not_at_all(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    written(path)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), predictions.writing(path, CLASSES, labelled=False) as write:
        write(["new"], [None], np.zeros((1, 3), np.float32))
        assert path.read_bytes() == before
        raise ZeroDivisionError
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_parquet_is_written_in_pieces_of_a_bounded_size(tmp_path, monkeypatch):
    import pyarrow.parquet

    monkeypatch.setattr(predictions, "_GROUP", 12)  # four rows of three scores
    written(tmp_path / "a.parquet", rows=20, size=2)
    with pyarrow.parquet.ParquetFile(tmp_path / "a.parquet") as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    assert groups == [4] * 5


@pytest.mark.parametrize("ending", predictions.FORMATS)
def test_compare_knows_the_old_classes_from_the_file_even_where_they_are_numbers(tmp_path, ending):
    labels = ["0", "1", "2", "10"]
    for name, classes in (("old", ["0", "1", "2"]), ("new", ["0", "1", "2", "10"])):
        with predictions.writing(tmp_path / f"{name}{ending}", classes, labelled=True) as write:
            # the old model never answers 2, which it knows all the same
            write(list("abcd"), labels, np.eye(4, len(classes), dtype=np.float32)[[0, 1, 0, 0 if name == "old" else 3]])
    result = compare(tmp_path / f"old{ending}", tmp_path / f"new{ending}")
    assert result["old_classes_rows"]["count"] == 3
