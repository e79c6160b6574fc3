"""The training values of a stage: where they are recorded, and what happens when a loss is not finite."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mpt_jax.config import Config
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint
from mpt_jax.runtime import processes
from mpt_jax.update import lineage, workdir
from mpt_jax.update.lineage import Stage
from mpt_jax.update.run import Run
from mpt_jax.update.selection import Member

Values = Mapping[str, np.ndarray]  # by name, each ``[replicas, members]``


def recorder(run: Run, stage: Stage, members: Sequence[Member]) -> Callable[[int, Values], None]:
    """Return a function that records the values of a step in `metrics.jsonl`, the run's loggers and the progress.

    The function reports members that diverge. It raises an `InputError` if training cannot continue: without a teacher,
    or if all students diverged.
    """
    names = member_names(run.config, stage, members)
    diverged = np.zeros(np.shape(names), bool)

    def record(step: int, values: Values) -> None:
        finite = np.isfinite(values["loss"])
        if not finite.any() or (not finite.all() and not stage.has_students):
            i, j = np.argwhere(~finite)[0]
            raise InputError(
                f"{names[i][j]} of stage {stage.name} diverged by step {step}: its loss is not finite, and "
                f"{_last_checkpoint(run, stage)}; lower optimizer.learning_rate"
            )
        for i, j in np.argwhere(~finite & ~diverged):
            run.progress.log(f"{names[i][j]} diverged by step {step}: its loss is not finite; the others continue")
        diverged[:] = ~finite
        if processes.is_first():
            lines = _lines(stage, names, step, values)
            workdir.append_metrics(run.workdir, lines)
            for log, line in itertools.product(run.on_metrics, lines):
                log(line)
        run.progress.advance(step, {key: float(np.mean(value[finite])) for key, value in values.items()})

    return record


def member_names(config: Config, stage: Stage, members: Sequence[Member]) -> list[list[str]]:
    """Return the name of each replica of each member in messages and metrics, ``[replicas][members]``."""
    if stage.name != lineage.ENSEMBLE:
        return [[member.label(seed) for member in members] for seed in config.seeds]
    replicas = [f"seed={seed} model={i}" for seed in config.seeds for i in range(config.update.ensemble_size)]
    return [[f"{member.method} {replica}" for member in members] for replica in replicas]


def _lines(stage: Stage, names: Sequence[Sequence[str]], step: int, values: Values) -> list[dict]:
    return [
        {
            **{"step": step, "release": stage.release, "stage": stage.name, "member": name},
            "values": {key: _rounded(value[i, j]) for key, value in values.items()},
        }
        for i, names_of_replica in enumerate(names)
        for j, name in enumerate(names_of_replica)
    ]


def _rounded(value: np.ndarray) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def _last_checkpoint(run: Run, stage: Stage) -> str:
    folder = run.checkpoints(stage)
    found = checkpoint.newest(folder)
    return (
        f"the last good checkpoint is {checkpoint.step_folder(folder, found[0])}" if found else "there is no checkpoint"
    )
