"""Folders of image files."""

import os
import shutil

import pytest
from image_folder import check, load, load_error, outcomes, pets, save


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
        "files and folders that are not images": (
            ("notes.txt", "val", "train/readme.md", "train/9/Thumbs.db"),
            "ignored",
        )
    }


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: shutil.rmtree(root), ["is not a folder", "train/CLASS/IMAGE"]),
        (lambda root: (root / "train").rename(root / "training"), ["has no folder train"]),
        (lambda root: [shutil.rmtree(f) for f in (root / "train").iterdir()], ["contains no folders"]),
        (lambda root: (root / "train/emu").mkdir(), ["class 'emu' has no training images"]),
        (lambda root: [f.unlink() for f in (root / "test").glob("*/*")], ["has no test images of the chosen classes"]),
        (lambda root: save(root / "test/fox/1.png", 900), ["classes that are not in train (1): test/fox/1.png"]),
        (lambda root: shutil.copy(root / "train/cat/0.png", root / "test/owl/8.png"), ["in test (1): train/cat/0.png"]),
        (lambda root: (root / "train/cat/9.jpg").write_bytes(b"GIF89a"), ["train/cat/9.jpg (not JPEG, PNG, WEBP)"]),
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
            ["ids that are not UTF-8", "train/cat/?.png"],
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


def test_the_name_folder_needs_a_data_dir():
    assert "dataset.name=folder without dataset.data_dir; expected a folder" in load_error("")
