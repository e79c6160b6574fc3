"""A cache of features gives back what was added, by image, and finds chunks that are damaged or of another network."""

import hashlib
import json
import multiprocessing
import os
import signal

import numpy as np
import pytest

from mpt_jax.errors import InputError
from mpt_jax.files import feature_cache
from mpt_jax.files.sealed import sealed

FACTS = {"network": {"name": "convnet"}, "weights": "abc"}


def images(*numbers):
    return [hashlib.sha256(str(number).encode()).digest() for number in numbers]


def features(*numbers, width=3):
    return np.array([[number + i / 8 for i in range(width)] for number in numbers], np.float32)


def opened(folder, facts=FACTS, width=3, log=None):
    return feature_cache.open_cache(folder, facts, width, log or pytest.fail)


def read(cache, *numbers):
    out = np.full((len(numbers), cache.width), np.nan, np.float32)
    cache.read(images(*numbers), out)
    return out


@pytest.fixture(params=["local", "bucket"])
def folder(request, tmp_path):
    return tmp_path / "features" if request.param == "local" else request.getfixturevalue("bucket") / "features"


def test_features_are_found_by_their_images_in_any_order_and_by_other_runs(folder):
    cache = opened(folder)
    assert cache.missing(images(1, 2, 1)) == [0, 1]
    cache.add(images(1, 2), features(1, 2))
    assert cache.missing(images(3, 2, 3, 4)) == [0, 3]
    cache.add(images(4, 3), features(4, 3))
    for again in (cache, opened(folder)):
        assert again.missing(images(1, 2, 3, 4)) == []
        np.testing.assert_array_equal(read(again, 3, 1, 3, 4, 2), features(3, 1, 3, 4, 2))
        with pytest.raises(KeyError):
            read(again, 5)
    read(opened(folder), *())


def test_features_are_mapped_and_not_read(tmp_path):
    opened(tmp_path).add(images(1), features(1))
    assert isinstance(opened(tmp_path).chunks[0], np.memmap)


def test_networks_have_their_own_features(tmp_path):
    opened(tmp_path).add(images(1), features(1))
    assert opened(tmp_path, {**FACTS, "weights": "abd"}).missing(images(1)) == [0]


@pytest.mark.parametrize("damage", ["truncated", "a changed byte", "empty", "text", "of another network", "renamed"])
def test_a_chunk_that_does_not_belong_here_is_computed_again(tmp_path, damage):
    cache = opened(tmp_path)
    cache.add(images(1, 2), features(1, 2))
    cache.add(images(3), features(3))
    path = next(path for path in cache.folder.glob("*.npy") if len(np.load(path)) == 2)
    content = path.read_bytes()
    if damage == "of another network":
        path.unlink()
        other = opened(tmp_path / "other", {**FACTS, "weights": "other"})
        other.add(images(1, 2), features(7, 8))
        (found,) = other.folder.glob("*.npy")
        path = cache.folder / found.name
        content = found.read_bytes()
    changed = {
        "truncated": content[:-5],
        "a changed byte": content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
        "empty": b"",
        "text": b"text" * 30,
    }
    path.write_bytes(changed.get(damage, content))
    if damage == "renamed":
        path = path.rename(path.with_name(f"{'0' * 64}.npy"))
    lines = []
    cache = opened(tmp_path, log=lines.append)
    (line,) = lines
    assert str(path) in line and "computed again" in line and "\n" not in line
    assert not path.exists() and cache.missing(images(1, 2, 3)) == [0, 1]
    cache.add(images(1, 2), features(1, 2))
    np.testing.assert_array_equal(read(opened(tmp_path), 1, 2, 3), features(1, 2, 3))


def test_chunks_of_another_width_are_computed_again(tmp_path):
    opened(tmp_path).add(images(1), features(1))
    lines = []
    assert opened(tmp_path, width=4, log=lines.append).missing(images(1)) == [0]
    assert "not 4 features per image" in lines[0]


def test_a_folder_of_another_network_is_refused(tmp_path):
    cache = opened(tmp_path)
    other = sealed({**FACTS, "weights": "other"})
    (cache.folder / feature_cache.FACTS).write_text(json.dumps(other))
    with pytest.raises(
        InputError, match="features of another network: weights is 'other', not 'abc'; remove"
    ) as caught:
        opened(tmp_path)
    assert str(cache.folder) in str(caught.value)


def test_checking_writes_nothing(tmp_path):
    feature_cache.check(tmp_path / "none", FACTS)
    assert not (tmp_path / "none").exists()


def _add_forever(folder, ready):
    cache = feature_cache.open_cache(folder, FACTS, 4096)
    for number in range(10**6):
        cache.add(images(*range(8 * number, 8 * number + 8)), np.full((8, 4096), number, np.float32))
        ready.set()


def test_chunks_are_complete_after_a_kill_at_any_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        ready = context.Event()
        process = context.Process(target=_add_forever, args=(tmp_path, ready))
        process.start()
        assert ready.wait(60)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        cache = feature_cache.open_cache(tmp_path, FACTS, 4096, pytest.fail)
        assert cache.chunks and len(cache.row_of) == sum(map(len, cache.chunks))
        for chunk in cache.chunks:
            assert (chunk["features"] == chunk["features"][0, 0]).all()
