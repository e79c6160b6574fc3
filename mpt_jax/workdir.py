"""The work directory of a run: a documented layout that other tools read.

config.json            the resolved config; command, versions, device, git revision of the first session
releases/NAME/         model/ and card.json of every released model, NAME as `r1-mpt_kl-seed0`
checkpoints/STAGE/     training states of the population being trained; gone when its models are released
metrics.jsonl          one JSON object a line: step, release, stage, member, values
predictions/NAME.npz   labels, logits (float32) and ids of the test images
gallery.npz            ids and thumbnails of test images that flipped; not where the examples are features
report.json .md .html  the result; plots/ has the pictures of report.md
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from mpt_jax import __version__, checkpoint
from mpt_jax.errors import InputError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def check(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """A work directory belongs to one config; only where the data lies and the `training` section may change.

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
    before, now = _flatten(read_facts(workdir)["config"]), _flatten(config)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not key.startswith("training.") and key != "dataset.data_dir":
            raise InputError(
                f"{workdir} holds a run with {key}={before.get(key)!r}, now it is {now.get(key)!r}; give another "
                f"--workdir (there --config.update.old={workdir}/releases/r0-old-seed{{seed}} reuses its old models)"
            )


def read_facts(workdir: pathlib.Path) -> dict[str, Any]:
    """What `claim` wrote.

    Raises:
      InputError: `config.json` is damaged.
    """
    path = workdir / "config.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is unreadable; give another --workdir") from error
    for key in ("config", "images", "device", "versions", "command"):
        if not isinstance(facts, dict) or not isinstance(facts.get(key), str if key == "command" else dict):
            raise InputError(f"{path} is damaged: it has no {key!r}; give another --workdir")
    return facts


def claim(workdir: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Make the folders, and write `config.json` where this is the first command of the run.

    Raises:
      InputError: the folder cannot be written.
    """
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):  # a folder that cannot be written is found out before any training
            pass
        if not path.exists():
            checkpoint.write_text(path, json.dumps(facts, indent=1) + "\n")
        for name in ("releases", "predictions", "checkpoints"):
            (workdir / name).mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to work directory {workdir}: {error.strerror}; give another") from error


def provenance(device: Mapping[str, Any]) -> dict[str, Any]:
    """What a result may depend on besides its config."""
    versions = {"mpt_jax": __version__, "python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}
    return {"versions": versions, "device": dict(device), "git_revision": _git_revision()}


def append_metrics(workdir: pathlib.Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to `metrics.jsonl`."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    with (workdir / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(text)


def drop_metrics_after(workdir: pathlib.Path, stage: str, step: int) -> None:
    """Remove the lines of steps that a resumed stage (`r1-students`) does again, and a line that was left half."""
    path = workdir / "metrics.jsonl"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _is_before(line, stage, step)]
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


def write_gallery(workdir: pathlib.Path, *, images: np.ndarray, ids: np.ndarray) -> None:
    """Thumbnails of test images, ``uint8 [n, H, W, 1 or 3]``, whole or not at all."""
    unfinished = workdir / ".gallery.npz.unfinished"
    with unfinished.open("wb") as file:
        np.savez_compressed(file, images=images, ids=ids)
    unfinished.rename(workdir / "gallery.npz")


def read_gallery(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Thumbnail by id; none where the run wrote no gallery."""
    path = workdir / "gallery.npz"
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return dict(zip(arrays["ids"].tolist(), arrays["images"], strict=True))


def has_predictions(path: pathlib.Path) -> bool:
    """Whether the file is there and can be read."""
    try:
        return set(read_predictions(path)) >= {"labels", "logits", "ids"}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return False


def _is_before(line: str, stage: str, step: int) -> bool:
    try:
        values = json.loads(line)
        return f"r{values['release']}-{values['stage']}" != stage or values["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _git_revision() -> str | None:
    """The commit of this package's checkout, `-dirty` where files were changed; None where it runs from none."""
    root = pathlib.Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
