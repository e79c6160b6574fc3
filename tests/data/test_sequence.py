"""Images one after the other: arrays and streams of the same images give the same batches."""

import io

import numpy as np
import pytest
from PIL import Image

from mpt_jax.data import sequence
from mpt_jax.data.feeding.stream import Files, Stream
from mpt_jax.errors import InputError


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (150, 4, 5, 3), np.uint8)


@pytest.fixture
def stream(tmp_path, pictures):
    for i, image in enumerate(pictures):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(len(pictures))]
    return Stream(Files(paths), np.arange(len(pictures)), (4, 5, 3))


@pytest.mark.parametrize("size", [1, 64, 70, 150, 200])
def test_every_image_once_in_order(pictures, stream, size):
    for images in (pictures, stream):
        found = list(sequence.batches(images, size))
        assert [len(batch) for batch in found] == [min(size, 150 - start) for start in range(0, 150, size)]
        np.testing.assert_array_equal(np.concatenate(found), pictures)


def test_no_images(pictures, stream):
    for images in (pictures[:0], stream[np.zeros(0, int)]):
        assert list(sequence.batches(images, 8)) == [] and sequence.digests(images) == []


def test_equal_images_have_equal_digests(pictures, stream, tmp_path):
    pictures[100] = pictures[3]
    digests = sequence.digests(pictures)
    assert len(digests) == 150 and len({*digests}) == 149 and digests[100] == digests[3]
    assert sequence.digests(pictures[[7, 3]]) == [digests[7], digests[3]]
    of_files = sequence.digests(stream)
    assert len({*of_files}) == 150 and sequence.digests(stream[np.array([5, 2])]) == [of_files[5], of_files[2]]
    (tmp_path / "5.png").write_bytes((tmp_path / "2.png").read_bytes())
    changed = sequence.digests(stream)
    assert changed[5] == of_files[2] and changed[6:] == of_files[6:]


def test_files_of_another_encoding_are_other_images(pictures):
    class InMemory:
        def read(self, records):
            encoded = []
            for record in records:
                file = io.BytesIO()
                Image.fromarray(pictures[0]).save(file, format="png", compress_level=int(record))
                encoded.append(file.getvalue())
            return encoded

    first, second = sequence.digests(Stream(InMemory(), np.array([0, 9]), (4, 5, 3)))
    assert first != second


def test_a_file_that_is_gone(stream, tmp_path):
    (tmp_path / "70.png").unlink()
    with pytest.raises(InputError, match=r"64.png and the 63 after it \(FileNotFoundError"):
        sequence.digests(stream)
