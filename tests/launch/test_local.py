"""The local launcher starts processes, forwards signals, and ends all when one fails."""

import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

LOCAL = pathlib.Path(__file__).parents[2] / "launch/local.py"
FAKE = """
import os, pathlib, signal, sys, time
values = dict(zip(sys.argv[2::2], sys.argv[3::2]))
index, mode = values["--process-id"], sys.argv[1]
def end(number, frame):
    print("got", number, flush=True)
    time.sleep(0.3)  # saving
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "ignores" and index == "0" else end)
signal.signal(signal.SIGINT, end)
print(values["--coordinator"], values["--num-processes"], os.environ.get("XLA_FLAGS"), flush=True)
print("to stderr", file=sys.stderr, flush=True)
started = pathlib.Path(sys.argv[0]).with_name("started-0")
if index == "0":
    started.touch()
if index == "1" and mode in ("fail", "crash", "ignores"):
    while not started.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL) if mode == "crash" else sys.exit(7)
if mode != "done":
    time.sleep(60)
"""


def start(tmp_path, mode, *options, num=2):
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    command = [sys.executable, str(LOCAL), str(num), *options, "--", sys.executable, str(program), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_every_process_gets_its_number_and_one_coordinator(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=8")
    process = start(tmp_path, "done", "--devices-per-process", "2", num=3)
    out, err = process.communicate(timeout=30)
    found = re.findall(r"^\[(\d)\] 127\.0\.0\.1:(\d+) 3 (.*)$", out, re.M)
    assert process.returncode == 0, err
    assert sorted(index for index, _, _ in found) == ["0", "1", "2"]
    assert len({port for _, port, _ in found}) == 1
    for _, _, flags in found:
        assert flags.split() == ["--xla_a=1", "--xla_force_host_platform_device_count=2"]
    assert sorted(err.splitlines()) == ["[0] to stderr", "[1] to stderr", "[2] to stderr"]


def test_output_without_a_reader_blocks_no_process(tmp_path):
    lines = "import sys\nsys.stdout.buffer.write('± {}\\n'.encode() * 30_000)\n".replace("{}", "line" * 10)
    (tmp_path / "fake.py").write_text(lines, encoding="utf-8")
    command = [sys.executable, str(LOCAL), "1", "--", sys.executable, str(tmp_path / "fake.py")]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    with (tmp_path / "log").open("wb") as log:
        assert subprocess.run(command, stdout=log, env=environment, timeout=60).returncode == 0
    assert (tmp_path / "log").read_text().count("[0] ? line") == 30_000


@pytest.mark.parametrize("mode, status", [("fail", 7), ("crash", 137)])
def test_one_failure_ends_all_with_its_status(tmp_path, mode, status):
    process = start(tmp_path, mode)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == status
    assert out.count(f"got {signal.SIGTERM:d}") == 1 and f"[0] got {signal.SIGTERM:d}" in out


def test_a_process_that_does_not_end_is_killed(tmp_path):
    process = start(tmp_path, "ignores", "--grace", "1")
    begin = time.monotonic()
    process.communicate(timeout=30)
    assert process.returncode == 7
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_all_once(tmp_path, number):
    process = start(tmp_path, "wait")
    lines = [process.stdout.readline() for _ in range(2)]  # both have started
    assert all("127.0.0.1" in line for line in lines)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert sorted(out.splitlines()) == [f"[0] got {number:d}", f"[1] got {number:d}"]
    assert process.returncode == 128 + number


def test_dry_run_prints_commands_of_the_trainer():
    arguments = ["2", "--dry-run", "--devices-per-process", "4", "--", "--config", "a b.py", "--workdir=x"]
    done = subprocess.run([sys.executable, str(LOCAL), *arguments], capture_output=True, text=True, check=True)
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [line[-1] for line in lines] == ["0", "1"]
    for line in lines:
        assert "JAX_PLATFORMS=cpu" in line and line[line.index("-m") + 1] == "mpt_jax.train"
        assert line[line.index("--config") + 1] == "a b.py"


@pytest.mark.parametrize("arguments", [["0", "--", "x"], ["2"], ["2", "--devices-per-process", "0", "--", "x"]])
def test_bad_arguments(arguments):
    done = subprocess.run([sys.executable, str(LOCAL), *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_missing_command_is_reported_in_one_line(tmp_path):
    done = subprocess.run([sys.executable, str(LOCAL), "2", "--", str(tmp_path / "no")], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
