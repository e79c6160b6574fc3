"""Rows of two files are aligned by id, classes by name or index, and bad rows are counted and named."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from mpt_jax.compare import compare, pairs
from mpt_jax.errors import InputError
from mpt_jax.files.predictions import formats, released

IDS, LABELS = ["a", "b", "c", "d"], ["cat", "dog", "owl", "cat"]
OLD = {"id": IDS, "label": LABELS, "prediction": ["cat", "cat", "dog", "dog"]}
NEW = {"id": IDS[::-1], "label": LABELS[::-1], "prediction": ["cat", "owl", "dog", "owl"]}


def write(path, columns):
    """Write columns in the format of the path's suffix."""
    if path.suffix == ".npz":
        np.savez(path, **{key: np.array(values) for key, values in columns.items()})
    elif path.suffix == ".jsonl":
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.table(columns), path)
    else:
        objects = {
            key: pa.struct([(k, pa.float64()) for k in v[0]]) for key, v in columns.items() if isinstance(v[0], dict)
        }
        pyarrow.parquet.write_table(pa.table({k: pa.array(v, objects.get(k)) for k, v in columns.items()}), path)
    return path


def names(pair):
    """Return label, old and new prediction by name."""
    return [tuple(pair.classes[code] for code in row) for row in zip(pair.labels, pair.old, pair.new, strict=True)]


ROWS = [("cat", "cat", "owl"), ("dog", "cat", "dog"), ("owl", "dog", "owl"), ("cat", "dog", "cat")]


@pytest.mark.parametrize("old", ["o.npz", "o.csv", "o.parquet", "o.jsonl"])
@pytest.mark.parametrize("new", ["n.npz", "n.csv", "n.parquet", "n.jsonl"])
def test_any_two_formats_are_aligned_by_id(tmp_path, old, new):
    pair = pairs.read(write(tmp_path / old, OLD), write(tmp_path / new, NEW))
    assert names(pair) == ROWS
    assert pair.classes == ("cat", "dog", "owl") and pair.num_old_classes == 2 and pair.known_from == "answers"
    assert pair.ids(np.array([3, 0, 0])) == ["d", "a", "a"] and pair.ids(np.array([], int)) == []


def test_the_size_of_batches_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "ROWS", 1)
    monkeypatch.setattr(formats, "BYTES", 200)
    for name in ("o.npz", "o.csv", "o.parquet", "o.jsonl"):
        pair = pairs.read(write(tmp_path / name, OLD), NEW)
        assert names(pair) == ROWS and pair.ids(np.array([3, 0])) == ["d", "a"]


def test_a_number_is_the_same_id_and_the_same_class_in_every_format(tmp_path):
    ids, labels = [10, 9, 8], [2, 10, 2]
    given = {"id": ids, "label": labels, "prediction": labels}
    for kind in (np.int32, np.uint8, np.float64):
        typed = {key: np.array(values, kind) for key, values in given.items()}
        for name in ("o.npz", "o.csv", "o.parquet", "o.jsonl"):
            if (kind, name) != (np.float64, "o.csv"):  # as text, 2.0 is not 2
                columns = typed if name != "o.jsonl" else {key: values.tolist() for key, values in typed.items()}
                pair = pairs.read(write(tmp_path / name, columns), {k: list(map(str, v)) for k, v in given.items()})
                assert pair.classes == ("2", "10") and names(pair) == [("2",) * 3, ("10",) * 3, ("2",) * 3]


def test_bytes_are_text():
    bytes_ = {key: np.array(values, "S") for key, values in OLD.items()}
    assert names(pairs.read(bytes_, NEW)) == ROWS


def test_parquet_with_dictionaries_and_other_text_types(tmp_path):
    for kind in (pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.binary()):
        table = pa.table({key: pa.array(values).cast(kind) for key, values in OLD.items()})
        pyarrow.parquet.write_table(table, tmp_path / "o.parquet")
        assert names(pairs.read(tmp_path / "o.parquet", NEW)) == ROWS


def test_text_that_is_not_utf_8(tmp_path):
    broken = pa.array([b"\xff", b"b", b"c", b"d"]).cast(pa.string(), safe=False)
    for column in OLD:
        pyarrow.parquet.write_table(pa.table(OLD | {column: broken}), tmp_path / "o.parquet")
        with pytest.raises(InputError, match=f"column '{column}': .*(UTF8|utf-8)"):
            pairs.read(tmp_path / "o.parquet", NEW)


def test_the_predictions_of_a_run_can_be_compared(tmp_path):
    rng = np.random.default_rng(0)
    labels, ids = np.array([0, 1, 2, 3, 1]), np.array([7, 3, 9, 100, 1])
    old, new = rng.normal(size=(5, 2)), rng.normal(size=(5, 4))
    released.write(tmp_path / "old.npz", labels=labels, logits=old, ids=ids)
    released.write(tmp_path / "new.npz", labels=labels[::-1], logits=new[::-1], ids=ids[::-1])
    pair = pairs.read(tmp_path / "old.npz", tmp_path / "new.npz")
    assert pair.num_old_classes == 2 and pair.classes == ("0", "1", "2", "3") and "scores" in pair.known_from
    np.testing.assert_array_equal(pair.old, old.argmax(-1))
    np.testing.assert_array_equal(pair.new, new.argmax(-1))
    np.testing.assert_array_equal(pair.labels, labels)


SCORES = [[0.1, 0.9], [0.5, 0.5], [2.0, -1.0], [0.0, 1.0]]


@pytest.mark.parametrize("style", ["matrix", "lists", "objects", "columns"])
@pytest.mark.parametrize("name", ["o.npz", "o.csv", "o.parquet", "o.jsonl"])
def test_the_largest_score_is_the_prediction_and_the_first_class_of_equal_ones(tmp_path, name, style):
    first = {"id": IDS, "label": LABELS}
    if style == "columns":
        columns = first | {f"logit_{c}": [row[i] for row in SCORES] for i, c in enumerate(("owl", "cat"))}
    elif style == "objects" and name != "o.npz" and name != "o.csv":
        columns = first | {"probabilities": [dict(zip(("owl", "cat"), row, strict=True)) for row in SCORES]}
    elif style == ("matrix" if name == "o.npz" else "lists") and name != "o.csv":
        columns = first | {"scores": SCORES}
    else:
        return
    classes = ["owl", "cat"] if style in ("matrix", "lists") else None
    pair = pairs.read(write(tmp_path / name, columns), {**NEW, "label": LABELS[::-1]}, old_classes=classes)
    assert [pair.classes[code] for code in pair.old] == ["cat", "cat", "owl", "cat"]
    assert set(pair.classes[: pair.num_old_classes]) == {"owl", "cat"}


def test_lists_of_fixed_size_and_of_float16(tmp_path):
    values = pa.array(np.array(SCORES, np.float16).ravel(), pa.float16())
    table = pa.table({"id": IDS, "label": [0, 1, 0, 1], "scores": pa.FixedSizeListArray.from_arrays(values, 2)})
    pyarrow.parquet.write_table(table, tmp_path / "o.parquet")
    new = {"id": IDS, "label": [0, 1, 0, 1], "prediction": [0, 1, 0, 1]}
    assert pairs.read(tmp_path / "o.parquet", new).old.tolist() == [1, 0, 0, 1]


def test_classes_give_indices_a_meaning_that_may_differ_for_the_old_model():
    old = {"id": IDS, "label": [0, 1, "owl", 0], "prediction": [0, 0, 1, 1]}
    new = {"id": IDS, "label": [1, 2, 0, 1], "prediction": [0, 2, 0, 1]}
    rows = [("cat", "cat", "owl"), ("dog", "cat", "dog"), ("owl", "dog", "owl"), ("cat", "dog", "cat")]
    pair = pairs.read(old, new, classes=["owl", "cat", "dog"], old_classes=["cat", "dog"])
    assert names(pair) == rows and pair.classes == ("cat", "dog", "owl") and pair.num_old_classes == 2
    named = pairs.read(old | {"class_names": ["cat", "dog"]}, new | {"class_names": ["owl", "cat", "dog"]})
    assert names(named) == rows and named.num_old_classes == 2
    mixed = pairs.read(
        OLD, new | {"label": [0, 1, 2, 0], "prediction": ["owl", 1, 2, "0"]}, classes=["cat", "dog", "owl"]
    )
    assert names(mixed) == rows


def test_old_classes_as_a_number_or_as_names():
    plain = {"id": [1, 2, 3], "label": [0, 1, 2], "prediction": [0, 0, 0]}
    assert pairs.read(plain, plain).num_old_classes == 1
    assert pairs.read(plain, plain, old_classes=2).num_old_classes == 2
    pair = pairs.read(plain, plain, old_classes=2, classes=["x", "w", "v"])
    assert pair.classes == ("x", "w", "v") and pair.num_old_classes == 2
    with pytest.raises(InputError, match="predicts '0', not among the 2 classes"):
        pairs.read(plain, plain, old_classes=["1", "2"])
    indices = pairs.read(plain, plain, old_classes=["2", "0"])
    assert indices.classes == ("0", "2", "1") and indices.num_old_classes == 2
    named = {"id": [1, 2], "label": ["b", "a"], "score_b": [1.0, 1.0], "score_a": [0.0, 0.0]}
    assert pairs.read(named, named, old_classes=1).classes == ("b", "a")
    scores = {"id": [1, 2, 3], "label": [0, 1, 2], "scores": [[1.0, 0.0]] * 3}
    assert names(pairs.read(scores, plain, old_classes=["2", "0"]))[0] == ("0", "2", "0")


@pytest.mark.parametrize(
    ("changes", "options", "most"),
    [
        ({}, {"classes": ["x", "w", "v"]}, "at most 3, the number of classes"),
        ({"class_names": ["x", "w"]}, {}, "at most 2, the number of classes"),
        ({"class_names": ["x", "w"]}, {"classes": ["x", "w", "v"]}, "at most 2, the number of classes"),
        ({"prediction": None, "scores": [[1.0, 0.0]] * 3}, {}, "at most 2, the number of classes"),
        ({}, {}, "at most 1048576, or their names"),
    ],
)
def test_the_old_model_knows_no_more_classes_than_there_are(changes, options, most):
    plain = {"id": [1, 2, 3], "label": [0, 1, 1], "prediction": [0, 0, 0]}
    old = {key: values for key, values in (plain | changes).items() if values is not None}
    many = int(most.split()[2].strip(",")) + 1
    with pytest.raises(InputError, match=f"old_classes is {many}; expected {most}"):
        pairs.read(old, old, old_classes=many, **options)
    if many < 9:
        assert pairs.read(old, old, old_classes=many - 1, **options).num_old_classes == many - 1


def test_a_number_of_many_digits_is_a_name():
    long = {"id": [1, 2, 3], "label": ["9" * 5000, "10", "9"], "prediction": ["9" * 5000, "10", "9"]}
    assert pairs.read(long, long).classes == ("9", "10", "9" * 5000)
    old = long | {"class_names": ["a", "b"], "label": ["a", "b", "0" * 30], "prediction": ["a", "b", "a"]}
    with pytest.raises(InputError, match=f"the class {'0' * 30}; there are 2 class names"):  # and not the index 0
        pairs.read(old, old)


def test_digits_of_other_scripts_are_the_same_as_bytes_and_as_text():
    texts = ["\N{ARABIC-INDIC DIGIT ZERO}", "\N{ARABIC-INDIC DIGIT ONE}"]
    digits = {"id": [1, 2], "label": texts, "prediction": texts, "class_names": ["a", "b"]}
    as_bytes = digits | {"label": np.char.encode(digits["label"], "utf-8")}
    assert names(pairs.read(as_bytes, digits)) == names(pairs.read(digits, digits)) == [("a",) * 3, ("b",) * 3]


def swapped(columns, **changes):
    return {key: changes.get(key, values) for key, values in columns.items()}


@pytest.mark.parametrize("name", ["n.npz", "n.csv", "n.parquet", "n.jsonl"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ["d", "c", "c", "a"]}, "1 id is in {new} more than once: 'c'; 1 id is in {old} but not in {new}: 'b'"),
        (
            {"id": ["d", "c", "e", "f"]},
            "2 ids are in {old} but not in {new}: 'a', 'b'; 2 ids are in {new} but not in {old}: 'e', 'f'",
        ),
        ({"label": ["cat", "owl", "cat", "cat"]}, "1 label disagrees between {old} and {new}: 'b' is 'dog' and 'cat'"),
        ({"id": ["d", "", "b", "a"]}, "1 row of {new} with no id: row 2"),
        ({"label": ["cat", "", "", "cat"]}, "2 rows of {new} with no label: 'b', 'c'"),
        ({"prediction": ["cat", "owl", "dog", ""]}, "1 row of {new} with no prediction: 'a'"),
    ],
)
def test_bad_rows_are_counted_and_named(tmp_path, name, changes, message):
    old, new = tmp_path / "o.csv", tmp_path / name
    with pytest.raises(InputError) as error:
        pairs.read(write(old, OLD), write(new, swapped(NEW, **changes)))
    assert message.format(old=old, new=new) in str(error.value)


@pytest.mark.parametrize("name", ["o.npz", "o.csv", "o.parquet", "o.jsonl"])
def test_nan_scores_are_counted_and_named(tmp_path, name):
    nan = float("nan")
    rows = 8
    columns = {"id": [f"i{i}" for i in range(rows)], "label": ["x", "y"] * 4}
    columns |= {"score_x": [nan, -np.inf, np.inf] * 2 + [1.0, 3.0], "score_y": [1.0, 2.0] * 4}
    with pytest.raises(InputError) as error:
        pairs.read(write(tmp_path / name, columns), columns)
    assert (
        f"6 rows of {tmp_path / name} with NaN, infinite or missing scores: 'i0', 'i1', 'i2', 'i3', 'i4' and 1 more;"
        in str(error.value)
    )


def test_missing_values_and_scores_in_parquet_and_jsonl(tmp_path):
    table = {"id": IDS, "label": [0, None, 1, 0], "scores": [[1.0, 2.0], [1.0, None], None, [0.5, 0.1]]}
    for name in ("o.parquet", "o.jsonl"):
        with pytest.raises(InputError) as error:
            pairs.read(write(tmp_path / name, table), {"id": IDS, "label": [0, 1, 1, 0], "prediction": [0] * 4})
        assert "1 row of" in str(error.value) and "no label: 'b'" in str(error.value)
        assert f"2 rows of {tmp_path / name} with NaN, infinite or missing scores: 'b', 'c'" in str(error.value)


def test_lists_of_different_lengths(tmp_path):
    lists = {"id": [1, 2], "label": [0, 1], "scores": [[1.0, 2.0], [1.0, 2.0, 3.0]]}
    with pytest.raises(InputError, match="rows with 2 and with 3 scores"):
        pairs.read(write(tmp_path / "o.jsonl", lists), {})


def test_two_spellings_are_two_classes_only_if_they_are_listed():
    mixed = {"id": [1, 2], "label": ["cat", "cat"], "prediction": ["cat", "Cat"]}
    right = mixed | {"prediction": ["cat", "cat"]}
    for both in ((mixed, right), (right, mixed)):
        with pytest.raises(
            InputError, match=r"'cat' in .* and 'Cat' in 1 predictions of the .*; expected one spelling"
        ):
            pairs.read(*both)
    assert pairs.read(mixed, right, classes=["cat", "Cat"]).classes == ("cat", "Cat")
    assert pairs.read(mixed | {"class_names": ["cat", "Cat"]}, right).classes == ("Cat", "cat")


def test_labels_that_disagree_need_another_answer_than_labels_of_another_kind():
    one = {"id": [1, 2], "label": ["cat", "dog"], "prediction": ["cat", "dog"]}
    with pytest.raises(InputError, match=r"'2' is 'dog' and 'cat'; expected the same label in both$"):
        pairs.read(one, one | {"label": ["cat", "cat"]})


@pytest.mark.parametrize("given", ["cat,dog", 5])
def test_class_names_are_a_list(given):
    with pytest.raises(InputError, match=rf"classes are given as {given!r}; expected a list of names"):
        pairs.read(OLD, NEW, classes=given)


def test_classes_must_not_contradict_the_class_names_of_a_file():
    named = {"id": [1, 2], "label": [0, 1], "prediction": [0, 1], "class_names": ["cat", "dog"]}
    bare = {key: named[key] for key in ("id", "label", "prediction")}
    assert names(pairs.read(named, bare, classes=["cat", "dog", "owl"])) == [("cat",) * 3, ("dog",) * 3]
    for old, new, classes in ((named, bare, ["dog", "cat"]), (bare, named, ["dog", "cat"]), (named, bare, ["cat"])):
        with pytest.raises(
            InputError, match=r"index \d is '.*' by its class_names, and '.*' by classes; expected the same"
        ):
            pairs.read(old, new, classes=classes)
    turned = bare | {"label": [1, 0], "prediction": [1, 0]}  # follows the advice of the message
    assert names(pairs.read(turned, named, old_classes=["dog", "cat"])) == [("cat",) * 3, ("dog",) * 3]


def test_class_names_that_do_not_match():
    assert pairs.read(OLD, NEW, classes=["cat", "dog", "owl"], old_classes=np.int64(2)).num_old_classes == 2
    with pytest.raises(InputError, match=r"'0', '1'\); expected predictions among these, or old_classes with"):
        pairs.read(OLD, NEW, old_classes=2)
    with pytest.raises(InputError, match="old_classes is 0; expected the number"):
        pairs.read(OLD, NEW, old_classes=0)
    for classes, message in ((["a", "a"], "class 'a' is given twice"), ([], "no class is given")):
        with pytest.raises(InputError, match=message):
            pairs.read(OLD, NEW, classes=classes)
    with pytest.raises(InputError, match="one file has names and the other indices"):
        pairs.read(OLD, {"id": IDS, "label": [0, 1, 2, 0], "prediction": [0, 1, 2, 0]})


def test_the_old_model_knows_the_label_of_some_row():
    table = {"id": [1], "label": ["cat"], "prediction": ["dog"]}
    with pytest.raises(InputError, match=r"has a label that the old model knows \(by its old_classes: 'dog'\)"):
        pairs.read(table, table, old_classes=["dog"])


def test_versions_are_each_read_once_and_any_two_make_a_pair(tmp_path, monkeypatch):
    turned = {key: values[::-1] for key, values in OLD.items()}
    files = [write(tmp_path / name, columns) for name, columns in (("a.csv", OLD), ("b.npz", turned), ("c.jsonl", NEW))]
    opened = []
    read = formats.open_source
    monkeypatch.setattr(formats, "open_source", lambda source, *more: opened.append(source) or read(source, *more))
    versions = pairs.read_versions(files)
    for old in range(3):
        for new in range(3):
            pair, alone = pairs.pair(versions, old, new), pairs.read(files[old], files[new])
            order = {id_: place for place, id_ in enumerate(alone.ids(np.arange(4)))}
            assert pair.ids(np.arange(4)) == IDS and pair.names == (str(files[old]), str(files[new]))
            assert names(pair) == [names(alone)[order[id_]] for id_ in IDS]
            assert (pair.classes, pair.num_old_classes) == (alone.classes, alone.num_old_classes)
    assert opened[:3] == files and len(opened) == 3 + 2 * 9


def test_versions_that_do_not_match_are_named(tmp_path):
    other = swapped(NEW, label=["cat", "owl", "dog", "dog"])
    with pytest.raises(
        InputError, match="1 label disagrees between the version 1 arrays and the version 3 arrays: 'a'"
    ):
        pairs.pair(pairs.read_versions([OLD, OLD, other]), 0, 1)
    short = {key: values[:3] for key, values in OLD.items()}
    with pytest.raises(
        InputError, match=r"1 id is in the version 1 arrays but not in the version 2 arrays: 'd'; .* all"
    ):
        pairs.pair(pairs.read_versions([OLD, short, OLD]), 0, 2)
    with pytest.raises(InputError, match=r"unknown class 'car' in same; .*valid: cat, dog, owl"):
        pairs.read_versions([OLD, OLD, NEW], same={"car": "cat"})


def test_columns_have_other_names_in_both_files_or_in_one(tmp_path):
    columns = {"id": "uid", "label": "y_true", "prediction": "y_pred"}
    old = {columns[key]: values for key, values in OLD.items()}
    for name in ("o.npz", "o.csv", "o.parquet", "o.jsonl"):
        path = write(tmp_path / name, old | {"label": LABELS[::-1]})  # the column that is not named
        pair = pairs.read(path, {columns[key]: values for key, values in NEW.items()}, columns=columns)
        assert names(pair) == ROWS and pair.ids(np.array([3])) == ["d"]
    assert names(pairs.read(old, NEW, columns=columns)) == ROWS
    for changes, message in (
        ({"label": "truth"}, "unknown column 'truth' for label; .*valid: .*'?y_true"),
        ({"target": "y_true"}, "unknown column 'target' in columns; valid: id, label, prediction, scores"),
    ):
        with pytest.raises(InputError, match=message):
            pairs.read(old, NEW, columns=columns | changes)
    with pytest.raises(
        InputError, match="has the columns 'y_true' and 'label', and the new arrays has no 'y_true'; exp"
    ):
        pairs.read(old | {"label": LABELS}, NEW, columns=columns)
    for wrong in ("id=uid", {"id": 5}):
        with pytest.raises(InputError, match=r"columns is .*; expected names by usual name"):
            compare(old, NEW, columns=wrong)
    semicolons = tmp_path / "semicolons.csv"
    semicolons.write_text(
        "uid;y_true;y_pred\n" + "".join(f"{';'.join(row)}\n" for row in zip(*OLD.values(), strict=True))
    )
    assert names(pairs.read(semicolons, NEW, columns=columns)) == ROWS


def test_labels_come_from_another_file_and_agree_with_those_there_are():
    bare = [{key: values for key, values in table.items() if key != "label"} for table in (OLD, NEW)]
    labels = {"id": ["x", *IDS[::-1]], "label": ["cat", *LABELS[::-1]]}
    for old in (bare[0], OLD, OLD | {"label": ["cat", "", "", "cat"]}):
        pair = pairs.read(old, bare[1], labels=labels)
        assert names(pair) == ROWS and pair.left_out == {"labels without a prediction": 1}
    with pytest.raises(InputError, match=r"1 label disagrees between the old arrays and the labels' arrays: 'a' is"):
        pairs.read(OLD | {"label": ["dog", *LABELS[1:]]}, bare[1], labels=labels)
    with pytest.raises(
        InputError, match=r"1 row of the labels' arrays with an id that occurs again: 'a'; expected one"
    ):
        pairs.read(*bare, labels=labels | {"id": ["a", *IDS[::-1]]})
    few = {"id": IDS[:3], "label": LABELS[:3]}
    with pytest.raises(InputError, match=r"1 row of the old arrays with no label: 'd'; --unlabelled skip"):
        pairs.read(*bare, labels=few)
    pair = pairs.read(*bare, labels=few, unlabelled="skip")
    assert names(pair) == ROWS[:3] and pair.left_out == {"rows without a label": 1}
    with pytest.raises(InputError, match=r"expected one called 'label', --columns label=NAME, or --labels FILE"):
        pairs.read(*bare)


@pytest.mark.parametrize("missing", ["", None, "nan", "<NA>", "NULL", "none", "-1", "-1.0"])
def test_rows_without_a_label_are_an_error_or_skipped_and_counted(missing):
    old = OLD | {"label": ["cat", missing, "owl", missing]}
    new = NEW | {"label": ["cat", "owl", "dog", "cat"]}
    with pytest.raises(
        InputError, match=r"2 rows of the old .* with no label: 'b', 'd'; .*--unlabelled skip leaves out"
    ):
        pairs.read(old, new)
    assert names(pairs.read(old, new, unlabelled="skip")) == ROWS  # the other file has them
    pair = pairs.read(old, new | {"label": old["label"][::-1]}, unlabelled="skip", old_classes=["cat", "dog"])
    assert names(pair) == [ROWS[0], ROWS[2]] and pair.left_out == {"rows without a label": 2}
    assert pair.ids(np.array([1, 0])) == ["c", "a"] and pair.classes == ("cat", "dog", "owl")
    with pytest.raises(InputError, match="no row has a label; expected some"):
        pairs.read(OLD | {"label": [missing] * 4}, NEW | {"label": [missing] * 4}, unlabelled="skip")


def test_predictions_that_read_as_missing_are_an_error_unless_they_are_classes():
    for missing in ("nan", "<NA>", "None", -1):
        table = {"id": [1, 2], "label": [0, 1], "prediction": [0, missing]}
        with pytest.raises(InputError, match=r"1 row of the old arrays with no prediction \('.*' means none, unless"):
            pairs.read(table, table)
    sentiment = {"id": [1, 2, 3], "label": [-1, 0, 1], "prediction": [-1, 0, 1]}
    assert pairs.read(sentiment, sentiment | {"prediction": [0, 0, 1]}).classes == ("0", "1", "-1")
    none = {"id": [1, 2], "label": ["none", "cat"], "prediction": ["none", "cat"]}
    assert pairs.read(none, none).classes == ("cat", "none")
    with pytest.raises(InputError, match="no label"):
        pairs.read(none | {"prediction": ["cat", "cat"]}, none | {"prediction": ["cat", "cat"]})
    declared = pairs.read(none, none | {"prediction": ["cat", "cat"]}, classes=["none", "cat"])
    assert declared.old.tolist() == [0, 1] and declared.new.tolist() == [1, 1]


def test_what_is_expected_is_said_whatever_a_file_is_called(tmp_path):
    table = "id,label,prediction\n1,a,a\n"
    (tmp_path / "expected.csv").write_text(table)
    (tmp_path / "new.csv").write_text(table + "2,a,a\n")
    with pytest.raises(
        InputError, match=r"but not in .*; expected every id once in both, with a label and a prediction"
    ):
        compare(tmp_path / "expected.csv", tmp_path / "new.csv")
