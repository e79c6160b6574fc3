"""Arrays of `.npz` files, whose size is checked before any of their values is read.

A zip archive of 1 MB may hold 1 GB, entries that share their bytes hold any size, and the header of an array may
promise more than follows. So an array is read only if its header and the archive agree on its size, and if it does not
expand more than real data do.
"""

import contextlib
import dataclasses
import io
import math
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO

import numpy as np

from mpt_jax.errors import InputError

LARGE = 2**28  # bytes; fewer are read however well they compress
MOST = 100  # times its size in the archive; real data expand less
_HEADER = 2**14  # bytes of a header; NumPy takes 10,000
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of NumPy; others expand a few bytes to gigabytes in one step


@dataclasses.dataclass(frozen=True)
class Header:
    """What an array says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_columns: bool  # so that its rows cannot be streamed

    def nbytes(self, rows: int | None = None) -> int:
        """Return the bytes of so many rows, or of all."""
        shape = self.shape if rows is None or not self.shape else (min(rows, self.shape[0]), *self.shape[1:])
        return math.prod(shape) * max(self.dtype.itemsize, 1)  # values without bytes could be any number

    def rows(self, stream: IO[bytes], count: int) -> np.ndarray:
        """Read the next rows.

        Raises:
          ValueError: there are fewer, or text that is none.
        """
        shape = (count, *self.shape[1:])
        read = np.frombuffer(stream.read(self.nbytes(count)), self.dtype, math.prod(shape)).reshape(shape)
        return _readable(read)


class Archive(Mapping[str, np.ndarray]):
    """The arrays of an `.npz` file by name, each read when it is asked for.

    Reading a damaged one raises one of `errors.DAMAGED`.

    Args:
      file: its path, or a stream that can be rewound.
      label: what errors call it.

    Raises:
      InputError: two arrays of one name.
      Exception: one of `errors.DAMAGED` if it is no archive.
    """

    def __init__(self, file: str | os.PathLike[str] | IO[bytes], label: str):
        self._label, self._archive = label, zipfile.ZipFile(file)
        entries = self._archive.infolist()
        self._entries = {entry.filename.removesuffix(".npy"): entry for entry in entries}
        if len(self._entries) < len(entries):
            self.close()
            raise InputError(f"{label} has two arrays of one name; expected unique names")

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> np.ndarray:
        with self.opened(name), self._archive.open(self._entries[name]) as stream:
            return _readable(np.lib.format.read_array(stream, allow_pickle=False))

    @contextlib.contextmanager
    def opened(self, name: str, rows: int | None = None) -> Iterator[tuple[IO[bytes], Header]]:
        """Open an array: a stream of its values, and its header.

        Args:
          name: of the array.
          rows: how many rows of a matrix are read at a time; None: all. A list is expected to be held as a whole.

        Raises:
          InputError: it has another size than its header, expands too much, or holds Python objects.
        """
        entry, where = self._entries[name], f"{self._label}: {name}"
        if entry.compress_type not in METHODS:
            raise InputError(
                f"{where} is compressed by method {entry.compress_type} of zip; expected np.savez or "
                "np.savez_compressed"
            )
        with self._archive.open(entry) as stream:
            header = _header(stream)
            if header.dtype.hasobject:
                raise InputError(f"{where} holds Python objects; expected numbers or text")
            declared = stream.tell() + header.nbytes()
            if min(header.shape, default=0) < 0 or declared != entry.file_size:
                raise InputError(
                    f"{where} declares {declared:,} bytes but has {entry.file_size:,}; expected an array that np.savez "
                    "wrote"
                )
            # What an entry says of its bytes may be wrong: all of them come before the table of contents.
            size = header.nbytes(rows if len(header.shape) > 1 else None)
            found = min(entry.compress_size, self._archive.start_dir)
            if size > LARGE and size > MOST * found:
                raise InputError(
                    f"{where} expands from {found:,} to {size:,} bytes; expected at most {MOST} times its size, or "
                    "np.savez in place of np.savez_compressed"
                )
            yield stream, header


def _readable(array: np.ndarray) -> np.ndarray:
    """Return an array whose texts can be read; NumPy checks a character when it is used, with a SystemError."""
    if array.dtype.kind == "U" and array.dtype.itemsize and array.size:
        codes = np.ascontiguousarray(array).reshape(-1).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if codes.max() > sys.maxunicode:
            raise ValueError(f"a character with the number {codes.max():,}; expected text")
    return array


def _header(stream: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"arrays of format version {version}")
    first = version == (1, 0)
    length = stream.read(2 if first else 4)
    if (size := int.from_bytes(length, "little")) > _HEADER:
        raise ValueError(f"a header of {size:,} bytes")
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(io.BytesIO(length + stream.read(size)))
    return Header(shape, dtype, by_columns and len(shape) > 1)
