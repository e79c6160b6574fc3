import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from mpt_jax.data import sources, splits
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


def message(*args, **kwargs):
    with pytest.raises(InputError) as caught:
        sources.load(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def load(digits_dir):
    return lambda **options: sources.load("digits", **({"data_dir": digits_dir, "num_classes": 10} | options))


def parts(data):
    return data.train, data.validation, data.test


def source_index(split):
    return np.array([int(name.removeprefix("digits_")) for name in split.ids], int)


# Reading


def test_validation_is_cut_from_every_class_of_train_and_nothing_overlaps(load):
    whole, data = load(), load(validation_per_class=20)
    assert len(whole.validation) == 0 and whole.validation.images.shape == (0, 8, 8, 1)
    np.testing.assert_array_equal(np.bincount(data.validation.labels), [20] * 10)
    np.testing.assert_array_equal(np.bincount(data.train.labels), np.bincount(whole.train.labels) - 20)
    np.testing.assert_array_equal(data.test.ids, whole.test.ids)
    ids = [set(split.ids) for split in parts(data)]
    pixels = [{image.tobytes() for image in split.images} for split in parts(data)]
    for sets in (ids, pixels):
        assert sum(map(len, sets)) == len(set.union(*sets)) == 1797
    assert set(data.train.ids) | set(data.validation.ids) == set(whole.train.ids)


@pytest.mark.parametrize("spec", ["seed:7", (3, 1, 4, 0, 5, 9, 2, 6, 8, 7), "9, 8, 7, 6, 5, 4, 3, 2, 1, 0"])
def test_labels_are_positions_in_the_class_order(load, spec):
    data, raw = load(class_order=spec, validation_per_class=5), load_digits()
    assert sorted(data.class_names) == list("0123456789") != list(data.class_names)
    for split in parts(data):
        index = source_index(split)
        digit = np.array([int(data.class_names[label]) for label in split.labels])
        np.testing.assert_array_equal(digit, raw.target[index])
        np.testing.assert_array_equal(split.images[..., 0], np.floor(raw.images[index] / 16 * 255 + 0.5))
        assert split.labels.dtype == np.int32 and split.images.dtype == np.uint8
    if spec == "seed:7":
        assert [int(name) for name in data.class_names] == np.random.RandomState(7).permutation(10).tolist()


def test_examples_are_sorted_by_label_then_by_id(load):
    for split in parts(load(class_order="seed:1", validation_per_class=9, train_per_class=30)):
        keys = list(zip(split.labels.tolist(), split.ids.tolist(), strict=True))
        assert keys == sorted(keys)


@pytest.mark.parametrize("num_classes", [1, 5, 10])
def test_a_release_is_a_prefix_and_the_same_whatever_comes_after_it(load, num_classes):
    options = {"class_order": "seed:3", "validation_per_class": 10, "train_per_class": 25}
    whole, release = load(**options), load(num_classes=num_classes, **options)
    assert release.class_names == whole.class_names[:num_classes]
    for split, prefix in zip(parts(whole), parts(release), strict=True):
        end = splits.count(split, num_classes)
        assert end == len(prefix) == int((split.labels < num_classes).sum())
        for name in ("images", "labels", "ids"):
            np.testing.assert_array_equal(getattr(split, name)[:end], getattr(prefix, name))


def test_classes_left_out_of_the_list_do_not_exist(load):
    data = load(class_order="8,2,5", num_classes=3)
    assert data.class_names == ("8", "2", "5")
    target = load_digits().target
    assert (
        sorted(source_index(data.train).tolist() + source_index(data.test).tolist())
        == np.flatnonzero(np.isin(target, [2, 5, 8])).tolist()
    )


def test_the_draw_depends_on_the_seed_and_the_class_only(load):
    first = load(validation_per_class=20, seed=4)
    assert set(first.validation.ids) == set(load(validation_per_class=20, seed=4, class_order="seed:9").validation.ids)
    other = set(load(validation_per_class=20, seed=5).validation.ids)
    assert 0 < len(other & set(first.validation.ids)) < 200


def test_train_per_class_limits_what_validation_leaves(load):
    small, large, whole = (load(validation_per_class=20, train_per_class=n) for n in (10, 30, 0))
    np.testing.assert_array_equal(np.bincount(small.train.labels), [10] * 10)
    np.testing.assert_array_equal(np.bincount(large.train.labels), [30] * 10)
    assert set(small.train.ids) < set(large.train.ids) < set(whole.train.ids)
    np.testing.assert_array_equal(small.validation.ids, whole.validation.ids)
    assert len(load(train_per_class=1000).train) == len(load().train)  # at most so many


def test_colour_jpegs_and_missing_ids(tmp_path):
    colour = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
    red, lime, blue, grey = (
        {"image": picture(name, mode="RGB", kind="JPEG"), "label": 1} for name in ("red", "lime", "blue", "grey")
    )
    make(tmp_path, {"image": colour, "label": LABEL}, train=[red, lime, blue], test=[grey])
    data = sources.load("fake", data_dir=tmp_path, num_classes=1, class_order=["dog"])
    assert data.train.images.shape == (3, 4, 6, 3)
    assert {tuple((image[0, 0] > 127).tolist()) for image in data.train.images} == {
        (True, False, False),
        (False, True, False),
        (False, False, True),
    }
    assert data.train.ids.tolist() == ["train_00000", "train_00001", "train_00002"]
    assert data.test.ids.tolist() == ["test_00000"]


# Bad input


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_classes": 11}, "update.schedule wants 11 classes, but data set digits has 10"),
        (
            {"num_classes": 4, "class_order": [1, 2, 3]},
            "wants 4 classes, but data set digits has 3 in this class order",
        ),
        ({"validation_per_class": 51}, "class '4' has 51 training images (and 4 other classes"),
        ({"validation_per_class": -1}, "dataset.validation_per_class=-1"),
        ({"train_per_class": -1}, "dataset.train_per_class=-1"),
        ({"class_order": "alphabetic"}, "dataset.class_order"),
        ({"data_dir": "/no/such/folder"}, "dataset.data_dir=/no/such/folder is not a folder"),
    ],
)
def test_options_that_do_not_fit(digits_dir, options, expected):
    assert expected in message("digits", **({"data_dir": digits_dir, "num_classes": 10} | options))


def test_unknown_names(tmp_path):
    assert "cifar100" in (text := message("cifra100", data_dir=tmp_path, num_classes=10)) and "did you mean" in text
    assert "'digits' or a name in TFDS" in message("zzzzzz", data_dir=tmp_path, num_classes=10)
    assert "dataset.name='cifar100:9.9.9'" in message("cifar100:9.9.9", data_dir=tmp_path, num_classes=10)
    assert "dataset.name=''" in message("", data_dir=tmp_path, num_classes=10)
    assert not list(tmp_path.iterdir())


def test_without_tensorflow_the_error_says_what_to_install_or_to_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    text = message("cifar100", data_dir=tmp_path, num_classes=100)
    assert str(tmp_path) in text and "pip install 'mpt_jax[prepare]'" in text
    assert "--config.dataset.data_dir=DIR" in text and "cifar100/3.0.2" in text
    assert not list(tmp_path.iterdir())


def test_with_tensorflow_it_is_prepared_as_array_record_and_a_failure_is_one_line(tmp_path, monkeypatch):
    calls = []

    def offline(self, **options):
        calls.append(options["file_format"])
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", offline)
    text = message("cifar100", data_dir=tmp_path, num_classes=100)
    assert "cannot prepare data set cifar100" in text and "no route to host" in text
    assert calls == ["array_record"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "digits").write_text("a file in the way")
    text = message("digits", data_dir=tmp_path, num_classes=10)
    assert f"cannot prepare data set digits in {tmp_path}" in text and "--config.dataset.data_dir=DIR" in text
    assert (tmp_path / "digits").read_text() == "a file in the way"


def test_another_process_that_finishes_first_is_no_error(digits_dir, tmp_path, monkeypatch):
    def late(self, **options):
        shutil.copytree(digits_dir / "digits", tmp_path / "digits")
        raise FileExistsError("already there")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", late)
    assert len(sources.load("digits", data_dir=tmp_path, num_classes=10).train) == 516


def test_damaged_and_incomplete_copies(digits_dir, tmp_path):
    shutil.copytree(digits_dir, tmp_path, dirs_exist_ok=True)
    shard = tmp_path / "digits/1.0.0/digits-test.array_record-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:70_000])
    assert "incomplete or damaged" in message("digits", data_dir=tmp_path, num_classes=10)
    shard.unlink()
    assert "incomplete or damaged" in message("digits", data_dir=tmp_path, num_classes=10)
    (tmp_path / "digits/1.0.0/dataset_info.json").unlink()
    assert "has no split 'train'; it has none" in message("digits", data_dir=tmp_path, num_classes=10)


def test_files_that_cannot_be_read_at_random(digits_dir, tmp_path):
    shutil.copytree(digits_dir, tmp_path, dirs_exist_ok=True)
    info = tmp_path / "digits/1.0.0/dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    assert "was prepared as tfrecord" in message("digits", data_dir=tmp_path, num_classes=10)


def test_features_that_do_not_fit(tmp_path):
    one = {"train": [{"picture": picture(0), "label": 0}]}
    make(tmp_path, {"picture": GREY, "label": LABEL}, name="unnamed", **one)
    text = message("unnamed", data_dir=tmp_path, num_classes=2)
    assert "no feature 'image' of kind Image; it has label (ClassLabel), picture (Image)" in text

    one = {"train": [{"image": picture(0), "label": "cat"}]}
    make(tmp_path, {"image": GREY, "label": TEXT}, name="wordy", **one)
    assert "no feature 'label' of kind ClassLabel" in message("wordy", data_dir=tmp_path, num_classes=2)

    one = {"train": [{"image": picture(0, mode="I;16"), "label": 0}]}
    deep = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png")
    make(tmp_path, {"image": deep, "label": LABEL}, name="deep", **one)
    assert "are uint16 with 1 channels; expected uint8" in message("deep", data_dir=tmp_path, num_classes=2)


def test_splits_and_images_that_do_not_fit(tmp_path):
    features = {"image": GREY, "label": LABEL}
    make(tmp_path, features, name="untested", train=pets()["train"])
    assert "has no split 'test'; it has train" in message("untested", data_dir=tmp_path, num_classes=2)

    make(tmp_path, features, name="catless", **pets(train=(1, 1)))
    assert "class 'cat' has no training images" in message("catless", data_dir=tmp_path, num_classes=2)
    make(tmp_path, features, name="blind", **pets(test=(1, 1)))
    assert "split 'test' of data set blind has no images" in message("blind", data_dir=tmp_path, num_classes=1)

    uneven = pets()
    uneven["train"][1]["image"] = picture(5, size=(4, 7))
    make(tmp_path, features, name="uneven", **uneven)
    assert "differ in size, such as (4, 6) and (4, 7)" in message("uneven", data_dir=tmp_path, num_classes=2)


def test_images_of_many_sizes_and_kinds_come_to_one(tmp_path):
    uneven = pets()
    uneven["train"][1]["image"] = picture(5, size=(40, 7))
    make(tmp_path, {"image": GREY, "label": LABEL}, **uneven)
    data = sources.load("fake", data_dir=tmp_path, num_classes=2, image_size=(8,), channels=3)
    assert data.train.images.shape == (3, 8, 8, 3) and data.test.images.shape == (2, 8, 8, 3)
    assert [np.unique(image).tolist() for image in data.train.images] == [[0], [5], [20]]
    with pytest.raises(InputError, match=r"do not fit into memory; give a smaller dataset\.image_size"):
        sources.load("fake", data_dir=tmp_path, num_classes=2, image_size=(2**31,))


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


def test_damaged_images_are_named_or_left_out_and_counted(tmp_path):
    train = [(0, 1, None), (0, 2, 50), (1, 3, 50), (1, 4, None)]
    make(tmp_path, NAMED, **named(train, [(0, 5, None), (1, 6, None)]))
    text = message("fake", data_dir=tmp_path, num_classes=2)
    assert "images that cannot be read (2): train " in text and "dataset.on_bad_image=skip" in text
    data = sources.load("fake", data_dir=tmp_path, num_classes=2, on_bad_image="skip")
    assert data.train.ids.tolist() == ["train 0", "train 3"]
    left_out, kept = data.findings
    assert sorted(name[:7] for name in left_out.names) == ["train 1", "train 2"] and left_out.outcome == "left out"
    assert (kept.what, kept.names) == ("classes with one training image", ("cat", "dog"))


def test_published_images_in_both_parts_are_kept_and_named(tmp_path):
    train = [(0, 1, None), (0, 2, None), (1, 3, None), (1, 4, None)]
    make(tmp_path, NAMED, **named(train, [(0, 2, None), (1, 6, None)]))
    data = sources.load("fake", data_dir=tmp_path, num_classes=2)
    (finding,) = data.findings
    assert (finding.what, finding.names) == ("training images that are also in test", ("train 1",))
    assert finding.outcome == "kept as published" and len(data.train) == 4
    data = sources.load("fake", data_dir=tmp_path, num_classes=2, on_bad_image="skip")
    assert data.train.ids.tolist() == ["train 0", "train 2", "train 3"] and len(data.test) == 2
    assert data.findings[0].outcome == "left out"


# Statistics


@pytest.mark.parametrize("shape", [(1, 3, 5, 3), (2500, 4, 3, 1), (1001, 2, 2, 2)])
def test_statistics_are_those_of_float64_numpy(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images[..., 0] //= 2
    mean, std = sources.statistics(images)
    assert mean.dtype == std.dtype == np.float32 and mean.shape == std.shape == (shape[-1],)
    np.testing.assert_allclose(mean, (images / 255.0).mean((0, 1, 2)), rtol=1e-7)
    np.testing.assert_allclose(std, (images / 255.0).std((0, 1, 2)), rtol=1e-7)


def test_a_constant_channel_has_standard_deviation_one():
    mean, std = sources.statistics(np.full((3, 2, 2, 2), [51, 0], np.uint8))
    np.testing.assert_array_equal(mean, np.float32([0.2, 0.0]))
    np.testing.assert_array_equal(std, np.float32([1.0, 1.0]))
    with pytest.raises(ValueError, match="no images"):
        sources.statistics(np.zeros((0, 2, 2, 1), np.uint8))


# CIFAR-100


@pytest.fixture(scope="module")
def cifar(cifar_dir):
    return sources.load(
        "cifar100", data_dir=cifar_dir, num_classes=100, class_order="seed:1993", validation_per_class=50
    )


def test_cifar_counts_and_parts(cifar):
    assert cifar.train.images.shape == (45_000, 32, 32, 3) and cifar.test.images.shape == (10_000, 32, 32, 3)
    for split, number in zip(parts(cifar), (450, 50, 100), strict=True):
        np.testing.assert_array_equal(np.bincount(split.labels), [number] * 100)
    assert len(set().union(*(split.ids.tolist() for split in parts(cifar)))) == 60_000
    assert splits.count(cifar.train, 50) == 22_500 and splits.count(cifar.test, 50) == 5_000


def test_cifar_has_images_in_both_parts(cifar):
    (finding,) = cifar.findings
    assert finding.outcome == "kept as published" and len(finding.names) == 10
    tested = {image.tobytes() for image in cifar.test.images}
    known = {
        name
        for part in parts(cifar)[:2]
        for name, x in zip(part.ids, part.images, strict=True)
        if x.tobytes() in tested
    }
    assert known == set(finding.names)


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


def test_cifar_statistics_are_the_published_ones(cifar):
    images = np.concatenate([cifar.train.images, cifar.validation.images])
    mean, std = sources.statistics(images)
    np.testing.assert_allclose(mean, [0.5071, 0.4865, 0.4409], atol=1e-4)
    np.testing.assert_allclose(std, [0.2673, 0.2564, 0.2762], atol=1e-4)


def test_data_is_read_without_tensorflow(digits_dir):
    code = (
        "import sys; from mpt_jax.data import sources; "
        "sources.load('digits', data_dir=sys.argv[1], num_classes=2); "
        "assert not [name for name in sys.modules if name.split('.')[0] == 'tensorflow']"
    )
    done = subprocess.run([sys.executable, "-c", code, str(digits_dir)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
