"""Predicted memory of a step, and the advice that makes it fit."""

import jax
import pytest
import rich

from mpt_jax import models
from mpt_jax.benchmark import program_memory, rendering
from mpt_jax.benchmark.workload import Setup


def test_predicted_memory_and_its_report(measure, capsys):
    arguments = ("--memory", "--model", "convnet", "--batch", "64", "--students", "2", "--method", "no_treatment")
    result = measure("step", *arguments, "--device-memory", "0.0001")
    parts = result["bytes"]
    assert parts["total"] == sum(size for use, size in parts.items() if use != "total")
    assert parts["images"] == 320 * (64 + 4) and parts["teachers"] == 0
    network = models.build("convnet", 10)
    params, statistics = jax.eval_shape(lambda: models.init(network, jax.random.key(0), (8, 8, 1)))
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, statistics)]
    assert parts["state"] == 2 * 4 * (2 * sizes[0] + sizes[1] + 1)  # and the count of steps
    assert result["limit_bytes"] == pytest.approx(0.0001 * 2**30) and result["form"] == "accelerator"
    rich.print(rendering.render(result))
    out = capsys.readouterr().out
    assert "does not fit" in out and "optimizer.accumulate=2" in out and "mesh.fsdp=0" in out
    rich.print(rendering.render({**result, "limit_bytes": None, "advice": [], "form": "own"}))
    assert "no limit known" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["convnet", pytest.param("vit_tiny", marks=pytest.mark.slow)])
def test_advice_lists_settings_that_fit(model):
    parts = {"state": 2, "images": 1, "teachers": 1, "temporaries": 12}
    parts = {use: size * program_memory.GiB for use, size in parts.items()}
    parts["total"] = sum(parts.values())
    advice = lambda limit, **sizes: program_memory.advice(  # noqa: E731
        parts, limit * program_memory.GiB, Setup(model=model), **{"students": 1, "devices": 1, **sizes}
    )
    assert advice(16) == []
    accumulate, *remat = advice(9)
    assert accumulate == "optimizer.accumulate=2: 11.0 GiB; 4: 8.5 GiB"  # 10 of 12 GiB are activations
    if model == "vit_tiny":
        assert remat[0].startswith("training.remat=true: ") and 6 < float(remat[0].split()[1]) < 16
    else:  # which has no blocks
        assert remat == []
    assert "mesh.fsdp=0: 14.5 GiB" in advice(9, devices=4)
    assert "training.members_at_once=1: 10.0 GiB" in advice(9, students=2)
    assert "a population of 1: 9.0 GiB" in advice(9, students=2)
