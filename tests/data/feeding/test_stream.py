"""A stream equals the decoded array, whatever decodes it, and its crops depend on seed, epoch and row alone."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from load_dataset import load, load_photos
from PIL import Image

from mpt_jax import data
from mpt_jax.data import normalization
from mpt_jax.data.feeding import stream
from mpt_jax.errors import InputError


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def read(images, order, steps, start=0, part=slice(None)):
    bounds = range(*part.indices(order.batch_size))
    out = np.empty((steps, order.seeds, len(bounds), *images.image_shape), np.uint8)
    with data.Reader(images, order, start=start, part=part) as reader:
        for batch in out:
            reader.fill(batch)
    return out


def test_streamed_digits_equal_the_digits_in_memory(digits_dir):
    options = {"data_dir": digits_dir, "num_classes": 7, "class_order": "seed:3", "validation_per_class": 5}
    memory, streamed = (load(**options, source=source) for source in ("memory", "stream"))
    for part in ("train", "validation", "test"):
        expected, found = getattr(memory, part), getattr(streamed, part)
        assert isinstance(found.images, data.Stream) and found.images.shape == expected.images.shape
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.ids, expected.ids)
        for rows in (slice(3, 9, 2), np.array([4, 0]), np.array([], int)):
            np.testing.assert_array_equal(found.images[rows], expected.images[rows])
        np.testing.assert_array_equal(found.images[-1], expected.images[-1])
    for found, expected in zip(*(data.statistics(d.train.images) for d in (memory, streamed)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_statistics_of_a_long_stream_use_evenly_spaced_images(digits_dir, monkeypatch):
    images = load(data_dir=digits_dir, num_classes=10, source="stream").train.images
    monkeypatch.setattr(normalization, "STREAM_SAMPLE", 100)  # of 516: every sixth
    mean, std = data.statistics(images)
    pixels = np.asarray(images)[::6] / 255
    np.testing.assert_allclose([mean[0], std[0]], [pixels.mean(), pixels.std()], rtol=1e-6)


def test_crops_depend_on_seed_epoch_and_row_alone(photos_dir):
    images = load_photos(photos_dir).train.images
    order = data.Shuffled(keys(2), keys(2, 1), num_examples=len(images), batch_size=48)
    whole = read(images, order, 5)
    np.testing.assert_array_equal(read(images, order, 3, start=2), whole[2:])  # resumed
    np.testing.assert_array_equal(read(images, order, 5, part=slice(16, 40)), whole[:, :, 16:40])  # one of several
    epochs = [{order.rows(step, 0)[i]: whole[step, 0, i] for step in steps for i in range(48)} for steps in ([0], [4])]
    both = epochs[0].keys() & epochs[1].keys()  # an image in two epochs
    assert both and not any(np.array_equal(epochs[0][row], epochs[1][row]) for row in both)
    rows = [order.rows(0, seed).tolist() for seed in (0, 1)]
    shared = [(rows[0].index(row), rows[1].index(row)) for row in set(rows[0]) & set(rows[1])]
    assert shared and not any(np.array_equal(whole[0, 0, i], whole[0, 1, j]) for i, j in shared)


@pytest.mark.slow  # starts processes, which import jax
def test_processes_and_threads_decode_the_same(photos_dir):
    images = load_photos(photos_dir).train.images
    order = data.Shuffled(keys(2), keys(2, 1), num_examples=len(images), batch_size=40)
    expected = read(images, order, 3)
    for workers in (1, 3):
        np.testing.assert_array_equal(read(dataclasses.replace(images, workers=workers), order, 3), expected)


def test_evaluation_has_no_random_crop(photos_dir):
    test = load_photos(photos_dir).test.images
    once = np.asarray(test)
    assert once.shape == (48, 40, 48, 3)
    np.testing.assert_array_equal(np.asarray(test), once)
    in_memory = load_photos(photos_dir, augmentation="crop_flip", source="memory").test.images
    assert np.abs(once.mean((1, 2)) - in_memory.mean((1, 2))).mean() < 6  # the same patterns, more of the border


def test_auto_streams_images_that_are_too_large(photos_dir, monkeypatch):
    monkeypatch.setattr(stream, "memory", lambda: 4 * 240 * 40 * 48 * 3)
    plain = {"source": "auto", "augmentation": "crop_flip"}
    assert isinstance(load_photos(photos_dir, **plain).train.images, np.ndarray)
    assert isinstance(load_photos(photos_dir, **plain, channels=1).train.images, np.ndarray)
    monkeypatch.setattr(stream, "memory", lambda: 4 * 240 * 40 * 48 * 3 - 4)
    assert isinstance(load_photos(photos_dir, **plain).train.images, data.Stream)
    assert isinstance(load_photos(photos_dir, **plain, channels=1).train.images, np.ndarray)


def test_files_have_sizes_and_records_have_none(tmp_path, photos_dir):
    for name, content in (("a", b"1"), ("b", b"22")):
        (tmp_path / name).write_bytes(content)
    files = stream.Files([tmp_path / "a", tmp_path / "b"])
    assert stream.Stream(files, np.array([1, 0, 1]), (8, 8, 3)).sizes().tolist() == [2, 1, 2]
    assert load_photos(photos_dir).test.images.sizes().tolist() == []


def test_the_limit_of_a_container_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "CONTAINER_LIMIT", tmp_path / "memory.max")
    whole = stream.memory()
    assert whole > 1 << 20
    for text, limit in (("max\n", whole), ("4096\n", 4096)):
        (tmp_path / "memory.max").write_text(text)
        assert stream.memory() == limit


def test_a_streamed_folder_equals_the_decoded_one_and_headers_are_checked_first(tmp_path):
    random = np.random.default_rng(0)
    for part, number in (("train", 5), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(number):
                pixels = random.integers(0, 256, (8, 6, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    options = {"data_dir": tmp_path, "num_classes": 2}
    memory, streamed = (load("folder", **options, source=source) for source in ("memory", "stream"))
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(streamed, part).images, getattr(memory, part).images)
        np.testing.assert_array_equal(getattr(streamed, part).ids, getattr(memory, part).ids)
    (tmp_path / "train/cat/0.png").write_bytes(b"text")
    Image.new("RGB", (7, 7)).save(tmp_path / "train/cat/1.png")
    shutil.copy(tmp_path / "test/dog/0.png", tmp_path / "train/dog/9.png")
    with pytest.raises(InputError, match=r"cannot be read \(2\): train/cat/0\.png .*7x7 pixels, not 8x6"):
        load("folder", **options, source="stream")
    skipped = load("folder", **options, source="stream", on_bad_image="skip")
    assert skipped.train.ids.tolist() == [f"train/cat/{i}.png" for i in (2, 3, 4)] + [
        f"train/dog/{i}.png" for i in range(5)
    ]
    assert any("also in test" in finding.what and finding.names == ("train/dog/9.png",) for finding in skipped.findings)


def test_a_truncated_image_stops_the_run_with_its_name(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "test" / name).mkdir(parents=True)
        for part, color in (("train", 10), ("train", 20), ("test", 30)):
            Image.new("RGB", (9, 9), color + ord(name[0])).save(tmp_path / part / name / f"{color}.png")
    whole = (tmp_path / "train/dog/20.png").read_bytes()
    (tmp_path / "train/dog/20.png").write_bytes(whole[:50])
    images = load("folder", data_dir=tmp_path, num_classes=2, source="stream").train.images
    with pytest.raises(InputError, match=r"dog/20\.png .*dataset\.source=memory reads all images first"):
        np.asarray(images)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("features.npz", {"source": "stream"}, "only encoded images can be streamed"),
        ("photos", {"augmentation": "imagenet", "test_split": "validation"}, "expected dataset.image_size"),
        ("photos", {"source": "stream", "test_split": "validation"}, "differ in size; to stream them"),
        ("photos", {"source": "stream"}, "has no split 'test'; it has train, validation"),
    ],
)
def test_sources_that_cannot_be_streamed_are_refused(photos_dir, name, options, expected):
    with pytest.raises(InputError, match=expected):
        load(name, data_dir=photos_dir, num_classes=8, **options)
