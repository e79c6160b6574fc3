"""Everything on disk that holds weights: training states while a stage runs, released models when it is done.

The only module that imports orbax. Either is a folder with `model/` (orbax) and a JSON sheet: `card.json` of a released
model (architecture, class names in order, parents, digest, metrics), `notes.json` of a training state. The sheet has
the SHA-256 of every file and of itself, which are checked before anything else is read. A folder appears whole or not
at all.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mpt_jax import models
from mpt_jax.errors import InputError, one_line
from mpt_jax.files import storage
from mpt_jax.files.sealed import digest, read_sealed, sealed
from mpt_jax.models import Classifier
from mpt_jax.runtime import processes

# What every card holds, by the type of its value.
CARD = {
    **{"name": str, "method": str, "release": int, "seed": int, "dataset": str, "digest": str, "files": dict},
    **{"architecture": dict, "normalization": dict, "objective": dict, "parents": dict, "metrics": dict},
    **{"classes": list, "image_shape": list, "steps": int, "seconds": float, "examples_per_second": float},
}
KEPT = 2  # training states: the newest, and one to fall back to

FULL = (errno.ENOSPC, errno.EDQUOT)  # what a full disk is called


def save_state(folder: pathlib.Path, step: int, state: Any, notes: Mapping[str, Any]) -> None:
    """Write the state after `step` steps, with JSON notes beside it, to `folder/STEP`; the newest two are kept.

    Several processes each write a part of the state, and the first one the notes when all are done.

    Raises:
      OSError: the disk is full, or cannot be written.
    """
    _write(folder / str(step), "notes.json", state if processes.several() else jax.device_get(state), notes)
    if not processes.is_first():
        return
    for path in (*folder.glob(".*.unfinished"), *(folder / str(number) for number in saved_steps(folder)[KEPT:])):
        storage.remove(path)


def restore_state(folder: pathlib.Path, like: Any, say: Callable[[str], None]) -> tuple[int, Any, dict] | None:
    """The newest saved (step, state, notes) that is whole, shaped and placed as `like`; None where nothing is saved.

    Tells `say` of each one that is not.

    Raises:
      InputError: states are saved, but none is whole.
    """
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    steps = processes.decided(lambda: saved_steps(folder))
    for step in steps:
        try:
            state, sheet = _read(folder / str(step), "notes.json", abstract)
            return step, state, {key: value for key, value in sheet.items() if key not in ("files", "seal")}
        except InputError as error:
            say(f"{error}: going on from an older one")
    if steps:
        raise InputError(f"no training state in {folder} is whole; remove that folder to train this stage anew")
    return None


def identity(classifier: Classifier) -> str:
    """The digest that the card of a released model has: that of its weights."""
    return digest(_weights(classifier))


def _weights(classifier: Classifier) -> dict[str, Any]:
    return jax.tree.map(np.asarray, {"params": classifier.params, "batch_stats": classifier.batch_stats})


def write_release(folder: pathlib.Path, classifier: Classifier | None, card: Mapping[str, Any]) -> None:
    """Write one classifier (no leading axes) and its card, which gains the input's mean and std and the digests.

    None: a model that is known by its answers alone; its card brings a digest along and gains no files.

    Raises:
      OSError: the disk is full, or cannot be written.
    """
    if classifier is None:
        return _write(folder, "card.json", None, {"schema": 2, **card, "normalization": {}})
    weights = _weights(classifier)
    normalization = {name: np.asarray(getattr(classifier, name)).tolist() for name in ("mean", "std")}
    card = {"schema": 2, **card, "normalization": normalization, "digest": digest(weights)}
    _write(folder, "card.json", weights, card)


def read_card(folder: pathlib.Path) -> dict[str, Any]:
    """The card of a released model.

    Raises:
      InputError: the folder is missing, is not a released model, or its card is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"no released model at {folder}; expected a folder with card.json and model/")
    path = folder / "card.json"
    if not path.is_file():
        raise InputError(f"{folder} is not a released model: it has no card.json")
    try:
        card = read_sealed(path)
    except InputError as error:
        raise InputError(f"{error}; {_remedy(folder)}") from error
    if card.get("schema") != 2:
        raise InputError(f"{path} is not a card of schema 2, the one that this version reads")
    for key, kind in CARD.items():
        if not isinstance(card.get(key), kind):
            raise InputError(f"{path} is damaged: {key!r} is {card.get(key)!r}; {_remedy(folder)}")
    return card


def read_release(folder: pathlib.Path) -> tuple[Classifier, dict[str, Any]]:
    """A released model and its card, its files and weights held against the digests in the card.

    Raises:
      InputError: not a released model, damaged, or of an architecture this version does not have.
    """
    card = read_card(folder)
    if not card["files"]:
        known_by = card["architecture"].get("predictions")
        raise InputError(f"{folder} has no weights: it is a model that is known by its answers in {known_by} alone")
    try:
        weights, _ = _read(folder, "card.json", None)
        name, options = card["architecture"]["name"], card["architecture"]["options"]
        mean, std = (np.asarray(card["normalization"][key], np.float32) for key in ("mean", "std"))
        module = models.build(name, len(card["classes"]), **options)
        weights = jax.tree.map(np.asarray, {key: weights[key] for key in ("params", "batch_stats")})
    except InputError as error:
        raise InputError(f"{error}; {_remedy(folder)}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} cannot be read ({type(error).__name__}); {_remedy(folder)}") from error
    if digest(weights) != card["digest"]:
        raise InputError(f"{folder}/model does not have the digest in its card.json; {_remedy(folder)}")
    ensemble = card["architecture"].get("ensemble") is True
    return Classifier(module=module, mean=mean, std=std, ensemble=ensemble, **weights), card


def write_text(path: pathlib.Path, text: str) -> None:
    """`write_bytes` of a text, as UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Write a whole file or none of it."""
    storage.write_bytes(path, content)


def _remedy(folder: pathlib.Path) -> str:
    return f"restore it from a copy, or remove {folder} and train it anew"


def _write(folder: pathlib.Path, sheet_name: str, arrays: Any, sheet: Mapping[str, Any]) -> None:
    """Write `model/` and the sealed sheet to a neighbour of the folder, which then takes its place.

    In a bucket, where nothing can be renamed, to the folder itself, which does not count without its sheet, the last.
    """
    remote, first = storage.is_remote(folder), processes.is_first()
    unfinished = folder if remote else folder.with_name(f".{folder.name}.unfinished")
    try:
        with processes.together():
            if first:
                storage.remove(unfinished)
                storage.make_folder(unfinished)
                _require_space(unfinished, sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)))
        if arrays is not None:
            # Synchronous: an asynchronous save is lost when the process exits.
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
                checkpointer.save(storage.absolute(unfinished / "model"), args=ocp.args.StandardSave(arrays))
        with processes.together():
            if first:
                sheet = sealed({**sheet, "files": _digests(unfinished)})
                write_text(unfinished / sheet_name, json.dumps(sheet, indent=1) + "\n")
                if not remote:
                    storage.remove(folder)  # a damaged one
                    unfinished.rename(folder)
    except Exception as error:
        if first:
            with contextlib.suppress(Exception):
                storage.remove(unfinished)
        if isinstance(error, OSError | jax.errors.JaxRuntimeError):  # the latter: another process was lost
            raise
        if remote:
            raise OSError(errno.EIO, f"cannot be written ({one_line(error)[:300]})", str(folder)) from error
        # What orbax and its storage raise is a ValueError with the system's message somewhere in it.
        number = next((n for n in (*FULL, errno.EROFS) if os.strerror(n) in str(error)), errno.EIO)
        raise OSError(number, os.strerror(number), str(folder)) from error


def _read(folder: pathlib.Path, sheet_name: str, abstract: Any) -> tuple[Any, dict[str, Any]]:
    """The arrays (shaped and placed as `abstract`, where it is given) and the sheet, after every file was checked."""
    with processes.together():
        sheet = read_sealed(folder / sheet_name)
        found = _digests(folder)
        for name, expected in dict(sheet.get("files", {})).items():
            if found.get(name) != expected:
                raise InputError(f"{folder / name} is {'damaged' if name in found else 'missing'}")
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            return checkpointer.restore(
                storage.absolute(folder / "model"), args=ocp.args.StandardRestore(abstract)
            ), sheet
    except jax.errors.JaxRuntimeError:  # another process was lost
        raise
    except Exception as error:  # whole, but not of this shape, or of another version of orbax, which raises many kinds
        raise InputError(f"{folder} cannot be read ({type(error).__name__})") from error


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file in `model/`."""
    result = {}
    for name in storage.files(folder / "model"):
        with (folder / "model" / name).open("rb") as file:
            result[f"model/{name}"] = hashlib.file_digest(file, "sha256").hexdigest()
    return result


def _require_space(folder: pathlib.Path, size: int) -> None:
    """Find a full disk out before orbax does, whose threads would fill the terminal."""
    if not storage.is_remote(folder) and shutil.disk_usage(folder).free < size + size // 10 + 2**20:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def saved_steps(folder: pathlib.Path) -> list[int]:
    """The steps that a training is saved at, newest first."""
    names = [path.name for path in folder.glob("*")]
    steps = sorted((int(name) for name in names if name.isdecimal()), reverse=True)
    # In a bucket one that was being written when its process ended has no notes.
    return [s for s in steps if not storage.is_remote(folder) or (folder / str(s) / "notes.json").exists()]
