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
import os, signal, sys, time
values = dict(zip(sys.argv[2::2], sys.argv[3::2]))
me, what = values["--process-id"], sys.argv[1]
def end(number, frame):
    print("told", number, flush=True)
    time.sleep(0.3)  # saving
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
print(values["--coordinator"], values["--num-processes"], os.environ.get("XLA_FLAGS"), flush=True)
print("to stderr", file=sys.stderr, flush=True)
if what == "fail" and me == "1":
    time.sleep(0.3)
    sys.exit(7)
if what == "crash" and me == "1":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "deaf" and me == "0":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if what == "deaf" and me == "1":
    time.sleep(0.5)
    sys.exit(7)
if what != "done":
    time.sleep(60)
"""


def start(tmp_path, what, *options, num=2):
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    command = [sys.executable, str(LOCAL), str(num), *options, "--", sys.executable, str(program), what]
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


def test_output_that_nobody_takes_stops_no_process(tmp_path):
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


@pytest.mark.parametrize("what, status", [("fail", 7), ("crash", 137)])
def test_one_failure_ends_all_with_its_status(tmp_path, what, status):
    process = start(tmp_path, what)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == status
    assert out.count(f"told {signal.SIGTERM:d}") == 1 and f"[0] told {signal.SIGTERM:d}" in out


def test_who_does_not_end_is_killed(tmp_path):
    process = start(tmp_path, "deaf", "--grace", "1")
    begin = time.monotonic()
    process.communicate(timeout=30)
    assert process.returncode == 7
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_all_once(tmp_path, number):
    process = start(tmp_path, "wait")
    lines = [process.stdout.readline() for _ in range(2)]  # both are up
    assert all("127.0.0.1" in line for line in lines)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert sorted(out.splitlines()) == [f"[0] told {number:d}", f"[1] told {number:d}"]
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


def test_a_command_that_does_not_exist_is_one_line(tmp_path):
    done = subprocess.run([sys.executable, str(LOCAL), "2", "--", str(tmp_path / "no")], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
