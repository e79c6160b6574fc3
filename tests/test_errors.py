"""A damaged file is reported as bad input by every reader."""

import numpy as np
import pytest

from mpt_jax.data.own import arrays
from mpt_jax.errors import DAMAGED, InputError, listed, one_line
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
        (b"PK\1\2", 8, 1),  # requests a password
        (b"PK\1\2", 10, 1),  # unknown compression method
        (b"PK\1\2", 10, 14),  # LZMA
        (b"}", 0, ord(" ")),  # an open bracket
        (b"<i8", 0, ord(",")),  # unknown dtype
    ],
)
def test_a_changed_byte_is_bad_input(tmp_path, reader, place, offset, byte):
    path = tmp_path / "a.npz"
    ids = np.random.default_rng(0).integers(2**60, size=3000)  # long enough that the checksum is checked last
    np.savez(path, ids=ids)
    content = bytearray(path.read_bytes())
    content[content.index(place) + offset] = byte
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        READERS[reader](path)
    assert isinstance(error.value.__cause__, (*DAMAGED, type(None))) and str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no such\n class\x1b[31m", r"no such class\x1b[31m"),
        ("a" * 1400 + "b" * 1000 + "c" * 595, "a" * 1400 + " ... " + "c" * 595),
    ],
)
def test_a_message_is_one_printable_line(text, expected):
    assert one_line(InputError(text)) == one_line(text) == expected


def test_listed_names_are_short_printable_and_counted():
    assert listed(["x" * 300, "\x1b", "c"], total=1005, most=2) == "x" * 197 + r"..., \x1b and 1,003 more"
    assert listed([]) == ""
