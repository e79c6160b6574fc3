"""Other programs that take part in a comparison."""

import sys

import pytest

from mpt_jax.benchmark import rounds
from mpt_jax.errors import InputError


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit('no torch here')", "no torch here"),
        ("print('done')", "median_ms"),
        ("", "median_ms"),
        ("print('[1]')", "median_ms"),
        ("print('{\"median_ms\": 0}')", "above 0"),
        ("print('{\"median_ms\": NaN}')", "above 0"),
        ('print(\'{"median_ms": 1, "batch": 32}\')', "--batch 32"),
    ],
)
def test_bad_output_of_a_peer_is_refused(tmp_path, code, message):
    script = tmp_path / "peer.py"
    script.write_text(code)
    with pytest.raises(InputError, match=message):
        rounds.peer_milliseconds(f"{sys.executable} {script}", 16)


def test_contestants_alternate_within_a_round():
    calls, log = [], []
    contestants = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "ab"}
    assert rounds.alternate(2, contestants, log.append) == {"a": [1.0, 3.0], "b": [2.0, 4.0]}
    assert calls == ["a", "b"] * 2
    assert log[-1] == "round 2 of 2, b: 4 ms"
