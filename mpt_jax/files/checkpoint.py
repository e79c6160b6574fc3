"""Checkpoints: the states of a training while it runs, a folder per step with `model/` and `notes.json`."""

import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

from mpt_jax.errors import InputError
from mpt_jax.files import array_folder, storage
from mpt_jax.files.sealed import read_sealed
from mpt_jax.runtime import processes

NOTES = "notes.json"
KEPT = 2  # checkpoints of a stage: the newest, and one to fall back to


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


def save(folder: pathlib.Path, step: int, state: Any, notes: Mapping[str, Any]) -> None:
    """Write the state after `step` steps, with JSON notes, and remove all checkpoints but the newest two.

    With several processes each writes its part of the state.

    Raises:
      OSError: the disk is full, or cannot be written.
    """
    state = state if processes.is_distributed() else jax.device_get(state)
    array_folder.write(step_folder(folder, step), NOTES, notes, state)
    if processes.is_first():
        old = (step_folder(folder, number) for number in saved_steps(folder)[KEPT:])
        for path in (*folder.glob(".*.unfinished"), *old):
            storage.remove(path)


def restore(folder: pathlib.Path, like: Any, log: Callable[[str], None]) -> tuple[int, Any, dict[str, Any]] | None:
    """Return (step, state, notes) of the newest undamaged checkpoint, or None if there are no checkpoints.

    Args:
      folder: the checkpoints of a stage.
      like: a state with the same shapes and shardings.
      log: called with a line for each damaged checkpoint.

    Raises:
      InputError: all checkpoints are damaged.
    """
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    steps = processes.from_first(lambda: saved_steps(folder))
    for step in steps:
        try:
            state, notes = array_folder.read(step_folder(folder, step), NOTES, abstract)
            return step, state, {key: value for key, value in notes.items() if key not in ("files", "seal")}
        except InputError as error:
            log(f"{error}: trying an older checkpoint")
    if steps:
        raise InputError(f"all checkpoints in {folder} are damaged; remove that folder to train this stage again")
    return None


def read_notes(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """Read the notes of a checkpoint.

    Raises:
      InputError: they are missing or damaged.
    """
    return read_sealed(step_folder(folder, step) / NOTES)
