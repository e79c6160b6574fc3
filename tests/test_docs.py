"""The commands in the documentation and the configs: each is one that the program takes; digits are planned.

`test_docs_run.py` runs them all.
"""

import importlib
import pathlib
import re
import shlex

import pytest

from mpt_jax import config as configs
from mpt_jax import train

ROOT = pathlib.Path(__file__).resolve().parents[1]

PAGES = [ROOT / "README.md", ROOT / "REPRODUCIBILITY.md"]
PAGES += [
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/results").glob("*.md")),
    *sorted((ROOT / "configs").glob("*.py")),
]
_COMMAND = re.compile(r"python -m mpt_jax\.(\w+)((?: +[^\s`#&|;)]+)*)")
_MODULES = {"train": "train", "predict": "predict", "export": "export.__main__", "compare": "compare.__main__"}
_MODULES |= {"verify": "verify", "sign": "sign"}
_MODULES |= {"benchmark": "benchmark.__main__", "reproduce": "reproduce.__main__"}


def _commands():
    for page in PAGES:
        text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
        for name, rest in _COMMAND.findall(text):
            arguments = shlex.split(rest.replace("[", " ").replace("]", " ") if "=[" not in rest else rest)
            arguments = [re.sub(r"(?<=per_class:)K$", "5", argument) for argument in arguments]
            if arguments and not {"...", "--help"} & {*arguments}:
                yield pytest.param(page.name, name, arguments, id=f"{page.stem}-{name}-{'-'.join(arguments)[:60]}")


COMMANDS = list(_commands())


def test_there_are_commands_on_every_page_that_should_have_some():
    found = {command.values[0] for command in COMMANDS}
    assert {
        "README.md",
        "REPRODUCIBILITY.md",
        "scenarios.md",
        "release_gate.md",
        "gate_modes.md",
        "benchmark.md",
        "reproduce.md",
        "digits-cpu.md",
        "earlier.md",
        "speed.md",
    } <= found


@pytest.mark.parametrize(("page", "name", "arguments"), COMMANDS)
def test_every_command_is_one_that_the_program_takes(page, name, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = importlib.import_module(f"mpt_jax.{_MODULES[name]}").parse(arguments)
    if name == "train":
        configs.load(options.config, options.overrides)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(command.values[2], id=command.id)
        for command in COMMANDS
        if command.values[1] == "train" and "configs/digits.py" in command.values[2]
    ],
)
def test_every_command_on_the_digits_can_be_planned(arguments, monkeypatch, tmp_path, digits_dir, capsys):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    if any(place in argument for argument in arguments for place in ("gs://", "old.npz", "pets", "digits.toml")):
        pytest.skip("needs a bucket, or data that the reader provides")
    assert train.main([*arguments, "--plan", f"--config.dataset.data_dir={digits_dir}"]) == 0
    assert "steps of training" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"configs"}


def test_the_readme_has_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    quick_start = readme.split("## Quick start")[1].split("\n## ")[0]
    blocks = [block.split("```")[0].strip().splitlines() for block in quick_start.split("```bash\n")[1:]]
    assert [len(block) for block in blocks] == [1, 1]
    assert "mpt_jax.train --config configs/digits.py" in blocks[0][0] and "pytest" in blocks[1][0]
