"""Retired and split classes and corrected labels are in every output, and the published schema describes them."""

import io
import json
import pathlib
import xml.etree.ElementTree as ElementTree

import pytest
from gate_schema import require_described
from rich.console import Console

from mpt_jax.compare import chain, compare, markdown, show, text
from mpt_jax.compare.__main__ import main

MAP = {
    "rename": {"car": "automobile"},
    "merge": {"cat": ["tabby", "siamese"]},
    "split": {"dog": ["puppy", "adult dog"]},
    "retire": ["floppy disk"],
}
IDS = list("abcdefghij")
LABELS = ["automobile", "cat", "cat", "puppy", "adult dog", "puppy", "owl", "fox", "floppy disk", "floppy disk"]
BEFORE = ["car", "tabby", "siamese", "dog", "dog", "floppy disk", "owl", "owl", "floppy disk", "car"]
AFTER = ["owl", "cat", "owl", "adult dog", "adult dog", "puppy", "owl", "fox", "owl", "owl"]
CORRECTED = {"id": ["a", "b", "zz"], "old_label": ["owl", "owl", "cat"], "new_label": ["automobile", "cat", "owl"]}
OLD, NEW = ({"id": IDS, "label": LABELS, "prediction": each} for each in (BEFORE, AFTER))
OPTIONS = {"class_map": MAP, "label_changes": CORRECTED, "max_nfr": 0.1, "max_old_taxonomy_nfr": 0.5}


@pytest.fixture(scope="module")
def result():
    return compare(OLD, NEW, **OPTIONS)


def test_both_readings_of_a_split_class_and_the_retired_ones_are_in_the_result(result):
    assert result["class_map"]["retired"] == [{"class": "floppy disk", "rows": 2, "predicts": 1}]
    (split,) = result["class_map"]["split"]
    assert (split["class"], split["rows"], split["negative_flips"], split["accuracy_old"]) == ("dog", 3, 1, 2 / 3)
    assert split["old_taxonomy"]["negative_flips"] == 0 and split["old_taxonomy"]["accuracy_new"] == 1
    assert result["all_rows"]["negative_flips"] == 3 and result["old_taxonomy"]["negative_flips"] == 2
    assert [each["class"] for each in result["new_classes"]] == ["fox"]
    assert result["classes"]["count"] == 6 and "floppy disk" not in result["classes"]["old"]
    assert result["never_labels"] == {"old": [], "new": []}


def test_the_schema_describes_every_key(result):
    require_described(json.loads(json.dumps(result, allow_nan=False)))
    weighted = compare(OLD | {"w": range(1, 11)}, NEW, weight="w", **OPTIONS)
    require_described(json.loads(json.dumps(weighted, allow_nan=False)))
    require_described(json.loads(json.dumps(chain([OLD, NEW, NEW], class_map=[MAP, {}]), allow_nan=False)))


def test_every_output_shows_what_changed(result):
    console = Console(width=200, file=io.StringIO())
    console.print(show.terminal(result))
    outputs = {
        "terminal": console.file.getvalue(),
        "page": show.page(result),
        "markdown": markdown.summary(result).replace("\\", "").replace("\u2060", ""),
        "junit": "".join(ElementTree.fromstring(show.junit(result, 1.0)).itertext()),
    }
    for name, shown in outputs.items():
        assert "Old classes by the class map: 1 renamed, 2 merged into 1, 1 split into 2, 1 retired" in shown, name
        assert "Retired: floppy disk (2 rows not compared; still predicted by the old model in 1 row)" in shown, name
        assert "Corrected labels: 2 rows. Of 0 negative flips by the former labels" in shown, name
        assert "Not compared: 2 rows of retired classes" in shown, name
        if name != "junit":
            assert "In the old taxonomy, where any part" in shown and "adult dog, puppy" in shown, name
            assert "Flips that corrected labels explain or reveal" in shown and "revealed" in shown, name


def test_a_result_without_changes_says_nothing_of_them():
    labels = [each if each != "floppy disk" else "owl" for each in LABELS]
    plain = compare(NEW | {"label": labels}, NEW | {"label": labels})
    assert not {"class_map", "old_taxonomy", "label_changes"} & plain.keys()
    assert "taxonomy" not in show.page(plain) and "Corrected labels" not in markdown.summary(plain)


def test_corrections_of_many_rows_are_counted_in_full(result):
    found = result["label_changes"]
    assert (found["listed"], found["rows"], found["explained"], found["revealed"]) == (3, 2, 0, 1)
    assert found["former"] == {"both_right": 0, "negative_flips": 0, "positive_flips": 1, "both_wrong": 1}
    assert [each["id"] for each in found["examples"]] == ["a"]
    none = compare(OLD, NEW, **OPTIONS, examples=0)["label_changes"]
    assert none["examples"] == [] and none["revealed"] == 1


def test_the_command_takes_both_files_and_keeps_them(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, table in (("old.csv", OLD), ("new.csv", NEW), ("changes.csv", CORRECTED)):
        lines = [",".join(table), *(",".join(row) for row in zip(*table.values(), strict=True))]
        pathlib.Path(name).write_text("\n".join(lines) + "\n")
    pathlib.Path("map.json").write_text(json.dumps(MAP))
    pathlib.Path("empty.toml").write_text("")
    arguments = ["old.csv", "new.csv", "--class-map", "map.json", "--label-changes", "changes.csv"]
    assert main([*arguments, "--json", "out.json"]) == 0
    written = json.loads(pathlib.Path("out.json").read_text())
    assert written["all_rows"]["negative_flips"] == 3
    assert [each["role"] for each in written["inputs"]] == ["old", "new", "class_map", "label_changes"]
    assert all(len(each["sha256"]) == 64 for each in written["inputs"])
    assert written["options"]["class_map"] == ["map.json"] and written["options"]["label_changes"] == "changes.csv"
    assert main([*arguments[:2], "new.csv", "--class-map=map.json", "--class-map=empty.toml", "--json=out.json"]) == 0
    capsys.readouterr()
    for more in (["--json", "map.json"], ["--html", "changes.csv"], ["--class-map", "empty.toml"]):
        assert main([*arguments, *more]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert json.loads(pathlib.Path("map.json").read_text()) == MAP


def test_the_old_taxonomy_is_shown_for_split_classes_alone():
    merged = compare(
        {"id": [1, 2], "label": ["cat", "cat"], "prediction": ["tabby", "siamese"]},
        {"id": [1, 2], "label": ["cat", "cat"], "prediction": ["cat", "cat"]},
        class_map={"merge": MAP["merge"]},
    )
    assert merged["class_map"]["split"] == [] and merged["old_taxonomy"]["both_right"] == 2
    assert "old taxonomy" not in " ".join(cell for row in text.rate_cells(merged) for cell in row)
