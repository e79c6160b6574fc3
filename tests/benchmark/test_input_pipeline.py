"""Streamed images are counted, alone and against PyTorch's loader."""

import io
import statistics

import numpy as np
import pytest
from rich.console import Console

from mpt_jax.benchmark import input_pipeline, rendering
from mpt_jax.benchmark.__main__ import main
from mpt_jax.data.photos import photograph


@pytest.mark.parametrize("given", [True, pytest.param(False, marks=pytest.mark.slow)])  # compiles a train step
def test_images_per_second_without_pytorch(measure, monkeypatch, tmp_path, one_device, given):
    monkeypatch.setattr(input_pipeline.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(input_pipeline, "SIZES", ((30, 40),))
    options = ["--images", "5"]
    if given:
        (tmp_path / "deeper").mkdir()
        (tmp_path / "deeper/a.jpg").write_bytes(photograph("dots", 50, 40, np.random.default_rng(0)))
        options = ["--data", str(tmp_path), "--train-steps", "0"]
    line = ("input", "--model", "convnet", "--batch", "4", "--batches", "2", "--rounds", "2", "--image-size", "8")
    result = measure(*line, *options)
    (row,) = result["rows"]
    assert result["files"] == (1 if given else 5) and len(row["ms"]) == 2
    assert row["images_per_second"] == pytest.approx(4e3 / statistics.median(row["ms"]))
    assert "ratio" not in result
    if not given:
        assert 0 <= result["training"]["waiting_share"] < 1 and result["training"]["steps"] == 8
    console = io.StringIO()
    Console(file=console, width=100).print(rendering.render(result))
    assert "images/s" in console.getvalue() and ("waiting" in console.getvalue()) == (not given)


def test_images_per_second_against_pytorch(measure, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(input_pipeline, "SIZES", ((30, 40),))
    result = measure(
        *("input", "--batch", "4", "--batches", "1", "--rounds", "1", "--image-size", "8"),
        *("--images", "4", "--train-steps", "0"),
    )
    assert [row["name"] for row in result["rows"]] == ["ours", "peer"] and result["ratio"] > 0
    assert result["ratio"] == pytest.approx(result["rows"][1]["ms"][0] / result["rows"][0]["ms"][0])


def test_a_folder_without_images_is_refused(tmp_path, capsys):
    assert main(["input", "--data", str(tmp_path)]) == 2
    assert "holds no files *.jpg" in capsys.readouterr().err
    assert main(["input", "--data", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err
