"""The command of the peer; `test_network` measures with it."""

import json

from mpt_jax.benchmark import torch_network


def test_the_command_prints_the_median(monkeypatch, capsys):
    monkeypatch.setattr(torch_network, "measure", lambda work, **options: [3.0, 1.0, 2.0])
    assert torch_network.main(["step", "--batch=2"]) == 0
    assert json.loads(capsys.readouterr().out) == {"median_ms": 2.0, "ms": [3.0, 1.0, 2.0]}
