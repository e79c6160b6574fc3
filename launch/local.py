"""Run N processes of a multi-process run on this machine: `python launch/local.py N [options] -- ARGS`.

ARGS are arguments of `python -m mpt_jax.train`, or a whole command if they do not start with a dash. Every process also
gets `--coordinator 127.0.0.1:PORT --num-processes N --process-id I`. Each line of output starts with the number of its
process. SIGTERM and SIGINT are forwarded to all processes. If a process fails, the others get SIGTERM, after a grace
period SIGKILL, and the exit status is that of the failed process.
"""

import argparse
import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

_COUNT = "--xla_force_host_platform_device_count"


def main(argv: Sequence[str] | None = None) -> int:
    """Run all processes and return the exit status of the first that failed; 128 + n if signal n ended it."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    command = [sys.executable, "-m", "mpt_jax.train"] if options.command[0].startswith("-") else []
    command += options.command
    if not options.devices_per_process:
        added = {}
    else:
        flags = re.sub(rf"{_COUNT}=\S+", "", os.environ.get("XLA_FLAGS", ""))
        added = {"XLA_FLAGS": f"{flags} {_COUNT}={options.devices_per_process}".strip(), "JAX_PLATFORMS": "cpu"}
    coordinator = f"127.0.0.1:{_free_port()}"
    commands = [
        [*command, "--coordinator", coordinator, "--num-processes", str(options.processes), "--process-id", str(i)]
        for i in range(options.processes)
    ]
    if options.dry_run:
        for each in commands:
            print(" ".join([*(f"{name}={shlex.quote(value)}" for name, value in added.items()), shlex.join(each)]))
        return 0
    return _run(commands, {**os.environ, **added}, grace=options.grace)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python launch/local.py", description="Run N processes of a multi-process run on this machine."
    )
    parser.add_argument("processes", type=int, metavar="N", help="number of processes")
    parser.add_argument("--devices-per-process", type=int, metavar="D", help="virtual CPU devices per process")
    parser.add_argument(
        "--grace", type=float, default=60.0, metavar="SECONDS", help="time from a failure to SIGKILL (default: 60)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and exit")
    parser.add_argument("command", nargs="+", metavar="-- ARGS", help="arguments of mpt_jax.train, or a whole command")
    options = parser.parse_args(argv)
    for name in ("processes", "devices_per_process"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"{name} is {getattr(options, name)}; expected 1 or more")
    if not options.grace >= 0:
        parser.error(f"grace is {options.grace}; expected 0 seconds or more")
    return options


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run(commands: Sequence[Sequence[str]], environment: dict[str, str], *, grace: float) -> int:
    processes: list[subprocess.Popen] = []
    printers: list[threading.Thread] = []
    stopping = False

    def send(number: int) -> None:
        nonlocal stopping
        stopping = True
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, lambda n, _: send(n)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for index, command in enumerate(commands):
            processes.append(_start(command, environment))
            printers += _print_output(processes[-1], index)
        status, kill_at = 0, None
        while None in (states := [process.poll() for process in processes]):
            if not status and (failed := [state for state in states if state]):
                status, kill_at = failed[0], time.monotonic() + grace
                if not stopping:  # a second SIGTERM would stop the others before they have written a checkpoint
                    send(signal.SIGTERM)
            if kill_at is not None and time.monotonic() > kill_at:
                send(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
            time.sleep(0.05)
        status = status or next(filter(None, states), 0)
        for printer in printers:
            printer.join(timeout=5)  # a grandchild may keep the pipe open
        return 128 - status if status < 0 else status
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen:
    # In a process group of its own: a terminal sends Ctrl-C to its whole group, and a second signal stops the run.
    own_group = {"start_new_session": True} if os.name == "posix" else {}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **own_group)


def _print_output(process: subprocess.Popen, index: int) -> list[threading.Thread]:
    """Start threads that print both output streams of a process."""
    streams = ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
    threads = [threading.Thread(target=_print, args=(stream, out, index), daemon=True) for stream, out in streams]
    for thread in threads:
        thread.start()
    return threads


def _print(stream: IO[bytes], out: IO[str], index: int) -> None:
    for line in stream:
        # A closed pipe or a full disk must not stop the reading: a process with unread output would block.
        with contextlib.suppress(OSError, ValueError):
            text = f"[{index}] {line.decode(errors='replace').rstrip(chr(10))}\n"
            out.write(text.encode(out.encoding or "utf-8", "replace").decode(out.encoding or "utf-8"))
            out.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"error: {error.filename or 'local.py'}: {error.strerror}")
