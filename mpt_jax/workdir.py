"""The work directory of a run: a documented layout that other tools read.

config.json            the resolved config, versions, device, git revision, command
releases/NAME/         model/ and card.json of every released model, NAME as `r1-mpt_kl-seed0`
checkpoints/STAGE/     training states of the population being trained; gone when its models are released
metrics.jsonl          one JSON object a line: step, release, stage, member, values
predictions/NAME.npz   labels, logits (float32) and ids of the test images
report.json report.md  the result
"""

import json
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from mpt_jax import __version__, checkpoint
from mpt_jax.errors import InputError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def check(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """A work directory belongs to one config; only its `training` section may change between commands.

    Raises:
      InputError: the folder is a file, is somebody else's, or holds a run of another config. Nothing is written.
    """
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"work directory {workdir} is a file; give a folder, or a path that does not exist yet")
    path = workdir / "config.json"
    if not path.exists():
        if workdir.is_dir() and any(workdir.iterdir()):
            raise InputError(f"{workdir} is not empty and not a work directory of mpt_jax; give another --workdir")
        return
    try:
        before = _flatten(json.loads(path.read_text())["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is unreadable; give another --workdir") from error
    now = _flatten(config)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not key.startswith("training."):
            raise InputError(
                f"{workdir} holds a run with {key}={before.get(key)!r}, now it is {now.get(key)!r}; "
                "give another --workdir"
            )


def claim(workdir: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Make the folders, and write `config.json` where this is the first command of the run.

    Raises:
      InputError: the folder cannot be written.
    """
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            versions = {"mpt_jax": __version__, "python": sys.version.split()[0]}
            versions |= {name: version(name) for name in PACKAGES}
            facts = {**facts, "versions": versions, "git_revision": _git_revision()}
            checkpoint.write_text(path, json.dumps(facts, indent=1) + "\n")
        for name in ("releases", "predictions", "checkpoints"):
            (workdir / name).mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to work directory {workdir}: {error.strerror}; give another") from error


def append_metrics(workdir: pathlib.Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to `metrics.jsonl`."""
    with (workdir / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def drop_metrics_after(workdir: pathlib.Path, stage: str, step: int) -> None:
    """Remove the lines of steps that a resumed stage does again, and a line that a killed process left half."""
    path = workdir / "metrics.jsonl"
    if path.exists():
        whole = [line for line in path.read_text().splitlines() if line.endswith("}}")]
        kept = [line for line in whole if (r := json.loads(line))["stage"] != stage or r["step"] <= step]
        checkpoint.write_text(path, "".join(line + "\n" for line in kept))


def write_predictions(path: pathlib.Path, *, labels: np.ndarray, logits: np.ndarray, ids: np.ndarray) -> None:
    """The raw outputs of a model on the test images, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, labels=labels, logits=logits.astype(np.float32), ids=ids)
    unfinished.rename(path)


def read_predictions(path: pathlib.Path) -> dict[str, np.ndarray]:
    """What `write_predictions` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _git_revision() -> str | None:
    """The commit of this package's checkout; None where it does not run from one."""
    here = pathlib.Path(__file__).parent
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
