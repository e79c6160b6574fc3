"""The work directory of a run: a documented layout that other tools read.

config.json            the resolved config; command, versions, device, settings, git revision of the first session, and
                       of every session, with its time, in `sessions`
releases/NAME/         model/ and card.json of every released model, NAME such as `r1-mpt_kl-seed0`
checkpoints/STAGE/     training states of the current population; removed when its models are released
metrics.jsonl          one JSON object per line: step, release, stage, member, values
tensorboard/           the same as TensorBoard events, with --tensorboard
predictions/NAME.npz   labels, logits (float32) and ids of the test images
snapshots/NAME/        the same of a student in training, a file per step, with training.predict_every
gallery.npz            ids and thumbnails of test images that flipped; not written for features
features/DIGEST/       features of all images by a frozen network, see `files.feature_cache`
backbone/DIGEST/       frozen weights, to which the `backbone/` of released models are links
report.json .md .html  the result; plots/ has the pictures of report.md
lock                   process and host of the current or last session; in a bucket only of the current one
"""

import datetime
import json
import pathlib
import shlex
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mpt_jax import config as configs
from mpt_jax.config import Config, conversion
from mpt_jax.errors import InputError
from mpt_jax.files import schema, sealed, storage
from mpt_jax.runtime import regular_file
from mpt_jax.runtime.provenance import PROVENANCE
from mpt_jax.update import lock, records
from mpt_jax.update.records import identity as identity

_FIRST_FILES = {lock.FILE, ".config.json.unfinished"}  # all that exists if a run is killed right after its start
_SESSION = ("command", *(key.removesuffix("?") for key in PROVENANCE))  # what `config.json` records of every session
LINE = {"step": int, "release": int, "stage": str, "member": str, "values": {...: (float, None)}}
"""What a line of `metrics.jsonl` must hold."""
MOST_METRICS = 2**32  # bytes of `metrics.jsonl`


def check(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Check that a folder is free, or holds a run of this config, without writing to it.

    The sections `training` and `mesh`, `dataset.data_dir` and `dataset.workers` may differ.

    Raises:
      InputError: the folder is a file, has other files, or holds a run of another config.
    """
    storage.check_name(workdir)
    storage.check_access(workdir)
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"work directory {workdir} is a file; give a folder, or a path that does not exist yet")
    path = workdir / "config.json"
    if not path.exists():
        if workdir.is_dir() and {path.name for path in workdir.iterdir()} - _FIRST_FILES:
            raise InputError(f"{workdir} is not empty and not a work directory of mpt_jax; give another --workdir")
        return
    defaults = records.fixed(configs.to_dict(Config()))  # for keys that did not exist when the run began
    before, now = (defaults | records.fixed(each) for each in (read_facts(workdir)["config"], config))
    differences = [
        f"{key}={before.get(key)!r}, now it is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
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


def next_free(workdir: pathlib.Path, config: Mapping[str, Any]) -> pathlib.Path:
    """Return the first of `workdir`, `workdir-2`, `workdir-3`, ... that is free or holds a run of this config."""
    storage.check_name(workdir)
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
      InputError: `config.json` is damaged, or its config holds something that is none.
    """
    facts = records.read_facts(workdir)
    try:
        config_of(facts)
    except InputError as error:
        raise InputError(
            f"{workdir / 'config.json'}: {error}; restore it from a copy, or give another --workdir"
        ) from error
    return facts


def config_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a run, with the defaults of keys that did not exist when it began.

    Raises:
      InputError: an unknown key, or a value of another type than the key's.
    """
    return configs.to_dict(conversion.build(Config, facts["config"]))


def claim(workdir: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Create the folders, and write `config.json`: in the first session of the run all facts, then `sessions` alone.

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
        _record(path, facts)
        for name in ("releases", "predictions", "checkpoints"):
            storage.make_folder(workdir / name)
    except OSError as error:
        raise lock.not_writable(workdir, error) from error


def _record(path: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Write the facts, or add this session to those that are there."""
    known = read_facts(path.parent) if path.exists() else facts
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    session = {"started": now, **{key: facts[key] for key in _SESSION if key in facts}}
    known = {**known, "sessions": [*known.get("sessions", []), session]}
    storage.write_text(path, json.dumps(sealed.sealed(known), indent=1) + "\n")


def check_settings(workdir: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Check that a run resumes with the settings that change numbers, without writing to its folder.

    Args:
      settings: of `provenance.settings`; those that the run did not record at its start are not compared.

    Raises:
      InputError: another setting, with what to set.
    """
    before = read_facts(workdir).get("settings", {}) if (workdir / "config.json").exists() else {}
    for name, value in settings.items():
        if before.get(name, value) != value:
            variable, of_before = name.upper(), before[name]
            remedy = (
                f"set {variable}={shlex.quote(str(of_before))}" if of_before not in (None, "") else f"unset {variable}"
            )
            raise InputError(
                f"{workdir} was started with {name}={of_before!r}, now it is {value!r}, which changes the results; "
                f"{remedy}, or give another --workdir"
            )


def other_versions(facts: Mapping[str, Any], now: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the versions with which a run was started or resumed that are not those of now, by package.

    Examples:
      >>> facts = {"versions": {"jax": "1", "flax": "3"}, "sessions": [{"versions": {"jax": "2", "flax": "3"}}]}
      >>> other_versions(facts, {"jax": "2", "flax": "3"})
      {'jax': ['1']}
    """
    sessions = [facts, *facts.get("sessions", [])]
    found = {name: [session["versions"].get(name) for session in sessions] for name in now}
    others = {name: [each for each in dict.fromkeys(of) if each not in (None, now[name])] for name, of in found.items()}
    return {name: each for name, each in others.items() if each}


def append_metrics(workdir: pathlib.Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append lines to `metrics.jsonl`."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    storage.append_text(workdir / "metrics.jsonl", text)


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Read the lines of `metrics.jsonl`, without truncated and damaged ones.

    Raises:
      InputError: it is not a regular file, or too large.
    """
    values = (_parsed(line) for line in _metrics(workdir / "metrics.jsonl"))
    return [line for line in values if not schema.fault(line, LINE)]


def drop_metrics_after(workdir: pathlib.Path, stage: str, step: int) -> None:
    """Remove truncated and damaged lines, and those of steps that a resumed stage (`r1-students`) repeats.

    Raises:
      InputError: it is not a regular file, or too large.
    """
    path = workdir / "metrics.jsonl"
    if path.exists():
        kept = [line for line in _metrics(path) if _is_before(_parsed(line), stage, step)]
        storage.write_bytes(path, b"".join(line + b"\n" for line in kept))


def _metrics(path: pathlib.Path) -> list[bytes]:
    try:
        return storage.read_bytes(path, MOST_METRICS).splitlines() if path.exists() else []
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({regular_file.reason(error)}); it only records the values of the training: remove "
            "it to continue without those so far"
        ) from error


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # ValueError: no JSON, or not UTF-8
        return None


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
    images, ids = arrays["images"], arrays["ids"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or ids.shape != images.shape[:1]:
        raise InputError(
            f"{path} is damaged: images {images.dtype} {list(images.shape)} and ids {list(ids.shape)}; expected uint8 "
            "[n, H, W, 1 or 3] and [n]; run the same command again to regenerate it"
        )
    return dict(zip(ids.tolist(), images, strict=True))


def _is_before(line: Any, stage: str, step: int) -> bool:
    if schema.fault(line, {"step": int, "release": int, "stage": str}):
        return False
    return f"r{line['release']}-{line['stage']}" != stage or line["step"] <= step
