"""Predictions of students during their training: `snapshots/NAME/STEP.npz` in the work directory.

They show how accuracy and flips develop, see `training.predict_every`. A resumed stage has all of them: a snapshot is
written before any checkpoint of its step or of a later one.
"""

import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from mpt_jax.files import storage
from mpt_jax.files.predictions import released
from mpt_jax.models import Classifier
from mpt_jax.runtime import processes
from mpt_jax.update import lineage
from mpt_jax.update.lineage import Stage
from mpt_jax.update.run import Run
from mpt_jax.update.selection import Member


def recorder(run: Run, stage: Stage, members: Sequence[Member]) -> Callable[[int, Classifier], None]:
    """Return a function that predicts the test images with all members and writes their snapshots of a step.

    It takes the step and the classifiers, leaves ``[seeds, members, ...]``.
    """
    names = [
        [lineage.release_name(stage.release, _method(member), seed) for member in members] for seed in run.config.seeds
    ]

    def record(step: int, classifiers: Classifier) -> None:
        test = run.dataset.test
        logits = run.predict(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), classifiers), test)
        if not processes.is_first():
            return
        for name, of_member in zip((name for of_seed in names for name in of_seed), logits, strict=True):
            path = _folder(run.workdir, name) / f"{step}.npz"
            storage.make_folder(path.parent)
            about = _about(name, step, run.identity)
            released.write(
                path,
                labels=test.labels,
                logits=of_member,
                ids=test.ids,
                about=about,
                class_names=run.class_names(stage.release),
                label_names=run.dataset.class_names,
            )

    return record


def read(folder: pathlib.Path, name: str, run: str) -> dict[int, dict[str, np.ndarray]]:
    """Read the snapshots of a student by step: `labels`, `logits` and `ids` of the test images.

    Args:
      folder: the work directory.
      name: of its release; of a candidate of tuned numbers, with these.
      run: `workdir.identity` of the run.

    Raises:
      InputError: a snapshot is damaged, or that of another step, student or run.
    """
    files = storage.files(_folder(folder, name)) if _folder(folder, name).is_dir() else []
    steps = sorted(int(file.removesuffix(".npz")) for file in files if file.removesuffix(".npz").isdecimal())
    return {step: released.read(_folder(folder, name) / f"{step}.npz", _about(name, step, run)) for step in steps}


def _folder(workdir: pathlib.Path, name: str) -> pathlib.Path:
    return workdir / "snapshots" / name


def _about(name: str, step: int, run: str) -> dict[str, str]:
    return {"release": f"{name} after {step} steps", "run": run}


def _method(member: Member) -> str:
    """Return the name of a method with the numbers of a candidate, as `objectives.named` reads it."""
    return "@".join([member.method, *(f"{name}={value:g}" for name, value in member.numbers.items())])
