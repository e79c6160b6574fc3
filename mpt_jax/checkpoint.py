"""Everything on disk that holds weights: training states while a stage runs, released models when it is done.

The only module that imports orbax. A released model is a folder with `model/` (orbax: params and batch statistics) and
`card.json` (architecture, class names in order, parents, digest, metrics); it appears whole or not at all.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mpt_jax import models
from mpt_jax.errors import InputError
from mpt_jax.models import Classifier

# What every card holds, by the type of its value.
CARD = {
    **{"name": str, "method": str, "release": int, "seed": int, "dataset": str, "digest": str},
    **{"architecture": dict, "normalization": dict, "objective": dict, "parents": dict, "metrics": dict},
    **{"classes": list, "image_shape": list, "steps": int, "seconds": float, "examples_per_second": float},
}


@contextlib.contextmanager
def training_states(folder: pathlib.Path) -> Iterator[ocp.CheckpointManager]:
    """The training states of one stage, newest two kept; saves are finished when `save` returns."""
    # Synchronous: an asynchronous save is lost when the process exits, and its buffers may be donated meanwhile.
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        yield manager


def save_state(manager: ocp.CheckpointManager, step: int, state: Any, notes: Mapping[str, Any]) -> None:
    """Write the state after `step` steps, with JSON notes beside it."""
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(dict(notes)))
    manager.save(step, args=args)


def restore_state(manager: ocp.CheckpointManager, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
    """The newest saved (step, state, notes) that can be read, shaped and placed as `like`; None where nothing is saved.

    Raises:
      InputError: states are saved, but none can be read.
    """
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), notes=ocp.args.JsonRestore())
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
        try:
            restored = manager.restore(step, args=args)
        except Exception:  # orbax and its storage raise many kinds; an older state is as good, only older
            continue
        return step, restored.state, restored.notes
    if steps:
        raise InputError(f"no training state in {manager.directory} can be read; remove that folder to train anew")
    return None


def digest(tree: Any) -> str:
    """SHA-256 over the path, type, shape and bytes of every array of a tree: the identity of a model's weights."""
    result = hashlib.sha256()
    for path, leaf in sorted((jax.tree_util.keystr(p), leaf) for p, leaf in jax.tree_util.tree_leaves_with_path(tree)):
        array = np.ascontiguousarray(leaf)
        result.update(f"{path} {array.dtype} {array.shape}\n".encode())
        result.update(array.tobytes())
    return result.hexdigest()


def write_release(folder: pathlib.Path, classifier: Classifier, card: Mapping[str, Any]) -> None:
    """Write one classifier (no leading axes) and its card, which gains the input's mean and std and the digest."""
    weights = jax.tree.map(np.asarray, {"params": classifier.params, "batch_stats": classifier.batch_stats})
    normalization = {name: np.asarray(getattr(classifier, name)).tolist() for name in ("mean", "std")}
    card = {"schema": 1, **card, "normalization": normalization, "digest": digest(weights)}
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((unfinished / "model").absolute(), weights)
    write_text(unfinished / "card.json", json.dumps(card, indent=1) + "\n")
    unfinished.rename(folder)


def read_card(folder: pathlib.Path) -> dict[str, Any]:
    """The card of a released model.

    Raises:
      InputError: the folder is missing, or is not a released model.
    """
    if not folder.is_dir():
        raise InputError(f"no released model at {folder}; expected a folder with card.json and model/")
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is not a released model: card.json is missing or unreadable ({error!r})") from error
    if not isinstance(card, dict) or card.get("schema") != 1:
        raise InputError(f"{folder}/card.json is not a card of schema 1, the one that this version reads")
    for key, kind in CARD.items():
        if not isinstance(card.get(key), kind):
            raise InputError(f"{folder}/card.json is damaged: {key!r} is {card.get(key)!r}; restore it from a copy")
    return card


def read_release(folder: pathlib.Path) -> tuple[Classifier, dict[str, Any]]:
    """A released model and its card, its weights held against the digest in the card.

    Raises:
      InputError: not a released model, damaged, or of an architecture this version does not have.
    """
    card = read_card(folder)
    try:
        name, options = card["architecture"]["name"], card["architecture"]["options"]
        mean, std = (np.asarray(card["normalization"][key], np.float32) for key in ("mean", "std"))
        module = models.build(name, len(card["classes"]), **options)
        with ocp.StandardCheckpointer() as checkpointer:
            weights = checkpointer.restore((folder / "model").absolute())
        weights = jax.tree.map(np.asarray, {key: weights[key] for key in ("params", "batch_stats")})
    except InputError:
        raise
    except Exception as error:  # orbax and its storage raise many kinds; to the user they are all one
        raise InputError(f"{folder} cannot be read ({type(error).__name__}); restore it from a copy") from error
    if digest(weights) != card["digest"]:
        raise InputError(f"{folder}/model does not have the digest in its card.json; restore it from a copy")
    ensemble = card["architecture"].get("ensemble") is True
    return Classifier(module=module, mean=mean, std=std, ensemble=ensemble, **weights), card


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a whole file or none of it: to a neighbour first, then renamed over the old one."""
    neighbour = path.with_name(f".{path.name}.unfinished")
    neighbour.write_text(text, encoding="utf-8")
    os.replace(neighbour, path)
