"""Kinds of input of the release gate, and what happens with each: `python docs/gate_inputs.py` writes the tables.

`tests/compare/test_input_kinds.py` tries every kind; `docs/gate_inputs.md` is made of the same data.
"""

import bz2
import decimal
import gzip
import io
import json
import lzma
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

PAGE = pathlib.Path(__file__).with_name("gate_inputs.md")
START, END = "<!-- kinds -->\n\n", "\n\n<!-- end of kinds -->"

IDS = [1, 2, 3, 4, 5, 6]
LABELS = ["cat", "cat", "dog", "dog", "owl", "owl"]
OLD = {"id": IDS, "label": LABELS, "prediction": ["cat", "cat", "dog", "owl", "owl", "cat"]}
NEW = {"id": IDS, "label": LABELS, "prediction": ["cat", "dog", "dog", "dog", "owl", "owl"]}
CLASSES = ["cat", "dog", "owl"]
COUNTS = (6, 1, 2)  # rows, negative flips, positive flips

Make = Callable[[pathlib.Path], Any]


@dataclass(frozen=True)
class Kind:
    """A kind of input: how to make both models' predictions, and what has to happen.

    Attributes:
      name: what it is, for the page.
      old: makes the old model's predictions in a folder.
      new: the same for the new model.
      options: of `compare`.
      counts: rows, negative flips and positive flips, if it is compared.
      refused: words of the error, "" if it is compared.
      note: what else the page says.
    """

    name: str
    old: Make
    new: Make = lambda folder: NEW
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: tuple[int, int, int] = COUNTS
    refused: str = ""
    note: str = ""


def indexed(table: Mapping[str, Any], first: int = 0) -> dict[str, Any]:
    """Return the table with indices for names."""
    number = {name: place for place, name in enumerate(CLASSES, first)}
    return {"id": table["id"], **{key: [number[each] for each in table[key]] for key in ("label", "prediction")}}


INDEXED, NEW_INDEXED = indexed(OLD), indexed(NEW)


def rows(table: Mapping[str, Any] = OLD) -> list[dict[str, Any]]:
    """Return the table as one mapping a row."""
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def csv(table: Mapping[str, Any] = OLD, delimiter: str = ",", end: str = "\n") -> str:
    """Return the table as text."""
    lines = [list(table), *([row[key] for key in table] for row in rows(table))]
    return "".join(delimiter.join(map(str, line)) + end for line in lines)


def file(name: str, content: str | bytes, encoding: str = "utf-8") -> Make:
    """Return a function that writes the file."""

    def make(folder: pathlib.Path) -> pathlib.Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return make


def given(value: Any) -> Make:
    """Return a function that returns a table in memory."""
    return lambda folder: value


def folder(files: Mapping[str, str | bytes]) -> Make:
    """Return a function that writes a folder of files."""

    def make(folder: pathlib.Path) -> pathlib.Path:
        for name, content in files.items():
            file(f"table/{name}", content)(folder)
        (folder / "table").mkdir(exist_ok=True)
        return folder / "table"

    return make


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    """Return a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npz(table: Mapping[str, Any], **more: Any) -> bytes:
    """Return an archive of arrays."""
    stream = io.BytesIO()
    np.savez(stream, **{key: np.array(values) for key, values in {**table, **more}.items()})
    return stream.getvalue()


def parquet(table: Any, **options: Any) -> bytes:
    """Return a table as Parquet."""
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table if isinstance(table, pa.Table) else pa.table(dict(table)), stream, **options)
    return stream.getvalue()


def arrow(stream_format: bool) -> bytes:
    """Return the table as an Arrow file or stream."""
    stream, table = io.BytesIO(), pa.table(OLD)
    with (pa.ipc.new_stream if stream_format else pa.ipc.new_file)(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def packed_by_arrow(compression: str) -> bytes:
    """Return the table as compressed text."""
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, compression) as writer:
        writer.write(csv().encode())
    return stream.getvalue().to_pybytes()


def cast(column: str, kind: pa.DataType, table: Mapping[str, Any] = OLD) -> Make:
    """Return a function of an Arrow table with one column in another type."""

    def make(folder: pathlib.Path) -> pa.Table:
        made = pa.table(dict(table))
        values = made[column]
        if column == "id" and not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            values = values.cast(pa.string())
        return made.set_column(made.column_names.index(column), column, values.cast(kind))

    return make


def frame(package: str, make: Callable[[Any], Any]) -> Make:
    """Return a function that calls another with an optional package."""

    def made(folder: pathlib.Path) -> Any:
        import importlib

        return make(importlib.import_module(package))

    return made


def scores(table: Mapping[str, Any], prefix: str = "score_", best: float = 0.8) -> dict[str, Any]:
    """Return the table with a column of scores per class."""
    return {"id": table["id"], "label": table["label"]} | {
        f"{prefix}{name}": [best if each == name else 0.1 for each in table["prediction"]] for name in CLASSES
    }


def lists(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of indices with a list of scores a row."""
    found = indexed(table)
    return {"id": found["id"], "label": found["label"], "scores": np.eye(3)[found["prediction"]].tolist()}


def replaced(key: str, row: int, value: Any, table: Mapping[str, Any] = OLD) -> dict[str, Any]:
    """Return the table with one other cell."""
    return {**table, key: [value if place == row else each for place, each in enumerate(table[key])]}


def renamed(names: Mapping[str, str], table: Mapping[str, Any] = OLD) -> dict[str, Any]:
    """Return the table with other names of columns."""
    return {names.get(key, key): values for key, values in table.items()}


LINES = "".join(json.dumps(row) + "\n" for row in rows())
SKIP = {"unlabelled": "skip"}
OTHER_NAMES = {"id": "uid", "label": "y_true", "prediction": "y_pred"}
BARE, NEW_BARE = ({key: table[key] for key in ("id", "prediction")} for table in (OLD, NEW))
NO_LABEL = "1 row of {old} with no label"
UNLIKE = "look like one class; expected one spelling"
CLOSED = "expected a quote at both ends of a cell"


def text(name: str, content: str | bytes, encoding: str = "utf-8", **more: Any) -> Kind:
    """Return a kind of CSV file."""
    return Kind(name, file("old.csv", content, encoding), **more)


def small(name: str, old: str, new: str, refused: str) -> Kind:
    """Return a kind of two small CSV files in which a flip would be hidden, under a limit of 0."""
    return Kind(name, file("old.csv", old), file("new.csv", new), {"max_nfr": 0}, refused=refused)


GROUPS: dict[str, list[Kind]] = {
    "File formats": [
        text("`.csv`", csv()),
        text("`.csv` with semicolons", csv(delimiter=";")),
        text("`.csv` with tabs", csv(delimiter="\t")),
        text("`.csv` with `|`", csv(delimiter="|")),
        Kind("`.tsv`", file("old.tsv", csv(delimiter="\t"))),
        Kind("`.csv.gz`", file("old.csv.gz", gzip.compress(csv().encode()))),
        Kind("`.csv.bz2`", file("old.csv.bz2", bz2.compress(csv().encode()))),
        Kind("`.csv.xz`", file("old.csv.xz", lzma.compress(csv().encode()))),
        Kind("`.csv.zst`", lambda folder: file("old.csv.zst", packed_by_arrow("zstd"))(folder)),
        Kind("`.csv.lz4`", lambda folder: file("old.csv.lz4", packed_by_arrow("lz4"))(folder)),
        Kind("`.zip` with one table, as from Kaggle", file("old.csv.zip", zipped({"old.csv": csv()}))),
        Kind("`.zip` from macOS", file("old.zip", zipped({"old.csv": csv(), "__MACOSX/._old.csv": "x"}))),
        Kind(
            "`.zip` with several files",
            file("old.zip", zipped({"a.csv": csv(), "b.csv": csv()})),
            refused="holds 'a.csv', 'b.csv'; expected one file",
        ),
        Kind("`.jsonl`", file("old.jsonl", LINES)),
        Kind("`.ndjson.gz`", file("old.ndjson.gz", gzip.compress(LINES.encode()))),
        Kind("JSON Lines in a `.json` file, as from Spark or Hugging Face", file("old.json", LINES)),
        Kind("`.json`, an array of objects (pandas: `records`)", file("old.json", json.dumps(rows(), indent=1))),
        Kind("`.json`, an object of lists", file("old.json", json.dumps(OLD))),
        Kind(
            "`.json` of pandas: `columns`",
            file("old.json", json.dumps({key: dict(enumerate(values)) for key, values in OLD.items()})),
        ),
        Kind(
            "`.json` of pandas: `split`",
            file("old.json", json.dumps({"columns": list(OLD), "data": [list(row.values()) for row in rows()]})),
        ),
        Kind("`.json` of pandas: `index`", file("old.json", json.dumps(dict(enumerate(rows()))))),
        Kind("`.json` of pandas: `table`", file("old.json", json.dumps({"schema": {"fields": []}, "data": rows()}))),
        Kind("`.json` with the rows inside", file("old.json", json.dumps({"model": "v1", "predictions": rows()}))),
        Kind(
            "`.json` of pandas: `values`",
            file("old.json", json.dumps([list(row.values()) for row in rows()])),
            refused='row 1 is [1, "cat", "cat"]; expected an array of objects',
        ),
        Kind(
            "`.json`, objects by id",
            file("old.json", json.dumps({f"img{row.pop('id')}": row for row in rows()})),
            refused="is an object of objects by 'img1', 'img2', 'img3' and 3 more",
        ),
        Kind("`.json`, a key twice", file("old.json", '[{"id": 1, "id": 2}]'), refused="has the key 'id' twice"),
        Kind("`.json`, truncated", file("old.json", json.dumps(rows())[:60]), refused="is not JSON"),
        Kind("`.parquet`", file("old.parquet", parquet(OLD))),
        Kind("`.parquet` with many row groups", file("old.parquet", parquet(OLD, row_group_size=1))),
        Kind("`.parquet` with zstd and dictionaries", file("old.parquet", parquet(OLD, compression="zstd"))),
        Kind("`.parquet`, truncated", file("old.parquet", parquet(OLD)[:-9]), refused="cannot be read"),
        Kind("`.arrow`, the file format", file("old.arrow", arrow(False))),
        Kind("`.arrow`, the stream format of Hugging Face", file("old.arrow", arrow(True))),
        Kind("`.feather`", lambda folder: _feather(folder / "old.feather")),
        Kind("`.npz`", file("old.npz", npz(OLD))),
        Kind("`.npz` with `class_names`", file("old.npz", npz(INDEXED, class_names=CLASSES))),
        Kind(
            "`.npz` with `class_names` and `label_names`",
            file(
                "old.npz",
                npz(
                    INDEXED | {"prediction": [2 - place for place in INDEXED["prediction"]]},
                    class_names=CLASSES[::-1],
                    label_names=CLASSES,
                ),
            ),
        ),
        Kind(
            "`.npz` with Python objects",
            file("old.npz", npz(OLD, label=np.array(LABELS, object))),
            refused="holds Python objects",
        ),
        Kind("Spark's folder of `.parquet`", folder({"part-00000-a.snappy.parquet": parquet(OLD), "_SUCCESS": ""})),
        Kind(
            "Spark's folder of `.csv`, one of them empty",
            folder(
                {
                    "part-00000.csv": csv({key: values[:4] for key, values in OLD.items()}),
                    "part-00001.csv": csv({key: values[4:] for key, values in OLD.items()}),
                    "part-00002.csv": "",
                    ".part-00000.csv.crc": "x",
                    "_SUCCESS": "",
                }
            ),
        ),
        Kind("Dask's folder", folder({"part.0.parquet": parquet(OLD)})),
        Kind(
            "a partitioned folder",
            folder({"label=cat/part-0.parquet": parquet(OLD)}),
            refused="is a folder with 'label=cat'",
        ),
        Kind("a Delta table", folder({"part-0.parquet": parquet(OLD), "_delta_log/0.json": ""}), refused="Delta table"),
        Kind(
            "a folder of `save_to_disk`",
            folder({"data-00000-of-00001.arrow": arrow(True), "dataset_info.json": "{}"}),
            refused="is a folder with 'data-00000-of-00001.arrow', 'dataset_info.json'",
        ),
        Kind("an empty folder", folder({}), refused="is a folder without parts"),
        Kind("`.xlsx`", file("old.xlsx", b"PK"), refused="save the sheet as CSV"),
        Kind("`.pkl`", file("old.pkl", b""), refused="a pickle can run code: save as .parquet"),
        Kind("`.npy`", file("old.npy", b""), refused="one array has no ids"),
        Kind("another suffix", file("old.txt", csv()), refused="unknown format; expected a name that ends in .npz"),
        Kind("no file", lambda folder: folder / "old.csv", refused="no such file"),
        text("`.csv`, gzip by its content", gzip.compress(csv().encode()), refused="is a .gz file by its content"),
        text("`.csv`, Parquet by its content", parquet(OLD), refused="is a .parquet file by its content"),
        Kind("`.parquet`, text by its content", file("old.parquet", csv()), refused="cannot be read"),
    ],
    "How text is written": [
        text("a byte order mark", csv(), "utf-8-sig"),
        text("UTF-16, as from Excel", csv(), "utf-16"),
        text("a first line `sep=;`", "sep=;\n" + csv(delimiter=";")),
        text("line ends of Windows", csv(end="\r\n")),
        text("line ends of an old Mac", csv(end="\r")),
        text("no line end at the end", csv().rstrip("\n")),
        text("blank lines at the end", csv() + "\n\n"),
        text("blank lines in between", csv().replace("\n", "\n\n")),
        text("quotes around all cells", csv(delimiter='","').replace("\n", '"\n"')[:-1].join(['"', ""])),
        text("a cell with commas", csv({**OLD, "text": ['"a, b"'] * 6})),
        text("a cell with line breaks", csv({**OLD, "text": ['"a\nb"'] * 6})),
        text("doubled quotes in a cell", csv({**OLD, "text": ['"a ""b"" c"'] * 6})),
        text("a quote that is never closed", csv({**OLD, "text": ['"a'] + ["b"] * 5}), refused=CLOSED),
        text("a quote that swallows rows", csv({**OLD, "text": ['"a', "b", 'c"', "d", "e", "f"]}), refused=CLOSED),
        Kind("quotes inside of a `.tsv`", file("old.tsv", csv({**OLD, "text": ['"odd', "a", '"b"'] * 2}, "\t"))),
        text("an index without a name, as from pandas", csv({"": IDS, **OLD})),
        text("`Unnamed: 0`", csv({"Unnamed: 0": IDS, **OLD})),
        text("empty columns at the end, as from Excel", csv().replace("\n", ",,\n")),
        text("columns in another order, and more", csv({"note": IDS, **dict(reversed(OLD.items()))})),
        text("a column twice", csv().replace("prediction", "label"), refused="has two columns 'label'"),
        text("a row with too few cells", csv() + "7,cat\n", refused="Expected 3 columns, got 2"),
        text("a row with too many cells", csv() + "7,cat,cat,x\n", refused="Expected 3 columns, got 4"),
        text("no header", "6,owl,cat\n", refused="expected one called 'id', or --columns id=NAME"),
        text("a comment before the header", "# v1\n" + csv(), refused="has the columns '# v1'; expected one called"),
        text("a header alone", "id,label,prediction\n", refused="has no rows"),
        text("an empty file", "", refused="is empty"),
        text("spaces after commas", csv(delimiter=", "), refused="has the columns 'id', ' label', ' prediction'"),
        text("capitals in the header", csv().replace("label", "Label"), refused="--columns label=NAME"),
        text("Latin-1", csv().replace("owl", "chouette effrayée"), "latin-1", refused="invalid UTF8"),
        text("5,000 columns", csv(OLD | {f"x{place}": IDS for place in range(5000)})),
    ],
    "Columns and labels": [
        Kind(
            "other names: `--columns id=uid,label=y_true,prediction=y_pred`",
            file("old.csv", csv(renamed(OTHER_NAMES))),
            given(renamed(OTHER_NAMES, NEW)),
            {"columns": OTHER_NAMES},
        ),
        Kind("other names in one file", file("old.csv", csv(renamed(OTHER_NAMES))), options={"columns": OTHER_NAMES}),
        Kind(
            "another name that one file lacks, beside the usual one",
            given(OLD | {"y_pred": LABELS}),
            options={"columns": {"prediction": "y_pred"}},
            refused="has the columns 'y_pred' and 'prediction', and the new arrays has no 'y_pred'",
        ),
        Kind(
            "a name that no file has",
            given(OLD),
            options={"columns": {"label": "lable"}},
            refused="unknown column 'lable' for label; did you mean 'label'?",
        ),
        Kind("plurals: `ids`, `labels`, `predictions`", given(renamed({key: f"{key}s" for key in OLD}))),
        Kind("`label` and `labels`", given({**OLD, "labels": LABELS}), refused="expected one called 'label'"),
        Kind(
            "labels from another file: `--labels FILE`",
            file("old.csv", csv(BARE)),
            given(NEW_BARE),
            {"labels": {"id": IDS, "label": LABELS}},
        ),
        Kind(
            "a file of labels with more ids",
            given(BARE),
            given(NEW_BARE),
            {"labels": {"id": [*IDS, 7], "label": [*LABELS, "cat"]}},
            note="the others are counted",
        ),
        Kind(
            "a file of labels with fewer ids",
            given(BARE),
            given(NEW_BARE),
            {"labels": {"id": IDS[:5], "label": LABELS[:5]}},
            refused="with no label: '6'",
        ),
        Kind(
            "a file of labels that disagree",
            given(OLD),
            options={"labels": {"id": IDS, "label": ["owl", *LABELS[1:]]}},
            refused="1 label disagrees",
        ),
        Kind("no labels", given(BARE), given(NEW_BARE), refused="--columns label=NAME, or --labels FILE"),
        Kind("an empty label", file("old.csv", csv(replaced("label", 0, ""))), refused=NO_LABEL),
        Kind(
            "an empty label in both: `--unlabelled skip`",
            file("old.csv", csv(replaced("label", 0, ""))),
            given(replaced("label", 0, None, NEW)),
            SKIP,
            (5, 1, 2),
            note="the row is left out and counted",
        ),
        Kind("an empty label in one: `--unlabelled skip`", given(replaced("label", 0, None)), options=SKIP),
        Kind("a label `-1` that no model predicts", given(replaced("label", 0, -1, INDEXED)), refused=NO_LABEL),
        Kind(
            "labels `-1`: `--unlabelled skip`",
            given(replaced("label", 0, -1, INDEXED)),
            given(replaced("label", 0, -1, NEW_INDEXED)),
            SKIP,
            (5, 1, 2),
        ),
        Kind("a label `nan`, as of `astype(str)`", given(replaced("label", 0, "nan")), refused=NO_LABEL),
        Kind("a label `NULL`", file("old.csv", csv(replaced("label", 0, "NULL"))), refused=NO_LABEL),
        Kind(
            "a class `NA` that is predicted",
            given({**OLD, "label": ["NA", *LABELS[1:]], "prediction": ["NA", *OLD["prediction"][1:]]}),
            given({**NEW, "label": ["NA", *LABELS[1:]], "prediction": ["NA", *NEW["prediction"][1:]]}),
        ),
        Kind(
            "a prediction `nan`",
            given(replaced("prediction", 0, "nan")),
            refused="1 row of {old} with no prediction ('nan' means none",
        ),
        Kind("an empty prediction", given(replaced("prediction", 0, "")), refused="with no prediction: '1'"),
        Kind(
            "sentiments -1, 0 and 1",
            given({key: INDEXED[key] if key == "id" else [each - 1 for each in INDEXED[key]] for key in INDEXED}),
            given({key: NEW[key] if key == "id" else [each - 1 for each in NEW_INDEXED[key]] for key in INDEXED}),
        ),
        Kind("labels that disagree", given(replaced("label", 0, "owl")), refused="1 label disagrees"),
        Kind("indices", given(INDEXED), given(NEW_INDEXED)),
        Kind("indices in one file, names in the other", given(INDEXED), refused="one file has names and the other"),
        Kind(
            "indices in one file, names in the other: `--classes`",
            given(INDEXED),
            options={"classes": CLASSES},
        ),
        Kind(
            "indices as `1.0`, as from pandas",
            file("old.csv", csv({**INDEXED, "label": [f"{each}.0" for each in INDEXED["label"]]})),
            given(NEW_INDEXED),
        ),
        Kind("a label 0.5", given({**INDEXED, "label": [0.5, *INDEXED["label"][1:]]}), refused="has the class 0.5"),
        Kind(
            "labels by name, predictions by index",
            given({**OLD, "prediction": INDEXED["prediction"]}),
            refused="expected either names or indices in both",
        ),
    ],
    "Ids": [
        Kind("another order", given({key: values[::-1] for key, values in OLD.items()})),
        Kind("numbers in one file, text in the other", given({**OLD, "id": list(map(str, IDS))})),
        Kind("numbers with a fraction of 0", given({**OLD, "id": np.array(IDS, float)})),
        text("`1.0` in text, as from pandas", csv({**OLD, "id": [f"{each}.0" for each in IDS]})),
        text("leading zeros", csv({**OLD, "id": [f"00{each}" for each in IDS]}), refused="6 ids are in {old} but not"),
        Kind(
            "floats beyond 2**53",
            given({**OLD, "id": np.array(IDS) + 2.0**60}),
            refused="numbers from 2**53 on, which have lost digits",
        ),
        Kind("fractions", given({**OLD, "id": [0.5, *IDS[1:]]}), refused="expected whole numbers or text"),
        Kind("an id twice", given(replaced("id", 0, 2)), refused="1 id is in {old} more than once: '2'"),
        Kind("an empty id", given({**OLD, "id": ["", *map(str, IDS[1:])]}), refused="with no id: row 1"),
        Kind("ids that one file lacks", given(replaced("id", 0, 9)), refused="1 id is in {old} but not in"),
        Kind("no ids", given({key: OLD[key] for key in ("label", "prediction")}), refused="--columns id=NAME"),
    ],
    "Scores": [
        text("a column per class", csv(scores(OLD))),
        text("`logit_` or `probability_` columns", csv(scores(OLD, "probability_"))),
        Kind(
            "a list a row",
            file("old.jsonl", "".join(json.dumps(row) + "\n" for row in rows(lists(OLD)))),
            given(NEW_INDEXED),
        ),
        Kind("a matrix", file("old.npz", npz(lists(OLD), class_names=CLASSES))),
        Kind(
            "an object a row",
            file(
                "old.jsonl",
                "".join(
                    json.dumps(
                        {
                            **{key: row[key] for key in ("id", "label")},
                            "scores": {name: float(name == row["prediction"]) for name in CLASSES},
                        }
                    )
                    + "\n"
                    for row in rows()
                ),
            ),
        ),
        Kind("float16", cast("score_cat", pa.float16(), scores(OLD))),
        text("an empty score", csv(replaced("score_cat", 0, "", scores(OLD))), refused="infinite or missing scores"),
        text("infinite scores", csv(replaced("score_cat", 0, "inf", scores(OLD))), refused="infinite or missing"),
        text("text for a score", csv(replaced("score_cat", 0, "x", scores(OLD))), refused="column 'score_cat'"),
        text(
            "two kinds of scores",
            csv({**scores(OLD, "logit_"), **scores(OLD)}),
            refused="expected one kind, or --scores logit to choose it",
        ),
        text(
            "two kinds of scores: `--scores score`",
            csv({**scores(NEW, "logit_"), **scores(OLD)}),
            options={"scores": "score"},
        ),
        Kind(
            "lists of different lengths",
            given([{**row, "scores": row["scores"][: 2 + (row["id"] < 6)]} for row in rows(lists(OLD))]),
            refused="rows with 3 and with 2 scores",
        ),
    ],
    "Tables in memory": [
        Kind("lists by name", given(OLD)),
        Kind("a list of dictionaries", given(rows())),
        Kind("arrays of NumPy", given({key: np.array(values) for key, values in OLD.items()})),
        Kind("bytes", given({**OLD, "label": np.array(LABELS, "S")})),
        Kind(
            "a structured array",
            given(np.array(list(zip(*INDEXED.values(), strict=True)), [(key, int) for key in INDEXED])),
            given(NEW_INDEXED),
        ),
        Kind(
            "a masked label",
            given({**INDEXED, "label": np.ma.masked_array(INDEXED["label"], np.array(IDS) == 1)}),
            given(NEW_INDEXED),
            refused=NO_LABEL,
        ),
        Kind(
            "numbers and text in one column",
            given({**OLD, "label": np.array([0, *LABELS[1:]], object)}),
            refused="expected names or indices",
        ),
        *(
            Kind(
                f"Arrow: labels of type {kind}".replace("<", " of ").partition("=")[0].replace(" of values", ""),
                cast("label", kind),
            )
            for kind in (pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string()))
        ),
        Kind(
            "Arrow: run-end encoded labels",
            given(
                pa.table(
                    {
                        "id": IDS,
                        "label": pa.RunEndEncodedArray.from_arrays([2, 4, 6], CLASSES),
                        "prediction": OLD["prediction"],
                    }
                )
            ),
        ),
        Kind("Arrow: ids of type string_view", cast("id", pa.string_view())),
        Kind(
            "Arrow: decimals",
            given(pa.table({**INDEXED, "label": [decimal.Decimal(f"{each}.00") for each in INDEXED["label"]]})),
            given(NEW_INDEXED),
        ),
        Kind("Arrow: float16 labels", cast("label", pa.float16(), INDEXED), given(NEW_INDEXED)),
        Kind("pandas", frame("pandas", lambda package: package.DataFrame(OLD))),
        Kind(
            "pandas: `category`", frame("pandas", lambda package: package.DataFrame(OLD).astype({"label": "category"}))
        ),
        Kind("pandas: `string`", frame("pandas", lambda package: package.DataFrame(OLD).astype({"label": "string"}))),
        Kind(
            "pandas: ids as the index and as a column",
            frame("pandas", lambda package: package.DataFrame(OLD).set_index("id", drop=False)),
        ),
        Kind("pandas: ids as the index", frame("pandas", lambda package: package.DataFrame(OLD).set_index("id"))),
        Kind(
            "pandas: `Int64`",
            frame("pandas", lambda package: package.DataFrame(INDEXED).astype("Int64")),
            given(NEW_INDEXED),
        ),
        Kind(
            "pandas: a missing `Int64`",
            frame("pandas", lambda package: package.DataFrame(replaced("label", 0, None, INDEXED)).astype("Int64")),
            given(NEW_INDEXED),
            refused=NO_LABEL,
        ),
        Kind(
            "pandas: labels that NaN made floats",
            frame("pandas", lambda package: package.DataFrame(replaced("label", 0, np.nan, INDEXED))),
            given(NEW_INDEXED),
            SKIP,
        ),
        Kind(
            "pandas: an unused column of mixed types",
            frame("pandas", lambda package: package.DataFrame({**OLD, "note": [1, "a", None] * 2})),
        ),
        Kind(
            "pandas: series by name",
            frame("pandas", lambda package: {key: package.Series(values) for key, values in OLD.items()}),
        ),
        Kind("polars", frame("polars", lambda package: package.DataFrame(OLD))),
        Kind(
            "polars: `Categorical`",
            frame("polars", lambda package: package.DataFrame(OLD).cast({"label": package.Categorical})),
        ),
        Kind(
            "polars: `Enum`",
            frame("polars", lambda package: package.DataFrame(OLD).cast({"label": package.Enum(CLASSES)})),
        ),
        Kind(
            "polars: `Decimal`",
            frame("polars", lambda package: package.DataFrame(INDEXED).cast({"label": package.Decimal(10, 2)})),
            given(NEW_INDEXED),
        ),
        Kind(
            "polars: `LazyFrame`",
            frame("polars", lambda package: package.LazyFrame(OLD)),
            refused="is of type LazyFrame; expected a path, a table",
        ),
        Kind("Hugging Face: `Dataset`", frame("datasets", lambda package: package.Dataset.from_dict(OLD))),
        Kind(
            "Hugging Face: a `Dataset` in another order",
            frame("datasets", lambda package: package.Dataset.from_dict(OLD).shuffle(seed=1)),
        ),
        Kind(
            "Hugging Face: `ClassLabel`, with predictions by index",
            frame("datasets", lambda package: _class_label(package, INDEXED)),
            given(NEW_INDEXED),
            note="as indices",
        ),
        Kind(
            "Hugging Face: `ClassLabel`, with names in the other file: `--classes`",
            frame("datasets", lambda package: _class_label(package, INDEXED)),
            options={"classes": CLASSES},
        ),
        Kind(
            "Hugging Face: `DatasetDict`",
            frame("datasets", lambda package: package.DatasetDict(test=package.Dataset.from_dict(OLD))),
            refused="has the columns 'test'; expected one called 'id'",
        ),
        Kind(
            "Hugging Face: `IterableDataset`",
            frame("datasets", lambda package: package.Dataset.from_dict(OLD).to_iterable_dataset()),
            refused="expected columns of numbers or text in memory",
        ),
        Kind(
            "PyTorch: tensors",
            frame("torch", lambda package: {k: package.tensor(v) for k, v in INDEXED.items()}),
            given(NEW_INDEXED),
        ),
        Kind(
            "PyTorch: scores with a gradient",
            frame("torch", lambda package: lists(OLD) | {"scores": package.eye(6, requires_grad=True)}),
            refused="Use tensor.detach().numpy() instead",
        ),
        Kind("a series of pandas", frame("pandas", lambda package: package.Series(IDS)), refused="in memory"),
        Kind(
            "integers of more than 64 bits",
            given({**OLD, "id": [2**70, *IDS[1:]]}),
            refused="expected whole numbers or",
        ),
        Kind(
            "labels as a dictionary from id to label",
            given(BARE),
            given(NEW_BARE),
            {"labels": dict(zip(IDS, LABELS, strict=True))},
            refused="have the keys 1, 2, 3 and 3 more; expected names of columns",
        ),
        Kind("something else", given(3), refused="is of type int; expected a path, a table"),
    ],
    "What would hide a flip": [
        small(
            "case",
            "id,label,prediction\n1,cat,Cat\n2,cat,cat\n3,dog,dog\n",
            "id,label,prediction\n1,cat,dog\n2,cat,cat\n3,dog,dog\n",
            UNLIKE,
        ),
        small(
            "Unicode forms",
            "id,label,prediction\n1,caf\u00e9,cafe\u0301\n2,tea,tea\n",
            "id,label,prediction\n1,caf\u00e9,tea\n2,tea,tea\n",
            UNLIKE,
        ),
        small(
            "white space",
            "id,label,prediction\n1,cat,cat \n2,tea,tea\n",
            "id,label,prediction\n1,cat,tea\n2,tea,tea\n",
            UNLIKE,
        ),
        small(
            "punctuation",
            "id,label,prediction\n1,hot dog,hot_dog\n2,tea,tea\n",
            "id,label,prediction\n1,hot dog,tea\n2,tea,tea\n",
            UNLIKE,
        ),
        small(
            "the writing of a number",
            "id,label,prediction\n1,1,01\n2,2,2\n",
            "id,label,prediction\n1,1,2\n2,2,2\n",
            UNLIKE,
        ),
        small(
            "labels from 1, predictions from 0",
            "id,label,prediction\n1,1,0\n2,2,1\n",
            "id,label,prediction\n1,1,0\n2,2,0\n",
            "never predicts '2' (1 row), and predicts '0' (1 row), never a label",
        ),
        small(
            "a column with the prefix of a score",
            "id,label,score_max,score_a,score_b\n1,a,.95,.9,.1\n2,b,.85,.2,.8\n",
            "id,label,prediction\n1,a,b\n2,b,a\n",
            "predicts 'max'",
        ),
        small(
            "mixed prefixes",
            "id,label,logit_a,score_b\n1,a,-2,.1\n2,b,-3,.9\n",
            "id,label,prediction\n1,a,b\n2,b,b\n",
            "expected one kind, or --scores logit",
        ),
        Kind(
            "an old model close to chance",
            given({"id": np.arange(40), "label": np.arange(40) % 4, "prediction": (np.arange(40) + 1) % 4}),
            given({"id": np.arange(40), "label": np.arange(40) % 4, "prediction": np.arange(40) % 4}),
            {"max_nfr": 0},
            refused="the old model is right on 0 of 40 rows of its classes, close to chance",
        ),
    ],
}


def tables() -> str:
    """Return a table for each group of kinds, as markdown.

    Examples:
      >>> [line for line in tables().splitlines() if line.startswith("| `.pkl`")]
      ['| `.pkl` | refused: a pickle can run code: save as .parquet |']
    """
    lines = []
    for group, kinds in GROUPS.items():
        lines += [f"### {group}", "", "| input | what happens |", "|---|---|"]
        for kind in kinds:
            happens = f"refused: {kind.refused.format(old='OLD')}" if kind.refused else "compared"
            note = f"; {kind.note}" if kind.note else ""
            lines.append(f"| {kind.name.replace('|', chr(92) + '|')} | {happens}{note} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def page() -> str:
    """Return `docs/gate_inputs.md` with the tables of the data."""
    before, rest = PAGE.read_text("utf-8").split(START)
    return f"{before}{START}{tables()}{END}{rest.split(END)[1]}"


def _feather(path: pathlib.Path) -> pathlib.Path:
    pyarrow.feather.write_feather(pa.table(OLD), path)
    return path


def _class_label(package: Any, table: Mapping[str, Any]) -> Any:
    names = package.ClassLabel(names=CLASSES)
    value = package.Value("int64")
    features = package.Features({"id": value, "label": names, "prediction": value})
    return package.Dataset.from_dict(dict(table), features=features)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
