"""The work directory of a run: a documented layout that other tools read.

config.json            the resolved config; command, versions, device, git revision of the first session
releases/NAME/         model/ and card.json of every released model, NAME as `r1-mpt_kl-seed0`
checkpoints/STAGE/     training states of the population being trained; gone when its models are released
metrics.jsonl          one JSON object a line: step, release, stage, member, values
tensorboard/           the same as TensorBoard events, with --tensorboard
predictions/NAME.npz   labels, logits (float32) and ids of the test images
gallery.npz            ids and thumbnails of test images that flipped; not where the examples are features
report.json .md .html  the result; plots/ has the pictures of report.md
lock                   process and host that work here, or did last; in a bucket only while they do
"""

import contextlib
import errno
import functools
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from mpt_jax import __version__
from mpt_jax import config as configs
from mpt_jax.config import Config
from mpt_jax.errors import InputError
from mpt_jax.files import gcs_lock, sealed, storage
from mpt_jax.runtime import processes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = "lock"
SIGHT = 60.0  # seconds until a new file is seen by all hosts that share a disk
_BEGINNINGS = {LOCK, ".config.json.unfinished"}  # what a run that was killed at once leaves
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def check(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """A work directory belongs to one config; only `training`, `mesh`, where the data lie and who decodes may change.

    Raises:
      InputError: the folder is a file, is somebody else's, or holds a run of another config. Nothing is written.
    """
    storage.check_access(workdir)
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"work directory {workdir} is a file; give a folder, or a path that does not exist yet")
    path = workdir / "config.json"
    if not path.exists():
        if workdir.is_dir() and {path.name for path in workdir.iterdir()} - _BEGINNINGS:
            raise InputError(f"{workdir} is not empty and not a work directory of mpt_jax; give another --workdir")
        return
    defaults = _flatten(configs.to_dict(Config()))  # of keys that did not exist when the run began
    before, now = defaults | _flatten(read_facts(workdir)["config"]), defaults | _flatten(config)
    differences = [
        f"{key}={before.get(key)!r}, now it is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
        and not key.startswith(("training.", "mesh."))
        and key not in ("dataset.data_dir", "dataset.workers")
    ]
    if differences:
        raise InputError(
            f"{workdir} holds a run with {'; '.join(differences)}; give another --workdir, or --new-run for one beside "
            f"it (there --config.update.old={workdir}/releases/r0-old-seed{{seed}} reuses its old models)"
        )


def check_contents(workdir: pathlib.Path, contents: Mapping[str, str]) -> None:
    """A run goes on with the data that it began with.

    Args:
      contents: digest by what it is of; what the run did not record when it began is not compared.

    Raises:
      InputError: other images, labels or ids. Nothing is written.
    """
    before = read_facts(workdir).get("contents", {}) if (workdir / "config.json").exists() else {}
    if differing := [what for what, digest in contents.items() if before.get(what, digest) != digest]:
        raise InputError(
            f"{workdir} began with other {', '.join(differing)}; put those back, or give another --workdir"
        )


def beside(workdir: pathlib.Path, config: Mapping[str, Any]) -> pathlib.Path:
    """The first of `workdir`, `workdir-2`, `workdir-3`, ... that is free or holds a run of this very config."""
    storage.check_access(workdir)  # else every candidate would look occupied
    number, candidate = 1, workdir
    while True:
        try:
            check(candidate, config)
        except InputError:
            number += 1
            whole = workdir if storage.is_remote(workdir) else workdir.resolve()
            candidate = storage.path(f"{whole}-{number}")
        else:
            return candidate


@contextlib.contextmanager
def locked(workdir: pathlib.Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Nobody else works in this folder, which is made, until the end of the block or of the process, however it ends.

    The system drops the lock of a process that has died, so that what such a one leaves behind holds nobody up. Where
    there are no such locks (Windows, some network file systems), this does nothing. In a bucket it is `gcs_lock.hold`.

    Raises:
      InputError: another process works there, or the folder cannot be written.
    """
    if storage.is_remote(workdir):
        with gcs_lock.hold(workdir / LOCK, say):
            yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / LOCK).open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise _cannot_write(workdir, error) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise InputError(
                    f"{workdir} is in use by {file.read(200).strip() or 'another process'}; wait for its end, "
                    "or give another --workdir"
                ) from error
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL):
                    raise
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def require_shared(workdir: pathlib.Path) -> None:
    """All processes see one work directory: that of which the first one holds the lock.

    Raises:
      InputError: in all processes, where one of them has another folder of this name.
    """
    if not processes.is_distributed() or storage.is_remote(workdir):
        return
    path, deadline = workdir / LOCK, time.monotonic() + SIGHT
    held = processes.from_first(lambda: path.read_text(encoding="utf-8"))
    with processes.synchronized():
        while not path.exists() or path.read_text(encoding="utf-8", errors="replace") != held:
            if time.monotonic() > deadline:
                raise InputError(
                    f"{workdir} is not one folder for all processes ({socket.gethostname()} has another); expected one "
                    "that all of them see, on a shared disk or in a bucket"
                )
            time.sleep(SIGHT / 100)


def read_facts(workdir: pathlib.Path) -> dict[str, Any]:
    """What `claim` wrote.

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
    """Make the folders, and write `config.json` where this is the first command of the run.

    Raises:
      InputError: the folder cannot be written, or holds another run by now.
    """
    check(workdir, facts["config"])  # again: another process may have begun since
    path = workdir / "config.json"
    try:
        storage.make_folder(workdir)
        if not storage.is_remote(workdir):  # there the lock has been written
            with tempfile.TemporaryFile(dir=workdir):  # whether it can be written is found out before any training
                pass
        if not path.exists():
            storage.write_text(path, json.dumps(sealed.sealed(facts), indent=1) + "\n")
        for name in ("releases", "predictions", "checkpoints"):
            storage.make_folder(workdir / name)
    except OSError as error:
        raise _cannot_write(workdir, error) from error


def provenance(device: Mapping[str, Any]) -> dict[str, Any]:
    """What a result may depend on besides its config."""
    versions = {"mpt_jax": __version__, "python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}
    return {"versions": versions, "device": dict(device), "git_revision": _git_revision()}


def append_metrics(workdir: pathlib.Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to `metrics.jsonl`."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    storage.append_text(workdir / "metrics.jsonl", text)


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` so far, without one that was left half."""
    path, lines = workdir / "metrics.jsonl", []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def drop_metrics_after(workdir: pathlib.Path, stage: str, step: int) -> None:
    """Remove the lines of steps that a resumed stage (`r1-students`) does again, and a line that was left half."""
    path = workdir / "metrics.jsonl"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _is_before(line, stage, step)]
        storage.write_text(path, "".join(line + "\n" for line in kept))


def write_gallery(workdir: pathlib.Path, *, images: np.ndarray, ids: np.ndarray) -> None:
    """Thumbnails of test images, ``uint8 [n, H, W, 1 or 3]``, whole or not at all."""
    sealed.write_arrays(workdir / "gallery.npz", {"images": images, "ids": ids})


def read_gallery(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Thumbnail by id; none where the run wrote no gallery.

    Raises:
      InputError: unreadable, or not what was written.
    """
    path = workdir / "gallery.npz"
    if not path.is_file():
        return {}
    arrays = sealed.read_arrays(path, ("images", "ids"))
    return dict(zip(arrays["ids"].tolist(), arrays["images"], strict=True))


def _cannot_write(workdir: pathlib.Path, error: OSError) -> Exception:
    """A full disk is no mistake of the user's, and stays what it is."""
    if error.errno in storage.DISK_FULL:
        return OSError(error.errno, error.strerror, str(workdir))
    return InputError(f"cannot write to work directory {workdir}: {error.strerror}; give another")


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


@functools.cache  # the code that runs is the one that was loaded, whatever is committed meanwhile
def _git_revision() -> str | None:
    """The commit of this package's checkout, `-dirty` where its code was changed; None where it runs from none."""
    package = pathlib.Path(__file__).parents[1]

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=package, capture_output=True, text=True, timeout=10)

    if not (package.parent / ".git").exists():
        return None
    try:
        # Of the folder alone: tables and pages that a command of ours has written do not make its next run another.
        head, changes = git("rev-parse", "HEAD"), git("diff", "--quiet", "HEAD", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return None if head.returncode else head.stdout.strip() + "-dirty" * bool(changes.returncode)
