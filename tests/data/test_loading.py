"""The steps from a config section to the parts of a data set, on the digits."""

import functools

import load_dataset
import numpy as np
import pytest
from sklearn.datasets import load_digits

from mpt_jax.data import splits


@pytest.fixture
def load(digits_dir):
    return functools.partial(load_dataset.load, data_dir=digits_dir)


def parts(data):
    return data.train, data.validation, data.test


def source_index(split):
    return np.array([int(name.removeprefix("digits_")) for name in split.ids], int)


def test_validation_is_drawn_from_every_class_of_train_and_parts_do_not_overlap(load):
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
def test_a_release_is_a_prefix_and_does_not_depend_on_later_classes(load, num_classes):
    options = {"class_order": "seed:3", "validation_per_class": 10, "train_per_class": 25}
    whole, release = load(**options), load(num_classes=num_classes, **options)
    assert release.class_names == whole.class_names[:num_classes]
    for split, prefix in zip(parts(whole), parts(release), strict=True):
        end = splits.count(split, num_classes)
        assert end == len(prefix) == int((split.labels < num_classes).sum())
        for name in ("images", "labels", "ids"):
            np.testing.assert_array_equal(getattr(split, name)[:end], getattr(prefix, name))


def test_classes_that_are_not_listed_do_not_exist(load):
    data = load(class_order="8,2,5", num_classes=3)
    assert data.class_names == ("8", "2", "5")
    target = load_digits().target
    assert (
        sorted(source_index(data.train).tolist() + source_index(data.test).tolist())
        == np.flatnonzero(np.isin(target, [2, 5, 8])).tolist()
    )


def test_the_draw_depends_on_seed_and_class_only(load):
    first = load(validation_per_class=20, seed=4)
    assert set(first.validation.ids) == set(load(validation_per_class=20, seed=4, class_order="seed:9").validation.ids)
    other = set(load(validation_per_class=20, seed=5).validation.ids)
    assert 0 < len(other & set(first.validation.ids)) < 200


def test_train_per_class_limits_the_images_that_validation_leaves(load):
    small, large, whole = (load(validation_per_class=20, train_per_class=n) for n in (10, 30, 0))
    np.testing.assert_array_equal(np.bincount(small.train.labels), [10] * 10)
    np.testing.assert_array_equal(np.bincount(large.train.labels), [30] * 10)
    assert set(small.train.ids) < set(large.train.ids) < set(whole.train.ids)
    np.testing.assert_array_equal(small.validation.ids, whole.validation.ids)
    assert len(load(train_per_class=1000).train) == len(load().train)  # a maximum


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_classes": 11}, "update.schedule needs 11 classes, but digits has 10 in its class order"),
        (
            {"num_classes": 4, "class_order": [1, 2, 3]},
            "needs 4 classes, but digits has 3 in its class order (dataset.class_order); expected 1 to 3",
        ),
        ({"validation_per_class": 51}, "class '4' has 51 training images (and 4 more classes"),
        ({"imbalance": 100.0}, "dataset.imbalance=100 leaves no training images of class '9'; expected at most 53"),
        ({"class_order": "alphabetic"}, "dataset.class_order"),
        ({"data_dir": "/no/such/folder"}, "dataset.data_dir=/no/such/folder is not a folder"),
    ],
)
def test_settings_that_do_not_fit(digits_dir, options, expected):
    assert expected in load_dataset.load_error(**({"data_dir": digits_dir} | options))


def test_imbalance_gives_a_long_tail_in_the_class_order(load):
    data = load(imbalance=10.0, class_order="seed:7", validation_per_class=10)
    counts = np.bincount(data.train.labels)
    assert counts[0] > 40 and counts[-1] == 4 and np.all(np.diff(counts) <= 0)
    assert np.bincount(data.test.labels).min() > 100
