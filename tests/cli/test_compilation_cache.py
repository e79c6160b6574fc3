"""A second process reads what the first one compiled; problems with the cache folder cost time only."""

import json
import os
import pathlib
import subprocess
import sys
import zlib

import pytest

from mpt_jax.cli import compilation_cache

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = """
import collections, json, sys
import jax, jax.monitoring, numpy as np
from mpt_jax.cli import compilation_cache

if len(sys.argv) > 1:  # limit the size of files, as a full disk would
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: counts.update([name.split("/")[-1]]))
on = compilation_cache.enable(print) is not None

def a(x): return jax.numpy.tanh(x @ x).sum(0)
def b(x): return jax.numpy.sort(x, axis=0)
def c(x): return jax.numpy.exp(x)
def d(x): return x @ x.T
def e(x): return jax.numpy.cumsum(x, axis=1)

x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
result = [np.asarray(jax.jit(function)(x)).tobytes().hex() for function in (a, b, c, d, e)]
print(json.dumps({"on": on, "result": result, "hits": counts["cache_hits"], "misses": counts["cache_misses"]}))
"""


def start(home, *arguments, **variables):
    names = ("XDG_CACHE_HOME", "LOCALAPPDATA", "JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    environment |= {"PYTHONPATH": str(ROOT), "HOME": str(home), "XDG_CACHE_HOME": str(home), "LOCALAPPDATA": str(home)}
    line = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, env=environment | variables, **pipes)


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert err == ""
    return json.loads(out)


def run(home, *arguments, **variables):
    return finish(start(home, *arguments, **variables))


def entries(home):
    return sorted(path for path in home.rglob("*-cache") if path.is_file())


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The home folder of a process that has run, and what it printed."""
    home = tmp_path_factory.mktemp("home")
    return home, run(home)


def test_a_second_process_compiles_nothing_and_computes_the_same_bits(first):
    home, printed = first
    assert printed["on"] and printed["hits"] == 0 and printed["misses"] == len(entries(home)) == 5
    again = run(home)
    assert (again["hits"], again["misses"]) == (5, 0)
    assert again["result"] == printed["result"]


def test_damaged_entries_are_compiled_again_and_replaced(first):
    home, printed = first
    damages = (
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
        lambda data: zlib.compress(b"another program"),
    )
    for path, damage in zip(entries(home), damages, strict=False):
        path.write_bytes(damage(path.read_bytes()))
    assert run(home) == {**printed, "hits": 1, "misses": 4}  # the same bits, and nothing on stderr
    assert run(home)["hits"] == 5


def test_without_a_cache_folder_everything_is_compiled(tmp_path, first):
    _, printed = first
    (tmp_path / "file").write_text("mine")
    assert run(tmp_path / "file/below") == {**printed, "on": False, "misses": 0}
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_entries_that_cannot_be_read_or_replaced_are_compiled(tmp_path):
    printed = run(tmp_path)
    for path in entries(tmp_path):
        path.unlink()
        path.mkdir()
    assert run(tmp_path) == printed


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_read(tmp_path):
    printed = run(tmp_path)
    lost, *_ = entries(tmp_path)
    lost.unlink()
    lost.parent.chmod(0o500)
    assert run(tmp_path) == {**printed, "hits": 4, "misses": 1}


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files by setrlimit")
def test_a_full_disk_leaves_no_truncated_entries(first, tmp_path):
    _, printed = first
    assert run(tmp_path, 1000)["result"] == printed["result"]
    assert entries(tmp_path) == []
    assert run(tmp_path)["misses"] == 5


def test_concurrent_processes_share_the_cache(first, tmp_path):
    _, printed = first
    done = [finish(process) for process in [start(tmp_path) for _ in range(2)]]
    assert [one["result"] for one in done] == [printed["result"]] * 2
    assert run(tmp_path)["hits"] == 5


def test_the_users_configuration_of_jax_is_kept(first, tmp_path):
    _, printed = first
    place = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "own"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    assert run(tmp_path, **place) == {**printed, "on": False}
    assert len(entries(tmp_path / "own")) == 5 and not (tmp_path / "mpt_jax").exists()
    assert run(tmp_path, JAX_ENABLE_COMPILATION_CACHE="0") == {**printed, "on": False, "misses": 0}
    assert run(tmp_path, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="3600")["misses"] == 0


def test_pruning_removes_the_oldest_entries_beyond_the_limit(tmp_path):
    for age, name in enumerate(("newest", "newer", "old", "oldest")):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "mine").write_bytes(b"x" * 1000)
    compilation_cache.prune(tmp_path, 400)
    assert len(list(tmp_path.iterdir())) == 5
    compilation_cache.prune(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"newest-cache", "newer-cache", "mine"}


class Config:
    """JAX's configuration, in place of that of this process."""

    def __init__(self, folder=None):
        self.values = {"jax_compilation_cache_dir": folder, "jax_enable_compilation_cache": True}

    def update(self, name, value):
        self.values[name] = value


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_programs_that_others_may_have_written_are_not_executed(tmp_path, monkeypatch):
    folder, config, lines = tmp_path / "mpt_jax/compiled", Config(), []
    monkeypatch.setattr(compilation_cache.jax, "config", config)
    monkeypatch.setattr(compilation_cache, "default_folder", lambda: folder)
    monkeypatch.setattr(compilation_cache, "_remove_failing_entries", lambda folder: None)
    folder.mkdir(parents=True)
    for mode, used in ((0o777, False), (0o755, True)):
        folder.chmod(mode)
        assert compilation_cache.enable(lines.append) == (folder if used else None)
        assert (config.values["jax_compilation_cache_dir"] == str(folder)) == used
    (line,) = lines
    assert line.startswith(f"no cache of compiled programs: everyone may write to {folder}") and "chmod go-w" in line


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_configured_cache_that_others_may_write_to_is_named(tmp_path, monkeypatch):
    lines = []
    for folder in (str(tmp_path), "gs://bucket/cache"):
        monkeypatch.setattr(compilation_cache.jax, "config", Config(folder))
        assert compilation_cache.enable(lines.append) is None
    assert lines == []
    tmp_path.chmod(0o777)
    monkeypatch.setattr(compilation_cache.jax, "config", Config(str(tmp_path)))
    assert compilation_cache.enable(lines.append) is None
    assert lines == [
        f"JAX's cache of compiled programs {tmp_path} is executed, but everyone may write to {tmp_path}; take that "
        "permission away"
    ]
