"""Training values: what is recorded, and which divergence ends a run."""

import dataclasses
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from mpt_jax.cli.progress import Progress
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint
from mpt_jax.update import selection, stage_metrics
from mpt_jax.update.lineage import Stage

STUDENTS = Stage(1, "students", ("no_treatment", "mpt_kl"))
OLD_STAGE = Stage(0, "old", ("old",))


@pytest.fixture
def run(prepared):
    run = prepared("seeds=0,1", "update.methods=no_treatment,mpt_kl,ensemble", "update.ensemble_size=2")
    run.workdir.mkdir()
    return run


def recorder(run, stage=STUDENTS):
    """Return the function that records values, with a progress that has begun, and the text it prints."""
    text = io.StringIO()
    progress = Progress(Console(file=text, width=200), None)
    progress.start("students", 0, 10)
    run = dataclasses.replace(run, progress=progress)
    return stage_metrics.recorder(run, stage, selection.members_of(run.config, stage)), text


def lines(run):
    return [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]


def test_every_member_has_a_line_per_step_which_loggers_get_too(run):
    received = []
    record, _ = recorder(dataclasses.replace(run, on_metrics=(received.append,)))
    record(5, {"loss": np.array([[1.0, 2.0], [3.0, 4.00000049]]), "accuracy": np.full((2, 2), 0.5)})
    assert lines(run) == received
    assert [(line["member"], line["values"]["loss"]) for line in received] == [
        *(("no_treatment b=0 seed=0", 1.0), ("mpt_kl b=4 seed=0", 2.0)),
        *(("no_treatment b=0 seed=1", 3.0), ("mpt_kl b=4 seed=1", 4.0)),
    ]
    assert {(line["step"], line["release"], line["stage"]) for line in received} == {(5, 1, "students")}


def test_the_models_of_an_ensemble_are_named_by_their_number(run):
    stage = Stage(1, "ensemble", ("ensemble",))
    record, _ = recorder(run, stage)
    record(1, {"loss": np.ones((4, 1))})
    names = [f"ensemble seed={seed} model={model}" for seed in (0, 1) for model in (0, 1)]
    assert [line["member"] for line in lines(run)] == names


def test_a_diverged_student_is_reported_once_and_has_no_number(run):
    record, text = recorder(run)
    for step in (1, 2):
        record(step, {"loss": np.array([[1.0, np.nan], [1.0, 1.0]])})
    assert text.getvalue().count("mpt_kl b=4 seed=0 diverged by step 1: its loss is not finite; the others") == 1
    assert "diverged by step 2" not in text.getvalue()
    assert [line["values"]["loss"] for line in lines(run)] == [1.0, None, 1.0, 1.0] * 2


@pytest.mark.parametrize(
    ("stage", "loss", "message"),
    [
        (
            STUDENTS,
            [[np.nan, np.inf], [np.nan, np.nan]],
            "^no_treatment b=0 seed=0 of stage students diverged",
        ),
        (
            OLD_STAGE,
            [[1.0], [np.inf]],
            "^old b=0 seed=1 of stage old diverged .*no checkpoint",
        ),
    ],
)
def test_training_ends_if_all_students_or_a_teacher_diverged(run, stage, loss, message):
    record, _ = recorder(run, stage)
    with pytest.raises(InputError, match=message):
        record(3, {"loss": np.array(loss)})
    assert not (run.workdir / "metrics.jsonl").exists()


def test_the_error_names_the_last_good_checkpoint(run):
    record, _ = recorder(run, OLD_STAGE)
    folder = checkpoint.step_folder(run.checkpoints(OLD_STAGE), 12)
    checkpoint.save(
        folder.parent, 12, {"weights": np.ones(2)}, {"seconds": 1.0, "since": 0, "teachers": [], "sums": {}}
    )
    with pytest.raises(InputError, match=f"the last good checkpoint is {re.escape(str(folder))}"):
        record(15, {"loss": np.array([[1.0], [np.inf]])})
