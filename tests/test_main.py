"""`python -m mpt_jax` lists the commands."""

import importlib.util

import pytest

import mpt_jax
from mpt_jax.__main__ import COMMANDS, main


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_every_command_has_one_line(arguments, capsys):
    if arguments:
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
    else:
        assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, text in COMMANDS.items():
        assert sum(line.split()[:3] == ["python", "-m", f"mpt_jax.{name}"] and text in line for line in lines) == 1
        assert importlib.util.find_spec(f"mpt_jax.{name}") is not None


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"mpt_jax {mpt_jax.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--config=digits"], "unknown argument 'train'; run python -m mpt_jax.train"),
        (["mpt_jax.compare"], "run python -m mpt_jax.compare"),
        (["learn"], "unknown argument 'learn'; commands: train, compare, "),
        (["--configs"], "unknown argument '--configs'"),
    ],
)
def test_unknown_arguments_are_one_line_and_status_2(arguments, words, capsys):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and words in printed.err and printed.err.count("\n") == 1
    assert printed.out == ""
