"""How every command ends: one line on stderr and an exit status."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from mpt_jax.cli import command
from mpt_jax.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("no such\nclass"), 2, "error: no such class"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.csv"), 3, "error: a.csv: No space left on device; free"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), 3, "error: disk: "),
        (PermissionError(errno.EACCES, "denied", "a\n.csv"), 2, "error: a .csv: denied; give"),
        (OSError("odd"), 2, "error: disk: odd"),
        (RuntimeError("Unable to initialize backend 'foo'"), 2, "error: Unable to initialize backend 'foo'"),
        (KeyboardInterrupt(), 130, "bye"),
    ],
)
def test_an_error_is_one_line_and_a_status(error, status, words, capsys):
    assert command.run(raising(error), when_interrupted="bye") == status
    printed = capsys.readouterr()
    assert printed.err.startswith(words) and printed.err.count("\n") == 1 and printed.out == ""


@pytest.mark.parametrize("platform", ["cuda", "none"])
def test_a_platform_without_devices_is_one_line(platform):
    code = "import sys, jax; from mpt_jax.cli import command; sys.exit(command.run(jax.devices))"
    environment = {**os.environ, "JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and platform in lines[0] and "JAX_PLATFORMS" in lines[0]
    assert "Traceback" not in done.stderr


def test_a_bug_raises():
    with pytest.raises(ZeroDivisionError):
        command.run(lambda: 1 // 0)
    with pytest.raises(AssertionError):
        command.run(raising(AssertionError()))


def test_a_closed_pipe_does_not_change_the_status():
    code = "import sys; from mpt_jax.cli import command; sys.exit(command.run(lambda: command.print_text('text') or 7))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 7
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert (done.stdout, done.stderr, done.returncode) == (b"text", b"", 7)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_work_after_its_cleanup(signum, capsys):
    cleaned = []

    def work():
        try:
            os.kill(os.getpid(), signum)
            signal.pause()
        finally:
            cleaned.append(True)

    assert command.run(work, when_interrupted="bye") == 128 + signum
    assert cleaned == [True] and capsys.readouterr().err == "bye\n"
