"""However a file is written, its rows ordered, its batches cut or its values typed: the same counts, or an error."""

import csv
import io
import json
import pathlib
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mpt_jax.compare import compare
from mpt_jax.errors import InputError
from mpt_jax.files.predictions import delimited, formats

WORDS = ["cat", "dog", "owl", "hot dog"]
ODD = [
    "Cat",
    "cat ",
    "1",
    "01",
    "1.0",
    "nan",
    "-1",
    "caf\u00e9",
    "cafe\u0301",
    'a"b',
    "a,b",
    "a;b",
    "a\tb",
    "a\nb",
    "#",
    "'",
]


def tables(names):
    """Return pairs of tables with the same ids and labels, both models' predictions among a few names."""
    row = st.tuples(*[st.sampled_from(names)] * 3)
    return st.lists(row, min_size=1, max_size=8).map(
        lambda rows: tuple(
            {
                "id": list(range(10, 10 + len(rows))),
                "label": [r[0] for r in rows],
                "prediction": [r[place] for r in rows],
            }
            for place in (1, 2)
        )
    )


def as_text(table, delimiter, quoting=csv.QUOTE_MINIMAL, end="\n"):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([list(table), *zip(*table.values(), strict=True)])
    return stream.getvalue().encode()


def as_rows(table):
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def as_parquet(table, **types):
    stream = io.BytesIO()
    made = pa.table(table)
    for column, kind in types.items():
        values = made[column].cast(pa.string()) if kind == pa.large_string() else made[column]
        made = made.set_column(made.column_names.index(column), column, values.cast(kind))
    pyarrow.parquet.write_table(made, stream, row_group_size=2)
    return stream.getvalue()


def as_npz(table):
    stream = io.BytesIO()
    np.savez(stream, **{key: np.array(values) for key, values in table.items()})
    return stream.getvalue()


WRITERS = {
    "a.csv": lambda table: as_text(table, ","),
    "quoted.csv": lambda table: as_text(table, ",", csv.QUOTE_ALL, "\r\n"),
    "semicolons.csv": lambda table: as_text(table, ";"),
    "a.tsv": lambda table: as_text(table, "\t"),
    "a.jsonl": lambda table: "".join(json.dumps(row) + "\n" for row in as_rows(table)).encode(),
    "rows.json": lambda table: json.dumps(as_rows(table)).encode(),
    "columns.json": lambda table: json.dumps(table).encode(),
    "a.npz": as_npz,
    "a.parquet": as_parquet,
    "text.parquet": lambda table: as_parquet(table, id=pa.large_string(), label=pa.large_string()),
    "float.parquet": lambda table: as_parquet(table, id=pa.float64()),
    "dictionary.parquet": lambda table: as_parquet(
        table, label=pa.dictionary(pa.int8(), pa.string()), prediction=pa.dictionary(pa.int32(), pa.string())
    ),
}


def shuffled(table, random):
    """Return the table with rows and columns in another order."""
    order = random.sample(range(len(table["id"])), len(table["id"]))
    return {key: [table[key][row] for row in order] for key in random.sample(list(table), len(table))}


def counts(old, new, **options):
    rates = compare(old, new, allow_poor_old=True, **options)["all_rows"]
    return tuple(rates[key] for key in ("count", "negative_flips", "positive_flips", "both_right", "both_wrong"))


def plain_counts(old, new):
    """Return the same in plain Python."""
    right = [
        (before == label, after == label)
        for label, before, after in zip(old["label"], old["prediction"], new["prediction"], strict=True)
    ]
    return (len(right), *(right.count(each) for each in ((True, False), (False, True), (True, True), (False, False))))


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "ROWS", 3)
        patch.setattr(formats, "BYTES", 100)
        patch.setattr(delimited, "BYTES", 60)
        yield


@settings(max_examples=40, deadline=None)
@given(tables(WORDS), st.sampled_from(list(WRITERS)), st.sampled_from(list(WRITERS)), st.randoms(use_true_random=False))
def test_no_rewriting_of_plain_files_changes_a_count(both, old_name, new_name, random):
    old, new = both
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / f"{place}-{name}" for place, name in enumerate((old_name, new_name))]
        for path, name, table in zip(paths, (old_name, new_name), both, strict=True):
            path.write_bytes(WRITERS[name](shuffled(table, random)))
        assert counts(*paths, old_classes=WORDS) == plain_counts(old, new)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(list(WRITERS)), st.booleans(), st.randoms(use_true_random=False))
def test_no_rewriting_of_any_file_changes_a_count_that_is_given(data, name, is_declared, random):
    names = data.draw(st.lists(st.sampled_from(WORDS + ODD), min_size=2, max_size=4, unique=True))
    old, new = data.draw(tables(names))
    options = {"classes": names, "old_classes": names} if is_declared else {}
    try:
        expected = counts(old, new, **options)
    except InputError:
        expected = None
    if not is_declared:  # then 1.0 is how tools write 1
        whole = [
            {**t, **{key: [v.removesuffix(".0") for v in t[key]] for key in ("label", "prediction")}}
            for t in (old, new)
        ]
    assert expected is None or expected == plain_counts(*((old, new) if is_declared else whole))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / name
        path.write_bytes(WRITERS[name](shuffled(old, random)))
        try:
            found = counts(path, shuffled(new, random), **options)
        except InputError:
            return
        assert found == expected


@settings(max_examples=60, deadline=None)
@given(
    tables(WORDS),
    st.sampled_from(["label", "prediction"]),
    st.sampled_from([str.upper, str.title, lambda t: f" {t}", lambda t: t.replace(" ", "_"), lambda t: f"{t}."]),
    st.data(),
)
def test_no_respelling_hides_a_flip(both, column, respell, data):
    old, new = both
    places = data.draw(st.sets(st.integers(0, len(old["id"]) - 1), min_size=1))
    side = data.draw(st.booleans())
    table = old if side else new
    respelled = {**table, column: [respell(v) if row in places else v for row, v in enumerate(table[column])]}
    assume(respelled != table)
    try:
        found = counts(*((respelled, new) if side else (old, respelled)))
    except InputError:
        return
    assert found == plain_counts(old, new)


@settings(max_examples=30, deadline=None)
@given(tables(["0", "1", "2", "10"]), st.sampled_from(["int", "float", "text", "1.0"]), st.sampled_from(list(WRITERS)))
def test_an_index_is_the_same_class_however_it_is_typed(both, kind, name):
    old, new = both
    convert = {"int": int, "float": float, "text": str, "1.0": lambda text: f"{text}.0"}[kind]
    if kind != "text" and kind != "1.0" and "dictionary" in name:
        name = "a.parquet"
    typed = {key: values if key == "id" else list(map(convert, values)) for key, values in old.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / name
        path.write_bytes(WRITERS[name](typed))
        assert counts(path, new, old_classes=["0", "1", "2", "10"]) == plain_counts(old, new)


@settings(max_examples=30, deadline=None)
@given(tables(WORDS), st.sets(st.integers(0, 7)), st.sampled_from(["", None, "nan", "NULL", "-1", float("nan")]))
def test_rows_without_a_label_are_left_out_of_both_whatever_is_written_there(both, places, missing):
    rows = range(len(both[0]["id"]))
    kept = [row for row in rows if row not in places]
    assume(kept and len(kept) < len(rows))
    lacking = [{**t, "label": [v if row in kept else missing for row, v in enumerate(t["label"])]} for t in both]
    expected = plain_counts(*({key: [values[row] for row in kept] for key, values in t.items()} for t in both))
    assert counts(*lacking, unlabelled="skip", old_classes=WORDS) == expected
    with pytest.raises(InputError, match="no label"):
        counts(*lacking, old_classes=WORDS)
