"""Examples read in batches: complete, in order, with their labels; invalid sources are refused."""

import os
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from load_dataset import load
from PIL import Image
from sklearn.datasets import load_digits

from mpt_jax.data.examples import open_examples
from mpt_jax.errors import InputError

DIGITS = load_digits()
SHAPE = (8, 8, 1)


def picture(row):
    return np.uint8(DIGITS.images[row] * 15)


def save(path, row):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(row)).save(path)


def everything(examples, size):
    batches = list(examples.batches(size))
    assert all(0 < len(batch.ids) + len(batch.unread) <= size for batch in batches)
    return (
        [i for batch in batches for i in batch.ids],
        [label for batch in batches for label in batch.labels],
        np.concatenate([batch.images for batch in batches]),
        [name for batch in batches for name in batch.unread],
    )


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_folder_is_read_in_order_of_the_ids_with_subfolders_as_labels(tmp_path, size):
    rows = {
        f"{name}/{part}{row}.png": row for row, (name, part) in enumerate([("owl", "b/"), ("cat", ""), ("owl", "")])
    }
    for name, row in rows.items():
        save(tmp_path / name, row)
    save(tmp_path / "on top.png", 7)
    save(tmp_path / ".hidden/1.png", 8)
    (tmp_path / "cat/notes.txt").write_text("no image")
    examples = open_examples(str(tmp_path), SHAPE, ["cat", "dog"])
    assert (examples.count, examples.labelled, examples.note) == (4, True, "")
    ids, labels, images, unread = everything(examples, size)
    assert ids == sorted([*rows, "on top.png"]) and unread == []
    assert labels == ["cat", None, "owl", "owl"]  # a label may be unknown to the model
    expected = [picture({**rows, "on top.png": 7}[name])[..., None] for name in ids]
    np.testing.assert_array_equal(images, expected)


def test_subfolders_are_labels_only_if_one_is_a_class(tmp_path):
    for row, name in enumerate(("2024/a.png", "2025/b.png")):
        save(tmp_path / name, row)
    examples = open_examples(str(tmp_path), SHAPE, ["cat", "dog"])
    assert not examples.labelled and "2024, 2025" in examples.note and "looks like" not in examples.note
    alike = open_examples(str(tmp_path), SHAPE, ["cat", "'2024'"])
    assert alike.note.endswith("; '2024' looks like its class \"'2024'\"")
    assert everything(examples, 8)[1] == [None, None]


def test_images_are_converted_to_the_input_of_the_model(tmp_path):
    Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / "a.jpg")
    ((ids, _, images, _),) = [everything(open_examples(str(tmp_path), (5, 4, 3), ["cat"]), 2)]
    assert ids == ["a.jpg"] and images.shape == (1, 5, 4, 3)
    assert images[..., 0].min() > 250 and images[..., 1:].max() < 5


def test_unreadable_images_are_named(tmp_path):
    save(tmp_path / "b.png", 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "c.png").write_bytes(b"")
    ids, _, images, unread = everything(open_examples(str(tmp_path), SHAPE, ["cat"]), 2)
    assert ids == ["b.png"] and len(images) == 1
    assert [name.partition(" ")[0] for name in unread] == ["a.png", "c.png"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_is_read_in_its_order(tmp_path, ending):
    for row in range(3):
        save(tmp_path / f"images/{row}.png", row)
    table = pa.table(
        {"id": ["x", "y", "007"], "path": [f"images/{row}.png" for row in (2, 0, 1)], "label": ["b", "", "a"]}
    )
    writer = pa.csv.write_csv if ending == "csv" else pyarrow.parquet.write_table
    writer(table, tmp_path / f"list.{ending}")
    ids, labels, images, _ = everything(open_examples(str(tmp_path / f"list.{ending}"), SHAPE, ["a"]), 2)
    assert ids == ["x", "y", "007"] and labels == ["b", None, "a"]
    np.testing.assert_array_equal(images[..., 0], [picture(row) for row in (2, 0, 1)])
    writer(table.select(["path"]), tmp_path / f"list.{ending}")
    examples = open_examples(str(tmp_path / f"list.{ending}"), SHAPE, ["a"])
    assert not examples.labelled and everything(examples, 2)[0] == [f"images/{row}.png" for row in (2, 0, 1)]


def test_a_tfds_split_has_the_ids_and_pixels_of_a_run(digits_dir):
    expected = load(data_dir=digits_dir).test
    examples = open_examples("digits", SHAPE, list("01234"), data_dir=str(digits_dir))
    ids, labels, images, _ = everything(examples, 500)
    assert examples.count == len(ids) == len(expected)
    row = {name: i for i, name in enumerate(expected.ids.tolist())}
    order = [row[name] for name in ids]
    np.testing.assert_array_equal(images, expected.images[order])
    assert labels == [str(label) for label in expected.labels[order]]
    with pytest.raises(InputError, match="no split 'tests'; it has"):
        open_examples("digits", SHAPE, ["0"], split="tests", data_dir=str(digits_dir))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_read_in_batches(tmp_path, order, compressed):
    features = np.asarray(np.random.default_rng(0).normal(size=(7, 5)), np.float32, order=order)
    save_ = np.savez_compressed if compressed else np.savez
    save_(tmp_path / "a.npz", features=features, labels=np.arange(7) % 2, ids=np.arange(7) + 10)
    examples = open_examples(str(tmp_path / "a.npz"), (5,), ["cat", "dog"])
    for size in (2, 7, 100):
        ids, labels, values, _ = everything(examples, size)
        np.testing.assert_array_equal(values, features)
        assert ids == [str(row + 10) for row in range(7)] and labels == [("cat", "dog")[row % 2] for row in range(7)]


def test_arrays_with_class_names_splits_and_values_that_are_not_finite(tmp_path):
    features = np.ones((3, 2), np.float32)
    features[1, 0] = np.nan
    np.savez(tmp_path / "a.npz", train_features=features, train_labels=[2, 0, 1], class_names=["x", "y", "z"])
    examples = open_examples(str(tmp_path / "a.npz"), (2,), ["x"], split="train")
    ids, labels, values, unread = everything(examples, 2)
    assert ids == ["train_00000", "train_00002"] and labels == ["z", "y"] and len(values) == 2
    assert unread == ["train_00001 (not finite)"]
    np.savez(tmp_path / "b.npz", images=np.zeros((2, 8, 8, 1), np.uint8), labels=["owl", "cat"])
    assert everything(open_examples(str(tmp_path / "b.npz"), SHAPE, ["cat"]), 2)[1] == ["owl", "cat"]


def test_invalid_sources_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("empty")
    save(tmp_path / "here/a.png", 0)
    (tmp_path / "link").mkdir()
    os.symlink(tmp_path / "here", tmp_path / "link/out")
    np.savez("a.npz", features=np.zeros((2, 3), np.float32), labels=[0, 5])
    np.savez("int.npz", features=np.zeros((2, 3), np.int64))
    np.savez("none.npz", features=np.zeros((0, 3), np.float32))
    np.savez("objects.npz", features=np.array([{}, {}], object))
    with zipfile.ZipFile("short.npz", "w") as archive, zipfile.ZipFile("a.npz") as whole:
        archive.writestr("features.npy", whole.read("features.npy")[:-4])
    (tmp_path / "text.npz").write_text("text")
    for name, text in (("up.csv", "path\n../a.png\n"), ("twice.csv", "path\na.png\na.png\n"), ("no.csv", "file\na\n")):
        (tmp_path / name).write_text(text)
    features = (3,)
    for source, shape, words in (
        ("empty", SHAPE, "contains no images"),
        ("link", SHAPE, "link"),
        ("nowhere/at/all", SHAPE, "does not exist"),
        ("text.npz/..", SHAPE, "expected a folder"),
        ("here", features, "not images"),
        ("here", (8, 8, 2), "not images"),
        ("up.csv", SHAPE, "outside"),
        ("twice.csv", SHAPE, "duplicate ids"),
        ("no.csv", SHAPE, "no column path"),
        ("none.csv", SHAPE, "no file"),
        ("no.npz", features, "no file"),
        ("a.npz", features, "label 5"),
        ("a.npz", (4,), r"\[2, 3\]; the model takes float32 \[N, 4\]"),
        ("a.npz", SHAPE, "no images and no test_images"),
        ("int.npz", features, "int64"),
        ("none.npz", features, "empty"),
        ("objects.npz", features, "object"),
        ("short.npz", features, "short.npz"),
        ("text.npz", features, "cannot be read"),
    ):
        with pytest.raises(InputError, match=words) as error:
            list(open_examples(source, shape, ["cat", "dog"]).batches(2))
        assert "\n" not in str(error.value)
