"""What a damaged file raises is one error of the user's, whoever reads it."""

import numpy as np
import pytest

from mpt_jax.data.own import arrays
from mpt_jax.errors import DAMAGED, InputError
from mpt_jax.files.predictions import formats, released

READERS = {
    "compare": lambda path: list(formats.open_source(path, str(path)).batches(["ids"])),
    "data": lambda path: arrays.get(path, arrays.open_file(path), "ids"),
    "workdir": released.read,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("place", "offset", "byte"),
    [
        (b"PK\1\2", 8, 1),  # a password is needed
        (b"PK\1\2", 10, 1),  # no such method of compression
        (b"PK\1\2", 10, 14),  # LZMA
        (b"}", 0, ord(" ")),  # a bracket stays open
        (b"<i8", 0, ord(",")),  # no such type
    ],
)
def test_a_changed_byte_is_bad_input(tmp_path, reader, place, offset, byte):
    path = tmp_path / "a.npz"
    np.savez(
        path, ids=np.random.default_rng(0).integers(2**60, size=3000)
    )  # so long that its sum is checked at its end
    content = bytearray(path.read_bytes())
    content[content.index(place) + offset] = byte
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        READERS[reader](path)
    assert isinstance(error.value.__cause__, DAMAGED) and str(path) in str(error.value)
