"""The command, on a table small enough for a test."""

import re

import pytest

from mpt_jax import train
from mpt_jax.reproduce import __main__ as command
from mpt_jax.reproduce import results


def test_the_same_command_again_gives_the_same_files(made):
    folder, make = made
    files = [folder / "REPRODUCIBILITY.md", *(folder / "results").rglob("*.*")]
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
