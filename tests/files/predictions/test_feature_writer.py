"""Files of features hold what was written, appear completely or not at all, and two of them make a data set."""

import tracemalloc

import load_dataset
import numpy as np
import pytest

from mpt_jax.errors import InputError
from mpt_jax.files.predictions import feature_writer


def write(path, split, labels, classes=("owl", "cat"), width=3, seed=0):
    features = np.random.default_rng(seed).normal(size=(len(labels), width)).astype(np.float32)
    ids = [f"{split}/ü{row}" for row in range(len(labels))]
    labelled = any(label is not None for label in labels)
    with feature_writer.open_writer(path, classes, split=split, labelled=labelled) as add_rows:
        for start in range(0, len(labels), 2):
            rows = slice(start, start + 2)
            add_rows(ids[rows], labels[rows], features[rows])
    return features, ids


def test_arrays_are_named_by_the_split(tmp_path):
    features, ids = write(tmp_path / "a.npz", "val", ["cat", None, "owl", "cat", "cat"])
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert sorted(arrays) == ["class_names", "val_features", "val_ids", "val_labels"]
    assert arrays["val_features"].dtype == np.float32 and arrays["val_features"].flags.c_contiguous
    np.testing.assert_array_equal(arrays["val_features"], features)
    assert arrays["val_ids"].tolist() == ids and arrays["val_labels"].tolist() == ["cat", "", "owl", "cat", "cat"]
    assert arrays["class_names"].tolist() == ["owl", "cat"]  # in the order of the network
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("classes", [("owl", "cat"), ("dog", "cow", "ant")])
def test_two_splits_make_a_data_set(tmp_path, classes):
    train, train_ids = write(tmp_path / "train.npz", "train", ["cat", "cat", "owl", "owl"], classes)
    test, _ = write(tmp_path / "test.npz", "test", ["owl", "cat"], classes, seed=1)
    np.savez(tmp_path / "both.npz", **{**np.load(tmp_path / "train.npz"), **np.load(tmp_path / "test.npz")})
    dataset = load_dataset.load(str(tmp_path / "both.npz"), num_classes=2)
    known = classes == ("owl", "cat")  # the order of the network; otherwise sorted
    assert dataset.class_names == (("owl", "cat") if known else ("cat", "owl"))
    assert dataset.train.ids.tolist() == (train_ids[2:] + train_ids[:2] if known else train_ids)
    np.testing.assert_array_equal(dataset.test.images, test if known else test[::-1])
    np.testing.assert_array_equal(dataset.train.images, np.roll(train, 2, 0) if known else train)


def test_labels_that_no_class_of_the_file_has_are_reported(tmp_path):
    write(tmp_path / "train.npz", "train", ["cat", "cat", "owl", "owl"])
    write(tmp_path / "test.npz", "test", ["owl", "emu", None])
    np.savez(tmp_path / "both.npz", **{**np.load(tmp_path / "train.npz"), **np.load(tmp_path / "test.npz")})
    with pytest.raises(InputError, match=r"not among the 2 names of class_names \(2\): test_labels\[1\] is emu"):
        load_dataset.load(str(tmp_path / "both.npz"), num_classes=2)


def test_an_error_keeps_the_existing_file(tmp_path):
    write(tmp_path / "a.npz", "test", ["cat"])
    before = (tmp_path / "a.npz").read_bytes()
    with (
        pytest.raises(RuntimeError),
        feature_writer.open_writer(tmp_path / "a.npz", ["cat"], split="test", labelled=False) as add_rows,
    ):
        add_rows(["1"], [None], np.zeros((1, 3), np.float32))
        raise RuntimeError
    assert (tmp_path / "a.npz").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_features_are_not_kept_in_memory(tmp_path):
    batch, rows = np.ones((16, 4096), np.float32), 0  # 256 KiB each

    tracemalloc.start()
    with feature_writer.open_writer(tmp_path / "a.npz", ["cat"], split="test", labelled=False) as add_rows:
        for rows in range(0, 4096, 16):  # 64 MiB
            add_rows([str(row) for row in range(rows, rows + 16)], [None] * 16, batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
    assert (tmp_path / "a.npz").stat().st_size > 64 * 2**20
