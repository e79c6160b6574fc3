"""TFDS data sets: small fakes with every fault, and CIFAR-100 if it is available."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from load_dataset import load, load_error
from PIL import Image

from mpt_jax import data
from mpt_jax.data import splits, tfds_source
from mpt_jax.errors import InputError

TEXT, LABEL = tfds.features.Text(), tfds.features.ClassLabel(names=["cat", "dog"])
GREY = tfds.features.Image(shape=(None, None, 1))


def picture(color, size=(4, 6), mode="L", kind="PNG"):
    encoded = io.BytesIO()
    Image.new(mode, size[::-1], color).save(encoded, format=kind)
    encoded.seek(0)
    return encoded


def make(folder, features, name="fake", **splits):
    """Prepare a small TFDS data set; its builder is not registered, so it is found by its files alone."""
    methods = {
        "name": name,
        "VERSION": tfds.core.Version("1.0.0"),
        "_info": lambda self: tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features)),
        "_split_generators": lambda self, _: {split: enumerate(examples) for split, examples in splits.items()},
        "_generate_examples": lambda self: None,
    }
    with tfds.core.registered.skip_registration():
        builder = type("Fake", (tfds.core.GeneratorBasedBuilder,), methods)(data_dir=folder)
    builder.download_and_prepare(file_format="array_record")
    return folder


def pets(train=(0, 0, 1), test=(0, 1)):
    return {
        split: [{"image": picture(10 * i), "label": label} for i, label in enumerate(labels)]
        for split, labels in (("train", train), ("test", test))
    }


def test_colour_jpegs_and_missing_ids(tmp_path):
    colour = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
    red, lime, blue, grey = (
        {"image": picture(name, mode="RGB", kind="JPEG"), "label": 1} for name in ("red", "lime", "blue", "grey")
    )
    make(tmp_path, {"image": colour, "label": LABEL}, train=[red, lime, blue], test=[grey])
    data = load("fake", data_dir=tmp_path, num_classes=1, class_order=["dog"])
    assert data.train.images.shape == (3, 4, 6, 3)
    assert {tuple((image[0, 0] > 127).tolist()) for image in data.train.images} == {
        (True, False, False),
        (False, True, False),
        (False, False, True),
    }
    assert data.train.ids.tolist() == ["train_00000", "train_00001", "train_00002"]
    assert data.test.ids.tolist() == ["test_00000"]


def test_unknown_names(tmp_path):
    assert "cifar100" in (text := load_error("cifra100", data_dir=tmp_path)) and "did you mean" in text
    assert "expected dataset.name to be 'digits', another TFDS name" in load_error("zzzzzz", data_dir=tmp_path)
    assert "dataset.name='cifar100:9.9.9'" in load_error("cifar100:9.9.9", data_dir=tmp_path)
    assert "dataset.name=''" in load_error("", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_error_without_tensorflow_says_what_to_install_or_to_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_source.importlib.util, "find_spec", lambda name: None)
    text = load_error("cifar100", data_dir=tmp_path, num_classes=100)
    assert str(tmp_path) in text and "pip install 'mpt_jax[prepare]'" in text
    assert "--config.dataset.data_dir=DIR" in text and "cifar100/3.0.2" in text
    assert not list(tmp_path.iterdir())


def test_data_sets_are_prepared_as_array_record_and_a_failure_is_one_line(tmp_path, monkeypatch):
    calls = []

    def offline(self, **options):
        calls.append(options["file_format"])
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds_source.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", offline)
    text = load_error("cifar100", data_dir=tmp_path, num_classes=100)
    assert "cannot prepare data set cifar100" in text and "no route to host" in text
    assert calls == ["array_record"]


def test_a_folder_that_is_not_writable(tmp_path):
    (tmp_path / "digits").write_text("a file in the way")
    text = load_error("digits", data_dir=tmp_path)
    assert f"cannot prepare data set digits in {tmp_path}" in text and "--config.dataset.data_dir=DIR" in text
    assert (tmp_path / "digits").read_text() == "a file in the way"


def test_another_process_may_finish_preparing_first(digits_dir, tmp_path, monkeypatch):
    def late(self, **options):
        shutil.copytree(digits_dir / "digits", tmp_path / "digits")
        raise FileExistsError("already there")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", late)
    assert len(load("digits", data_dir=tmp_path).train) == 516


def test_damaged_and_incomplete_copies(digits_dir, tmp_path):
    shutil.copytree(digits_dir, tmp_path, dirs_exist_ok=True)
    shard = tmp_path / "digits/1.0.0/digits-test.array_record-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:70_000])
    assert "incomplete or damaged" in load_error("digits", data_dir=tmp_path)
    shard.unlink()
    assert "incomplete or damaged" in load_error("digits", data_dir=tmp_path)
    (tmp_path / "digits/1.0.0/dataset_info.json").unlink()
    assert "has no split 'train'; it has no splits" in load_error("digits", data_dir=tmp_path)


def test_other_file_formats_than_array_record_are_refused(digits_dir, tmp_path):
    shutil.copytree(digits_dir, tmp_path, dirs_exist_ok=True)
    info = tmp_path / "digits/1.0.0/dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    assert "was prepared as tfrecord" in load_error("digits", data_dir=tmp_path)


def test_features_that_do_not_fit(tmp_path):
    one = {"train": [{"picture": picture(0), "label": 0}]}
    make(tmp_path, {"picture": GREY, "label": LABEL}, name="unnamed", **one)
    text = load_error("unnamed", data_dir=tmp_path, num_classes=2)
    assert "has label (ClassLabel), picture (Image); expected a feature 'image' of type Image" in text

    one = {"train": [{"image": picture(0), "label": "cat"}]}
    make(tmp_path, {"image": GREY, "label": TEXT}, name="wordy", **one)
    assert "expected a feature 'label' of type ClassLabel" in load_error("wordy", data_dir=tmp_path, num_classes=2)

    one = {"train": [{"image": picture(0, mode="I;16"), "label": 0}]}
    deep = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png")
    make(tmp_path, {"image": deep, "label": LABEL}, name="deep", **one)
    assert "are uint16 with 1 channels; expected uint8" in load_error("deep", data_dir=tmp_path, num_classes=2)


def test_splits_and_images_that_do_not_fit(tmp_path):
    features = {"image": GREY, "label": LABEL}
    make(tmp_path, features, name="untested", train=pets()["train"])
    assert "has no split 'test'; it has train" in load_error("untested", data_dir=tmp_path, num_classes=2)

    make(tmp_path, features, name="catless", **pets(train=(1, 1)))
    assert "class 'cat' has no training images" in load_error("catless", data_dir=tmp_path, num_classes=2)
    make(tmp_path, features, name="blind", **pets(test=(1, 1)))
    assert "split 'test' of data set blind has no images" in load_error("blind", data_dir=tmp_path, num_classes=1)

    uneven = pets()
    uneven["train"][1]["image"] = picture(5, size=(4, 7))
    make(tmp_path, features, name="uneven", **uneven)
    assert "differ in size, such as (4, 6) and (4, 7)" in load_error("uneven", data_dir=tmp_path, num_classes=2)


def test_images_of_many_sizes_are_resized(tmp_path):
    uneven = pets()
    uneven["train"][1]["image"] = picture(5, size=(40, 7))
    make(tmp_path, {"image": GREY, "label": LABEL}, **uneven)
    data = load("fake", data_dir=tmp_path, num_classes=2, image_size=(8,), channels=3)
    assert data.train.images.shape == (3, 8, 8, 3) and data.test.images.shape == (2, 8, 8, 3)
    assert [np.unique(image).tolist() for image in data.train.images] == [[0], [5], [20]]
    with pytest.raises(InputError, match=r"do not fit in memory; expected a smaller dataset\.image_size"):
        load("fake", data_dir=tmp_path, num_classes=2, image_size=(2**31,), source="memory")


def named(train, test):
    """Examples of the data set "fake" with ids, as preparing shuffles them: label, brightness and where it ends."""
    examples = {"train": train, "test": test}
    return {
        part: [
            {"id": f"{part} {i}", "label": label, "image": io.BytesIO(picture(value).getvalue()[:end])}
            for i, (label, value, end) in enumerate(rows)
        ]
        for part, rows in examples.items()
    }


NAMED = {"id": TEXT, "image": GREY, "label": LABEL}


def test_damaged_images_are_named_or_skipped_and_counted(tmp_path):
    train = [(0, 1, None), (0, 2, 50), (1, 3, 50), (1, 4, None)]
    make(tmp_path, NAMED, **named(train, [(0, 5, None), (1, 6, None)]))
    text = load_error("fake", data_dir=tmp_path, num_classes=2)
    assert "images that cannot be read (2): train " in text and "dataset.on_bad_image=skip" in text
    data = load("fake", data_dir=tmp_path, num_classes=2, on_bad_image="skip")
    assert data.train.ids.tolist() == ["train 0", "train 3"]
    skipped, kept = data.findings
    assert sorted(name[:7] for name in skipped.names) == ["train 1", "train 2"] and skipped.outcome == "skipped"
    assert (kept.what, kept.names) == ("classes with one training image", ("cat", "dog"))


def test_published_images_in_both_parts_are_kept_and_reported(tmp_path):
    train = [(0, 1, None), (0, 2, None), (1, 3, None), (1, 4, None)]
    make(tmp_path, NAMED, **named(train, [(0, 2, None), (1, 6, None)]))
    data = load("fake", data_dir=tmp_path, num_classes=2)
    (finding,) = data.findings
    assert (finding.what, finding.names) == ("training images that are also in test", ("train 1",))
    assert finding.outcome == "kept as published" and len(data.train) == 4
    data = load("fake", data_dir=tmp_path, num_classes=2, on_bad_image="skip")
    assert data.train.ids.tolist() == ["train 0", "train 2", "train 3"] and len(data.test) == 2
    assert data.findings[0].outcome == "skipped"


def test_data_is_read_without_tensorflow(digits_dir):
    code = (
        "import sys; from mpt_jax import data; "
        "data.load(data.DatasetConfig('digits', sys.argv[1]), num_classes=2); "
        "assert not [name for name in sys.modules if name.split('.')[0] == 'tensorflow']"
    )
    done = subprocess.run([sys.executable, "-c", code, str(digits_dir)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# CIFAR-100, which takes twenty seconds to read; .ci/run reads it too, in the smoke run of configs/cifar100.py


@pytest.fixture(scope="module")
def cifar(cifar_dir):
    return load("cifar100", data_dir=cifar_dir, num_classes=100, class_order="seed:1993", validation_per_class=50)


def parts(data):
    return data.train, data.validation, data.test


@pytest.mark.slow
def test_cifar_counts_and_parts(cifar):
    assert cifar.train.images.shape == (45_000, 32, 32, 3) and cifar.test.images.shape == (10_000, 32, 32, 3)
    for split, number in zip(parts(cifar), (450, 50, 100), strict=True):
        np.testing.assert_array_equal(np.bincount(split.labels), [number] * 100)
    assert len(set().union(*(split.ids.tolist() for split in parts(cifar)))) == 60_000
    assert splits.count(cifar.train, 50) == 22_500 and splits.count(cifar.test, 50) == 5_000


@pytest.mark.slow
def test_cifar_has_images_with_several_labels(cifar):
    _, finding = cifar.findings
    assert finding.what == "training images with several labels" and finding.outcome == "kept as published"
    labels_of = {}
    for part in parts(cifar)[:2]:
        for name, image, label in zip(part.ids, part.images, part.labels, strict=True):
            labels_of.setdefault(image.tobytes(), []).append((label, name))
    several = [found for found in labels_of.values() if len({label for label, _ in found}) > 1]
    assert several and {name for found in several for _, name in found} == set(finding.names)


@pytest.mark.slow
def test_cifar_has_images_in_both_parts(cifar):
    finding, _ = cifar.findings
    assert finding.outcome == "kept as published" and len(finding.names) == 10
    tested = {image.tobytes() for image in cifar.test.images}
    known = {
        name
        for part in parts(cifar)[:2]
        for name, x in zip(part.ids, part.images, strict=True)
        if x.tobytes() in tested
    }
    assert known == set(finding.names)


@pytest.mark.slow
def test_cifar_images_and_class_order_are_those_of_tfds(cifar, cifar_dir):
    builder = tfds.builder("cifar100", data_dir=cifar_dir)
    names = builder.info.features["label"].names
    order = np.random.RandomState(1993).permutation(100)
    assert cifar.class_names == tuple(names[index] for index in order)
    where = {name: (split, i) for split in parts(cifar) for i, name in enumerate(split.ids)}
    for part in ("train", "test"):
        source = builder.as_data_source(split=part)
        for example in source.__getitems__(list(range(0, len(source), 500))):
            split, i = where[example["id"].decode()]
            np.testing.assert_array_equal(split.images[i], example["image"])
            assert cifar.class_names[split.labels[i]] == names[example["label"]]
            assert (split is cifar.test) == (part == "test")


@pytest.mark.slow
def test_cifar_statistics_are_the_published_ones(cifar):
    images = np.concatenate([cifar.train.images, cifar.validation.images])
    mean, std = data.statistics(images)
    np.testing.assert_allclose(mean, [0.5071, 0.4865, 0.4409], atol=1e-4)
    np.testing.assert_allclose(std, [0.2673, 0.2564, 0.2762], atol=1e-4)
