"""Files as they come: compressed, in a zip archive, in a folder of parts, or on standard input."""

import codecs
import contextlib
import json
import lzma
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import pyarrow as pa

from mpt_jax.errors import DAMAGED, InputError, listed
from mpt_jax.files import npz

COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4", ".xz": "xz"}
TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_STARTS = {
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
    b"PK\3\4": ".zip",
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"\x04\x22\x4d\x18": ".lz4",
    b"\xfd7zXZ\0": ".xz",
    b"\x89HDF": ".h5",
    b"\x80\x04": ".pkl",
}
_START = 1 << 16  # bytes that show what a file is


@dataclass(frozen=True)
class File:
    """A file to read, and what errors and results call it."""

    path: pathlib.Path
    name: str

    def __str__(self) -> str:
        return self.name

    def __fspath__(self) -> str:
        return str(self.path)


def suffix(file: File) -> str:
    """Return the suffix of the format, in small letters and without that of a compression or an archive.

    Raises:
      InputError: an archive without exactly one file, or of a file that cannot be read from an archive.
      zipfile.BadZipFile: a damaged archive.
    """
    suffixes = [each.lower() for each in file.path.suffixes]
    last = suffixes.pop() if suffixes else ""
    if last in COMPRESSED:
        return suffixes[-1] if suffixes else ""
    return _suffix_in_archive(file) if last == ".zip" and file.path.is_file() else last


def open_text(file: File) -> pa.NativeFile:
    """Open a text, uncompressed."""
    last = file.path.suffix.lower()
    if last == ".zip":
        return pa.PythonFile(zipfile.ZipFile(file.path).open(_members(file)[0]), "r")
    if last == ".xz":
        return pa.PythonFile(lzma.open(file.path), "r")
    return pa.input_stream(str(file.path), compression=COMPRESSED.get(last))


def by_content(start: bytes) -> str:
    r"""Return the suffix of a format, a compression or an archive by its first bytes; for text, that of a table.

    Examples:
      >>> by_content(b"PAR1..."), by_content(b"id,label\n"), by_content(b'[{"id": 1}]')
      ('.parquet', '.csv', '.json')
    """
    if known := binary(start):
        return known
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if text[:1] not in (b"{", b"["):
        return ".csv"
    first, end, rest = text.partition(b"\n")
    try:
        return ".jsonl" if end and rest.strip() and isinstance(json.loads(first), dict) else ".json"
    except ValueError:
        return ".json"


def binary(start: bytes) -> str:
    """Return the suffix of a file that is no text, by its first bytes; "" if none is known."""
    return next((each for mark, each in _STARTS.items() if start.startswith(mark)), "")


@contextlib.contextmanager
def spooled(stream: IO[bytes], name: str) -> Iterator[File]:
    """Yield a stream as a temporary file, since files are read more than once; its format is found by its content."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "stream"
        with path.open("wb") as copy:
            shutil.copyfileobj(stream, copy)
        with path.open("rb") as copy:
            found = by_content(copy.read(_START))
        if found in COMPRESSED:
            packed = path.rename(path.with_suffix(found))
            with contextlib.suppress(*DAMAGED), open_text(File(packed, name)) as text:
                found = by_content(text.read(_START)) + found
            path = packed
        elif found == ".zip" and _is_npz(path):
            found = ".npz"
        yield File(path.rename(pathlib.Path(folder) / f"stream{found}"), name)


def parts(folder: File) -> list[File]:
    """Return the parts of a table that Spark, Dask or the like wrote as a folder, in order; empty ones are ignored.

    Raises:
      InputError: other files or folders, or no parts.
    """
    names = sorted(os.listdir(folder.path))
    visible = [name for name in names if not name.startswith((".", "_"))]
    others = [name for name in visible if not name.startswith("part") or (folder.path / name).is_dir()]
    if "_delta_log" in names:
        what = "is a Delta table, whose folder also has parts that were removed"
    elif others:
        what = f"is a folder with {listed(list(map(repr, others)))}"
    elif not visible:
        what = "is a folder without parts"
    else:
        found = [File(folder.path / name, f"{folder.name}/{name}") for name in visible]
        return [part for part in found if part.path.stat().st_size] or found[:1]
    raise InputError(f"{folder}: {what}; expected a file, or a folder with the parts of one table, part-*, alone")


def _members(file: File) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(file.path) as archive:
        return [
            member
            for member in archive.infolist()
            if not member.is_dir()
            and not any(part.startswith((".", "__MACOSX")) for part in member.filename.split("/"))
        ]


def _suffix_in_archive(file: File) -> str:
    members = _members(file)
    names = [member.filename for member in members]
    found = pathlib.PurePosixPath(names[0]).suffix.lower() if names else ""
    if len(members) != 1 or found not in TEXTS:
        raise InputError(
            f"{file} holds {listed(list(map(repr, names))) or 'nothing'}; expected one file, {', '.join(TEXTS)}, or "
            "the files themselves"
        )
    if members[0].compress_type not in npz.METHODS:
        raise InputError(
            f"{file} is compressed by method {members[0].compress_type} of zip; expected the usual one, deflate"
        )
    return found


def _is_npz(path: pathlib.Path) -> bool:
    with contextlib.suppress(*DAMAGED), zipfile.ZipFile(path) as archive:
        return bool(names := archive.namelist()) and all(name.endswith(".npy") for name in names)
    return False
