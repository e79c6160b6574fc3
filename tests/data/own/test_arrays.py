import io
import pathlib
import pickle
import re
import resource
import zipfile

import load_dataset
import numpy as np
import pytest
from sklearn.datasets import load_digits

from mpt_jax.errors import InputError
from mpt_jax.files import npz

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs/own_data.md"


def whole(kind="features"):
    """Return valid arrays: 3 classes, 6 training rows and 3 test rows."""
    random = np.random.default_rng(0)
    if kind == "features":
        train, test = (random.normal(size=(n, 5)).astype(np.float32) for n in (6, 3))
    else:
        train, test = (random.integers(0, 256, (n, 4, 3, 1), dtype=np.uint8) for n in (6, 3))
    labels = {"train_labels": np.array([0, 1, 2, 2, 1, 0]), "test_labels": np.array([2, 1, 0])}
    return {f"train_{kind}": train, f"test_{kind}": test, **labels}


def write(folder, **arrays):
    path = pathlib.Path(folder) / "file.npz"
    np.savez(path, **arrays)
    return str(path)


def load(path, num_classes=3, **options):
    return load_dataset.load(path, num_classes=num_classes, **options)


def message(path, **options):
    with pytest.raises(InputError) as caught:
        load(path, **options)
    text = str(caught.value)
    assert "\n" not in text and pathlib.Path(path).name in text
    return text


# Reading


def test_features_with_their_labels_names_and_ids(features_file):
    dataset, raw = load(features_file, 10, class_order="seed:3", validation_per_class=8), load_digits()
    order = np.random.RandomState(3).permutation(10)
    assert dataset.class_names == tuple(f"digit {label}" for label in order)
    for split in (dataset.train, dataset.validation, dataset.test):
        row = split.ids.astype(int) - 1000
        np.testing.assert_array_equal(split.images, raw.data[row])
        np.testing.assert_array_equal(order[split.labels], raw.target[row])
        assert (split.images.dtype, split.labels.dtype) == (np.float32, np.int32)
        keys = list(zip(split.labels.tolist(), split.ids.tolist(), strict=True))
        assert keys == sorted(keys)
    np.testing.assert_array_equal(np.bincount(dataset.validation.labels), [8] * 10)
    ids = [set(split.ids) for split in (dataset.train, dataset.validation, dataset.test)]
    assert len(set.union(*ids)) == sum(map(len, ids)) == 1797
    assert ids[2] == {str(row + 1000) for row in range(1000, 1797)}


def test_a_part_of_the_classes_and_of_the_rows(features_file):
    options = {"class_order": "digit 8,digit 2", "num_classes": 2, "validation_per_class": 10}
    small, large = (load(features_file, train_per_class=n, **options) for n in (20, 30))
    assert small.class_names == ("digit 8", "digit 2")
    np.testing.assert_array_equal(np.bincount(small.train.labels), [20, 20])
    np.testing.assert_array_equal(small.validation.ids, large.validation.ids)
    assert set(small.train.ids) < set(large.train.ids)
    assert set(load_digits().target[small.test.ids.astype(int) - 1000]) == {2, 8}
    tail = load(features_file, 10, imbalance=10, validation_per_class=10)
    assert np.bincount(tail.train.labels)[[0, -1]].tolist() == [89, 9]


def test_images_with_default_names_and_ids(tmp_path):
    arrays = whole("images")
    dataset = load(write(tmp_path, **arrays, another_array=np.zeros(2)))
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.train.ids.tolist() == [f"train_0000{row}" for row in (0, 5, 1, 4, 2, 3)]
    np.testing.assert_array_equal(dataset.train.images, arrays["train_images"][[0, 5, 1, 4, 2, 3]])
    np.testing.assert_array_equal(dataset.test.images, arrays["test_images"][::-1])
    assert dataset.train.images.dtype == np.uint8


def test_rows_in_order_are_not_copied(tmp_path, monkeypatch):
    kept = {}
    monkeypatch.setattr(npz.Archive, "__getitem__", spying(npz.Archive.__getitem__, kept))
    arrays = whole() | {"train_labels": np.array([0, 0, 1, 1, 2, 2]), "test_labels": np.array([0, 1, 2])}
    dataset = load(write(tmp_path, **arrays))
    assert np.shares_memory(dataset.train.images, kept["train_features"])
    assert np.shares_memory(dataset.test.images, kept["test_features"])


def spying(get, kept):
    return lambda self, key: kept.setdefault(key, get(self, key))


def test_relative_names_start_from_the_data_folder(tmp_path, monkeypatch):
    write(tmp_path, **whole())
    assert load("file.npz", data_dir=str(tmp_path)).name == "file.npz"
    monkeypatch.chdir(tmp_path)
    assert len(load("file.npz").train) == len(load("./file.npz", data_dir="").train) == 6
    assert "/nowhere/file.npz" in message("file.npz", data_dir="/nowhere")


def test_ids_may_be_bytes_and_labels_any_integers(tmp_path):
    ids = {"train_ids": np.array([b"f", b"e", b"d", b"c", b"b", b"a"]), "test_ids": np.array(["x", "ü", "z"])}
    arrays = whole() | {
        "train_labels": np.array([0, 1, 2, 2, 1, 0], np.uint64),
        "class_names": [b"cat", b"dog", b"owl"],
    }
    dataset = load(write(tmp_path, **arrays, **ids))
    assert dataset.train.ids.tolist() == ["a", "f", "b", "e", "c", "d"] and dataset.class_names == ("cat", "dog", "owl")
    assert dataset.train.ids.dtype.kind == "U" and dataset.train.labels.dtype == np.int32


# Bad input


def test_files_that_are_not_npz(tmp_path):
    assert f"no file {tmp_path}/none.npz" in message(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    assert "no file" in message(tmp_path / "folder.npz")
    for content in (b"", b"text", pickle.dumps({"train_labels": 1}), b"PK\x03\x04" + 50 * b"x"):
        (tmp_path / "bad.npz").write_bytes(content)
        assert "cannot be read as .npz" in message(tmp_path / "bad.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    assert "cannot be read as .npz" in message(tmp_path / "one.npz")
    path = pathlib.Path(write(tmp_path, **whole()))
    content = bytearray(path.read_bytes())
    start = content.index(whole()["train_features"].tobytes())
    content[start : start + 8] = b"\0" * 8
    path.write_bytes(content)
    assert "train_features cannot be read" in message(path) and "CRC" in message(path)


def test_python_objects_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'trapped')!r}, 'w')",)

    arrays = whole() | {"train_labels": np.array([Trap()] * 6, object)}
    assert "train_labels holds Python objects" in message(write(tmp_path, **arrays))
    assert not (tmp_path / "trapped").exists()


NAN = np.float32("nan")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_features": None}, "has no train_images; it has test_features, test_labels, train_labels; expected"),
        ({"test_features": None}, "has no test_features"),
        ({"test_labels": None}, "has no test_labels"),
        ({"test_images": np.zeros((3, 1, 1, 1), np.uint8)}, "has both test_images and test_features"),
        ({"train_features": np.zeros((6, 5))}, "train_features are float64 [6, 5]; expected float32 [N, D]"),
        ({"train_features": np.zeros((6, 5, 1), np.float32)}, "train_features are float32 [6, 5, 1]"),
        ({"train_features": np.zeros((5, 5), np.float32)}, "train_features has 5 rows for 6 labels"),
        ({"train_features": np.zeros((6, 0), np.float32)}, "no dimension of length 0"),
        ({"test_features": np.zeros((3, 4), np.float32)}, "features have shape (5,) in train and (4,) in test"),
        (
            {"test_features": np.float32([[0] * 5, [NAN] * 5, [np.inf] * 5])},
            "not finite (2): test_features[1], test_features[2]",
        ),
        ({"test_features": np.float32([[0] * 5, [-np.inf] * 5, [0] * 5])}, "not finite (1): test_features[1]"),
        ({"train_labels": np.zeros(6)}, "train_labels are float64 [6]; expected integers [N]"),
        ({"train_labels": np.zeros(6, bool)}, "train_labels are bool"),
        ({"train_labels": np.zeros((6, 1), int)}, "train_labels are int64 [6, 1]"),
        ({"test_labels": np.zeros(0, int)}, "test_labels are empty"),
        ({"train_labels": np.array([0, 1, 2, 2, 1, -1])}, "range of train_labels (1): train_labels[5] is -1"),
        ({"train_labels": np.array([0, 1, 2, 2, 1, 10**12])}, "train_labels go up to 1000000000000 with 6 rows"),
        (
            {"train_labels": np.array([0, 1, 3, 3, 1, 0]), "num": 4},
            "class '2' has no training images; expected more than dataset.validation_per_class=0 in each class",
        ),
        (
            {"test_labels": np.array([0, 3, 1])},
            "labels outside 0 to 2, the range of train_labels (1): test_labels[1] is 3",
        ),
        (
            {"class_names": ["a", "b"], "num": 2},
            "range of class_names (3): test_labels[0] is 2, train_labels[2] is 2, train_labels[3] is 2",
        ),
        ({"class_names": ["a", "b", "a"]}, "class_names has 'a' more than once"),
        ({"class_names": np.arange(3)}, "class_names are not a list of text"),
        ({"class_names": np.array([b"\xff", b"b", b"c"])}, "class_names are not a list of text"),
        ({"class_names": ["a", "b", "c", "d"], "num": 4}, "class 'd' has no training images"),
        ({"test_ids": ["a", "b"]}, "test_ids are not 3 texts or integers"),
        ({"test_ids": np.zeros(3)}, "test_ids are not 3 texts or integers"),
        ({"test_ids": ["a", "b", "a"]}, "duplicate ids (1): test_ids[2] is a"),
        ({"test_ids": ["a", "train_00004", "b"]}, "duplicate ids (1): train_ids[4] is train_00004"),
        ({"num": 5}, "update.schedule needs 5 classes, but"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, changes, expected):
    num_classes = changes.pop("num", 3) if "num" in changes else 3
    arrays = {key: value for key, value in (whole() | changes).items() if value is not None}
    path = write(tmp_path, **arrays)
    with pytest.raises(InputError) as caught:
        load(path, num_classes)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_images_that_do_not_fit(tmp_path):
    for images in (np.zeros((6, 4, 3, 1), np.float32), np.zeros((6, 4, 3), np.uint8)):
        text = message(write(tmp_path, **(whole("images") | {"train_images": images})))
        assert f"train_images are {images.dtype}" in text and "expected uint8 [N, H, W, C]" in text
    text = message(write(tmp_path, **(whole("images") | {"train_images": np.zeros((6, 3, 8, 8), np.uint8)})))
    assert "which looks like channels first; expected [N, H, W, C]: use transpose(0, 2, 3, 1)" in text


def test_chosen_classes_without_test_examples(tmp_path):
    path = write(tmp_path, **(whole() | {"test_labels": np.array([0, 0, 0])}))
    assert "test_labels of" in message(path, class_order="2,1", num_classes=2)


@pytest.mark.parametrize(
    ("changes", "lost", "what"),
    [
        ({"train_labels": np.array([0, 1, 2, 2, 1, -1])}, "train_00005", "labels outside 0 to 2"),
        ({"test_features": np.float32([[0] * 5, [NAN] * 5, [1] * 5])}, "test_00001", "rows with values that are not"),
        ({"train_ids": ["a", "b", "c", "d", "c", "e"]}, None, "duplicate ids"),
        ({"train_ids": ["a", "test_00001", "c", "d", "f", "e"]}, None, "duplicate ids"),
    ],
)
def test_faulty_rows_are_skipped_and_counted_on_request(tmp_path, changes, lost, what):
    right = load(write(tmp_path, **whole()))
    dataset = load(write(tmp_path, **(whole() | changes)), on_bad_image="skip")
    finding = next(finding for finding in dataset.findings if finding.what.startswith(what))
    assert len(finding.names) == 1 and finding.outcome == "skipped"
    assert len(dataset.train) + len(dataset.test) == 8
    if lost:
        for part in ("train", "test"):
            kept = [i for i, name in enumerate(getattr(right, part).ids) if name != lost]
            np.testing.assert_array_equal(getattr(dataset, part).ids, getattr(right, part).ids[kept])
            np.testing.assert_array_equal(getattr(dataset, part).labels, getattr(right, part).labels[kept])
    assert len({*dataset.train.ids, *dataset.test.ids}) == 8


def test_training_rows_that_are_also_in_test_are_an_error_or_skipped(tmp_path):
    arrays = whole("images")
    arrays["test_images"][1] = arrays["train_images"][4]
    path = write(tmp_path, **arrays)
    assert "training images that are also in test (1): train_00004" in message(path)
    dataset = load(path, on_bad_image="skip")
    assert "train_00004" not in dataset.train.ids and len(dataset.train) == 5 and len(dataset.test) == 3


def test_arrays_cannot_be_resized(tmp_path):
    path = write(tmp_path, **whole("images"))
    assert "dataset.image_size applies to encoded images" in message(path, image_size=(8,))
    assert "dataset.channels applies to encoded images" in message(path, channels=3)
    assert len(load(path, image_size=(4, 3), channels=1).train) == 6


# Malicious archives


def archive(folder, **members):
    """Write an .npz file with these bytes as members, and valid arrays otherwise."""
    path = pathlib.Path(write(folder, **{key: value for key, value in whole().items() if key not in members}))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        for key, content in members.items():
            file.writestr(f"{key}.npy", content)
    return path


def header(shape, dtype):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
    )
    return file.getvalue()


@pytest.mark.parametrize("shape", [(10**15, 5), (2**62, 2**62), (7, 5), (5, 5), (-1, 5)])
def test_headers_that_declare_another_size_than_the_archive_contains_are_refused(tmp_path, shape):
    path = archive(tmp_path, train_features=header(shape, np.float32) + bytes(6 * 5 * 4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "train_features declares" in message(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # kB: nothing of that size is allocated


def test_archives_that_expand_implausibly_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "LARGE", 2**20)
    content = header((2**17, 5), np.float32) + bytes(2**17 * 5 * 4)
    path = archive(tmp_path, train_features=content)
    assert path.stat().st_size < 2**15
    assert "train_features expands from" in message(path)
    monkeypatch.setattr(npz, "LARGE", 2**30)
    assert "train_features has 131072 rows for 6 labels" in message(path)  # small enough to be read


def test_members_that_are_not_arrays_or_have_paths_as_names(tmp_path):
    assert "train_features cannot be read" in message(archive(tmp_path, train_features=b"text"))
    path = archive(tmp_path, train_labels=header((6,), "O") + pickle.dumps([0, 1, 2]))
    assert "train_labels holds Python objects" in message(path)
    escape = archive(tmp_path, **{"../../escaped": header((1,), np.int8) + b"x"})
    assert len(load(escape).train) == 6  # names of members are not used as paths
    assert {file.name for file in tmp_path.rglob("*")} == {"file.npz"} and not (tmp_path.parent / "escaped").exists()


# Programs


def test_programs(tmp_path):
    text = (
        "import numpy as np\n"
        "def get_dataset(data_dir):\n"
        "    arrays = np.load(data_dir + '/file.npz')\n"
        "    return {**arrays, 'class_names': ['cat', 'dog', 'owl']}\n"
    )
    (tmp_path / "pets.py").write_text(text)
    expected = load(write(tmp_path, **whole()))
    dataset = load(tmp_path / "pets.py", data_dir=str(tmp_path), class_order=["owl", "..."])
    assert dataset.class_names == ("owl", "cat", "dog")
    assert sorted(dataset.train.ids) == sorted(expected.train.ids)
    for text, word in [
        ("def get_dataset(", "SyntaxError"),
        ("x = 1", "bad.py has no function get_dataset"),
        ("def get_dataset(data_dir):\n    return 1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def get_dataset(data_dir):\n    return None", "returned NoneType; expected a dict"),
        ("def get_dataset(data_dir):\n    return {'train_labels': [0.5]}", "train_labels are float64"),
        ("def get_dataset(data_dir):\n    return {'train_images': [[1], [2, 3]]}", "ValueError"),
    ]:
        (tmp_path / "bad.py").write_text(text)
        assert word in message(tmp_path / "bad.py")
    assert "no file" in message(tmp_path / "none.py")


def test_the_program_in_the_documentation_is_short_and_works(tmp_path, monkeypatch):
    program = re.search(r"```python\n(# pets\.py\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len(program.splitlines()) <= 20
    (tmp_path / "pets.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    dataset = load("pets.py", 10, class_order=["7", "..."], validation_per_class=5)
    assert dataset.class_names[:2] == ("7", "0") and dataset.train.images.shape[1:] == (8, 8, 1)
    raw = load_digits()
    rows = dataset.test.ids.astype(int)
    np.testing.assert_array_equal(np.array(dataset.class_names, int)[dataset.test.labels], raw.target[rows])
