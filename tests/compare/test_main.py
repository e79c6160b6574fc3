"""The gate as a command, with its exit status on good, bad and broken input."""

import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree

import numpy as np
import pyarrow.json
import pyarrow.parquet
import pytest

from mpt_jax.compare import gate, policy, show
from mpt_jax.compare.__main__ import main, parse
from mpt_jax.files.predictions import released
from mpt_jax.runtime import regular_file

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 0),
        (["--max-nfr=0.1"], 0),
        (["--max-nfr=0.0999"], 1),
        (["--max-nfr=0.1", "--confident"], 1),
        (["--max-nfr=0.22", "--confident"], 0),
        (["--max-nfr=0.22", "--confident", "--confidence=0.999"], 1),
        (["--max-relative-nfr=1.25"], 0),
        (["--max-relative-nfr=1.24"], 1),
        (["--max-class-nfr=0.12"], 0),
        (["--max-class-nfr=0.1"], 1),
        (["--min-accuracy=0.95"], 0),
        (["--min-accuracy=0.951"], 1),
        (["--max-nfr=0.9", "--min-accuracy=0.96"], 1),
        (["--old-classes=4", "--max-nfr=0.05", "--allow-poor-old"], 0),
        (["--old-classes=0,1,2", "--max-nfr=0.05", "--allow-poor-old"], 1),
        (["--classes=w,x,y,z", "--old-classes=w,x", "--max-nfr=0.1"], 0),
    ],
)
def test_exit_status(files, options, status, capsys):
    assert main([*files, *options]) == status
    printed = capsys.readouterr()
    assert "Flipped examples (5)" in printed.out and not printed.err
    assert ("REGRESSION" in printed.out) == (status == 1)


def test_a_bare_unlabelled_does_not_take_the_file_after_it():
    for line, value in (
        (["--unlabelled", "old", "new"], "only"),
        (["old", "new", "--unlabelled"], "only"),
        (["--unlabelled", "skip", "old", "new"], "skip"),
        (["old", "--unlabelled=skip", "new"], "skip"),
        (["old", "new"], None),
    ):
        found = parse(line)
        assert (found.old, found.new, getattr(found, "unlabelled", None)) == ("old", "new", value)


def test_one_of_the_files_may_come_from_standard_input(files, monkeypatch, tmp_path, capsys):
    content = pathlib.Path(files[1]).read_bytes()
    for packed in (content, gzip.compress(content)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(packed)))
        assert main([files[0], "-", "--max-nfr=0.1", "--json=-"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["new"] == "stdin" and found["old_classes_rows"]["negative_flips"] == 5
    for content, message in ((b"id,label\n1,2\n", "stdin has the columns 'id', 'label'"), (b"", "stdin is empty")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert main(["-", files[1]]) == 2
        assert message in capsys.readouterr().err
    assert main(["-", "-"]) == 2
    assert "- is given twice; expected one file" in capsys.readouterr().err


PLACES = "id,place\n" + "".join(f"i{i},{i > 80}\n" for i in range(100))


@pytest.mark.parametrize(
    ("options", "content", "value"),
    [
        (["--must-pass=-"], "i89\ni0\n", 1 / 2),
        (["--must-pass=-"], "\ufeffi0\r\ni1\r\n", 0),
        (["--must-pass=-"], "uid,id\n1,i89\n", 1),
        (["--must-pass=-"], '{"id": "i89"}\n{"id": "i0"}\n', 1 / 2),
        (["--metadata=-", "--slice=place", "--max-slice-nfr=0.1"], PLACES, 5 / 9),
    ],
)
def test_ids_and_metadata_may_come_from_standard_input(files, options, content, value, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert main([*files, *options, "--json=-"]) == (1 if value else 0)
    assert json.loads(capsys.readouterr().out)["checks"][0]["value"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("options", "content", "message"),
    [
        (["--must-pass=-"], "i0\nnowhere\n", "1 id of stdin is not in"),
        (["--must-pass=-"], "", "stdin is empty"),
        (["--metadata=-", "--slice=place"], "id,other\ni0,1\n", "unknown column 'place' for slice"),
        (["--metadata=-", "--must-pass=-", "--slice=place"], PLACES, "- is given twice"),
    ],
)
def test_bad_ids_and_metadata_on_standard_input_are_one_line(files, options, content, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert main([*files, *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_columns_and_labels_of_other_files(tmp_path, capsys):
    texts = {"old": "uid,y\n1,a\n2,b\n", "new": "uid;y\n2;a\n1;a\n", "labels": "uid,y_true\n1,a\n2,b\n3,a\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    files = [str(tmp_path / f"{name}.csv") for name in ("old", "new")]
    options = ["--columns=id=uid,label=y_true,prediction=y", f"--labels={tmp_path / 'labels.csv'}"]
    assert main([*files, *options, "--max-nfr=0.4"]) == 1
    assert "Not compared: 1 labels without a prediction" in capsys.readouterr().out
    assert main([*files, "--columns=id,label=y"]) == 2
    assert "expected a name for each usual column once" in capsys.readouterr().err


def test_bad_input_replaces_what_an_earlier_comparison_left(files, tmp_path, capsys):
    outputs = {kind: tmp_path / f"out.{kind}" for kind in ("json", "html", "junit")}
    options = [f"--{kind}={path}" for kind, path in outputs.items()]
    bad = tmp_path / "bad.csv"
    bad.write_text("id,label,prediction\n1,<a>,<A>\n")
    assert main([str(bad), files[1], *options]) == 2
    assert all(path.exists() for path in outputs.values())
    assert main([*files, "--max-nfr=0.1", *options]) == 0
    capsys.readouterr()
    assert main([str(bad), files[1], *options]) == 2
    suite = ElementTree.fromstring(outputs["junit"].read_text())
    assert suite.get("errors") == "1" and "100 ids are in" in suite.find(".//error").get("message")
    found = json.loads(outputs["json"].read_text())
    assert not found["passed"] and found["error"] in capsys.readouterr().err
    assert [each["kind"] for each in found["inputs"]] == ["file", "file"]
    assert found["inputs"][0]["sha256"] == hashlib.sha256(bad.read_bytes()).hexdigest()
    page = outputs["html"].read_text()
    assert "nothing was compared" in page and "PASS" not in page and "<a>" not in page


@pytest.mark.parametrize(
    "wrong",
    [
        ["--max-nfr=1%"],
        ["--max-nfr=0.1", "--max-nfr=0.2"],
        ["--max-nrf=0.1"],
        ["--confidence=95"],
        ["--markdown=nowhere/x.md"],
        ["--policy=nowhere.toml"],
        ["--unlabelled=all"],
    ],
)
def test_a_wrong_command_line_replaces_what_an_earlier_comparison_left(files, wrong, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    outputs = ["--json=gate.json", "--html", "gate.html", "--junit=gate.xml"]
    assert main([*files, "--max-nfr=0.1", *outputs]) == 0
    before = {name: pathlib.Path(name).read_bytes() for name in files}
    capsys.readouterr()
    assert main([*files, *wrong, *outputs]) == 2
    error = capsys.readouterr().err
    found = json.loads(pathlib.Path("gate.json").read_text())
    assert not found["passed"] and f"error: {found['error']}\n" == error
    assert "PASS" not in pathlib.Path("gate.html").read_text()
    assert ElementTree.parse("gate.xml").getroot().get("errors") == "1"
    assert before == {name: pathlib.Path(name).read_bytes() for name in files}


def test_an_error_is_printed_as_json_where_the_result_would_be(files, capsys):
    assert main([*files, "--max-nfr=0.1", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "pass"
    for wrong in ("--max-nfr=1%", "--classes=a"):
        assert main([*files, wrong, "--json=-"]) == 2
        printed = capsys.readouterr()
        found = json.loads(printed.out)
        assert found["verdict"] == "error" and not found["passed"] and printed.err == f"error: {found['error']}\n"


def test_only_the_files_that_are_needed_are_called_missing(files, capsys):
    assert main(files[:1]) == 2
    assert "required: NEW;" in capsys.readouterr().err


def test_an_error_overwrites_no_input(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("gate.toml").write_text("max-nfr = 0.1")
    for output in (files[0], files[1], "gate.toml", "ids.txt"):
        pathlib.Path("ids.txt").write_text("i1")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        line = [*files, "--policy=gate.toml", "--must-pass", "ids.txt", "--max-nfr=1%", f"--json={output}"]
        assert main(line) == 2
        assert main([*line, "--html=gate.html", "--junit=./gate.html"]) == 2
        assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()


def test_an_option_that_is_given_twice_is_refused_since_one_value_would_be_ignored(files, tmp_path, capsys):
    ids = {name: tmp_path / name for name in ("flipped", "kept")}
    ids["flipped"].write_text("i89")
    ids["kept"].write_text("i0")
    both = [f"--must-pass={path}" for path in ids.values()]
    assert main([*files, both[0]]) == 1 and main([*files, both[1]]) == 0
    capsys.readouterr()
    assert main([*files, *both]) == 2
    assert "--must-pass is given twice; expected one value" in capsys.readouterr().err
    assert main([*files, "--slice=label", "--same=x=0", "--same=y=1"]) == 2  # these may be repeated
    assert "unknown class 'x' in same" in capsys.readouterr().err


def test_the_requested_files_are_written(files, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("wasp\nxerus\nyak\nzebra\n")
    outputs = {kind: tmp_path / f"out.{kind}" for kind in ("json", "html", "junit")}
    options = [f"--{kind}={path}" for kind, path in outputs.items()]
    assert main([*files, *options, "--max-nfr=0.01", f"--classes={tmp_path / 'names.txt'}", "--examples=2"]) == 1
    found = json.loads(outputs["json"].read_text())
    assert found["flips"]["count"] == 5 and len(found["flips"]["examples"]) == 2
    assert found["flips"]["examples"][0]["new"] == "zebra"
    assert "zebra" in outputs["html"].read_text() and "zebra" in capsys.readouterr().out
    assert ElementTree.fromstring(outputs["junit"].read_text()).get("failures") == "1"
    assert main([*files, "--json=-"]) == 0
    assert json.loads(capsys.readouterr().out)["old_classes_rows"]["negative_flips"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-nfr=1%"], "--max-nfr: '1%'; expected a number, such as 0.01 for 1 %"),
        (["--max-nfr=5"], "max_nfr is 5.0; expected a fraction"),
        (["--confident"], "confident applies to limits, but none is given"),
        (["--confidence=95"], "between 0 and 1"),
        (["--examples=-1"], "expected 0 or more"),
        (["--max=0.1"], "unrecognized arguments"),
        (["--json=/nowhere/x.json"], "expected a file in an existing, writable folder"),
        (["--html={old}"], "would overwrite the predictions"),
        (["--classes=names", "--junit=names"], "--junit names would overwrite the names"),
        (["--json=x", "--html=./x"], "--html ./x would overwrite the output of --json"),
        (["--html=-"], "--html - is not a file"),
        (["--junit=-"], "--junit - is not a file"),
        (["--json=socket"], "--json socket is not a file"),
        (["--classes=nowhere.txt"], "is not a file"),
        (["--classes=a,b"], "there are 2 class names"),
        (["--old-classes=1"], "predicts '1', not among the 1 classes"),
        (["--old-classes=0"], "expected a positive integer"),
        (["--old-classes=" + "9" * 5000], "expected a positive integer"),
        (["--classes=a,b,c,d", "--old-classes=30"], "old_classes is 30; expected at most 4"),
        (["more"], "more: unknown format"),
    ],
)
def test_bad_options_are_one_line_and_status_2(files, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("names").write_text("a\nb\nc\nd\n")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert main([*files, *(option.format(old=files[0]) for option in options)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and not printed.out
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("name", ["json", "html", "junit"])
def test_on_a_full_disk_each_file_is_either_old_or_new(files, name, tmp_path, monkeypatch, capsys):
    outputs = {kind: tmp_path / f"out.{kind}" for kind in ("json", "html", "junit")}
    for path in outputs.values():
        path.write_text("before")
    created = regular_file.created

    @contextlib.contextmanager
    def full(path):
        with created(path) as file:
            yield file
            if name in path.name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(regular_file, "created", full)
    assert main([*files, *(f"--{kind}={path}" for kind, path in outputs.items())]) == 3
    assert "No space left" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == sorted([*map(pathlib.Path, files), *outputs.values()])
    assert outputs[name].read_text() == "before"
    for kind in list(outputs)[: list(outputs).index(name)]:
        assert len(outputs[kind].read_text()) > 1000


@pytest.mark.parametrize("where", ["page", "measure"])
def test_a_fault_of_the_program_is_no_regression_and_leaves_no_earlier_pass(
    files, where, tmp_path, monkeypatch, capsys
):
    def fails(*args, **options):
        raise ZeroDivisionError("in the program")

    outputs = {kind: tmp_path / f"x.{kind}" for kind in ("json", "html", "markdown", "junit")}
    options = [f"--{kind}={path}" for kind, path in outputs.items()]
    assert main([*files, "--max-nfr=0.5", *options]) == 0
    capsys.readouterr()
    monkeypatch.setattr(*((show, "page") if where == "page" else (gate, "measure")), fails)
    assert main([*files, "--max-nfr=0.5", *options]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and error.splitlines()[-1].startswith("error: a fault of mpt_jax itself, nothing was")
    assert json.loads(outputs["json"].read_text())["verdict"] == "error"
    for path in outputs.values():
        assert "in the program" in path.read_text() and "PASS" not in path.read_text()


def test_links_are_followed_and_kept(files, tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "x.json")
    assert main([*files, f"--json={tmp_path / 'link.json'}"]) == 0
    assert (tmp_path / "link.json").is_symlink() and json.loads((tmp_path / "x.json").read_text())["passed"]
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert main([str(tmp_path / "loop.csv"), files[1], f"--json={tmp_path / 'y.json'}"]) == 2


def test_bad_files_are_one_line_and_status_2(files, tmp_path, capsys):
    bad = tmp_path / "bad.csv"
    bad.write_text("id,label,prediction\n" + "".join(f"i{i},{i % 4},0\n" for i in [*range(98), 97, 200, 201]))
    assert main([str(bad), files[1], f"--json={tmp_path / 'x.json'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "1 id is in" in error and "more than once: 'i97'" in error
    assert "2 ids are in" in error and "'i200', 'i201'" in error and "'i98', 'i99'" in error
    assert "; expected every id once in both, with a label and a prediction" in error
    assert error == f"error: {json.loads((tmp_path / 'x.json').read_text())['error']}\n"
    assert main([files[0], str(tmp_path / "nowhere.csv")]) == 2 and "no such file" in capsys.readouterr().err
    assert main([files[0]]) == 2 and "NEW" in capsys.readouterr().err


def test_the_real_command_on_predictions_of_a_run_without_jax(tmp_path):
    labels = np.arange(60) % 3
    for name, count, seed in (("old", 2, 0), ("new", 3, 1)):
        logits = np.random.default_rng(seed).normal(size=(60, count))
        released.write(tmp_path / f"{name}.npz", labels=labels, logits=logits, ids=np.arange(60))
    code = (
        "import runpy, sys\n"
        "try: runpy.run_module('mpt_jax.compare', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: print(end.code, sorted({'jax', 'tensorflow', 'torch'} & set(sys.modules)))"
    )
    line = [sys.executable, "-c", code, str(tmp_path / "old.npz"), str(tmp_path / "new.npz"), "--max-nfr=0"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.stdout.splitlines()[-1] == "1 []", done.stderr
    assert "REGRESSION" in done.stdout


def test_the_commands_of_the_documentation(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pyarrow.parquet.write_table(pyarrow.json.read_json("new.jsonl"), "new.parquet")
    text = (ROOT / "docs/release_gate.md").read_text(encoding="utf-8")
    commands = re.findall(r"python -m mpt_jax\.compare (old.*)", text)
    assert len(commands) == 2
    for command in commands:
        assert main(shlex.split(command)) == 1  # 10 % of these flip
        assert "FAIL max_nfr: 10.00 %" in capsys.readouterr().out
    assert {"gate.html", "gate.xml"} <= {path.name for path in tmp_path.iterdir()}


def test_the_documentation_names_options_that_exist(capsys):
    text = (ROOT / "docs/release_gate.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


def test_the_policy_of_the_documentation_can_be_read():
    text = (ROOT / "docs/release_gate.md").read_text(encoding="utf-8")
    found, own = policy.read(tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1]), {})
    assert (found.max_nfr, found.min_rows, found.slices) == (0.01, 50, ["country"])
    assert own == {
        "max_class_nfr": {"stop_sign": 0.0},
        "max_slice_nfr": {"country": 0.02},
        "max_slice_accuracy_drop": {"country=Iceland": 0.05},
    }


def test_slices_weights_and_examples_that_must_pass_as_options(files, tmp_path, capsys):
    meta, ids, out = tmp_path / "meta.csv", tmp_path / "ids.txt", tmp_path / "out.json"
    rows = "".join(f"i{i},{'night' if i > 80 else 'day'},{'car' if i % 2 else 'bus'},{1 + i % 3}\n" for i in range(100))
    meta.write_text(f"id,time,place,share\n{rows}")
    ids.write_text("i89\ni90\n")
    options = ["--slice=time", "--slice=place", f"--metadata={meta}", "--weight=share", "--max-slice-nfr=0.1"]
    assert main([*files, *options, f"--json={out}"]) == 1
    found = json.loads(out.read_text())
    assert {(row["column"], row["value"]) for row in found["slices"]} == {
        *(("time", "day"), ("time", "night"), ("place", "car"), ("place", "bus"))
    }
    assert found["checks"][0]["where"] == "slice time=night, 9 rows" and found["checks"][0]["verdict"] == "regression"
    assert (
        found["old_classes_rows"]["effective_rows"] < 50
        and [each["role"] for each in found["inputs"]][-1] == "metadata"
    )
    assert "Worst slices" in capsys.readouterr().out
    assert main([*files, f"--must-pass={ids}"]) == 1
    assert "FAIL must_pass: 50.00 % on 2 examples" in " ".join(capsys.readouterr().out.split())
    for bad in (["--slice=tim", f"--metadata={meta}"], [f"--must-pass={meta}x"], [f"--metadata={meta}"]):
        assert main([*files, *bad]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main([*files, "--slice=time", f"--metadata={meta}", f"--json={meta}"]) == 2
    assert "would overwrite the metadata" in capsys.readouterr().err and meta.read_text().endswith(rows)


def test_further_modes_as_commands(files, tmp_path, monkeypatch, capsys):
    outputs = {kind: tmp_path / f"out.{kind}" for kind in ("json", "html", "markdown", "junit")}
    options = [f"--{kind}={path}" for kind, path in outputs.items()]
    assert main([*files, "--max-nfr=0.1", files[1], "--allow-poor-old", *options]) == 0  # options between files
    found = json.loads(outputs["json"].read_text())
    assert found["kind"] == "chain" and found["models"] == [*files, files[1]] and found["created"]
    assert [step["flips"]["count"] for step in found["steps"]] == [5, 0] and found["lost_from_any"]["count"] == 5
    shown = " ".join(capsys.readouterr().out.split())
    assert "old.csv -> new.jsonl" in shown and "PASS: within all limits" in shown
    for kind in ("html", "markdown", "junit"):
        text = outputs[kind].read_text().replace("\u2060", "")
        assert "Right in an earlier version and wrong in the last: 5 of 100 rows" in text
    assert main([*files, files[0], "--max-nfr=0.099", *options]) == 1
    suite = ElementTree.fromstring(outputs["junit"].read_text())
    assert [case.get("name")[-15:] for case in suite.findall(".//testcase")] == [": max_nfr 0.099"] * 3
    assert main([*files, files[0], f"--json={files[0]}"]) == 2 and "would overwrite" in capsys.readouterr().err

    assert main(["--unlabelled", *files, "--max-churn=0.9", *options]) == 0
    assert json.loads(outputs["json"].read_text())["kind"] == "agreement"
    shown = " ".join(capsys.readouterr().out.split())
    assert "were ignored" in shown and "Changes from class to class" in shown
    assert "Changes from class to class" in outputs["html"].read_text()
    assert main(["--unlabelled", *files, "--max-nfr=0.9"]) == 2
    assert "max_nfr does not apply without labels" in capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    pathlib.Path("a.csv").write_text("id,label,prediction\n1,cat|dog,cat|dog\n2,,\n3,<b>,<b>\n")
    pathlib.Path("b.csv").write_text("id,label,prediction\n1,dog|cat,cat\n2,,<b>\n3,<b>,<b>\n")
    assert main(["a.csv", "b.csv", "--multi-label=|", "--max-nfr=0", *options]) == 1
    found = json.loads(outputs["json"].read_text())
    assert found["kind"] == "multi-label" and found["labels"]["missed"] == found["labels"]["false_alarms"] == 1
    assert "<b>" not in outputs["html"].read_text() and "&lt;b&gt;" in outputs["html"].read_text()
    assert "Flipped rows (2)" in capsys.readouterr().out
    assert main(["a.csv", "b.csv", "b.csv", "--multi-label=|"]) == 2
    assert "a chain has more than two files" in capsys.readouterr().err
