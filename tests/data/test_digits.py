import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from load_dataset import load
from sklearn.datasets import load_digits

from mpt_jax.data import digits

LOAD = """
import socket, sys
def no_network(*args, **kwargs):
    raise OSError("no network in this test")
socket.socket.connect = socket.getaddrinfo = no_network
from mpt_jax import data
data = data.load(data.DatasetConfig("digits", sys.argv[1]), num_classes=10)
assert len(data.train) + len(data.test) == 1797
assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
"""


def run(folder, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


@pytest.fixture(scope="module")
def data(digits_dir):
    return load(data_dir=digits_dir)


def test_images_labels_and_ids_match_scikit_learn(data):
    raw = load_digits()
    seen = []
    for split in (data.train, data.test):
        index = np.array([int(name.removeprefix("digits_")) for name in split.ids])
        np.testing.assert_array_equal(split.labels, raw.target[index])
        np.testing.assert_array_equal(split.images[..., 0], np.floor(raw.images[index] / 16 * 255 + 0.5))
        seen.append(index)
    assert sorted(np.concatenate(seen)) == list(range(1797))
    assert data.train.images.dtype == np.uint8 and data.train.images.shape[1:] == (8, 8, 1)
    assert data.train.images.max() == 255
    assert data.class_names == tuple("0123456789")


def test_test_images_are_by_other_writers_and_classes_are_balanced(data):
    assert max(data.train.ids) < min(data.test.ids)
    assert len(data.train) == digits.NUM_TRAIN
    assert np.bincount(data.train.labels).min() >= 51
    assert np.bincount(data.test.labels).min() >= 120
    # Every writer begins with three times 0 .. 9, and so does the test part.
    target = load_digits().target
    start = np.tile(np.arange(10), 3)
    np.testing.assert_array_equal(target[:30], start)
    np.testing.assert_array_equal(target[digits.NUM_TRAIN :][:30], start)


def test_no_image_occurs_twice(data):
    train, test = ({image.tobytes() for image in split.images} for split in (data.train, data.test))
    assert len(train) == len(data.train) and len(test) == len(data.test)
    assert not train & test


def test_tfds_knows_the_builder_by_name(digits_dir):
    source = tfds.data_source("digits", data_dir=digits_dir, split="test")
    assert len(source) == 1797 - digits.NUM_TRAIN
    assert set(source[0]) == {"id", "image", "label"}


@pytest.mark.slow
@pytest.mark.ci
def test_processes_prepare_the_default_folder_concurrently_without_output_network_or_tensorflow(tmp_path):
    processes = [run("", TFDS_DATA_DIR=str(tmp_path / "new/folder")) for _ in range(2)]
    results = [(*process.communicate(), process.returncode) for process in processes]
    assert results == [("", "", 0)] * 2
    assert os.listdir(tmp_path / "new/folder/digits") == ["1.0.0"]
