"""PyTorch's loader as a command."""

import json

import numpy as np
import pytest

from mpt_jax.benchmark import torch_loader
from mpt_jax.data.photos import photograph


def test_the_loader_reports_the_median_of_three_epochs(tmp_path, capsys):
    pytest.importorskip("torch")
    (tmp_path / "a.jpg").write_bytes(photograph("dots", 50, 40, np.random.default_rng(0)))
    options = ["--batch=2", "--batches=1", "--image-size=8", "--workers=0"]
    assert torch_loader.main([str(tmp_path), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["batch"] == 2 and result["median_ms"] == sorted(result["ms"])[1] > 0
