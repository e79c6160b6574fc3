"""What a step sends between devices, and the prediction made from it."""

import jax
import pytest

from mpt_jax import models
from mpt_jax.benchmark import flops, scaling, workload
from mpt_jax.benchmark.__main__ import main
from mpt_jax.objectives import METHODS
from mpt_jax.training import sharding


@pytest.mark.parametrize(
    ("method", "devices"), [pytest.param("no_treatment", 2, marks=pytest.mark.slow), ("mpt_kl", 8)]
)
def test_a_step_sends_the_gradient_and_batch_norm_sums_and_nothing_for_teachers(method, devices):
    setup = workload.Setup(model="convnet", batch=16)
    row = scaling.describe(setup, [METHODS[method]], sharding.make_mesh(jax.devices()[:devices]))
    params, statistics = jax.eval_shape(lambda: models.init(setup.network(), jax.random.key(0), (8, 8, 1)))
    gradient, statistics = (4 * sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, statistics))
    assert (row["gradient_bytes"], row["statistics_bytes"]) == (gradient, statistics)
    (all_reduce,) = row["collectives"]
    # Of each BatchNorm two sums forward, and one of the two backward that are no gradients; also loss and accuracy.
    assert all_reduce["bytes"] == gradient + 1.5 * statistics + 2 * 4
    assert row["images_per_device"] == 16 / devices
    teachers = [models.build("convnet", classes) for classes in (5, 10) if method == "mpt_kl"]
    work = flops.step(setup.network(), teachers, (8, 8, 1), batch=16, students=1)
    assert row["gflop_per_device"] == pytest.approx(1e-9 * work.dense / devices)


def test_predicted_efficiency_follows_from_the_published_figures():
    sent = {"kind": "all-reduce", "count": 1, "bytes": 450e6}
    row = {"devices": 8, "gflop_per_device": 989.4, "collectives": [sent]}
    found = scaling.predict(row, "bfloat16")
    assert found["H100"] == pytest.approx({"ms": 2.75, "communication_ms": 1.75, "efficiency": 1 / 2.75})
    assert found["TPU v5e"]["communication_ms"] == pytest.approx(1e3 * 1.75 * 450e6 / 200e9)
    assert set(scaling.predict({**row, "devices": 64}, "bfloat16")) == {"TPU v5e"}  # a node has 8
    assert scaling.predict({**row, "devices": 1, "collectives": []}, "float32")["H100"]["efficiency"] == 1


@pytest.mark.slow
def test_scaling_compiles_for_more_devices_than_this_machine_has(capsys):
    assert main(["scaling", "--model", "convnet", "--method", "no_treatment", "--devices", "16", "--weak"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "images" in out and "TPU" in out and "no_treatment" in out and " 16 48 " in out
