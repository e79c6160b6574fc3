"""One's own image files in folders and tables: read, held out, and refused by name where they are bad."""

import collections
import os
import pathlib
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mpt_jax.data import sources
from mpt_jax.data.own import folder
from mpt_jax.errors import InputError

CLASSES = ("cat", "dog", "owl")


def save(path, number, size=(8, 8)):
    """An image of its own number's colour, which lossless files keep."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    Image.new("RGB", size[::-1], (number % 256, number // 256, 7)).save(path, **lossless)


def number(pixels):
    return int(pixels[0, 0, 0]) + 256 * int(pixels[0, 0, 1])


def pets(root, counts=(4, 3, 5), test=2, classes=CLASSES):
    """A folder of images; returns the class of every image by its number."""
    of = {}
    for name, count in zip(classes, counts, strict=True):
        for part, images in (("train", count), ("test", test)):
            for i in range(images):
                kind = ".webp" if i % 3 == 2 else ".png"
                save(root / part / name / f"{i}{kind}", len(of))
                of[len(of)] = name
    return of


def load(root, name="folder", num_classes=3, **options):
    return sources.load(str(name), data_dir=str(root), num_classes=num_classes, **options)


def message(*args, **options):
    with pytest.raises(InputError) as caught:
        load(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outcomes(dataset):
    return {finding.what.split(" of /")[0]: (finding.names, finding.outcome) for finding in dataset.findings}


def check(dataset, of):
    """Every image has the label of its number's class, and no image is there twice."""
    parts = (dataset.train, dataset.validation, dataset.test)
    numbers = [number(image) for part in parts for image in part.images]
    assert len(set(numbers)) == len(numbers) == len({i for part in parts for i in part.ids})
    assert [dataset.class_names[label] for part in parts for label in part.labels] == [of[n] for n in numbers]
    for part in parts:
        keys = list(zip(part.labels.tolist(), part.ids.tolist(), strict=True))
        assert keys == sorted(keys) and part.labels.dtype == np.int32 and part.images.dtype == np.uint8
    return set(numbers)


# Folders


def test_a_folder_with_a_test_part(tmp_path):
    of = pets(tmp_path)
    dataset = load(tmp_path, validation_per_class=1)
    assert dataset.class_names == CLASSES and dataset.findings == ()
    assert check(dataset, of) == set(of)
    assert np.bincount(dataset.train.labels).tolist() == [3, 2, 4]
    assert np.bincount(dataset.test.labels).tolist() == [2, 2, 2]
    assert dataset.test.ids[0] == "test/cat/0.png" and "train/owl/2.webp" in {
        *dataset.train.ids,
        *dataset.validation.ids,
    }
    assert dataset.train.images.shape[1:] == (8, 8, 3)
    save(tmp_path / "grey/train/a/1.png", 50)
    save(tmp_path / "grey/test/a/1.png", 200)
    grey = load(tmp_path / "grey", num_classes=1, image_size=(5,), channels=1)
    assert (grey.train.images == round(0.299 * 50 + 0.114 * 7)).all() and grey.train.images.shape == (1, 5, 5, 1)
    assert load(tmp_path, image_size=(5, 6)).test.images.shape[1:] == (5, 6, 3)


def test_both_parts_are_views_of_one_array(tmp_path):
    pets(tmp_path)
    parts = load(tmp_path)
    assert parts.train.images.base is not None and parts.train.images.base is parts.test.images.base


def test_old_classes_first_and_new_folders_after(tmp_path):
    of = pets(tmp_path, (3, 3), classes=("dog", "owl"))
    old = load(tmp_path, num_classes=2, class_order=["owl", "dog"])
    of |= {n + 1000: "ant" for n in range(3)}
    for n in range(3):
        save(tmp_path / f"train/ant/{n}.png", n + 1000)
    dataset = load(tmp_path, class_order=[*old.class_names, "..."])
    assert dataset.class_names == ("owl", "dog", "ant") and check(dataset, of)
    np.testing.assert_array_equal(dataset.train.ids[: len(old.train)], old.train.ids)
    np.testing.assert_array_equal(dataset.train.images[: len(old.train)], old.train.images)
    np.testing.assert_array_equal(dataset.train.labels[: len(old.train)], old.train.labels)
    assert outcomes(dataset) == {"classes without a test image": (("ant",), "kept")}
    assert "no class 'wolf'" in message(tmp_path, class_order=["wolf", "..."])


def test_numbers_as_class_names_and_other_files(tmp_path):
    of = pets(tmp_path, classes=("10", "9", "1"))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "train/readme.md").write_text("mine")
    (tmp_path / "train/9/Thumbs.db").write_text("mine")
    (tmp_path / "train/.DS_Store").write_text("")
    (tmp_path / "train/9/.hidden.png").write_text("")
    shutil.copytree(tmp_path / "test", tmp_path / "val")
    save(tmp_path / "train/10/deeper/down/UPPER.PNG", 999)
    dataset = load(tmp_path)
    assert dataset.class_names == ("1", "9", "10")
    assert check(dataset, of | {999: "10"}) == {*of, 999}
    assert outcomes(dataset) == {
        "files and folders that are no images": (
            ("notes.txt", "val", "train/readme.md", "train/9/Thumbs.db"),
            "ignored",
        )
    }


def test_what_is_held_out_stays_held_out_when_images_and_classes_are_added(tmp_path):
    of = pets(tmp_path, (60, 60, 60), test=0)
    first = load(tmp_path, test_fraction=0.3)
    assert check(first, of) == set(of)
    (finding,) = first.findings
    assert finding.outcome == "held out as test" and "dataset.test_fraction=0.3" in finding.what
    assert sorted(finding.names) == sorted(first.test.ids)
    counts = np.bincount(first.test.labels)
    assert (counts > 5).all() and (counts < 35).all()
    for i in range(60):
        save(tmp_path / f"train/{('dog', 'ant')[i % 2]}/new {i}.png", 500 + i)
    second = load(tmp_path, num_classes=4, test_fraction=0.3)
    assert not {*first.train.ids} & {*second.test.ids} and not {*first.test.ids} & {*second.train.ids}
    shutil.copytree(tmp_path / "train", tmp_path / "elsewhere/train")  # nor does it depend on the place
    np.testing.assert_array_equal(
        load(tmp_path / "elsewhere", num_classes=4, test_fraction=0.3).test.ids, second.test.ids
    )


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
)
def test_copies_of_an_image_stay_together_and_every_class_has_both_parts(rows, fraction):
    # Copies within a class only: between classes they are a fault of the data.
    labels = np.array([label for label, _ in rows])
    digests = [bytes([label + 4 * value]) * 32 for label, value in rows]
    tested = folder.held_out(digests, labels, fraction)
    of_digest = collections.defaultdict(set)
    for digest, test in zip(digests, tested.tolist(), strict=True):
        of_digest[digest].add(test)
    assert all(len(parts) == 1 for parts in of_digest.values())
    for label in set(labels.tolist()):
        different = {digest for digest, other in zip(digests, labels, strict=True) if other == label}
        assert set(tested[labels == label].tolist()) == ({True, False} if len(different) > 1 else {False})
    below = np.array([int.from_bytes(digest, "big") / 2**256 < fraction for digest in digests])
    for label in set(labels.tolist()):
        mine = below[labels == label]
        if mine.any() and not mine.all():
            np.testing.assert_array_equal(tested[labels == label], mine)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: shutil.rmtree(root), ["is not a folder", "train/CLASS/IMAGE"]),
        (lambda root: (root / "train").rename(root / "training"), ["has no folder train"]),
        (lambda root: [shutil.rmtree(f) for f in (root / "train").iterdir()], ["holds no folders"]),
        (lambda root: (root / "train/emu").mkdir(), ["class 'emu' has no training images"]),
        (lambda root: [f.unlink() for f in (root / "test").glob("*/*")], ["has no test images of the chosen classes"]),
        (lambda root: save(root / "test/fox/1.png", 900), ["classes that train has not (1): test/fox/1.png"]),
        (lambda root: shutil.copy(root / "train/cat/0.png", root / "test/owl/8.png"), ["in test (1): train/cat/0.png"]),
        (lambda root: (root / "train/cat/9.jpg").write_bytes(b"GIF89a"), ["train/cat/9.jpg (not JPEG, PNG, WEBP)"]),
        (
            lambda root: save(root / "train/cat/9.png", 900, (8, 9)),
            ["train/cat/9.png (8x9 pixels, not 8x8", "image_size"],
        ),
        (lambda root: save(root / os.fsdecode(b"train/\xff/9.png"), 900), ["which is no name"]),
        (
            lambda root: save(root / os.fsdecode(b"train/cat/\xff.png"), 900),
            ["ids that are no text", "train/cat/?.png"],
        ),
    ],
)
def test_folders_that_do_not_fit(tmp_path, make, words):
    root = tmp_path / "pets"
    pets(root)
    make(root)
    text = message(root, num_classes=4 if "emu" in words[0] else 3, class_order=["cat", "dog", "owl", "..."])
    for word in words:
        assert word in text
    assert text.isprintable()


def test_everything_that_is_bad_is_named_at_once_or_left_out_and_counted(tmp_path):
    of = pets(tmp_path, (12, 12, 12))
    for i in range(8):
        (tmp_path / f"train/cat/{i}.jpg").write_bytes(b"text")
    content = (tmp_path / "test/owl/0.png").read_bytes()
    (tmp_path / "test/owl/0.png").write_bytes(content[: len(content) // 2])
    shutil.copy(tmp_path / "test/dog/1.png", tmp_path / "train/dog/copy.png")
    text = message(tmp_path)
    assert "images that cannot be read (9): train/cat/0.jpg (not JPEG, PNG, WEBP), train/cat/1.jpg" in text
    assert "and 4 more" in text and "training images that are also in test (1): train/dog/copy.png" in text
    assert text.endswith("mend it, or leave these out with dataset.on_bad_image=skip")
    dataset = load(tmp_path, on_bad_image="skip")
    assert check(dataset, of) == set(of) - {next(n for n in of if of[n] == "owl") + 12}
    found = outcomes(dataset)
    assert {what: (len(names), outcome) for what, (names, outcome) in found.items()} == {
        "images that cannot be read": (9, "left out"),
        "training images that are also in test": (1, "left out"),
    }


def test_classes_of_one_image(tmp_path):
    pets(tmp_path, (1, 4, 5), test=1)
    assert outcomes(load(tmp_path)) == {"classes with one training image": (("cat",), "kept")}
    assert "class 'cat' has 1 training images; expected more than dataset.validation_per_class=1" in message(
        tmp_path, validation_per_class=1
    )
    assert "(and 2 other classes too few: 'dog', 'owl')" in message(tmp_path, validation_per_class=5)
    shutil.rmtree(tmp_path / "test")
    assert "has no test part, and 1 classes with less than two images to hold one out: cat" in message(tmp_path)
    assert len(load(tmp_path, num_classes=2, class_order=["dog", "owl"]).class_names) == 2


def test_links_may_not_lead_out_of_the_folder(tmp_path):
    root, secret = tmp_path / "pets", tmp_path / "secret.png"
    of = pets(root)
    save(secret, 900)
    link = root / "train/cat/link.png"
    for target in (secret, "../../../secret.png", "/etc/passwd"):
        link.symlink_to(target)
        assert f"{link} is a link that leads out of {root}" in message(root)
        assert "leads out" in message(root, on_bad_image="skip")
        link.unlink()
    link.symlink_to("nowhere.png")
    assert "train/cat/link.png (no such file)" in message(root)
    link.unlink()
    link.symlink_to("link.png")  # to itself
    assert "train/cat/link.png" in message(root)
    link.unlink()
    save(root / "train/cat/real/9.png", 901)
    link.symlink_to("real/9.png")
    dataset = load(root)
    assert {"train/cat/link.png", "train/cat/real/9.png"} <= {*dataset.train.ids}
    link.unlink()
    for place in ("train/cat/more", "train/emu", "test"):
        shutil.rmtree(root / place, ignore_errors=True)
        (root / place).symlink_to(tmp_path, target_is_directory=True)
        assert f"{root / place} is a link to a folder" in message(root)
        (root / place).unlink()
    (tmp_path / "link to all").symlink_to(root, target_is_directory=True)
    assert check(load(tmp_path / "link to all", on_bad_image="skip"), of | {901: "cat"})


def test_folder_needs_a_folder():
    assert "dataset.name=folder needs dataset.data_dir=DIR" in message("")


# Tables


def table(root, **columns):
    """A table of the images in a folder; columns are added, replaced, or left out where they are None."""
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
def test_a_table_reads_as_the_folder_does(tmp_path, suffix):
    of = pets(tmp_path)
    whole, content = load(tmp_path), table(tmp_path)
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
def test_ids_numbers_as_labels_and_no_split(tmp_path, suffix):
    of = pets(tmp_path, classes=("10", "9", "1"))
    content = table(tmp_path)
    ids = list(range(100, 100 + len(content)))
    labels = [int(label) for label in content["label"].to_pylist()]
    write(tmp_path / f"list{suffix}", table(tmp_path, id=ids, label=labels, split=None, more=labels))
    dataset = load(tmp_path, f"list{suffix}", test_fraction=0.5)
    assert dataset.class_names == ("1", "9", "10") and check(dataset, of) == set(of)
    assert {*dataset.train.ids, *dataset.test.ids} == set(map(str, ids)) and len(dataset.test) > 0
    assert [finding.outcome for finding in dataset.findings] == ["held out as test"]
    if suffix == ".parquet":
        labels = pa.array(map(str, labels)).dictionary_encode()
        write(tmp_path / "dictionary.parquet", table(tmp_path, label=labels))
        assert check(load(tmp_path, "dictionary.parquet"), of) == set(of)


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "train/../../secret.png", "/etc/passwd", "ABSOLUTE", "leak/secret.png", "train/link.png", "a\0b"],
)
def test_paths_may_not_leave_the_folder(tmp_path, path):
    root = tmp_path / "pets"
    pets(root)
    save(tmp_path / "secret.png", 900)
    paths = table(root)["path"].to_pylist()
    content = table(root, path=[path if path != "ABSOLUTE" else str(tmp_path / "secret.png"), *paths[1:]])
    (root / "leak").symlink_to(tmp_path, target_is_directory=True)
    (root / "train/link.png").symlink_to("../../secret.png")
    for suffix in (".csv", ".parquet"):
        write(root / f"list{suffix}", content)
        for policy in ("error", "skip"):
            text = message(root, f"list{suffix}", on_bad_image=policy)
            assert f"lists 1 paths that leave {root}" in text or ("\0" in path and "cannot be read" in text)


def test_rows_that_are_bad_are_named_or_left_out(tmp_path):
    of = pets(tmp_path)
    content = table(tmp_path)
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
    text = message(tmp_path, "list.csv")
    for word in (
        f"rows without path, label or id (2): row {len(rows) + 1}, row {len(rows) + 3}",
        "test images of classes that train has not (1): test/fox.png (fox)",
        f"ids that stand further up already (1): {rows[0]['path']}",
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
        ({"path": None}, ["has no column path; it has label, split, expected path, label, split, id"]),
        ({"label": None}, ["has no column label"]),
        ({"split": "val"}, ["column split has 'val'", "validation_per_class"]),
        ({"split": "test"}, ["lists no images to train on"]),
        ({"label": 1.5}, ["column label holds double; expected text or integers"]),
    ],
)
def test_tables_that_do_not_fit(tmp_path, columns, words):
    pets(tmp_path)
    rows = len(table(tmp_path))
    write(tmp_path / "list.parquet", table(tmp_path, **{k: v and [v] * rows for k, v in columns.items()}))
    text = message(tmp_path, "list.parquet")
    for word in words:
        assert word in text


def test_files_that_are_no_tables(tmp_path, monkeypatch):
    pets(tmp_path)
    assert "no file" in message(tmp_path, "none.csv")
    assert "is not a folder; expected the one that the paths" in message(
        tmp_path / "none", write(tmp_path / "list.csv", table(tmp_path))
    )
    for content in (b"", b"\xff\xfe\0", b"path,label\n1,2,3\n", b"PAR1" + bytes(100)):
        for suffix in ("csv", "parquet"):
            (tmp_path / f"bad.{suffix}").write_bytes(content)
            assert re.search(r"cannot be read|has no column", message(tmp_path, f"bad.{suffix}"))
    (tmp_path / "twice.csv").write_text("path,label,label\na,b,c\n")
    assert "has 2 columns label" in message(tmp_path, "twice.csv")
    (tmp_path / "bytes.csv").write_bytes(b"path,label\na,\xff\n")
    assert "bytes.csv" in message(tmp_path, "bytes.csv")
    monkeypatch.setattr(folder, "_MOST_ROWS", 10)
    assert "rows; expected at most 10" in message(tmp_path, write(tmp_path / "long.parquet", table(tmp_path)))


def test_reading_a_folder_does_without_the_reader_of_tables():
    source = pathlib.Path(folder.__file__).read_text()
    assert not re.search(r"^(import|from) pyarrow", source, re.MULTILINE)
