"""Compressed files, archives, folders of parts and streams give the same table; others are one clear error."""

import bz2
import gzip
import io
import lzma
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mpt_jax.errors import InputError
from mpt_jax.files.predictions import formats, packed

TEXT = b"id,label\n1,cat\n2,dog\n"
ROWS = [{"id": "1", "label": "cat"}, {"id": "2", "label": "dog"}]


def rows_of(given):
    batches = formats.open_source(given, str(given)).batches(["id", "label"])
    tables = [{name: np.asarray(column).tolist() for name, column in batch.items()} for batch in batches]
    return [
        {"id": str(id_), "label": label}
        for table in tables
        for id_, label in zip(table["id"], table["label"], strict=True)
    ]


def archive(path, members):
    with zipfile.ZipFile(path, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path


def contents():
    table, stream, npz = pa.table({"id": [1, 2], "label": ["cat", "dog"]}), io.BytesIO(), io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    np.savez(npz, id=[1, 2], label=["cat", "dog"])
    lines = b'{"id": 1, "label": "cat"}\n{"id": 2, "label": "dog"}\n'
    zipped = io.BytesIO()
    archive(zipped, {"a.csv": TEXT})
    return {
        "csv": TEXT,
        "tsv": TEXT.replace(b",", b"\t"),
        "json lines": lines,
        "json": b"[" + lines.strip().replace(b"\n", b",") + b"]",
        "parquet": stream.getvalue(),
        "npz": npz.getvalue(),
        "zip": zipped.getvalue(),
        "gzip": gzip.compress(TEXT),
        "bzip2 of json lines": bz2.compress(lines),
        "xz": lzma.compress(TEXT),
    }


@pytest.mark.parametrize("name", ["a.json.gz", "a.jsonl.gz", "a.json.xz"])
def test_a_json_text_that_expands_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(formats, "MOST_TEXT", 1 << 20)
    pack = lzma.compress if name.endswith("xz") else gzip.compress
    (tmp_path / name).write_bytes(pack(b'[{"id": "' + b"0" * (9 << 20)))
    with pytest.raises(InputError, match=r"holds a JSON text of more than 1,048,576 bytes; expected \.jsonl"):
        rows_of(tmp_path / name)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_no_usual_program_writes_is_refused(tmp_path, method):
    """A few of its bytes may expand to gigabytes in one step."""
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w", method) as made:
        made.writestr("a.csv", TEXT)
    with pytest.raises(InputError, match=f"is compressed by method {method} of zip; expected the usual one"):
        rows_of(tmp_path / "a.csv.zip")


@pytest.mark.parametrize(("kind", "content"), contents().items(), ids=contents())
def test_a_stream_is_read_by_its_content(kind, content):
    with packed.spooled(io.BytesIO(content), "stdin") as file:
        assert str(file) == "stdin" and file.path.exists()
        assert rows_of(file) == ROWS == rows_of(file)
    assert not file.path.exists()


def test_a_stream_that_is_no_table_is_one_clear_error_with_its_name():
    for content in (b"", b"\x1f\x8bnoise", b"[1,", b"a,b\n1,2\n", b"PAR1noise"):
        with packed.spooled(io.BytesIO(content), "stdin") as file, pytest.raises(InputError) as error:
            rows_of(file)
        assert str(error.value).startswith("stdin") and "/tmp" not in str(error.value)


def test_an_archive_with_one_text(tmp_path):
    path = archive(tmp_path / "a.zip", {"sub/a.csv": TEXT, "__MACOSX/sub/._a.csv": b"x", ".DS_Store": b"x"})
    assert rows_of(path) == ROWS
    assert rows_of(archive(tmp_path / "b.tsv.zip", {"b.tsv": TEXT.replace(b",", b"\t")})) == ROWS
    for members in ({"a.csv": TEXT, "b.csv": TEXT}, {"a.parquet": b"PAR1"}, {}):
        with pytest.raises(InputError, match=r"c.zip holds .*; expected one file, .csv"):
            rows_of(archive(tmp_path / "c.zip", members))


def test_a_folder_of_parts_is_one_table(tmp_path):
    for name, content in (
        ("part-1.csv", b"id,label\n2,dog\n"),
        ("part-0.csv", b"label,id\ncat,1\n"),
        ("part-2.csv", b""),
    ):
        (tmp_path / name).write_bytes(content)
    for name in ("_SUCCESS", ".part-0.csv.crc"):
        (tmp_path / name).touch()
    assert rows_of(tmp_path) == ROWS
    (tmp_path / "part-2.csv").write_bytes(b"id,class\n3,owl\n")
    with pytest.raises(InputError, match=r"part-2.csv has the columns 'id', 'class', and .*; expected the same in all"):
        rows_of(tmp_path)
    (tmp_path / "other.csv").write_bytes(TEXT)
    with pytest.raises(InputError, match=r"is a folder with 'other.csv'; expected a file, or a folder with the parts"):
        rows_of(tmp_path)


def test_folders_whose_parts_are_not_the_table_are_errors(tmp_path):
    for made, message in (
        ("label=cat/part-0.parquet", "a folder with 'label=cat'"),
        ("_delta_log/0.json", "Delta table"),
    ):
        folder = tmp_path / made.partition("/")[0].strip("_=")
        (folder / made).parent.mkdir(parents=True)
        (folder / made).touch()
        with pytest.raises(InputError, match=message):
            rows_of(folder)


def test_a_text_that_is_another_file_by_its_content(tmp_path):
    (tmp_path / "a.csv").write_bytes(gzip.compress(TEXT))
    with pytest.raises(InputError, match=r"a.csv is a .gz file by its content; expected a name that ends in .gz"):
        rows_of(tmp_path / "a.csv")


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_a_damaged_arrow_file_is_an_error_or_other_values_and_never_a_crash(tmp_path, kind):
    table, stream = pa.table({"id": ["1", "2"], "label": ["cat", "dog"]}), io.BytesIO()
    with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(stream, table.schema) as writer:
        writer.write_table(table)
    content, random = stream.getvalue(), np.random.default_rng(0)
    (tmp_path / "a.arrow").write_bytes(content)
    assert rows_of(tmp_path / "a.arrow") == ROWS
    refused = 0
    for place in random.permutation(len(content))[:150]:
        changed = bytearray(content)
        changed[place] ^= 1 << random.integers(8)
        (tmp_path / "a.arrow").write_bytes(changed)
        try:
            rows_of(tmp_path / "a.arrow")
        except (InputError, KeyError) as error:
            refused += isinstance(error, InputError)
    assert refused > 10
