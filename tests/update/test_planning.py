"""The plan lists what the run will do, with times only if steps were timed."""

import dataclasses
import json
import math
import pathlib
import re
import shutil

import numpy as np
import pytest

from mpt_jax import train, update
from mpt_jax.files import checkpoint, released_model
from mpt_jax.update import lineage, planning
from mpt_jax.update.run import training_rows

DIGITS = pathlib.Path(__file__).resolve().parents[2] / "configs/digits.py"


@pytest.mark.parametrize(
    "overrides",
    [
        ("update.methods=no_treatment",),
        ("update.schedule=4,7,10", "update.memory=per_class:7", "update.methods=mpt_kl"),
        ("update.schedule=4,7,10", "update.memory=total:30", "update.methods=mpt_kl"),
        ("update.schedule=10,10", "update.old_fraction=0.4", "update.methods=ensemble", "update.ensemble_size=2"),
    ],
)
def test_steps_are_those_of_the_images_that_a_stage_learns_from(prepared, overrides):
    run = prepared(*overrides, "optimizer.epochs=3", "optimizer.batch_size=40")
    for stage in (stage for release in run.releases for stage in lineage.stages(run.config, release)):
        rows = training_rows(run, stage)
        known = (run.dataset.train.labels < run.config.update.schedule[stage.release]).sum()
        assert planning.total_steps(run, stage) == 3 * math.ceil((known if rows is None else rows.shape[-1]) / 40)


def test_the_plan_of_a_new_run_has_no_times_and_writes_nothing(prepared):
    run = prepared("update.methods=mpt_kl,posthoc_bias", "update.bias=auto")
    title, old, independent, students, posthoc = update.plan(run)
    assert re.fullmatch(r"plan: \d+ steps of training", title)
    assert old.startswith("  old: train 8 seeds, ") and "steps of 48 examples" in independent
    assert "8 seeds x 7 objectives" in students and posthoc == "  posthoc_bias: derive from these"
    assert "about" not in "".join(update.plan(run)) and not run.workdir.exists()
    total = sum(int(re.search(r"(\d+) steps", line)[1]) for line in (old, independent, students))
    assert title == f"plan: {total} steps of training"


def test_existing_releases_are_reused_and_lost_ones_are_timed(executed):
    run = executed("update.methods=no_treatment,posthoc_bias", "seeds=0", "model.name=linear")
    assert update.plan(run)[1:] == [
        *("  old: exists", "  independent: exists", "  students: exists"),
        "  posthoc_bias: exists",
    ]
    lines = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    steps = max(line["step"] for line in lines if line["stage"] == "students")
    card = released_model.read_card(run.folder(1, "independent", 0))
    expected = planning.duration(steps * card["seconds"] / card["steps"])
    shutil.rmtree(run.folder(1, "no_treatment", 0))
    shutil.rmtree(run.folder(1, "posthoc_bias", 0))
    title, *_, students, posthoc = update.plan(run)
    assert (
        students
        == f"  students: train 1 seed, {steps} steps of 32 examples, about {expected} at the speed of independent"
    )
    assert (
        title == f"plan: {steps} steps of training, about {expected}" and posthoc == "  posthoc_bias: derive from these"
    )

    elsewhere = {**run.provenance, "device": {"platform": "tpu", "kind": "TPU v5e", "count": 4}}
    assert "about" not in update.plan(dataclasses.replace(run, provenance=elsewhere))[0]

    saved = run.workdir / "checkpoints/r1-students"
    checkpoint.save(saved, 2, {"w": np.zeros(1)}, {"seconds": 40.0, "since": 0, "teachers": [], "sums": {}})
    left = planning.duration(20.0 * (steps - 2))
    students = update.plan(run)[3]
    assert students.endswith(f"{steps - 2} steps of 32 examples, resumed from step 2 of {steps}, about {left}")


def test_the_plan_names_adopted_models(prepared):
    run = prepared("update.methods=no_treatment")
    given = {"old": [(None, {"adopted_from": "run/releases/r0-old-seed0"})], "independent": []}
    assert update.plan(dataclasses.replace(run, adopted=given))[1] == "  old: adopt run/releases/r0-old-seed0"


def test_the_flag_prints_the_plan_and_ends(digits_dir, tmp_path, capsys):
    line = ["--config", str(DIGITS), f"--workdir={tmp_path}/run", f"--config.dataset.data_dir={digits_dir}", "--plan"]
    assert train.main(line) == 0
    output = capsys.readouterr().out
    assert re.search(r"plan: \d+ steps of training\n  old: train 8 seeds", output) and "report" not in output
    assert not (tmp_path / "run").exists()
