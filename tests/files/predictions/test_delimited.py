"""Text files as people have them: quotes, line breaks, delimiters, encodings; no row is swallowed without a word."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.compare import compare
from mpt_jax.errors import InputError
from mpt_jax.files.predictions import delimited, formats

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=6)


def rows_of(path):
    source = formats.open_source(path, str(path))
    table = [batch[name].to_pylist() for batch in source.batches(("id", "label")) for name in ("id", "label")]
    return [list(row) for pair in zip(table[::2], table[1::2], strict=True) for row in zip(*pair, strict=True)]


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
def test_what_python_writes_is_read_back(tmp_path_factory, rows, quoting):
    rows = [(f"{number}{id_}", label) for number, (id_, label) in enumerate(rows)]
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting, lineterminator="\n").writerows([("id", "label"), *rows])
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", text.getvalue())
    try:
        assert rows_of(path) == [list(row) for row in rows]
    except InputError as error:  # a cell that looks like rows cannot be told from a quote that is never closed
        assert "holds whole rows" in str(error) and any("\n" in cell for row in rows for cell in row)


def test_many_rows_of_several_lines(tmp_path):
    lines = [f'{i},"a\nb\n{"x" * 200}"\n' for i in range(20_000)]
    found = rows_of(write(tmp_path / "a.csv", "id,label\n" + "".join(lines)))
    assert len(found) == 20_000 and found[7] == ["7", f"a\nb\n{'x' * 200}"]


def test_a_quote_that_swallows_rows_is_an_error(tmp_path):
    text = 'id,label,text\n1,pos,"odd film\n2,pos,fine\n3,neg,"bad"\n4,pos,good\n'
    with pytest.raises(InputError, match=r"line 4: .* expected a quote at both ends of a cell"):
        rows_of(write(tmp_path / "a.csv", text))
    closed = 'id,label,text\n1,pos,"odd film\n2,pos,fine\n3,neg,x"\n4,pos,good\n'
    with pytest.raises(InputError, match="the quote in line 2 opens a cell that ends in line 4 and holds whole rows"):
        rows_of(write(tmp_path / "c.csv", closed))
    with pytest.raises(InputError, match="expected a quote at both ends of a cell"):
        rows_of(write(tmp_path / "b.csv", 'id,label\n1,"pos\n'))


def test_quotes_in_a_tsv_are_a_part_of_the_text(tmp_path):
    head = "id\tlabel\tprediction\ttext\n"
    texts = ['"odd film', "fine", '"bad"', "good"]
    labels = ["pos", "pos", "neg", "pos"]

    def table(predictions):
        rows = zip(range(1, 5), labels, predictions, texts, strict=True)
        return head + "".join("\t".join(map(str, row)) + "\n" for row in rows)

    old = write(tmp_path / "old.tsv", table(labels))
    new = write(tmp_path / "new.tsv", table(["pos", "neg", "neg", "pos"]))
    found = compare(old, new, max_nfr=0)
    assert found["all_rows"]["count"] == 4 and found["all_rows"]["negative_flips"] == 1 and not found["passed"]
    quoted = write(tmp_path / "quoted.tsv", table([f'"{label}"' for label in labels]))
    assert compare(quoted, old)["all_rows"]["churn"] == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_encodings_and_line_ends(tmp_path, encoding, delimiter, end):
    text = end.join(delimiter.join(row) for row in (("id", "label"), ("1", "café"), ("2", "tea"))) + end
    expected = [["1", "café"], ["2", "tea"]]
    assert rows_of(write(tmp_path / "a.csv", text, encoding)) == expected
    assert rows_of(write(tmp_path / "b.csv", f"sep={delimiter}{end}" + text, encoding)) == expected


@given(st.text('ab"\n', max_size=30), st.integers(1, 7))
def test_the_scan_finds_lines_with_an_odd_number_of_quotes(text, size):
    data, lines = text.encode(), text.split("\n")
    blocks = io.BytesIO(data[size:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BYTES", size)
        longest, quotes, odd = delimited._scan(data[:size], blocks)
    assert quotes == ('"' in text) and odd == any(line.count('"') % 2 for line in lines)
    assert longest >= max(map(len, lines))


def test_a_character_at_the_end_of_the_first_block_does_not_change_the_header(tmp_path, monkeypatch):
    text = "id,label,score_café\n1,a,0.5\n"
    for padding in range(4):
        path = write(tmp_path / "a.csv", text + "é" * padding + "é,b,0.5\n")
        monkeypatch.setattr(delimited, "BYTES", len(text.encode()) + 1 + 2 * padding)
        assert formats.open_source(path, "a").columns == ("id", "label", "score_café")


def test_an_empty_file(tmp_path):
    with pytest.raises(InputError, match=r"a.csv is empty; expected a header"):
        rows_of(write(tmp_path / "a.csv", ""))
