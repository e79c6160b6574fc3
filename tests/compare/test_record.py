"""The JSON stands alone: it names every input by its bytes, and its published schema describes every key."""

import datetime
import gzip
import hashlib
import json
import pathlib
import platform

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from gate_schema import SCHEMA, require_described
from jsonschema import Draft202012Validator

from mpt_jax.compare import chain, compare, record
from mpt_jax.compare.__main__ import main

ROWS = {"id": [1, 2, 3, 4], "label": ["cat", "dog", "cat", "dog"], "prediction": ["cat", "dog", "dog", "dog"]}


def test_the_schema_is_one_and_rejects_what_is_no_result():
    Draft202012Validator.check_schema(SCHEMA)
    result = json.loads(json.dumps(compare(ROWS, ROWS, max_nfr=0.5)))
    validator = Draft202012Validator(SCHEMA)
    assert validator.is_valid(result)
    for key in ("inputs", "versions", "checks", "all_rows"):
        assert not validator.is_valid({name: value for name, value in result.items() if name != key})
    assert not validator.is_valid(result | {"passed": "yes"}) and not validator.is_valid(result | {"schema": 2})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_nfr": 0.5},
        {"max_nfr": 0.1, "confident": True},
        {"max_nfr": 0.0, "max_relative_nfr": 2, "max_class_nfr": 0.1, "min_accuracy": 1},
        {"old_classes": ["cat", "dog"], "same": {"dog": "hound"}, "examples": 0, "confidence": 0.9},
    ],
)
def test_the_schema_describes_every_result(options):
    if "same" in options:
        options = options | {"old_classes": ["cat", "hound"]}
    new = ROWS | {"prediction": ["cat", "dog", "dog", "cat"]}
    require_described(json.loads(json.dumps(compare(ROWS, new, **options), allow_nan=False)))
    scores = {"id": [1, 2, 3], "label": [0, 1, 2], "scores": [[0.5, 0.5, 0], [0, 1, 0], [0, 1, 0]]}
    tied = compare(
        scores | {"scores": [[0.5, 0.5], [0, 1], [0, 1]]}, scores, **options | {"same": {}, "old_classes": None}
    )
    assert tied["ties"]["rows"] and tied["new_classes"]
    require_described(json.loads(json.dumps(tied, allow_nan=False)))


def test_the_schema_describes_every_verdict():
    old = {"id": range(300), "label": [i % 3 for i in range(300)], "prediction": [i % 3 for i in range(300)]}
    new = old | {"prediction": [(i + (i < 60)) % 3 for i in range(300)]}
    limits = {"max_class_nfr": 0.3, "max_recall_drop": 0.01, "max_nfr": 0.19, "max_churn": 0.19, "max_accuracy_drop": 0}
    seen = compare(old, new, **limits, undecided="pass")
    assert {check["verdict"] for check in seen["checks"]} == {"pass", "regression", "undecided"}
    none = compare(old, new, max_class_nfr=0.3, min_rows=1000)
    assert none["checks"][0]["value"] is None and none["checks"][0]["groups"]["not_judged"]
    for result in (seen, none, compare(old, new, max_relative_nfr=2, min_accuracy=0.5, confident=True)):
        require_described(json.loads(json.dumps(result, allow_nan=False)))


@pytest.mark.parametrize("weight", [None, "w"])
def test_the_schema_describes_slices_weights_and_examples_that_must_pass(weight):
    count = 1200
    old = {"id": np.arange(count), "label": ["cat", "dog"] * (count // 2), "prediction": ["cat", "dog"] * (count // 2)}
    old |= {"site": np.arange(count) % 3, "time": np.arange(count) // 3 % 2, "w": np.arange(count) % 5 + 0.5}
    is_weak = (old["site"] == 1) & (old["time"] == 0)
    new = old | {"prediction": np.where(is_weak, "cat", old["label"])}
    found = compare(
        old, new, slices=["site", "time"], weight=weight, must_pass=[1, 2], max_slice_nfr=0.1, max_class_nfr=0.5
    )
    assert found["combinations"] and found["slices"] and found["must_pass"]["rows"] == 2
    assert ("effective_rows" in found["slices"][0]) == (weight is not None)
    require_described(json.loads(json.dumps(found, allow_nan=False)))


def test_the_record_names_the_policy_and_the_ids_that_must_pass(tmp_path):
    (tmp_path / "ids.txt").write_text("1\n3\n")
    (tmp_path / "gate.toml").write_text("max-nfr = 0.1\n[class.cat]\nmax-nfr = 0.5\n")
    result = compare(ROWS, ROWS, must_pass=tmp_path / "ids.txt", policy=tmp_path / "gate.toml")
    require_described(json.loads(json.dumps(result, allow_nan=False)))
    assert [each["role"] for each in result["inputs"]] == ["old", "new", "must_pass", "policy"]
    assert result["inputs"][3]["sha256"] == hashlib.sha256((tmp_path / "gate.toml").read_bytes()).hexdigest()
    assert result["options"]["max_nfr"] == 0.1 and result["options"]["own"]["max_class_nfr"] == {"cat": 0.5}


def test_the_command_records_time_and_inputs_and_describes_an_error(files, tmp_path):
    out = tmp_path / "gate.json"
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    assert main([*files, "--max-nfr=0.1", f"--json={out}"]) == 0
    result = json.loads(out.read_text())
    require_described(result)
    assert before <= datetime.datetime.fromisoformat(result["created"]) <= datetime.datetime.now(datetime.UTC)
    assert result["options"]["max_nfr"] == 0.1 and "created" not in compare(*files)
    for path, found in zip(files, result["inputs"], strict=True):
        content = pathlib.Path(path).read_bytes()
        assert found["name"] == path and found["bytes"] == len(content) and found["rows"] == 100
        assert found["sha256"] == hashlib.sha256(content).hexdigest()
    assert [found["lines"] for found in result["inputs"]] == [101, 100]
    pathlib.Path(files[0]).write_text("id,label\n")
    assert main([*files, f"--json={out}"]) == 2
    require_described(json.loads(out.read_text()))


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", 0),
        (b"a", 1),
        (b"a\n", 1),
        (b"a\nb", 2),
        (b"\n", 1),
        ("a\n".encode("utf-16"), None),
        (b"\n" * 2**21, 2**21),
    ],
)
def test_a_file_is_known_by_its_bytes_and_lines(content, lines, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    found = record.file(path)
    assert (found["bytes"], found["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert found.get("lines") == lines


def test_tables_in_memory_and_binary_files_have_no_lines(tmp_path):
    table = pa.table(ROWS)
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    found = compare(table, tmp_path / "x.parquet")["inputs"]
    assert found[0] == {"role": "old", "kind": "pyarrow.lib.Table", "rows": 4}
    assert found[1]["kind"] == "file" and "lines" not in found[1]
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"id,label,prediction\n1,cat,cat\n"))
    assert "lines" not in record.file(tmp_path / "x.csv.gz")
    assert compare(ROWS, ROWS)["inputs"][0] == {"role": "old", "kind": "arrays", "rows": 4}


def test_options_are_plain_values_and_complete():
    found = compare(ROWS, ROWS, max_nfr=np.float32(0.5), old_classes=np.int64(2), classes=("cat", "dog"))["options"]
    expected = {"max_nfr": 0.5, "old_classes": 2, "classes": ["cat", "dog"], "confidence": 0.95, "examples": 1000}
    assert expected.items() <= found.items() and "min_accuracy" not in found
    assert type(found["max_nfr"]) is float and type(found["old_classes"]) is int


def test_the_result_is_the_same_each_time_and_names_its_versions():
    assert compare(ROWS, ROWS) == compare(ROWS, ROWS)
    assert record.versions()["numpy"] == np.__version__ and record.versions()["python"] == platform.python_version()


def test_the_schema_describes_the_further_modes():
    new = ROWS | {"prediction": ["cat", "cat", "dog", "owl"]}
    lists = ROWS | {"label": [["cat"], ["dog"], [], ["cat"]], "prediction": [["cat"], ["dog"], [], []]}
    lost = lists | {"prediction": [[], ["dog", "owl"], ["owl"], ["cat"]]}
    found = [
        chain([ROWS, new, ROWS], max_nfr=0.1, max_class_nfr=0.1),
        compare(ROWS, new, unlabelled="only", max_churn=0.1),
        compare(lists, lost, multi_label="list", max_nfr=0.1, max_class_nfr=0.1, max_recall_drop=0.1, min_accuracy=0.5),
        compare(lists, lists, multi_label="list"),
    ]
    for result in found:
        require_described(json.loads(json.dumps(result, allow_nan=False)))


def test_rows_that_were_read_are_counted_with_those_that_are_not_compared():
    table = {"id": [1, 2, 3, 4], "label": ["cat", "dog", "disk", ""], "prediction": ["cat", "dog", "disk", "cat"]}
    new = table | {"prediction": ["cat", "dog", "cat", "cat"]}
    options = {"unlabelled": "skip", "allow_poor_old": True}
    result = compare(table, new, class_map={"retire": ["disk"]}, **options)
    assert [each["rows"] for each in result["inputs"][:2]] == [4, 4] and result["all_rows"]["count"] == 2
    result = chain([table, new, new], class_map=[{"retire": ["disk"]}, {}], **options)
    assert [each["rows"] for each in result["inputs"] if "rows" in each] == [4, 4, 4]
