"""Labels and ids of a TFDS split, read once and cached."""

import numpy as np
import pytest
from load_dataset import load_photos

from mpt_jax.data.feeding import record_index


def test_labels_of_many_records_are_cached_and_read_again_if_the_copy_is_damaged(photos_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_photos(photos_dir)
    assert not list(tmp_path.rglob("*.npz"))  # a small set
    monkeypatch.setattr(record_index, "CACHED_FROM", 40)
    first = load_photos(photos_dir)
    cached = sorted(tmp_path.rglob("*.npz"))
    assert len(cached) == 2
    monkeypatch.setattr(record_index, "_read_all", None)  # would fail
    again = load_photos(photos_dir)
    np.testing.assert_array_equal(again.train.ids, first.train.ids)
    np.testing.assert_array_equal(again.train.labels, first.train.labels)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(record_index, "CACHED_FROM", 40)
    cached[0].write_bytes(cached[0].read_bytes()[:100])
    np.testing.assert_array_equal(load_photos(photos_dir).test.labels, first.test.labels)


def test_a_header_that_no_longer_parses_is_damage(photos_dir, tmp_path, monkeypatch):
    """NumPy reads a header as Python, and may fail as that does."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(record_index, "CACHED_FROM", 40)
    first = load_photos(photos_dir)
    for path in tmp_path.rglob("*.npz"):
        content = path.read_bytes()
        start = content.index(b"{'descr'")
        path.write_bytes(content[:start] + b"(" + content[start + 1 :])
    np.testing.assert_array_equal(load_photos(photos_dir).test.labels, first.test.labels)


@pytest.mark.parametrize(
    ("example", "expected"), [({"id": b"cat_1"}, "cat_1"), ({"id": 7}, "7"), ({"label": 0}, "train_00012")]
)
def test_an_example_is_named_by_its_id_or_its_position(example, expected):
    assert record_index.name_of(example, "train", 12) == expected
