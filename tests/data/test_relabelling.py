"""Data with labels of an older release, against labels that are changed by hand."""

import numpy as np
import pytest

from mpt_jax import data
from mpt_jax.data.relabelling import corrected, relabelled
from mpt_jax.data.splits import Parts, Source, Split
from mpt_jax.errors import InputError
from mpt_jax.files.class_changes import LabelChanges

NAMES = ["tabby", "car", "disk", "siamese", "owl"]
BECOMES = {"tabby": ("cat",), "car": ("automobile",), "disk": (), "siamese": ("cat",), "owl": ("owl",)}


def split(labels, prefix, order):
    """Return examples of these classes whose pixel is their number, sorted as a source has them."""
    labels = np.array(labels)
    ids = np.array([f"{prefix}{i:02d}" for i in range(len(labels))])
    position = np.array([order.index(k) if k in order else -1 for k in labels], np.int32)
    rows = np.flatnonzero(position >= 0)
    rows = rows[np.lexsort((ids[rows], position[rows]))]
    return Split(np.arange(len(labels), dtype=np.float32)[rows, None], position[rows], ids[rows])


def source(names=NAMES, train=(3, 0, 1, 2, 4, 0, 3, 1), test=(2, 0, 3, 4, 2)):
    return Source(
        names, lambda order: Parts(split(train, "a", order), split(test, "b", order), {}, (), split((0, 4), "v", order))
    )


def test_labels_become_those_of_the_new_release_and_retired_images_are_counted():
    new = relabelled(source(), BECOMES, "pets")
    assert new.class_names == ("cat", "automobile", "owl")
    parts = new.read((2, 0, 1))  # owl, cat, automobile
    assert list(zip(parts.train.labels.tolist(), parts.train.ids.tolist(), strict=True)) == [
        *((0, "a04"), (1, "a00"), (1, "a01"), (1, "a05"), (1, "a06"), (2, "a02"), (2, "a07"))
    ]
    assert parts.train.images[:, 0].tolist() == [4, 0, 1, 5, 6, 2, 7] and parts.train.labels.dtype == np.int32
    assert parts.test.ids.tolist() == ["b03", "b01", "b02"] and parts.validation.labels.tolist() == [0, 1]
    found = {finding.what: (finding.names, finding.outcome) for finding in parts.findings}
    assert found["training images of retired classes"] == (("a03",), "left out")
    assert found["test images of retired classes"] == (("b00", "b04"), "left out")
    assert found["test images with labels of the old release"] == (("b01", "b02"), "relabelled")
    assert "validation images of retired classes" not in found


def test_a_label_of_the_new_release_stays_as_it_is():
    # Here "cat" keeps the name of a class that was wider before, and the data already have the new labels.
    names = ["cat", "kitten", "dog"]
    becomes = {"cat": ("cat", "kitten"), "dog": ("dog",)}
    new = relabelled(source(names, (0, 1, 2), (0, 1, 2)), becomes, "pets")
    assert new.class_names == tuple(names)
    parts = new.read((0, 1, 2))
    assert parts.train.labels.tolist() == [0, 1, 2] and not parts.findings


def test_new_classes_and_those_outside_the_order_are_read_as_before():
    names = [*NAMES, "fox"]
    new = relabelled(source(names, (5, 0, 3, 1, 4), (0, 5, 1, 4)), BECOMES, "pets")
    assert new.class_names == ("cat", "automobile", "owl", "fox")
    parts = new.read((3, 0))
    assert parts.train.ids.tolist() == ["a00", "a01", "a02"] and parts.train.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("names", "becomes", "words"),
    [
        (["dog"], {"dog": ("puppy", "adult")}, ["class 'dog'", "splits into 'puppy', 'adult'", "labels of these"]),
        (["car"], {"car": ("car",), "owl": ("owl",)}, ["no class 'owl'", "'owl' stays", "'owl' in retire"]),
        (["auto"], {"car": ("automobile",)}, ["no class 'automobile'", "'car' becomes", "auto"]),
    ],
)
def test_data_that_do_not_fit_are_refused(names, becomes, words):
    with pytest.raises(InputError) as caught:
        relabelled(source(names, (0,), (0,)), becomes, "pets")
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_relabelling_is_what_a_data_set_with_changed_labels_gives(features_file, tmp_path):
    arrays = dict(np.load(features_file))
    parity = {f"{part}_labels": arrays[f"{part}_labels"] % 2 for part in ("train", "test")}
    np.savez(tmp_path / "hand.npz", **{**arrays, **parity, "class_names": ["even", "odd"]})
    becomes = {f"digit {k}": (("even", "odd")[k % 2],) for k in range(10)}
    options = {"validation_per_class": 7, "train_per_class": 30}
    ours = data.load(data.DatasetConfig(str(features_file), **options), num_classes=2, becomes=becomes)
    by_hand = data.load(data.DatasetConfig(str(tmp_path / "hand.npz"), **options), num_classes=2)
    assert ours.class_names == by_hand.class_names == ("even", "odd")
    for part in data.PARTS:
        for key in ("images", "labels", "ids"):
            np.testing.assert_array_equal(getattr(getattr(ours, part), key), getattr(getattr(by_hand, part), key))


def changes(*rows):
    ids, former, now = zip(*rows, strict=True)
    return LabelChanges("fixes.csv", list(ids), list(former), list(now))


def test_corrected_labels_count_whichever_label_the_data_have():
    # a00 is a tabby, in the data "cat"; a04 an owl, and the data already have the corrected label.
    new = relabelled(source(), BECOMES, "pets")
    rows = (("a00", "tabby", "owl"), ("a04", "cat", "owl"), ("b02", "siamese", "automobile"), ("z", "owl", "cat"))
    parts = corrected(new, changes(*rows), BECOMES, "pets").read((0, 1, 2))
    assert list(zip(parts.train.ids.tolist(), parts.train.labels.tolist(), strict=True)) == [
        *(("a01", 0), ("a05", 0), ("a06", 0), ("a02", 1), ("a07", 1), ("a00", 2), ("a04", 2))
    ]
    assert parts.train.images[:, 0].tolist() == [1, 5, 6, 2, 7, 0, 4]
    assert parts.test.ids.tolist() == ["b01", "b02", "b03"] and parts.test.labels.tolist() == [0, 1, 2]
    assert parts.corrected == {"b02": "siamese"}
    found = {finding.what: (finding.names, finding.outcome) for finding in parts.findings}
    assert found["training images with corrected labels"] == (("a00", "a04"), "the corrected label counts")
    assert found["rows of fixes.csv for images that are not read"] == (("z",), "ignored")


def test_corrections_from_and_to_a_retired_class_count_as_in_the_gate():
    # a03, b00 and b04 are disks; a03 and b00 were never any. b02 is one, and was taken for a siamese. a02 gets the name
    # that its class had before.
    rows = (("a03", "disk", "owl"), ("b00", "disk", "tabby"), ("b02", "siamese", "disk"), ("a02", "owl", "car"))
    of_files = changes(*rows)
    parts = corrected(relabelled(source(), BECOMES, "pets", of_files), of_files, BECOMES, "pets").read((0, 1, 2))
    assert list(zip(parts.test.ids.tolist(), parts.test.labels.tolist(), strict=True)) == [
        *(("b00", 0), ("b01", 0), ("b03", 2))
    ]
    assert parts.train.ids.tolist() == ["a00", "a01", "a05", "a06", "a02", "a07", "a03", "a04"]
    assert parts.test.images[:, 0].tolist() == [0, 1, 3] and parts.corrected == {"b00": "disk"}
    found = {finding.what: (finding.names, finding.outcome) for finding in parts.findings}
    assert found["test images of retired classes"] == (("b04",), "left out")
    assert found["test images corrected to a retired class"] == (("b02",), "left out")
    assert found["test images with corrected labels"] == (("b00",), "the corrected label counts")
    assert found["training images with corrected labels"][0] == ("a02", "a03")
    # An image whose former label is not the one that it has stays what it is.
    other = changes(("b00", "car", "owl"))
    parts = corrected(relabelled(source(), BECOMES, "pets", other), other, BECOMES, "pets").read((0, 1, 2))
    assert "b00" not in parts.test.ids.tolist()
    wide = {**BECOMES, "dog": ("puppy", "adult")}
    for row, words in ((("a00", "tabby", "dog"), "splits into 'puppy', 'adult'; expected one of these"),):
        with pytest.raises(InputError, match=words):
            corrected(relabelled(source(), BECOMES, "pets"), changes(row), wide, "pets")


def test_images_move_into_and_out_of_the_classes_of_a_run():
    plain = source(["cat", "dog", "owl"], (0, 1, 2, 1), (0, 1))
    rows = (("a02", "owl", "cat"), ("a01", "dog", "owl"))
    parts = corrected(plain, changes(*rows), {}, "pets").read((1, 0))  # dog, cat: owls are not read
    assert parts.train.ids.tolist() == ["a03", "a00", "a02"] and parts.train.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("a00", "tabby", "hound"), ["label 'hound' in fixes.csv", "valid: cat"]),
        (("a00", "lion", "cat"), ["label 'lion' in fixes.csv"]),
        (("a00", "owl", "automobile"), ["a00 from 'owl' to 'automobile', but it is 'cat' in pets", "one of both"]),
    ],
)
def test_corrections_that_do_not_fit_are_refused(row, words):
    with pytest.raises(InputError) as caught:
        corrected(relabelled(source(), BECOMES, "pets"), changes(row), BECOMES, "pets").read((0, 1, 2))
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
