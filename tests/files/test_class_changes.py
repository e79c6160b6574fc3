"""Class maps and corrected labels are read from files of every form, and refused in one line."""

import json
import re

import pyarrow as pa
import pytest
from pyarrow import parquet

from mpt_jax.class_map import ClassMap
from mpt_jax.errors import InputError
from mpt_jax.files import sealed
from mpt_jax.files.class_changes import LabelChanges, read_class_map, read_label_changes

TOML = """
merge = {"cat" = ["tabby", "siamese"]}
retire = ["floppy disk"]

[rename]
car = "automobile"
"3" = 4
"""
MAP = ClassMap({"car": "automobile", "3": "4"}, {"cat": ("tabby", "siamese")}, {}, ("floppy disk",))
CHANGED = {"id": ["7", "a"], "old_label": ["cat", "dog"], "new_label": ["dog", "owl"]}


def test_toml_and_json_are_the_same_map(tmp_path):
    (tmp_path / "map.toml").write_text("\ufeff" + TOML, encoding="utf-8")
    (tmp_path / "map.JSON").write_text(
        '{"rename": {"car": "automobile", "3": 4}, "merge": {"cat": ["tabby", "siamese"]}, "retire": ["floppy disk"]}'
    )
    assert read_class_map(tmp_path / "map.toml") == read_class_map(str(tmp_path / "map.JSON")) == MAP
    assert read_class_map(MAP) is MAP and read_class_map(MAP.as_dict()) == MAP


def test_the_card_of_a_release_has_the_map_that_it_was_trained_with(tmp_path):
    card = {"name": "r1-a-seed0", "classes": ["cat"], "class_map": {**MAP.as_dict(), "digest": "00ff"}}
    (tmp_path / "card.json").write_text(json.dumps(sealed.sealed(card)))
    assert read_class_map(tmp_path / "card.json") == MAP
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"card\.json is damaged or was edited"):
        read_class_map(tmp_path / "card.json")
    (tmp_path / "card.json").write_text(json.dumps(sealed.sealed({"classes": ["cat"]})))
    with pytest.raises(InputError, match="has no class map; expected the card of a release that was trained with one"):
        read_class_map(tmp_path / "card.json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("map.yaml", b"", "map.yaml: expected a class map in a file that ends in .toml or .json"),
        ("missing.toml", None, "missing.toml: no such file; expected a class map in TOML or JSON"),
        ("map.toml", b"rename = {", "map.toml: "),
        ("map.toml", b"\xff\xfe", "map.toml is not UTF-8"),
        ("map.json", b"{", "map.json: "),
        ("map.json", b'{"rename": {"a": "b", "a": "c"}}', "map.json: 'a' is given twice; expected a class map such as"),
        ("map.json", b"[" * 100_000, "map.json: "),
        ("map.json", b'{"retire": [1.5]}', "map.json: retire has 1.5; expected the name of a class"),
    ],
)
def test_files_that_are_no_class_map_are_refused_in_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        read_class_map(tmp_path / name)


def test_corrected_labels_are_read_from_tables_of_every_form(tmp_path):
    (tmp_path / "changes.csv").write_text("new_label,id,old_label,who\ndog,7,cat,me\nowl,a,dog,you\n")
    (tmp_path / "changes.jsonl").write_text(
        '{"id": "7", "old": "cat", "new": "dog"}\n{"id": "a", "old": "dog", "new": "owl"}\n'
    )
    parquet.write_table(pa.table(CHANGED), tmp_path / "changes.parquet")
    for given in (*(tmp_path / f"changes.{kind}" for kind in ("csv", "jsonl", "parquet")), CHANGED):
        assert read_label_changes(given)[1:] == (["7", "a"], ["cat", "dog"], ["dog", "owl"])
    assert read_label_changes({"id": [1], "old": [0], "new": [2]}) == LabelChanges("label_changes", ["1"], ["0"], ["2"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"id": ["7"], "new_label": ["dog"]}, "expected one called 'old_label'; expected the columns id, old_label"),
        (CHANGED | {"id": ["7", "7"]}, "label_changes has the id '7' twice; expected each once"),
        (
            CHANGED | {"new_label": ["cat", "owl"]},
            "label_changes: the labels of '7' are equal; expected a changed label",
        ),
        (
            CHANGED | {"old_label": ["cat", ""]},
            "label_changes has no old_label in row 2; expected an id, the label before",
        ),
        ({key: [] for key in CHANGED}, "label_changes has no rows; expected one for each corrected label"),
    ],
)
def test_corrected_labels_that_cannot_be_used_are_refused_in_one_line(given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_label_changes(given)
