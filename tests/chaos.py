"""A work directory and what can happen to it between two sessions of a run, for tests of what the run makes of it.

The program runs in this process, on a network that compiles once. A kill is the folder as it was when some file
operation began: what a killed process leaves behind is exactly that.
"""

import contextlib
import dataclasses
import errno
import io
import json
import locale
import os
import pathlib
import shutil
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
import tiny_network

from mpt_jax import train
from mpt_jax.files import array_folder, released_model
from mpt_jax.files.predictions import released

LONGEST = 120  # seconds of a session, which takes about one
CLASSES, TRAIN, TEST, WIDTH = 4, 12, 6, 3
CONFIG = f"""
def get_config():
    return {{
        "seeds": (0, 1),
        "dataset": {{"name": "FEATURES", "validation_per_class": 0}},
        "optimizer": {{"epochs": 1, "batch_size": 12, "learning_rate": 0.1}},
        "update": {{"schedule": [2, {CLASSES}], "methods": ["no_treatment"]}},
        "model": {{"name": {tiny_network.NAME!r}}},
        "training": {{"checkpoint_every": 2, "steps_per_dispatch": 1}},
    }}
"""
_OPERATIONS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link")


@dataclasses.dataclass
class _Watched:
    """The file operations in a folder, and what is done before each; audit hooks belong to the process and stay."""

    folder: str = ""
    before: Callable[[int, str, tuple], None] | None = None
    count: int = 0
    lock: threading.RLock = dataclasses.field(default_factory=threading.RLock)
    busy: bool = False


_watched = _Watched()


def _hook(event: str, args: tuple) -> None:
    if _watched.before is None or event not in _OPERATIONS or not isinstance(args[0], str | bytes | os.PathLike):
        return
    if not os.fsdecode(args[0]).startswith(_watched.folder):
        return
    with _watched.lock:
        if _watched.busy or _watched.before is None:
            return
        _watched.busy, _watched.count = True, _watched.count + 1
        try:
            _watched.before(_watched.count, event, args)
        finally:
            _watched.busy = False


@contextlib.contextmanager
def before_each_operation(folder: pathlib.Path, act: Callable[[int, str, tuple], None]) -> Iterator[None]:
    """Call a function with the number, the name and the arguments of every file operation in a folder."""
    if not _watched.folder:
        sys.addaudithook(_hook)
    _watched.folder, _watched.count, _watched.before = str(folder), 0, act
    try:
        yield
    finally:
        _watched.before = None


@dataclasses.dataclass(frozen=True)
class Session:
    """How a session of the program ended."""

    status: int
    output: str
    errors: str

    def check(self) -> None:
        """Check that it ended as documented."""
        assert "Traceback" not in self.errors and "Traceback" not in self.output, self.errors
        assert self.status in (0, 2, 3, 130, 143), (self.status, self.errors)
        if self.status in (2, 3):
            assert self.errors.startswith("error: ") and self.errors.count("\n") == 1, self.errors


class World:
    """A folder with a data set and a config, the work directory in it, and the result that it must have."""

    def __init__(self, root: pathlib.Path):
        self.root, self.run, self.copies = root, root / "run", root / "copies"
        random = np.random.default_rng(0)
        arrays = {}
        for part, count in (("train", TRAIN), ("test", TEST)):
            labels = np.repeat(np.arange(CLASSES), count)
            features = random.normal(size=(len(labels), WIDTH)) + np.eye(CLASSES, WIDTH)[labels]
            arrays |= {f"{part}_features": features.astype(np.float32), f"{part}_labels": labels}
        np.savez(root / "features.npz", **arrays)
        (root / "config.py").write_text(CONFIG.replace("FEATURES", str(root / "features.npz")))
        self.started = time.time()

    def session(self, *more: str, on_metrics: Callable | None = None, encoding: str = "utf-8") -> Session:
        """Run the command once in this process."""
        line = [f"--config={self.root}/config.py", f"--workdir={self.run}", "--no-compilation-cache", *more]
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]), time_limit(LONGEST):
            status = train.main(line, on_metrics=on_metrics)
        for stream in streams:
            stream.flush()
        output, errors = (stream.buffer.getvalue().decode(encoding, "replace") for stream in streams)
        found = Session(status, output, errors)
        found.check()
        return found

    def save(self, name: str) -> None:
        """Keep a copy of the work directory."""
        shutil.copytree(self.run, self.copies / name, symlinks=True)

    def restore(self, name: str) -> None:
        """Put a copy of the work directory in its place, with its times."""
        remove(self.run)
        shutil.copytree(self.copies / name, self.run, symlinks=True)

    def killed(self, at: int) -> bool:
        """Run a session that is killed before its `at`-th file operation; return whether it had that many."""
        remains = self.root / "remains"

        def act(number: int, event: str, args: tuple) -> None:
            if number == at:
                if self.run.exists():
                    copy_of_a_moment(self.run, remains)
                else:
                    remains.mkdir()
            if number > at and makes_something(event, args):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the sooner it ends the better

        with before_each_operation(self.run, act):
            self.session()
        if not remains.exists():
            return False
        remove(self.run)
        remains.rename(self.run)
        return True

    def full_disk(self, at: int) -> Session:
        """Run a session in which nothing can be made from the `at`-th file operation on."""

        def act(number: int, event: str, args: tuple) -> None:
            if number >= at and makes_something(event, args):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(args[0]))

        with before_each_operation(self.run, act):
            return self.session()

    def interrupted(self, at: int) -> Session:
        """Run a session that receives SIGTERM at its `at`-th line of metrics."""
        left = [at]

        def listen(line: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGTERM)

        return self.session(on_metrics=listen)

    def result(self, *, metrics: bool = True) -> dict:
        """Return all that the run has produced and must be the same; reading it checks every digest."""
        report = json.loads((self.run / "report.json").read_text(encoding="utf-8"))
        costs = {"seconds", "examples_per_second"}
        for entry in [*report["rows"], *report["summary"].values()]:
            for key in costs:
                del entry[key]
        kept = ("rows", "summary", "classes", "comparison", "flips", "selection", "fronts", "sequences", "schema")
        found = {"report": {key: report[key] for key in kept}}
        for folder in sorted((self.run / "releases").glob("r*")):
            card = released_model.read_card(folder)
            parts = sorted({name.partition("/")[0] for name in card["files"]})
            assert array_folder.file_digests(folder, parts) == card["files"], folder
            arrays = released.read(self.run / "predictions" / f"{folder.name}.npz")
            found[folder.name] = (card["name"], card["digest"], {key: value.tolist() for key, value in arrays.items()})
        if metrics:
            lines = (self.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            found["metrics"] = sorted(lines)  # a stage that was trained again comes last
        return found

    def reference(self) -> int:
        """Make the undisturbed run, and keep the work directory as it is before each twentieth of its file operations.

        Returns:
          The number of copies; the last one is of the finished run.
        """
        copies = 0

        def act(number: int, event: str, args: tuple) -> None:
            nonlocal copies
            if number % 20 == 0 and self.run.exists():
                copy_of_a_moment(self.run, self.copies / str(copies))
                copies += 1

        self.copies.mkdir()
        with before_each_operation(self.run, act):
            assert self.session().status == 0
        self.save(str(copies))
        self.expected = self.result()
        return copies + 1


def makes_something(event: str, args: tuple) -> bool:
    """Return whether a file operation needs space on the disk."""
    return event in ("os.mkdir", "os.link") or (event == "open" and bool(args[2] & (os.O_WRONLY | os.O_CREAT)))


def copy_of_a_moment(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Copy a folder while threads write to it; what disappears meanwhile is not copied."""
    target.mkdir(parents=True)
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            to = target / path.relative_to(folder)
            if path.is_dir() and not path.is_symlink():
                to.mkdir(parents=True, exist_ok=True)
            else:
                to.parent.mkdir(parents=True, exist_ok=True)
                _copy_file(path, to)
    for path in (folder, *folder.rglob("*")):
        to = target / path.relative_to(folder)
        if path.is_dir() and to.is_dir() and not path.is_symlink():
            shutil.copystat(path, to)


def _copy_file(path: pathlib.Path, target: pathlib.Path) -> None:
    """Copy a file of any kind, a link as a link, with its times."""
    status = path.lstat()
    if stat.S_ISFIFO(status.st_mode):
        os.mkfifo(target)
    elif stat.S_ISSOCK(status.st_mode):
        make_socket(target)
    elif status.st_size > 1 << 30:
        make_sparse(target)
    else:
        shutil.copy2(path, target, follow_symlinks=False)


def remove(path: pathlib.Path) -> None:
    """Remove a file of any kind, or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Fail when the block takes longer, also when it waits for a file that never comes."""

    def fail(signum: int, frame: object) -> None:
        raise AssertionError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# What may happen to a file.


def flip(path: pathlib.Path) -> None:
    """Change a bit in the middle."""
    if middle := path.stat().st_size // 2:  # the file may have 20 GiB by now
        with path.open("r+b") as file:
            file.seek(middle)
            (byte,) = file.read(1)
            file.seek(middle)
            file.write(bytes([byte ^ 4]))


def truncate(path: pathlib.Path) -> None:
    """Lose the second half."""
    os.truncate(path, path.stat().st_size // 2)


def replace_by(content: bytes) -> Callable[[pathlib.Path], None]:
    """Return the damage that puts this content in the place of a file."""

    def act(path: pathlib.Path) -> None:
        remove(path)
        path.write_bytes(content)

    return act


def make_folder(path: pathlib.Path) -> None:
    """Put a folder in the place of a file."""
    remove(path)
    (path / "inside").mkdir(parents=True)


def make_fifo(path: pathlib.Path) -> None:
    """Put a pipe in the place of a file; reading it waits for ever."""
    remove(path)
    os.mkfifo(path)


def make_socket(path: pathlib.Path) -> None:
    """Put a socket in the place of a file."""
    remove(path)
    here = os.getcwd()
    try:
        os.chdir(path.parent)  # the name of a socket may have 107 bytes
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def make_sparse(path: pathlib.Path) -> None:
    """Make a file of 20 GiB that takes no space."""
    remove(path)
    with path.open("wb") as file:
        file.truncate(20 << 30)


def link_away(path: pathlib.Path) -> None:
    """Put a link to a file elsewhere, with the same content, in the place of a file."""
    root = next(parent for parent in path.parents if parent.name == "run").parent
    elsewhere = root / f"elsewhere-{len(list(root.iterdir()))}"
    shutil.copy2(path, elsewhere)
    remove(path)
    path.symlink_to(elsewhere)


def dangle(path: pathlib.Path) -> None:
    """Put a link to nothing in the place of a file."""
    remove(path)
    path.symlink_to("/nowhere/at/all")


DAMAGES: dict[str, Callable[[pathlib.Path], None]] = {
    "bit flipped": flip,
    "truncated": truncate,
    "emptied": replace_by(b""),
    "not UTF-8": replace_by(b"\xff\xfe\x80" * 20),
    "other JSON": replace_by(b'{"schema": 2, "step": "x", "seal": null}\n'),
    "deep JSON": replace_by(b"[" * 100_000),
    "removed": remove,
    "folder": make_folder,
    "link": link_away,
    "dangling link": dangle,
    "pipe": make_fifo,
    "socket": make_socket,
    "20 GiB of nothing": make_sparse,
}


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the regular files in a work directory, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def swap(one: pathlib.Path, other: pathlib.Path) -> None:
    """Exchange the names of two files or folders."""
    between = one.with_name(f"{one.name}.between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Put a copy of a file or folder in the place of another, with its times."""
    remove(target)
    if source.is_dir():
        copy_of_a_moment(source, target)
    else:
        _copy_file(source, target)


def link(source: pathlib.Path, target: pathlib.Path) -> None:
    """Put a link to a file or folder in the place of another."""
    remove(target)
    target.symlink_to(source)


def shift_times(folder: pathlib.Path, seconds: float) -> None:
    """Move the times of all files, as a copy to another machine or a wrong clock does."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            status = path.stat()
            os.utime(path, (max(0, status.st_atime + seconds), max(0, status.st_mtime + seconds)))


@contextlib.contextmanager
def surroundings(*, umask: int = 0o022, zone: str = "UTC", language: str = "C", clock: float = 0.0) -> Iterator[None]:
    """Change what a session finds around it: umask, time zone, locale, clock."""
    before, environment = os.umask(umask), {key: os.environ.get(key) for key in ("TZ", "LC_ALL", "LANG")}
    now, category = time.time, locale.setlocale(locale.LC_ALL)
    os.environ.update({"TZ": zone, "LC_ALL": language, "LANG": language})
    time.tzset()
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, language)
    time.time = lambda: now() + clock
    try:
        yield
    finally:
        time.time = now
        locale.setlocale(locale.LC_ALL, category)
        for key, value in environment.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
        time.tzset()
        os.umask(before)


SETTINGS = {
    "jax_enable_x64": True,
    "jax_threefry_partitionable": False,
    "jax_default_prng_impl": "rbg",
    "jax_default_matmul_precision": "highest",
}


@contextlib.contextmanager
def setting(name: str) -> Iterator[None]:
    """Run a block under another value of one of JAX's settings that change numbers."""
    before = jax.config.values[name]
    jax.config.update(name, SETTINGS[name])
    try:
        yield
    finally:
        jax.config.update(name, before)
