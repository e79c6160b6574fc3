"""A network against its twin: ratios from alternating rounds, and the twin itself in PyTorch."""

import statistics

import pytest

from mpt_jax.benchmark import network
from mpt_jax.benchmark.__main__ import main
from mpt_jax.benchmark.workload import Setup
from mpt_jax.errors import InputError

SMALL = ("network", "--model=vit_tiny", "--image-size=8", "--batch=8", "--images=8", "--steps=1", "--rounds=2")


@pytest.mark.slow
def test_ratios_are_those_of_the_peer(monkeypatch, measure, one_device):
    commands = []

    def peer(command, batch):
        commands.append(command)
        return 8.0

    monkeypatch.setattr(network, "peer_milliseconds", peer)
    result = measure(*SMALL)
    assert result["peer"] == "timm" and [row["work"] for row in result["rows"]] == ["forward", "step"]
    for row in result["rows"]:
        assert row["peer_ms"] == [8.0, 8.0] and row["median_ms"] == statistics.median(row["ms"]) > 0
        assert row["ratio"] == pytest.approx(row["median_ms"] / 8)
    assert ["\nforward()" in command for command in commands] == [True, False] * 2
    assert all("img_size=(8, 8)" in command and "torch.randn(8, 3, 8, 8)" in command for command in commands)


@pytest.mark.parametrize(
    ("setup", "names", "message"),
    [
        (Setup("convnet"), "", "convnet is not known"),
        (Setup("resnet18"), "openclip", r"expected one of \['torchvision'"),
    ],
)
def test_networks_without_a_twin_are_refused(setup, names, message):
    with pytest.raises(InputError, match=message):
        network.measure(setup, print, names=names)


@pytest.mark.slow
def test_the_table_shows_both(monkeypatch, capsys, one_device):
    monkeypatch.setattr(network, "peer_milliseconds", lambda command, batch: 8.0)
    assert main([*SMALL]) == 0
    shown = capsys.readouterr().out
    assert "PyTorch" in shown and "forward" in shown and "the network of timm" in shown
