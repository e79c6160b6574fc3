"""Every format gives the same columns in batches, and a damaged file is one clear error."""

import bz2
import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from mpt_jax.errors import InputError
from mpt_jax.files.predictions import delimited, formats

TABLE = pa.table(
    {
        "id": [f"2020-01-{i:02d}" for i in range(1, 10)],  # which some readers take for dates
        "label": ["cat", "dog", "NA"] * 3,
        "score_cat": np.arange(9) / 8,
        "score_dog": np.arange(9)[::-1] / 8,
        "note": ["x"] * 9,
    }
)
LINES = "".join(json.dumps(row) + "\n" for row in TABLE.to_pylist())


def write(path, table=TABLE):
    """Write the table in the format of the path's suffix."""
    if path.name.endswith(".npz"):
        columns = {name: np.array(table[name].to_pylist()) for name in table.column_names}
        np.savez(path, **columns)
    elif path.name.endswith(".parquet"):
        pyarrow.parquet.write_table(table, path)
    elif path.name.endswith((".csv", ".tsv")):
        options = pyarrow.csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
        pyarrow.csv.write_csv(table, path, options)
    else:
        text = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def columns_of(path, columns):
    source = formats.open_source(path, str(path))
    batches = list(source.batches(columns))
    values = {c: [v for batch in batches for v in np.asarray(batch[c]).tolist()] for c in columns}
    return values, len(batches)


@pytest.mark.parametrize("name", ["a.npz", "a.csv", "a.tsv", "a.parquet", "a.jsonl", "A.NDJSON", "a.jsonl.gz"])
def test_each_format_gives_the_requested_columns_in_batches(tmp_path, name, monkeypatch):
    monkeypatch.setattr(formats, "ROWS", 4)
    monkeypatch.setattr(formats, "BYTES", 300)
    monkeypatch.setattr(delimited, "BYTES", 100)
    found, pieces = columns_of(write(tmp_path / name.replace("A.NDJSON", "a.ndjson")), ["label", "score_dog", "id"])
    assert found == {key: TABLE[key].to_pylist() for key in ("label", "score_dog", "id")}
    assert pieces > 1


def test_arrays_in_memory_and_matrices_in_column_major_order(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "ROWS", 4)
    logits = np.arange(27.0).reshape(3, 9).T  # in column-major order
    np.savez(tmp_path / "a.npz", logits=logits, class_names=["a", "b", "c"])
    for given in ({"logits": logits, "class_names": ["a", "b", "c"]}, tmp_path / "a.npz"):
        source = formats.open_source(given, "x")
        assert source.class_names == ("a", "b", "c") and source.columns == ("logits",)
        np.testing.assert_array_equal(np.concatenate([b["logits"] for b in source.batches(["logits"])]), logits)


def test_text_that_looks_like_a_number_stays_text(tmp_path):
    (tmp_path / "a.csv").write_text("id,label,prediction\n007,1,01\n7,null,\n")
    assert columns_of(tmp_path / "a.csv", ["id", "label", "prediction"])[0] == {
        "id": ["007", "7"],
        "label": ["1", "null"],
        "prediction": ["01", ""],
    }


@pytest.mark.parametrize("name", ["a.npz", "a.csv", "a.parquet", "a.jsonl", "a.csv.gz"])
@pytest.mark.parametrize("damage", ["empty", "noise", "half"])
def test_a_damaged_file_is_one_clear_error(tmp_path, name, damage):
    path = tmp_path / name
    whole = gzip.compress(LINES.encode()) if name.endswith(".gz") else write(path).read_bytes()
    path.write_bytes({"empty": b"", "noise": b"\x93\xff\x00\n" * 50, "half": whole[: len(whole) // 2]}[damage])
    if (name, damage) == ("a.csv", "half"):
        path.write_text('id,label\n"a,b\n')
    with pytest.raises(InputError) as error:
        list(formats.open_source(path, str(path)).batches(["id"]))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "offset", "byte", "message"),
    [
        (b"PK\1\2", 8, 1, "is encrypted"),
        (b"PK\1\2", 10, 1, "method 1 of zip"),
        (b"PK\1\2", 10, 14, "method 14 of zip"),  # LZMA
        (b"PK\3\4", 30, 0xFF, "differ"),
        (b"}", 0, ord(" "), "EOF in multi-line statement"),
        (b"<i8", 0, ord(","), "invalid syntax"),
    ],
)
def test_a_changed_byte_of_an_archive_is_one_clear_error(tmp_path, place, offset, byte, message):
    path = tmp_path / "a.npz"
    np.savez(
        path, id=np.random.default_rng(0).integers(2**60, size=3000)
    )  # long enough that the header is parsed before the checksum is tested
    content = bytearray(path.read_bytes())
    content[content.index(place) + offset] = byte
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"(cannot be read:|is compressed by) .*{message}.*; expected"):
        list(formats.open_source(path, str(path)).batches(["id"]))


@pytest.mark.parametrize("name", ["a.csv.GZ", "a.Jsonl.Bz2"])
def test_a_suffix_may_be_in_capitals(tmp_path, name):
    text = LINES if ".J" in name else write(tmp_path / "b.csv").read_text()
    (tmp_path / name).write_bytes((gzip if name[-1] == "Z" else bz2).compress(text.encode()))
    assert columns_of(tmp_path / name, ["id"])[0] == {"id": TABLE["id"].to_pylist()}


def test_a_row_of_scores_may_be_longer_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "BYTES", 4000)
    values = {f"score_{i}": [i / 7, -i / 7] for i in range(100)}
    found, _ = columns_of(write(tmp_path / "a.csv", pa.table({"id": ["a", "b"]} | values)), list(values))
    assert found == values


def test_buffers_of_parquet_columns_are_bounded(tmp_path, monkeypatch):
    sizes, read = [], pyarrow.parquet.ParquetFile
    monkeypatch.setattr(
        pyarrow.parquet, "ParquetFile", lambda path, **options: sizes.append(options.get("buffer_size")) or read(path)
    )
    path = write(tmp_path / "a.parquet", pa.table({f"score_{i}": [1.0] for i in range(1000)}))
    for columns in (["score_0"], [f"score_{i}" for i in range(1000)]):
        columns_of(path, columns)
        assert 1 << 14 <= sizes[-1] <= formats.BYTES and sizes[-1] * len(columns) <= 1 << 26


@pytest.mark.parametrize("given", [3, "ab", [["a"], ["b"]]])
def test_class_names_are_a_list(tmp_path, given):
    np.savez(tmp_path / "a.npz", id=np.arange(2), class_names=given)
    for source in (tmp_path / "a.npz", {"id": [1, 2], "class_names": given}):
        with pytest.raises(InputError, match="class_names: shape"):
            formats.open_source(source, "x")


def test_class_names_are_unique_text(tmp_path):
    for names, found in (([b"cat", "\xfc".encode()], ("cat", "\xfc")), (["crane", "crane"], None)):
        np.savez(tmp_path / "a.npz", id=np.arange(2), class_names=np.array(names))
        for source in (tmp_path / "a.npz", {"id": [1, 2], "class_names": names}):
            if found:
                assert formats.open_source(source, "x").class_names == found
                continue
            with pytest.raises(InputError, match="have 'crane' twice"):
                formats.open_source(source, "x")


@pytest.mark.parametrize("gap", [1, 1200])
@pytest.mark.parametrize(
    ("first", "more", "message"),
    [
        ({"scores": {"cat": 0.9, "dog": 0.1}}, {"scores": {"dog": 0.2, "cat": 0.1, "owl": 0.7}}, "'scores.owl'"),
        ({"score_cat": 0.9, "score_dog": 0.1}, {"score_dog": 0.2, "score_cat": 0.1, "score_owl": 0.7}, "'score_owl'"),
    ],
)
def test_scores_of_a_class_that_begin_on_a_later_line_are_an_error(tmp_path, monkeypatch, gap, first, more, message):
    monkeypatch.setattr(formats, "BYTES", 30_000)
    path, columns = tmp_path / "a.jsonl", ["id", *first]
    rows = [{"id": str(i), **first, "note": None} for i in range(gap)] + [{"id": "last", **first, "seen": "later"}]
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    assert columns_of(path, ["id"])[0]["id"][-1] == "last"
    assert len(columns_of(path, columns)[0]["id"]) == gap + 1
    path.write_text("".join(json.dumps(row) + "\n\n" for row in [*rows, {"id": "x", **more}]))
    if gap == 1 and "scores" not in first:  # its column is read from the first block
        assert len(columns_of(path, columns)[0]["id"]) == 3
        return
    with pytest.raises(InputError, match=f"line {2 * gap + 3} has {message}, which the first lines do not have"):
        columns_of(path, columns)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"id", "ends in .npz, .csv"),
        ("a", b"id", "ends in .npz, .csv"),
        ("a.gz", b"id", "ends in .npz, .csv"),
        ("a.csv", b"id,id\n1,2\n", "two columns 'id'"),
        ("a.csv", b"id,label\n1\n", "Expected 2 columns"),
        ("a.jsonl", b"[1, 2]\n", "line 1 is not a JSON object"),
        ("a.csv", b"id,label,score_cat\n1,cat,0.5\n2,dog,x\n", "column 'score_cat': .*'x'"),
        ("a.jsonl", b'{"id": 1}\n\n{"id": "a"}\n', "changed from number to string in line 3"),
        ("a.jsonl", b'{"id": 1}\n' * 2000 + b'{"id": 2\n', "line 2001 is not JSON"),
        ("a.jsonl", b'{"id": 1}\n{"id": \n', "line 2 is not JSON"),
        ("a.jsonl", b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "recursion"),
    ],
)
def test_an_error_says_what_is_wrong(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        source = formats.open_source(tmp_path / name, name)
        list(source.batches([column for column in source.columns if column != "label"]))


def test_a_missing_file_a_folder_and_a_pipe_are_errors(tmp_path):
    (tmp_path / "a.parquet").mkdir()
    os.mkfifo(tmp_path / "a.csv")
    expected = {"nowhere.csv": "no such file", "/tmp.csv/x.npz": "no such file"}
    expected |= {tmp_path / "a.parquet": "is a folder without parts", tmp_path / "a.csv": "not a regular file"}
    for path, what in expected.items():
        with pytest.raises(InputError, match=f": {what}; expected"):
            formats.open_source(path, path)


def test_other_objects_are_errors():
    for thing in (None, 3, [1, 2]):
        with pytest.raises(InputError, match="expected a path, a table"):
            formats.open_source(thing, "they")
    ragged = formats.open_source({"id": [1, 2], "note": [[1], [1, 2]]}, "they")
    assert [batch["id"].tolist() for batch in ragged.batches(["id"])] == [[1, 2]]
    with pytest.raises(InputError, match=r"'note': .*expected rows of the same shape"):
        list(ragged.batches(["note"]))


def test_python_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", id=np.array([{}], object))
    with pytest.raises(InputError, match="Python objects"):
        list(formats.open_source(tmp_path / "a.npz", "a").batches(["id"]))
    (tmp_path / "b.npz").write_bytes(b"")
    np.save(tmp_path / "b.npy", np.arange(3))
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(InputError, match="not a zip file"):
        formats.open_source(tmp_path / "b.npz", "b")


def test_columns_of_different_lengths(tmp_path):
    np.savez(tmp_path / "a.npz", id=np.arange(3), label=np.arange(2))
    for given in (tmp_path / "a.npz", {"id": [1, 2, 3], "label": [1, 2]}, {"id": [1], "label": 1}):
        with pytest.raises(InputError, match="shapes do not match"):
            list(formats.open_source(given, "x").batches(["id", "label"]))


@pytest.mark.parametrize("package", ["pyarrow", "pandas", "polars", "datasets"])
def test_tables_in_memory_are_taken_as_they_are(package):
    make = {"pyarrow": lambda m: m.table, "datasets": lambda m: m.Dataset.from_dict}.get(package, lambda m: m.DataFrame)
    table = make(pytest.importorskip(package))(
        {"id": [3, 1], "label": ["cat", None], "scores": [[0.5, 1.0], [2.0, 3.0]]}
    )
    source = formats.open_source(table, "it")
    (batch,) = source.batches(["scores", "id", "label"])
    assert source.columns == ("id", "label", "scores")
    assert {name: column.to_pylist() for name, column in batch.items()} == {
        "scores": [[0.5, 1.0], [2.0, 3.0]],
        "id": [3, 1],
        "label": ["cat", None],
    }


def test_a_table_that_arrow_cannot_hold_is_one_clear_error():
    frame = pytest.importorskip("pandas").DataFrame({"id": [1, 2], "label": ["a", 2]})
    source = formats.open_source(frame, "it")
    assert [batch["id"].to_pylist() for batch in source.batches(["id"])] == [[1, 2]]
    with pytest.raises(InputError, match=r"^it: .*; expected columns of numbers or text$"):
        list(source.batches(["id", "label"]))


def test_a_selection_of_a_hugging_face_data_set():
    data = pytest.importorskip("datasets").Dataset.from_dict({"id": list(range(9))}).shuffle(seed=1).select([2, 0])
    batches = formats.open_source(data, "it").batches(["id"])
    assert [value for batch in batches for value in batch["id"].to_pylist()] == data["id"][:]


def test_parts_have_the_names_of_their_classes(tmp_path):
    for number, names in enumerate((["a", "b"], ["a", "b"], ["b", "a"])):
        np.savez(
            tmp_path / f"part-{number}.npz", id=np.array([number]), label=np.array([0]), class_names=np.array(names)
        )
    with pytest.raises(InputError, match="have different class_names; expected the same in all parts"):
        formats.open_source(tmp_path, "it")
    (tmp_path / "part-2.npz").unlink()
    assert formats.open_source(tmp_path, "it").class_names == ("a", "b")


@pytest.mark.parametrize("names", [[["a"], ["b", "c"]], [b"\xff"], [["a", "b"]]])
def test_names_that_are_no_list_of_text_are_one_line(names):
    with pytest.raises(InputError, match=r"it: class_names: .*; expected a list with one name per class"):
        formats.open_source({"id": [1], "class_names": names}, "it")


def test_keys_of_records_are_names_of_columns():
    with pytest.raises(InputError, match="it have the keys 'id', 5; expected names of columns"):
        formats.open_source([{"id": 1, 5: "x"}], "it")


def test_a_first_line_that_is_empty_is_not_called_an_empty_file(tmp_path):
    (tmp_path / "a.csv").write_text("\nid,label\n1,a\n")
    with pytest.raises(InputError, match="it begins with an empty line; expected a header"):
        formats.open_source(tmp_path / "a.csv", "it")
