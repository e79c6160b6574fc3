"""Predictions during training: when they are written, what they hold, and that they change nothing else."""

import io

import numpy as np
import pytest
from rich.console import Console

from mpt_jax.cli.progress import Progress
from mpt_jax.errors import InputError
from mpt_jax.update import snapshots


class Killed(Exception):
    pass


class KilledAt(Progress):
    """Ends a run at the first values of its students from a step on."""

    def __init__(self, step):
        super().__init__(Console(file=io.StringIO()), None)
        self.step, self.title = step, ""

    def start(self, title, done, total):
        super().start(title, done, total)
        self.title = title

    def advance(self, step, values):
        if self.title.startswith("students") and step >= self.step:
            raise Killed


EVERY = ("optimizer.epochs=4", "training.predict_every=1", "training.checkpoint_every=5", "update.tune={}")


@pytest.mark.slow
def test_snapshots_develop_towards_the_release_and_survive_a_kill(executed, tmp_path):
    methods = "update.methods=no_treatment,mpt_kl@bias=2"
    without = executed(methods, *EVERY[:1], "update.tune={}", folder=tmp_path / "without")
    with pytest.raises(Killed):
        executed(methods, *EVERY, folder=tmp_path / "run", progress=KilledAt(15))
    run = executed(methods, *EVERY, folder=tmp_path / "run")
    for seed in (0, 1):
        for method in ("no_treatment", "mpt_kl@bias=2"):
            name = f"r1-{method}-seed{seed}"
            found = snapshots.read(run.workdir, name, run.identity)
            total = run.card(run.folder(1, method, seed))["steps"]
            assert list(found) == [total // 4, total // 2, 3 * total // 4]
            final = run.read_predictions(run.folder(1, method, seed))
            distances = [np.abs(one["logits"] - final["logits"]).mean() for one in found.values()]
            assert distances[0] > distances[1] > distances[2] > 0
            for one in found.values():
                np.testing.assert_array_equal(one["labels"], final["labels"])
                np.testing.assert_array_equal(one["ids"], final["ids"])
            same = without.read_predictions(without.folder(1, method, seed))
            np.testing.assert_array_equal(final["logits"], same["logits"])  # predicting changes no result
    assert not (without.workdir / "snapshots").exists()
    assert {path.name[:3] for path in (run.workdir / "snapshots").iterdir()} == {"r1-"}  # of students alone


@pytest.mark.slow
@pytest.mark.ci
def test_candidates_have_their_own_snapshots_and_foreign_ones_are_refused(executed):
    run = executed(*EVERY[:3], "update.tune.bias=0,2", "update.methods=mpt_kl")
    names = {path.name for path in (run.workdir / "snapshots").iterdir()}
    assert names == {f"r1-mpt_kl@bias={b}-seed{seed}" for b in (0, 2) for seed in (0, 1)}
    assert snapshots.read(run.workdir, "r1-mpt_kl-seed0", run.identity) == {}
    path = next((run.workdir / "snapshots/r1-mpt_kl@bias=0-seed0").iterdir())
    path.rename(run.workdir / "snapshots/r1-mpt_kl@bias=0-seed1" / path.name)
    with pytest.raises(InputError, match="holds other predictions, those of r1-mpt_kl@bias=0-seed0 after"):
        snapshots.read(run.workdir, "r1-mpt_kl@bias=0-seed1", run.identity)
