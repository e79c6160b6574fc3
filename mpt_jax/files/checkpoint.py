"""Checkpoints: the states of a training while it runs, a folder per step with `model/` and `notes.json`.

The notes name the step and the training that the state belongs to. A folder that was copied, renamed or taken from
another training is not used. Only reading and writing states imports JAX.
"""

import contextlib
import pathlib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from mpt_jax.errors import InputError
from mpt_jax.files import storage
from mpt_jax.files.sealed import read_sealed

NOTES = "notes.json"
KEPT = 2  # checkpoints of a stage: the newest, and one to fall back to
CONTENT = {
    **{"files": {...: str}, "sizes?": {...: int}, "step?": int, "of?": {...: str}},
    **{"seconds": float, "since": int, "teachers": [str], "sums": {...: list}},
}
"""What notes must hold: all that `training.loop` reads. Those of earlier versions name neither step nor training."""
_OWN = ("files", "sizes", "seal", "step", "of")  # keys of the notes that are not the caller's


def step_folder(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Return the folder of a step's checkpoint. Its name, with the step in decimal digits, is decided only here."""
    return folder / str(step)


def saved_steps(folder: pathlib.Path) -> list[int]:
    """Return the steps that have a checkpoint, newest first."""
    numbers = {path: re.search(r"\d+", path.name) for path in folder.glob("*")}
    steps = [int(number[0]) for path, number in numbers.items() if number and _is_checkpoint(path, int(number[0]))]
    return sorted(steps, reverse=True)


def _is_checkpoint(path: pathlib.Path, step: int) -> bool:
    # In a bucket, a checkpoint whose process ended while writing has no notes.
    return path == step_folder(path.parent, step) and (not storage.is_remote(path) or (path / NOTES).exists())


def save(
    folder: pathlib.Path,
    step: int,
    state: Any,
    notes: Mapping[str, Any],
    of: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the state after `step` steps, with JSON notes, and remove all checkpoints but this one and the one before.

    With several processes each writes its part of the state.

    Args:
      of: what the state belongs to, by the name of its kind: `restore` compares it.

    Raises:
      OSError: the disk is full, or cannot be written.
    """
    import jax

    from mpt_jax.files import array_folder
    from mpt_jax.runtime import processes

    state = state if processes.is_distributed() else jax.device_get(state)
    array_folder.write(step_folder(folder, step), NOTES, {**notes, "step": step, "of": dict(of)}, state)
    if processes.is_first():
        steps = saved_steps(folder)
        # Training has just come to this step: a later one is not of this training, and was not restored.
        kept = [number for number in steps if number <= step][:KEPT]
        old = (step_folder(folder, number) for number in steps if number not in kept)
        for path in (*folder.glob(".*.unfinished"), *old):
            storage.remove(path)


def restore(
    folder: pathlib.Path, like: Any, log: Callable[[str], None], of: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, Any, dict[str, Any]] | None:
    """Return (step, state, notes) of the newest checkpoint that can be used, or None if there are no checkpoints.

    Args:
      folder: the checkpoints of a stage.
      like: a state with the same shapes and shardings.
      log: called with a line for each checkpoint that is damaged or of another step or training.
      of: as given to `save`.

    Raises:
      InputError: no checkpoint can be used.
    """
    import jax

    from mpt_jax.files import array_folder
    from mpt_jax.runtime import processes

    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    steps = processes.from_first(lambda: saved_steps(folder))
    for step in steps:
        try:
            with processes.synchronized():
                read_notes(folder, step, of)
            state, notes = array_folder.read(step_folder(folder, step), NOTES, abstract)
        except InputError as error:
            log(f"{error}: trying an older checkpoint")
            continue
        if "step" not in notes:
            log(f"{step_folder(folder, step)} was made before checkpoints named their step: it is used unchecked")
        return step, state, {key: value for key, value in notes.items() if key not in _OWN}
    if steps:
        raise InputError(f"no checkpoint in {folder} can be used; remove that folder to train this stage again")
    return None


def newest(folder: pathlib.Path) -> tuple[int, dict[str, Any]] | None:
    """Return the step and the notes of the newest checkpoint whose notes are undamaged and name its step."""
    for step in saved_steps(folder):
        with contextlib.suppress(InputError):  # restoring reports it
            return step, read_notes(folder, step)
    return None


def read_notes(folder: pathlib.Path, step: int, of: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Read the notes of a checkpoint, and check that they are of this step and belong to `of`.

    Notes of a version that recorded neither are not checked.

    Raises:
      InputError: they are missing or damaged, or of another step or training.
    """
    path = step_folder(folder, step)
    notes = read_sealed(path / NOTES, CONTENT)
    if notes.get("step", step) != step:
        raise InputError(f"{path} was copied or renamed: it is the checkpoint of step {notes['step']}")
    found = notes.get("of", {})
    if differing := [kind for kind, expected in of.items() if found.get(kind, expected) != expected]:
        raise InputError(f"{path} is the checkpoint of another {', '.join(differing)}")
    return notes
