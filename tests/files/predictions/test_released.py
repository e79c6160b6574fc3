"""The predictions of released models come back bit by bit, or the file counts as missing."""

import numpy as np
import pytest

from mpt_jax.errors import InputError
from mpt_jax.files import sealed
from mpt_jax.files.predictions import released


def test_what_was_written_is_read_again(tmp_path):
    path = tmp_path / "one.npz"
    labels, ids = np.arange(3, dtype=np.int32), np.array(["a", "bc", "ä"])
    released.write(path, labels=labels, logits=np.eye(3), ids=ids)
    arrays = released.read(path)
    assert arrays["logits"].dtype == np.float32
    for name, expected in (("labels", labels), ("logits", np.eye(3)), ("ids", ids)):
        np.testing.assert_array_equal(arrays[name], expected)
    assert [p.name for p in tmp_path.iterdir()] == ["one.npz"]
    assert released.exists(path) and not released.exists(tmp_path / "two.npz")
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:100] + b"?" * 20 + content[120:]):
        path.write_bytes(damaged)
        assert not released.exists(path)


def test_a_flipped_bit_or_other_arrays_are_never_used(tmp_path):
    path, random = tmp_path / "one.npz", np.random.default_rng(0)
    arrays = {"labels": np.arange(9, dtype=np.int32), "logits": np.eye(9, dtype=np.float32), "ids": np.arange(9)}
    released.write(path, **arrays)
    content = path.read_bytes()
    found = 0
    for bit in random.permutation(8 * len(content))[:400]:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        if released.exists(path):  # a date of the archive: the arrays are bit-identical
            for name, array in released.read(path).items():
                np.testing.assert_array_equal(array, arrays[name])
        else:
            found += 1
    assert found > 200
    np.savez(path, **{**arrays, "logits": 2 * arrays["logits"]}, digest=sealed.digest(arrays))
    with pytest.raises(InputError, match="run the same command again to regenerate it"):
        released.read(path)
    np.savez(path, **arrays)
    assert not released.exists(path)
