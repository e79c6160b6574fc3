"""The work directory of a run: a documented layout that other tools read.

config.json            the resolved config; command, versions, device, git revision of the first session
releases/NAME/         model/ and card.json of every released model, NAME such as `r1-mpt_kl-seed0`
checkpoints/STAGE/     training states of the current population; removed when its models are released
metrics.jsonl          one JSON object per line: step, release, stage, member, values
tensorboard/           the same as TensorBoard events, with --tensorboard
predictions/NAME.npz   labels, logits (float32) and ids of the test images
gallery.npz            ids and thumbnails of test images that flipped; not written for features
features/DIGEST/       features of all images by a frozen network, see `files.feature_cache`
backbone/DIGEST/       frozen weights, to which the `backbone/` of released models are links
report.json .md .html  the result; plots/ has the pictures of report.md
lock                   process and host of the current or last session; in a bucket only of the current one
"""

import contextlib
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mpt_jax import config as configs
from mpt_jax.config import Config
from mpt_jax.errors import InputError
from mpt_jax.files import sealed, storage
from mpt_jax.update import lock

_FIRST_FILES = {lock.FILE, ".config.json.unfinished"}  # all that exists if a run is killed right after its start
# Config values that may change between sessions: they do not change the result.
_FREE_SECTIONS = ("training.", "mesh.")
_FREE_KEYS = ("dataset.data_dir", "dataset.workers")


def check(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Check that a folder is free, or holds a run of this config, without writing to it.

    The sections `training` and `mesh`, `dataset.data_dir` and `dataset.workers` may differ.

    Raises:
      InputError: the folder is a file, has other files, or holds a run of another config.
    """
    storage.check_access(workdir)
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"work directory {workdir} is a file; give a folder, or a path that does not exist yet")
    path = workdir / "config.json"
    if not path.exists():
        if workdir.is_dir() and {path.name for path in workdir.iterdir()} - _FIRST_FILES:
            raise InputError(f"{workdir} is not empty and not a work directory of mpt_jax; give another --workdir")
        return
    defaults = _flatten(configs.to_dict(Config()))  # for keys that did not exist when the run began
    before, now = defaults | _flatten(read_facts(workdir)["config"]), defaults | _flatten(config)
    differences = [
        f"{key}={before.get(key)!r}, now it is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(_FREE_SECTIONS) and key not in _FREE_KEYS
    ]
    if differences:
        raise InputError(
            f"{workdir} holds a run with {'; '.join(differences)}; give another --workdir, or --new-run to use one "
            f"next to it (there --config.update.old={workdir}/releases/r0-old-seed{{seed}} reuses its old models)"
        )


def check_contents(workdir: pathlib.Path, contents: Mapping[str, str]) -> None:
    """Check that a run resumes with the data that it was started with, without writing to its folder.

    Args:
      contents: digests by what they are of; those that the run did not record at its start are not compared.

    Raises:
      InputError: other images, labels or ids.
    """
    before = read_facts(workdir).get("contents", {}) if (workdir / "config.json").exists() else {}
    if differing := [what for what, digest in contents.items() if before.get(what, digest) != digest]:
        raise InputError(
            f"{workdir} was started with other {', '.join(differing)}; restore those, or give another --workdir"
        )


def identity(facts: Mapping[str, Any]) -> str:
    """Return the digest of what the results of a run depend on: its data, and the config values that may not change.

    Args:
      facts: as `claim` writes them.
    """
    config = {
        key: value
        for key, value in _flatten(facts["config"]).items()
        if not key.startswith(_FREE_SECTIONS) and key not in _FREE_KEYS
    }
    text = json.dumps({"config": config, "contents": facts.get("contents", {})}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def next_free(workdir: pathlib.Path, config: Mapping[str, Any]) -> pathlib.Path:
    """Return the first of `workdir`, `workdir-2`, `workdir-3`, ... that is free or holds a run of this config."""
    storage.check_access(workdir)  # an unreachable bucket would make every candidate look occupied
    number, candidate = 1, workdir
    while True:
        try:
            check(candidate, config)
        except InputError:
            number += 1
            full = workdir if storage.is_remote(workdir) else workdir.resolve()
            candidate = storage.path(f"{full}-{number}")
        else:
            return candidate


def read_facts(workdir: pathlib.Path) -> dict[str, Any]:
    """Read what `claim` wrote.

    Raises:
      InputError: `config.json` is damaged.
    """
    path = workdir / "config.json"
    try:
        facts = sealed.read_sealed(path)
    except InputError as error:
        raise InputError(f"{error}; restore it from a copy, or give another --workdir") from error
    for key in ("config", "images", "device", "versions", "command"):
        if not isinstance(facts.get(key), str if key == "command" else dict):
            raise InputError(f"{path} is damaged: it has no {key!r}; give another --workdir")
    return facts


def claim(workdir: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Create the folders, and write `config.json` if this is the first session of the run.

    Raises:
      InputError: the folder is not writable, or another process has started a run of another config since `check`.
    """
    check(workdir, facts["config"])
    path = workdir / "config.json"
    try:
        storage.make_folder(workdir)
        if not storage.is_remote(workdir):  # in a bucket the lock has been written already
            with tempfile.TemporaryFile(dir=workdir):  # a read-only folder must be found before any training
                pass
        if not path.exists():
            storage.write_text(path, json.dumps(sealed.sealed(facts), indent=1) + "\n")
        for name in ("releases", "predictions", "checkpoints"):
            storage.make_folder(workdir / name)
    except OSError as error:
        raise lock.not_writable(workdir, error) from error


def append_metrics(workdir: pathlib.Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append lines to `metrics.jsonl`."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    storage.append_text(workdir / "metrics.jsonl", text)


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Read the lines of `metrics.jsonl`, without truncated ones."""
    path, lines = workdir / "metrics.jsonl", []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def drop_metrics_after(workdir: pathlib.Path, stage: str, step: int) -> None:
    """Remove truncated lines, and those of steps that a resumed stage (`r1-students`) repeats."""
    path = workdir / "metrics.jsonl"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _is_before(line, stage, step)]
        storage.write_text(path, "".join(line + "\n" for line in kept))


def write_gallery(workdir: pathlib.Path, *, images: np.ndarray, ids: np.ndarray) -> None:
    """Write thumbnails of test images, ``uint8 [n, H, W, 1 or 3]``."""
    sealed.write_arrays(workdir / "gallery.npz", {"images": images, "ids": ids})


def read_gallery(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the thumbnails by id; none if the run wrote no gallery.

    Raises:
      InputError: the file is damaged.
    """
    path = workdir / "gallery.npz"
    if not path.is_file():
        return {}
    arrays = sealed.read_arrays(path, ("images", "ids"))
    return dict(zip(arrays["ids"].tolist(), arrays["images"], strict=True))


def _is_before(line: str, stage: str, step: int) -> bool:
    try:
        values = json.loads(line)
        return f"r{values['release']}-{values['stage']}" != stage or values["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
