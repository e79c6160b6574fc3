"""Each measurement through the command, at small sizes: its numbers agree with each other."""

import json
import math
import statistics
import sys

import jax
import pytest

from mpt_jax import models
from mpt_jax.benchmark import flops
from mpt_jax.benchmark.__main__ import main

SMALL = ("--model", "convnet", "--batch", "16", "--steps", "1", "--rounds", "2")


@pytest.fixture
def peer(tmp_path):
    """A command that reports 8 ms per step and logs its arguments in a file next to it."""
    script = tmp_path / "peer.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "with pathlib.Path(__file__).with_suffix('.log').open('a') as log: print(*sys.argv[1:], file=log)\n"
        "print('warming up')\n"
        "print(json.dumps({'median_ms': 8.0, 'batch': 16}))\n"
    )
    return script


@pytest.mark.slow
def test_step_against_a_peer_on_eight_devices(measure, peer, monkeypatch):
    monkeypatch.setitem(flops.PEAK_SIZE, "cpu", 64)
    result = measure("step", *SMALL, "--against", f"{sys.executable} {peer}")
    assert result["benchmark"] == "step" and result["versions"]["jax"] == jax.__version__
    assert result["device"]["count"] == jax.device_count() and result["members_at_once"] == 1
    assert len(result["ms"]) == 2 and result["median_ms"] == pytest.approx(statistics.median(result["ms"]))
    assert result["examples_per_second"] == pytest.approx(16 / (1e-3 * result["median_ms"]))
    work = flops.forward(models.build("convnet", 10), (8, 8, 1)).dense * 4
    work = 16 * (work + flops.forward(models.build("convnet", 5), (8, 8, 1)).dense)
    assert result["gflop"] == pytest.approx(1e-9 * work)
    peak = result["peak"]["tflops"]
    assert result["utilisation"] == pytest.approx(work / (1e-3 * result["median_ms"]) / (1e12 * peak))
    assert result["utilisation_on_data"] < result["utilisation"]
    assert peak > 0 and "64 x 64" in result["peak"]["source"]
    against = result["against"]
    assert against["ms"] == [8.0, 8.0] and against["ratio"] == pytest.approx(result["median_ms"] / 8)
    assert against["ratios"] == pytest.approx([ms / 8 for ms in result["ms"]])
    assert result["compile_seconds"] > 0 and result["program_bytes"] > 0
    assert result["peak_bytes_of"] == "process" and result["peak_bytes"] > 50e6


@pytest.mark.slow
def test_population_is_compared_with_one_student(one_device, measure):
    result = measure("population", *SMALL, "--sizes", "2", "--members-at-once", "2", "--peak-tflops", "0.001")
    one, two = result["rows"]
    assert (one["students"], two["students"], two["members_at_once"]) == (1, 2, 2)
    assert one["share_of_one"] == {"ratio": 1.0, "ratios": [1.0, 1.0]}
    expected = [b / 2 / a for a, b in zip(one["ms"], two["ms"], strict=True)]
    assert two["share_of_one"]["ratios"] == pytest.approx(expected)
    assert two["share_of_one"]["ratio"] == pytest.approx(two["median_ms"] / 2 / one["median_ms"])
    assert result["peak"] == {"tflops": 0.001, "source": "as given"}
    assert two["gflop"] < 2 * one["gflop"] and two["program_bytes"] > one["program_bytes"]


@pytest.mark.slow
def test_table_against_separate_runs(one_device, measure):
    methods = ("mpt_kl_no_bias", "mpt_kl")
    result = measure("table", *SMALL, "--methods", ",".join(methods))
    rows = result["rows"]
    assert [row["method"] for row in rows] == list(methods)
    assert [row["teachers"] for row in rows] == [["old", "new"]] * 2
    separate = [sum(row["ms"][i] for row in rows) for i in range(2)]
    assert result["ratios"] == pytest.approx([ms / total for ms, total in zip(result["ms"], separate, strict=True)])
    assert result["separate_ms"] == pytest.approx(statistics.median(separate))
    # One program serves both here, but separate runs would each compile it.
    assert rows[0]["compile_seconds"] == rows[1]["compile_seconds"] > 0
    assert result["separate_compile_seconds"] == pytest.approx(sum(row["compile_seconds"] for row in rows))


@pytest.mark.slow
def test_device_at_toy_size(one_device, capsys, peer, tmp_path, monkeypatch):
    monkeypatch.setitem(flops.PEAK_SIZE, "cpu", 64)
    target = tmp_path / "result.json"
    plain = ("--method", "no_treatment")  # without teachers there is less to compile
    assert main(["device", "--toy", *plain, "--peer", f"{sys.executable} {peer}", "--json", str(target)]) == 0
    result = json.loads(target.read_text())
    assert peer.with_suffix(".log").read_text().split() == ["--dtype", "float32", "--dtype", "bfloat16"]
    assert list(result["dtypes"]) == ["float32", "bfloat16"]
    out = capsys.readouterr().out
    for dtype, found in result["dtypes"].items():
        assert [row["students"] for row in found["rows"]] == [1, 2]
        for row in found["rows"]:
            assert row["dtype"] == dtype and row["utilisation"] > 0
            assert row["times_peer"] == pytest.approx(row["examples_per_second"] / (16 / 8e-3))
        assert found["epoch"]["steps"] == math.ceil(found["epoch"]["images"] / 16) and found["epoch"]["seconds"] > 0
        assert found["peak"]["tflops"] > 0 and "64 x 64" in found["peak"]["source"]
        assert dtype in out
