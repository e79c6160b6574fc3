"""Folders of image files."""

import os
import shutil

import numpy as np
import pytest
from image_folder import CLASSES, check, load, load_error, outcomes, pets, save

from mpt_jax.data.own import folder


def test_numbers_as_class_names_and_other_files(tmp_path):
    of = pets(tmp_path, classes=("10", "9", "1"))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "train/readme.md").write_text("mine")
    (tmp_path / "train/9/Thumbs.db").write_text("mine")
    (tmp_path / "train/.DS_Store").write_text("")
    (tmp_path / "train/9/.hidden.png").write_text("")
    for junk in ("__MACOSX", "train/__MACOSX", "train/.ipynb_checkpoints", "train/9/@eaDir"):
        shutil.copytree(tmp_path / "test/9", tmp_path / junk)
    shutil.copytree(tmp_path / "test", tmp_path / "more")
    save(tmp_path / "train/10/deeper/down/UPPER.PNG", 999)
    dataset = load(tmp_path)
    assert dataset.class_names == ("1", "9", "10")
    assert check(dataset, of | {999: "10"}) == {*of, 999}
    ((what, (names, outcome)),) = outcomes(dataset).items()
    assert (what, outcome) == ("files and folders that are not images", "ignored")
    assert set(names) == {
        *("notes.txt", "more", "__MACOSX", "train/readme.md", "train/9/Thumbs.db"),
        *("train/__MACOSX", "train/.ipynb_checkpoints", "train/9/@eaDir"),
    }
    assert set(folder.find_images(tmp_path / "train/9")) == {"0.png", "1.png", "2.webp"}


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_a_held_out_part_is_for_validation_where_there_is_a_test_part_and_else_for_testing(tmp_path, name):
    of = pets(tmp_path)
    (tmp_path / "test").rename(tmp_path / name)
    dataset = load(tmp_path)
    assert check(dataset, of) == set(of) and not len(dataset.validation)
    used = f"images of the part {name}"
    assert outcomes(dataset) == {
        used: (tuple(dataset.test.ids), "used as the test part, because there is no part test")
    }
    assert {i.split("/")[0] for i in dataset.test.ids} == {name} and len(dataset.test) == 6
    for number, animal in enumerate(CLASSES, 500):
        save(tmp_path / f"test/{animal}/1.png", number)
        of[number] = animal
    for validation_per_class in (0, 1):  # nothing more is taken from train
        dataset = load(tmp_path, validation_per_class=validation_per_class)
        assert check(dataset, of) == set(of)
        assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [12, 6, 3]
        assert outcomes(dataset)[used][1].startswith("used for validation")
    shutil.copy(tmp_path / f"{name}/cat/0.png", tmp_path / "train/cat/copy.png")
    shutil.copy(tmp_path / "test/dog/1.png", tmp_path / f"{name}/dog/copy.png")
    text = load_error(tmp_path)
    assert f"validation images that are also in test (1): {name}/dog/copy.png" in text
    assert "training images that are also in validation (1): train/cat/copy.png" in text
    shutil.rmtree(tmp_path / name / "cat")
    assert "the validation part has no images of 1 classes: cat" in load_error(tmp_path, on_bad_image="skip")


def test_two_held_out_parts_are_refused(tmp_path):
    pets(tmp_path)
    for name in ("val", "dev"):
        shutil.copytree(tmp_path / "test", tmp_path / name)
    assert "has the parts val and dev; expected one of them" in load_error(tmp_path)


def test_a_folder_of_classes_without_parts_is_split(tmp_path):
    of = pets(tmp_path, (9, 9, 9), test=0)
    whole = load(tmp_path)
    dataset = load(tmp_path / "train")
    assert check(dataset, of) == set(of) and dataset.class_names == CLASSES
    np.testing.assert_array_equal(dataset.test.labels, whole.test.labels)  # the content of a file decides its part
    assert "cat/0.png" in {*dataset.train.ids, *dataset.test.ids}
    assert [finding.outcome for finding in dataset.findings] == ["held out for testing"]
    pets(tmp_path / "outer/inner")
    text = load_error(tmp_path / "outer")
    assert text.endswith(f"set dataset.data_dir={tmp_path}/outer/inner")


def test_class_folders_without_images_follow_the_policy(tmp_path):
    of = pets(tmp_path)
    (tmp_path / "train/emu").mkdir()
    (tmp_path / "train/fox").mkdir()
    (tmp_path / "train/fox/notes.txt").write_text("soon")
    text = load_error(tmp_path)
    assert "class folders without images (2): train/emu, train/fox; fix" in text and "on_bad_image=skip" in text
    dataset = load(tmp_path, on_bad_image="skip")
    assert dataset.class_names == CLASSES and check(dataset, of) == set(of)
    assert outcomes(dataset)["class folders without images"] == (("train/emu", "train/fox"), "skipped")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: shutil.rmtree(root), ["is not a folder", "train/CLASS/IMAGE", "or CLASS/IMAGE"]),
        (lambda root: (root / "train").rename(root / "training"), ["has no folder train"]),
        (lambda root: [shutil.rmtree(f) for f in (root / "train").iterdir()], ["contains no folders"]),
        (lambda root: (root / "train/emu").mkdir(), ["class folders without images (1): train/emu"]),
        (lambda root: [f.unlink() for f in (root / "test").glob("*/*")], ["has no test images of the chosen classes"]),
        (lambda root: save(root / "test/fox/1.png", 900), ["classes that are not in train (1): test/fox/1.png"]),
        (lambda root: shutil.copy(root / "train/cat/0.png", root / "test/owl/8.png"), ["in test (1): train/cat/0.png"]),
        (lambda root: (root / "train/cat/9.jpg").write_bytes(b"GIF89a"), ["train/cat/9.jpg (not JPEG, PNG, WEBP"]),
        (
            lambda root: save(root / "train/cat/9.png", 900, (8, 9)),
            ["train/cat/9.png (8x9 pixels, not 8x8", "image_size"],
        ),
        (
            lambda root: save(root / os.fsdecode(b"train/\xff/9.png"), 900),
            ["expected UTF-8 text of at most"],
        ),
        (
            lambda root: save(root / os.fsdecode(b"train/cat/\xff.png"), 900),
            ["ids that are not UTF-8", r"train/cat/\udcff.png"],
        ),
    ],
)
def test_folders_that_do_not_fit(tmp_path, make, words):
    root = tmp_path / "pets"
    pets(root)
    make(root)
    text = load_error(root, num_classes=4 if "emu" in words[0] else 3, class_order=["cat", "dog", "owl", "..."])
    for word in words:
        assert word in text
    assert text.isprintable()


def test_classes_that_differ_only_in_spelling(tmp_path):
    of = pets(tmp_path, classes=("Owl", "cat", "owl"))
    dataset = load(tmp_path)
    assert check(dataset, of) == set(of)
    assert outcomes(dataset) == {"classes whose names are alike": (("'Owl' and 'owl'",), "kept apart")}
    (tmp_path / "train/cat").rename(tmp_path / "train/caf\xe9")
    (tmp_path / "train/Owl").rename(tmp_path / "train/cafe\u0301")
    assert "folder has classes whose names print alike: 'cafe\\u0301' and 'caf\\xe9'" in load_error(tmp_path)
    shutil.rmtree(tmp_path / "train/cafe\u0301")
    (tmp_path / "test/cat").rename(tmp_path / "test/cafe\u0301")
    text = load_error(tmp_path, num_classes=2)
    assert "Owl/0.png, which looks like 'owl'" in text and "/0.png, which looks like 'caf\\xe9'" in text


def test_skipped_images_are_named_where_too_few_are_left(tmp_path):
    root = tmp_path / "pets"
    pets(root)
    for path in (root / "train/cat").iterdir():
        path.write_bytes(b"GIF89a")
    text = load_error(root, on_bad_image="skip", class_order=["cat", "dog", "owl", "..."])
    assert "class 'cat' has no training images" in text
    assert "images that cannot be read, skipped (" in text and "train/cat/" in text


def test_links_must_stay_inside_the_folder(tmp_path):
    root, secret = tmp_path / "pets", tmp_path / "secret.png"
    of = pets(root)
    save(secret, 900)
    link = root / "train/cat/link.png"
    for target in (secret, "../../../secret.png", "/etc/passwd"):
        link.symlink_to(target)
        assert f"{link} is a link to a file outside {root}" in load_error(root)
        assert "is a link to a file outside" in load_error(root, on_bad_image="skip")
        link.unlink()
    link.symlink_to("nowhere.png")
    assert "train/cat/link.png (no such file)" in load_error(root)
    link.unlink()
    link.symlink_to("link.png")  # to itself
    assert "train/cat/link.png" in load_error(root)
    link.unlink()
    save(root / "train/cat/real/9.png", 901)
    link.symlink_to("real/9.png")
    dataset = load(root)
    assert {"train/cat/link.png", "train/cat/real/9.png"} <= {*dataset.train.ids}
    link.unlink()
    for place in ("train/cat/more", "train/emu", "test"):
        shutil.rmtree(root / place, ignore_errors=True)
        (root / place).symlink_to(tmp_path, target_is_directory=True)
        assert f"{root / place} is a link to a folder" in load_error(root)
        (root / place).unlink()
    (tmp_path / "link to all").symlink_to(root, target_is_directory=True)
    assert check(load(tmp_path / "link to all", on_bad_image="skip"), of | {901: "cat"})


def test_links_are_followed_or_left_out_and_counted(tmp_path):
    root, elsewhere = tmp_path / "pets", tmp_path / "elsewhere"
    of = pets(root)
    save(elsewhere / "900.png", 900)
    save(elsewhere / "deep/901.png", 901)
    (root / "train/cat/link.png").symlink_to(elsewhere / "900.png")
    (root / "train/owl/more").symlink_to(elsewhere / "deep", target_is_directory=True)
    (root / "train/emu").symlink_to(elsewhere, target_is_directory=True)
    dataset = load(root, follow_links="skip")
    assert check(dataset, of) == set(of) and dataset.class_names == CLASSES
    names, outcome = outcomes(dataset)["links to folders or out of the folder"]
    assert outcome == "skipped" and set(names) == {"train/cat/link.png", "train/owl/more", "train/emu"}
    assert "dataset.follow_links=follow" in load_error(root)
    (root / "train/emu").unlink()
    dataset = load(root, follow_links="follow")
    assert check(dataset, of | {900: "cat", 901: "owl"}) == {*of, 900, 901} and dataset.findings == ()
    (elsewhere / "deep/round").symlink_to(root / "train/owl", target_is_directory=True)
    assert "is a link to a folder that contains it" in load_error(root, follow_links="follow")


def test_the_name_folder_needs_a_data_dir():
    assert "dataset.name=folder without dataset.data_dir; expected a folder" in load_error("")
