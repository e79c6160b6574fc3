import json

import pytest

from mpt_jax.benchmark.__main__ import main


@pytest.fixture
def measure(capsys):
    """Run the command with `--json`; return the one object that it prints."""

    def run(*arguments):
        assert main([*arguments, "--json"]) == 0
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        return json.loads(out)

    return run
