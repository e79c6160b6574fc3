"""Signals end a process cleanly: with and without something to save, and when it hangs."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from mpt_jax.runtime import interruption

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_signal_ends_the_block_and_handlers_are_restored():
    before = [signal.getsignal(signum) for signum in interruption.SIGNALS]
    for signum, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with pytest.raises(interruption.Interrupted) as interrupted, interruption.handle_signals("bye"):
            signal.raise_signal(signum)
            time.sleep(10)
        assert interrupted.value.status == status and isinstance(interrupted.value, KeyboardInterrupt)
        assert not interruption.requested()
    assert [signal.getsignal(signum) for signum in interruption.SIGNALS] == before


def test_a_deferred_signal_raises_at_the_end_of_the_block():
    reached = []
    with pytest.raises(interruption.Interrupted), interruption.handle_signals("bye"):
        with interruption.deferred():
            signal.raise_signal(signal.SIGTERM)
            reached.append(interruption.requested())
        reached.append("not here")
    assert reached == [True]
    with interruption.handle_signals("bye"), interruption.deferred():  # nothing happens without a signal
        assert not interruption.requested()


def test_an_error_in_a_deferred_block_is_not_hidden():
    with pytest.raises(ZeroDivisionError), interruption.handle_signals("bye"), interruption.deferred():
        signal.raise_signal(signal.SIGTERM)
        _ = 1 / 0


def test_other_threads_are_not_affected():
    handlers = []

    def work():
        with interruption.handle_signals("bye"), interruption.deferred():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


BUSY = """
import hashlib, time
from mpt_jax.runtime import interruption
interruption.GRACE = 0.5
with interruption.handle_signals("bye"):
    {block}
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # runs no Python for minutes, like a compiler
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("block", "signals", "status", "words"),
    [
        ("if True:", [signal.SIGTERM], 143, ["bye"]),
        ("with interruption.deferred():", [signal.SIGINT, signal.SIGINT], 130, ["SIGINT", "checkpoint", "bye"]),
        ("with interruption.deferred():", [signal.SIGINT, signal.SIGTERM], 143, ["SIGINT", "checkpoint", "bye"]),
    ],
)
def test_a_process_that_runs_no_python_is_ended_too(block, signals, status, words):
    code = BUSY.format(block=block)
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        for signum in signals:
            time.sleep(0.2)
            process.send_signal(signum)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == status
    assert all(word in errors for word in words) and "Traceback" not in errors
