"""Tables of image files."""

import pathlib
import re

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from image_folder import CLASSES, check, load, load_error, pets, save

from mpt_jax.data.own import table


def make_table(root, **columns):
    """Return a table of the images in a folder; columns are added, replaced, or removed if they are None."""
    paths = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*/*.*"))
    rows = {
        "path": paths,
        "label": [path.split("/")[1] for path in paths],
        "split": [path.split("/")[0] for path in paths],
    }
    return pa.table({key: value for key, value in (rows | columns).items() if value is not None})


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pyarrow.csv.write_csv if path.suffix == ".csv" else pyarrow.parquet.write_table)(content, path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_gives_the_same_data_as_the_folder(tmp_path, suffix):
    of = pets(tmp_path)
    whole, content = load(tmp_path), make_table(tmp_path)
    write(tmp_path / f"list{suffix}", content)
    write(tmp_path / f"apart/list{suffix}", content)
    for name in (f"list{suffix}", tmp_path / f"apart/list{suffix}"):
        dataset = load(tmp_path, name)
        assert check(dataset, of) == set(of) and dataset.class_names == CLASSES
        for part in ("train", "test"):
            for field in ("images", "labels", "ids"):
                np.testing.assert_array_equal(
                    getattr(getattr(dataset, part), field), getattr(getattr(whole, part), field)
                )
    dataset = load("", tmp_path / f"list{suffix}")  # paths start from the table's own folder
    np.testing.assert_array_equal(dataset.test.ids, whole.test.ids)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_ids_and_integer_labels_without_split(tmp_path, suffix):
    of = pets(tmp_path, classes=("10", "9", "1"))
    content = make_table(tmp_path)
    ids = list(range(100, 100 + len(content)))
    labels = [int(label) for label in content["label"].to_pylist()]
    write(tmp_path / f"list{suffix}", make_table(tmp_path, id=ids, label=labels, split=None, more=labels))
    dataset = load(tmp_path, f"list{suffix}", test_fraction=0.5)
    assert dataset.class_names == ("1", "9", "10") and check(dataset, of) == set(of)
    assert {*dataset.train.ids, *dataset.test.ids} == set(map(str, ids)) and len(dataset.test) > 0
    assert [finding.outcome for finding in dataset.findings] == ["held out for testing"]
    if suffix == ".parquet":
        labels = pa.array(map(str, labels)).dictionary_encode()
        write(tmp_path / "dictionary.parquet", make_table(tmp_path, label=labels))
        assert check(load(tmp_path, "dictionary.parquet"), of) == set(of)


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "train/../../secret.png", "/etc/passwd", "ABSOLUTE", "leak/secret.png", "train/link.png", "a\0b"],
)
def test_paths_must_stay_inside_the_folder(tmp_path, path):
    root = tmp_path / "pets"
    pets(root)
    save(tmp_path / "secret.png", 900)
    paths = make_table(root)["path"].to_pylist()
    content = make_table(root, path=[path if path != "ABSOLUTE" else str(tmp_path / "secret.png"), *paths[1:]])
    (root / "leak").symlink_to(tmp_path, target_is_directory=True)
    (root / "train/link.png").symlink_to("../../secret.png")
    for suffix in (".csv", ".parquet"):
        write(root / f"list{suffix}", content)
        for policy in ("error", "skip"):
            text = load_error(root, f"list{suffix}", on_bad_image=policy)
            assert f"lists paths outside {root} (1)" in text or ("\0" in path and "cannot be read" in text)


def test_absolute_paths_inside_the_folder_and_file_name(tmp_path):
    root = tmp_path / "pets"
    of = pets(root)
    paths, whole = make_table(root)["path"].to_pylist(), load(root)
    (tmp_path / "same").symlink_to(root, target_is_directory=True)
    for name, place in (("absolute.csv", root), ("real.parquet", tmp_path / "same")):
        write(root / name, make_table(root, path=[str(root / path) for path in paths]))
        np.testing.assert_array_equal(load(place, name).train.ids, whole.train.ids)
        assert list(table.read_rows(root / name)[0]) == paths
    for suffix in (".csv", ".parquet"):
        write(root / f"metadata{suffix}", make_table(root, path=None, file_name=paths))
        dataset = load(root, f"metadata{suffix}")
        np.testing.assert_array_equal(dataset.train.ids, whole.train.ids)
        assert check(dataset, of) == set(of)


def test_a_split_named_val(tmp_path):
    of = pets(tmp_path)
    split = make_table(tmp_path)["split"].to_pylist()
    write(tmp_path / "two.csv", make_table(tmp_path, split=["val" if part == "test" else part for part in split]))
    np.testing.assert_array_equal(load(tmp_path, "two.csv").test.ids, load(tmp_path).test.ids)
    first = [path.rsplit("/")[-1] == "0.png" for path in make_table(tmp_path)["path"].to_pylist()]
    three = ["val" if is_first and part == "train" else part for is_first, part in zip(first, split, strict=True)]
    write(tmp_path / "three.csv", make_table(tmp_path, split=three))
    dataset = load(tmp_path, "three.csv")
    assert check(dataset, of) == set(of)
    assert dataset.validation.ids.tolist() == [f"train/{name}/0.png" for name in CLASSES]


def test_links_in_tables_are_followed_or_left_out_and_counted(tmp_path):
    root = tmp_path / "pets"
    of = pets(root)
    save(tmp_path / "elsewhere.png", 900)
    content = make_table(root)
    (root / "link.png").symlink_to(tmp_path / "elsewhere.png")
    row = {"path": "link.png", "label": "cat", "split": "train"}
    write(root / "list.csv", pa.Table.from_pylist([*content.to_pylist(), row]))
    dataset = load(root, "list.csv", follow_links="skip")
    assert check(dataset, of) == set(of)
    assert [(f.names, f.outcome) for f in dataset.findings] == [(("link.png",), "skipped")]
    assert check(load(root, "list.csv", follow_links="follow"), of | {900: "cat"}) == {*of, 900}
    assert "dataset.follow_links=follow" in load_error(root, "list.csv")
    write(root / "list.csv", pa.Table.from_pylist([*content.to_pylist(), row | {"path": "../elsewhere.png"}]))
    assert "lists paths outside" in load_error(root, "list.csv", follow_links="follow")


def test_faulty_rows_are_named_or_skipped(tmp_path):
    of = pets(tmp_path)
    content = make_table(tmp_path)
    rows = content.to_pylist()
    extra = [
        {"path": rows[0]["path"], "label": "cat", "split": "train"},
        {"path": "", "label": "cat", "split": "train"},
        {"path": "train/cat/none.png", "label": "cat", "split": "train"},
        {"path": "train/cat/0.png.", "label": "", "split": "train"},
        {"path": "train", "label": "cat", "split": "test"},
        {"path": "test/fox.png", "label": "fox", "split": "test"},
        {"path": "x" * 2000, "label": "cat", "split": "train"},
    ]
    write(tmp_path / "list.csv", pa.Table.from_pylist(rows + extra))
    text = load_error(tmp_path, "list.csv")
    for word in (
        f"rows without path, label or id (2): row {len(rows) + 1}, row {len(rows) + 3}",
        "images of classes that are not in train (1): test/fox.png (fox)",
        f"duplicate ids (1): {rows[0]['path']}",
        "longer than 1000 characters (1): xxx",
        "images that cannot be read (2): train/cat/none.png (no such file), train (not a file)",
    ):
        assert word in text
    assert len(text) < 1200
    dataset = load(tmp_path, "list.csv", on_bad_image="skip")
    assert check(dataset, of) == set(of)
    assert sum(len(finding.names) for finding in dataset.findings) == len(extra)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"path": None}, ["has no column path; it has label, split; expected path, label, split, id"]),
        ({"label": None}, ["has no column label"]),
        ({"split": "extra"}, ["column split has 'extra'", "train, test or val", "validation_per_class"]),
        ({"split": "val"}, ["lists no training images"]),
        ({"split": "test"}, ["lists no training images"]),
        ({"label": 1.5}, ["column label has type double; expected text or integers"]),
    ],
)
def test_tables_that_do_not_fit(tmp_path, columns, words):
    pets(tmp_path)
    rows = len(make_table(tmp_path))
    write(tmp_path / "list.parquet", make_table(tmp_path, **{k: v and [v] * rows for k, v in columns.items()}))
    text = load_error(tmp_path, "list.parquet")
    for word in words:
        assert word in text


def test_files_that_are_not_tables(tmp_path, monkeypatch):
    pets(tmp_path)
    assert "no file" in load_error(tmp_path, "none.csv")
    path = write(tmp_path / "list.csv", make_table(tmp_path))
    assert "is not a folder; expected the folder of the images" in load_error(tmp_path / "none", path)
    for content in (b"", b"\xff\xfe\0", b"path,label\n1,2,3\n", b"PAR1" + bytes(100)):
        for suffix in ("csv", "parquet"):
            (tmp_path / f"bad.{suffix}").write_bytes(content)
            assert re.search(r"cannot be read|has no column", load_error(tmp_path, f"bad.{suffix}"))
    (tmp_path / "twice.csv").write_text("path,label,label\na,b,c\n")
    assert "has 2 columns label" in load_error(tmp_path, "twice.csv")
    (tmp_path / "bytes.csv").write_bytes(b"path,label\na,\xff\n")
    assert "bytes.csv" in load_error(tmp_path, "bytes.csv")
    monkeypatch.setattr(table, "_MAX_ROWS", 10)
    assert "rows; expected at most 10" in load_error(tmp_path, write(tmp_path / "long.parquet", make_table(tmp_path)))


def test_pyarrow_is_imported_only_when_needed():
    source = pathlib.Path(table.__file__).read_text()
    assert not re.search(r"^(import|from) pyarrow", source, re.MULTILINE)
