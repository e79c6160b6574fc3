"""The command lines of docs/launch.md, in dry runs."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/launch.md").read_text(encoding="utf-8")
LINES = [line.strip() for line in re.findall(r"^    (\S.*)$", PAGE, re.M)]


def test_the_page_shows_every_command_and_every_file():
    usage = subprocess.run(["bash", "launch/tpu_vm.sh"], cwd=ROOT, capture_output=True, text=True).stderr
    named = re.findall(r"^(?: *launch/tpu_vm.sh \[--dry-run\]| {20,}) +([a-z]+)  ?", usage, re.M)
    assert len(named) == 8 and all(f"`{name}`" in PAGE or f"tpu_vm.sh {name}" in PAGE for name in named)
    assert all(f"launch/{path.name}" in PAGE for path in (ROOT / "launch").iterdir() if path.is_file())


@pytest.mark.parametrize("line", [line for line in LINES if "launch/" in line])
def test_command_lines(line):
    words = shlex.split(line, comments=True)
    if "launch/slurm.sbatch" in words:
        arguments = words[words.index("launch/slurm.sbatch") + 1 :]
        words, variables = ["bash", "launch/slurm.sbatch", *arguments], {"DRY_RUN": "1"}
    elif words[0] == "python":
        words, variables = [sys.executable, words[1], "--dry-run", *words[2:]], {}
    else:
        words, variables = ["bash", words[0], "--dry-run", *words[1:]], {}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **variables})
    assert done.returncode == 0 and not done.stderr and done.stdout
