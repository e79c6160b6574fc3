"""Image files with labels: read, held out for testing, and skipped if they are faulty."""

import shutil

import numpy as np
import pytest
from image_folder import CLASSES, check, load, load_error, outcomes, pets, save


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


def test_new_folders_come_after_the_old_classes(tmp_path):
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
    assert outcomes(dataset) == {"classes without test images": (("ant",), "kept")}
    assert "no class 'wolf'" in load_error(tmp_path, class_order=["wolf", "..."])


def test_held_out_images_stay_held_out_when_images_and_classes_are_added(tmp_path):
    of = pets(tmp_path, (60, 60, 60), test=0)
    first = load(tmp_path, test_fraction=0.3)
    assert check(first, of) == set(of)
    (finding,) = first.findings
    assert finding.outcome == "held out for testing" and "dataset.test_fraction=0.3" in finding.what
    assert sorted(finding.names) == sorted(first.test.ids)
    counts = np.bincount(first.test.labels)
    assert (counts > 5).all() and (counts < 35).all()
    for i in range(60):
        save(tmp_path / f"train/{('dog', 'ant')[i % 2]}/new {i}.png", 500 + i)
    second = load(tmp_path, num_classes=4, test_fraction=0.3)
    assert not {*first.train.ids} & {*second.test.ids} and not {*first.test.ids} & {*second.train.ids}
    shutil.copytree(tmp_path / "train", tmp_path / "elsewhere/train")  # the location does not matter
    np.testing.assert_array_equal(
        load(tmp_path / "elsewhere", num_classes=4, test_fraction=0.3).test.ids, second.test.ids
    )


def test_all_faults_are_named_together_or_skipped_and_counted(tmp_path):
    of = pets(tmp_path, (12, 12, 12))
    for i in range(8):
        (tmp_path / f"train/cat/{i}.jpg").write_bytes(b"text")
    content = (tmp_path / "test/owl/0.png").read_bytes()
    (tmp_path / "test/owl/0.png").write_bytes(content[: len(content) // 2])
    shutil.copy(tmp_path / "test/dog/1.png", tmp_path / "train/dog/copy.png")
    text = load_error(tmp_path)
    assert "images that cannot be read (9): train/cat/0.jpg (not JPEG, PNG, WEBP, BMP, TIFF, GIF" in text
    assert "and 4 more" in text and "training images that are also in test (1): train/dog/copy.png" in text
    assert text.endswith("fix the files, or skip these images with dataset.on_bad_image=skip")
    dataset = load(tmp_path, on_bad_image="skip")
    assert check(dataset, of) == set(of) - {next(n for n in of if of[n] == "owl") + 12}
    found = outcomes(dataset)
    assert {what: (len(names), outcome) for what, (names, outcome) in found.items()} == {
        "images that cannot be read": (9, "skipped"),
        "training images that are also in test": (1, "skipped"),
    }


@pytest.mark.parametrize("source", ["memory", "stream"])
def test_an_image_under_two_labels_is_named_or_skipped_with_its_copy(tmp_path, source):
    of = pets(tmp_path, (4, 4, 4))
    shutil.copy(tmp_path / "train/cat/0.png", tmp_path / "train/dog/dup.png")
    shutil.copy(tmp_path / "train/owl/1.png", tmp_path / "train/owl/again.png")  # harmless
    text = load_error(tmp_path, source=source)
    assert "training images with several labels (2): train/cat/0.png, train/dog/dup.png; fix the files" in text
    dataset = load(tmp_path, source=source, on_bad_image="skip")
    assert len(dataset.train) == 12 and not {"train/cat/0.png", "train/dog/dup.png"} & {*dataset.train.ids}
    assert len(of) == 12 + len(dataset.test)


def test_classes_of_one_image(tmp_path):
    pets(tmp_path, (1, 4, 5), test=1)
    assert outcomes(load(tmp_path)) == {"classes with one training image": (("cat",), "kept")}
    assert "class 'cat' has 1 training image; expected more than dataset.validation_per_class=1" in load_error(
        tmp_path, validation_per_class=1
    )
    assert "(and 2 more classes have too few: 'dog', 'owl')" in load_error(tmp_path, validation_per_class=5)
    shutil.rmtree(tmp_path / "test")
    assert "has no test part, and 1 of its classes have only one image: cat" in load_error(tmp_path)
    assert len(load(tmp_path, num_classes=2, class_order=["dog", "owl"]).class_names) == 2
