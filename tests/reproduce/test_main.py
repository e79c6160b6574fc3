"""The command, on a table small enough for a test."""

import dataclasses
import json
import re

import pytest

from mpt_jax import train
from mpt_jax.files.sealed import read_sealed
from mpt_jax.reproduce import __main__ as command
from mpt_jax.reproduce import results


def test_the_same_command_again_gives_the_same_files(made):
    folder, make = made
    files = [
        folder / "REPRODUCIBILITY.md",
        *(path for of in ("docs", "results") for path in (folder / of).rglob("*.*")),
    ]
    before = {path: path.read_bytes() for path in files}
    assert make() == 0
    assert {path: path.read_bytes() for path in files} == before


def test_a_table_can_be_made_seed_by_seed(made, small_table, tmp_path, capsys):
    folder, make = made
    whole, kept = folder / "results/features-cpu.json", tmp_path / "features-cpu.json"
    elsewhere = (f"--results={tmp_path}", f"--page={tmp_path / 'page.md'}")
    first, _ = results.read(whole)["runs"]
    results.write(kept, "features", "cpu", "", [first])
    assert make("--seeds=1", *elsewhere) == 0
    assert kept.read_bytes() == whole.read_bytes()
    assert command._existing(kept, small_table, "cpu") == results.read(whole)["runs"]
    results.write(kept, "features", "cpu", "", [first | {"command": "python -m mpt_jax.train of another protocol"}])
    assert command._existing(kept, small_table, "cpu") == []
    kept.write_text("{")
    capsys.readouterr()
    assert command._existing(kept, small_table, "cpu") == []
    assert "is no result of this version" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["features", "--seeds=0,0"], "--seeds 0,0: expected integers of 0 or more, each once"),
        (["features", "--seeds=,"], "--seeds ,: expected integers"),
        (["features", "--seeds=-1"], "--seeds -1: expected integers"),
        (["page", "--results={folder}/nothing"], "nothing has no table; expected a folder with files such as"),
        (["page", "--results={folder}/file"], "file is a file; expected a folder"),
        (["features", "--page={folder}/missing/page.md"], "--page .*page.md is in a folder that does not exist"),
        (["features", "--workdir=gs://"], "names no folder of a bucket"),
    ],
)
def test_bad_input_is_refused_before_training_and_writing(arguments, message, made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "main", None)
    (tmp_path / "file").touch()
    folder, _ = made
    given = [f"--workdir={folder}/workdir", f"--results={folder}/results", *arguments[1:]]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert command.main([arguments[0], *(word.format(folder=tmp_path) for word in given)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_seeds_trained_together_are_not_replaced_by_some_of_them(made, capsys, tmp_path):
    folder, make = made
    kept = tmp_path / "features-cpu.json"
    found = results.read(folder / "results/features-cpu.json")["runs"]
    results.write(kept, "features", "cpu", "", [{**found[0], "seeds": [0, 1]}])
    before = kept.read_bytes()
    assert make(f"--results={tmp_path}", "--seeds=1") == 2
    assert "holds the seeds 0, 1 as one run" in capsys.readouterr().err
    assert kept.read_bytes() == before


def test_the_status_of_a_failed_run_is_returned(made, capsys):
    _, make = made
    assert make("--seeds=x") == 2
    assert capsys.readouterr().err.startswith("error: --seeds x: expected integers")
    assert make("--seeds=4294967296") == 2  # above the largest seed, which the run checks
    assert "to resume: python -m mpt_jax.reproduce" in capsys.readouterr().err


def test_parts_share_teachers_and_their_rows_are_those_of_one_run(made, reproduce, small_table, tmp_path, monkeypatch):
    (expected,) = (run for run in results.read(made[0] / "results/features-cpu.json")["runs"] if run["seeds"] == [0])
    plan = small_table.plans["cpu"]
    methods = ("no_treatment,mpt_kl@bias=1", "mpt_kl@bias=2,posthoc_bias")
    parts = tuple((f"update.methods={some}",) for some in methods)
    divided = dataclasses.replace(plan, seeds=(0,), overrides=plan.overrides[:-1], parts=parts)
    assert reproduce(divided) == 0
    file = tmp_path / "results/features-cpu.json"
    (joined,) = results.read(file)["runs"]
    assert joined | {"command": ""} == expected | {"command": ""}
    first, second = (tmp_path / "workdir/features-cpu" / f"seeds0-part{part}" for part in (1, 2))
    for name in ("r0-old-seed0", "r1-independent-seed0"):
        cards = [json.loads((folder / "releases" / name / "card.json").read_text()) for folder in (first, second)]
        assert cards[0]["digest"] == cards[1]["digest"]
        assert cards[1]["adopted_from"] == str(first / "releases" / name)
    begin, then = joined["command"].split(" && ")  # it names the same teachers
    assert begin.endswith(" --workdir runs/reproduced-part1")
    assert "--config.update.old=runs/reproduced-part1/releases/r0-old-seed{seed}" in then.replace("'", "")
    before = file.read_bytes()  # a finished entry is not replaced by one of its first parts
    monkeypatch.setattr(train, "main", lambda arguments: 2 if any("-part2" in word for word in arguments) else 0)
    assert reproduce(divided) == 2
    assert file.read_bytes() == before


def test_the_runs_of_all_tables_share_a_folder_of_features(made):
    folder, _ = made
    configs = [read_sealed(path)["config"] for path in folder.glob("workdir/*/*/config.json")]
    assert configs and {one["training"]["features_dir"] for one in configs} == {str(folder / "workdir/features")}
