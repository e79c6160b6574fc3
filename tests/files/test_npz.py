"""Arrays of an `.npz` file are read as they were written, and one that would expand is refused before it is read."""

import contextlib
import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from mpt_jax.data.own import arrays
from mpt_jax.errors import DAMAGED, InputError
from mpt_jax.files import npz, sealed
from mpt_jax.files.predictions import formats, released

MIB, GIB = 2**20, 2**30


def header(shape, dtype="<f4", version=(1, 0)):
    file = io.BytesIO()
    description = {"descr": dtype, "fortran_order": False, "shape": shape}
    write = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    write(file, description)
    return file.getvalue()


def most_memory(act):
    """Return what an action took at most, in bytes."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(reader, path):
    with pytest.raises(InputError) as error:
        READERS[reader](path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def zeros(count):
    """Yield so many zeros in pieces, so that no test holds them."""
    for start in range(0, count, 2**20):
        yield bytes(min(2**20, count - start))


def write(path, name, first, count=0, method=zipfile.ZIP_DEFLATED):
    """Write an archive with one member: some bytes and then so many zeros."""
    with (
        zipfile.ZipFile(path, "w", method, compresslevel=1) as file,
        file.open(f"{name}.npy", "w", force_zip64=count > GIB) as member,
    ):
        member.write(first)
        for piece in zeros(count):
            member.write(piece)
    return path


def bombs(mib):
    """Return for each kind of bomb the bytes it begins with, the zeros that follow, and the method of zip."""
    row = 2**20 * mib // 4
    return {
        "one row": (header((1, row)), 4 * row, zipfile.ZIP_DEFLATED),
        "by columns": (header((2, row // 2)).replace(b"False, ", b"True,  "), 4 * row, zipfile.ZIP_DEFLATED),
        "texts": (header((row // 25,), "<U25"), row // 25 * 100, zipfile.ZIP_DEFLATED),
        "header": (b"\x93NUMPY\2\0" + struct.pack("<I", 4 * row - 4), 4 * row, zipfile.ZIP_DEFLATED),
        "bz2": (header((1, row)), 4 * row, zipfile.ZIP_BZIP2),
        "without bytes": (header((4 * row,), "<U0"), 0, zipfile.ZIP_DEFLATED),
    }


READERS = {
    "labels": released.read,
    "about": lambda path: released.check(path, {"release": "r0"}),
    "scores": lambda path: list(formats.open_source(path, str(path)).batches(["scores"])),
    "class_names": lambda path: formats.open_source(path, str(path)),
    "train_features": lambda path: arrays.read(path),
}


@pytest.mark.parametrize("kind", bombs(1))
@pytest.mark.parametrize("reader", READERS)
def test_an_array_that_expands_is_refused_before_it_is_read(tmp_path, monkeypatch, reader, kind):
    monkeypatch.setattr(npz, "LARGE", MIB)
    first, count, method = bombs(8)[kind]
    path = write(tmp_path / "a.npz", reader, first, count, method)
    if reader == "train_features":
        with zipfile.ZipFile(path, "a") as file:
            for name in ("train_labels", "test_labels"):
                file.writestr(f"{name}.npy", header((1,), "<i8") + bytes(8))
    assert most_memory(lambda: refused(reader, path)) < 4 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one row", "header"])
@pytest.mark.parametrize("reader", READERS)
def test_4_gib_in_4_mb(tmp_path, reader, kind):
    first, count, method = bombs(4096)[kind]
    path = write(tmp_path / "a.npz", reader, first, count, method)
    assert path.stat().st_size < 32 * MIB
    assert most_memory(lambda: refused(reader, path)) < 4 * MIB


def test_an_archive_that_lies_about_the_size_of_its_members(tmp_path, monkeypatch):
    """Entries may share their bytes, or claim to have many."""
    monkeypatch.setattr(npz, "LARGE", MIB)
    path = write(tmp_path / "a.npz", "ids", header((2**20,)), 2**22)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\1\2") + 20
    content[place : place + 4] = struct.pack("<I", GIB)  # compressed size in the table of contents
    path.write_bytes(content)
    with npz.Archive(path, "a") as file, pytest.raises(InputError, match=r"a: ids expands from .* to 4,194,304 bytes"):
        file["ids"]


def test_arrays_that_nobody_asked_for_are_not_read(tmp_path):
    arrays = {name: np.arange(2) for name in ("labels", "more")}
    sealed.write_arrays(tmp_path / "a.npz", arrays)
    with pytest.raises(InputError, match=r"a\.npz is damaged: it has more; run the same command again"):
        sealed.read_arrays(tmp_path / "a.npz", ["labels"])


@given(
    arrays_of.arrays(
        dtype=st.one_of(arrays_of.scalar_dtypes(), arrays_of.unicode_string_dtypes(), arrays_of.byte_string_dtypes()),
        shape=arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    ),
    st.booleans(),
    st.booleans(),
)
def test_what_was_written_is_read(array, compressed, by_columns):
    array = np.asfortranarray(array) if by_columns else array
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, a=array, b=np.arange(3))
    file.seek(0)
    with npz.Archive(file, "it") as found:
        assert list(found) == ["a", "b"] and len(found) == 2 and "a" in found and "c" not in found
        again = found["a"]
        assert again.dtype == array.dtype and again.shape == array.shape and again.tobytes() == array.tobytes()
        with found.opened("a") as (stream, header):
            assert (header.shape, header.dtype, header.nbytes()) == (array.shape, array.dtype, array.nbytes)
            if array.ndim and array.size and not header.by_columns:
                assert b"".join(header.rows(stream, 1).tobytes() for _ in array) == array.tobytes()


def test_many_rows_that_compress_well_are_streamed(tmp_path, monkeypatch):
    """Scores may be 0 and 1: the rows of a batch count, not those of the file."""
    monkeypatch.setattr(npz, "LARGE", 4 * MIB)
    scores = np.tile(np.float32([0, 0, 1, 0]), (2**19, 1))
    np.savez_compressed(tmp_path / "a.npz", scores=scores)
    batches = formats.open_source(tmp_path / "a.npz", "a").batches(["scores"])
    np.testing.assert_array_equal(np.concatenate([batch["scores"] for batch in batches]), scores)
    with npz.Archive(tmp_path / "a.npz", "a") as file, pytest.raises(InputError, match="a: scores expands from"):
        file["scores"]


def test_what_is_no_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as file:
        for name in ("a.npy", "a"):
            file.writestr(name, b"")
    with pytest.raises(InputError, match=r"twice\.npz has two arrays of one name"):
        npz.Archive(tmp_path / "twice.npz", "twice.npz")
    for content in (b"", b"text", header((1,))):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(DAMAGED):
            npz.Archive(tmp_path / "a.npz", "a")
    path = write(tmp_path / "a.npz", "a", header((-2, -3)), 24)
    with npz.Archive(path, "a") as file, pytest.raises(InputError, match="a: a declares"):
        file["a"]


@pytest.mark.parametrize("order", "<>")
def test_a_character_that_does_not_exist_is_damage(order):
    """One bit of a text may have flipped, and the check sum is at the end."""
    for codes, exists in (([97, 0x10FFFF], True), ([97, 0x110000], False), ([0x7FFFFFFF, 97], False)):
        content = header((2,), f"{order}U1") + struct.pack(f"{order}2I", *codes)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.npy", content)
        with npz.Archive(file, "it") as found:
            with contextlib.nullcontext() if exists else pytest.raises(ValueError, match="a character with the number"):
                assert found["a"].tolist()[0] == "a"
            with (
                found.opened("a") as (stream, head),
                contextlib.nullcontext() if exists else pytest.raises(ValueError, match="a character with the number"),
            ):
                assert head.rows(stream, 2).tolist()[0] == "a"


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0), (9, 0)])
def test_arrays_of_every_format_version_are_read_and_others_refused(version):
    file = io.BytesIO()
    if version[0] < 4:
        np.lib.format.write_array(file, np.arange(3), version=version)
    else:
        file.write(b"\x93NUMPY\x09\0" + header((3,), version=(2, 0))[8:] + bytes(12))
    archived = io.BytesIO()
    with zipfile.ZipFile(archived, "w") as archive:
        archive.writestr("a.npy", file.getvalue())
    with npz.Archive(archived, "it") as found:
        if version[0] < 4:
            assert found["a"].tolist() == [0, 1, 2]
        else:
            with pytest.raises(ValueError, match=r"arrays of format version \(9, 0\)"), found.opened("a"):
                pass


@pytest.mark.parametrize("reader", sorted(READERS.keys() - {"scores"}))  # no rows of scores are read
def test_an_empty_array_of_a_huge_shape_is_one_line(tmp_path, reader):
    refused(reader, write(tmp_path / "a.npz", reader, header((0, 2**70), "<f4")))
