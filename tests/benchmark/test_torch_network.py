"""The program of the peer, run with PyTorch."""

import json
import subprocess
import sys

import pytest

from mpt_jax.benchmark import torch_network


@pytest.mark.slow
@pytest.mark.parametrize("work", torch_network.WORKS)
def test_the_program_measures_the_network_of_the_package(work):
    pytest.importorskip("efficientnet_lite_pytorch")
    script = torch_network.script(
        *(work,),
        model="efficientnet_lite0",
        names="efficientnet_lite_pytorch",
        batch=2,
        image_size=32,
        classes=3,
        seconds=0,
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["ms"]) == 3 and min(result["ms"]) > 0 and result["median_ms"] == sorted(result["ms"])[1]


def test_the_program_is_python_for_every_work():
    for work in torch_network.WORKS:
        compile(
            torch_network.script(work, model="vit_tiny", names="timm", batch=2, image_size=8, classes=3), "peer", "exec"
        )
