"""Signals: SIGTERM and SIGINT end a run in good order, with a checkpoint where there is something to save.

Python's handlers run between two bytecodes of the main thread, which may wait for minutes while a program compiles. A
thread hears of every signal as well (`signal.set_wakeup_fd`), and ends the process where the main thread cannot.
"""

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE = 3.0  # seconds that the main thread has to come to its end where there is nothing to save


class Interrupted(KeyboardInterrupt):
    """The run was asked to end; `status` is the exit status that shells expect, 128 + the signal's number."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.status = 128 + signum


@dataclasses.dataclass
class _Heard:
    """Signals belong to the process, and so does what was heard of them."""

    signum: int | None = None
    postponed: bool = False
    pass_on: Callable[[], None] | None = None


_heard = _Heard()


def requested() -> bool:
    """Whether a signal has asked the run to end."""
    return _heard.signum is not None


def request(signum: int) -> None:
    """Ask the run to end as this signal would have, where none was heard; for a `postponed` block."""
    _heard.signum = _heard.signum or signum


def pass_on(notify: Callable[[], None]) -> None:
    """Until the end of the `watched` block, also tell this function of a signal that is postponed."""
    _heard.pass_on = notify


@contextlib.contextmanager
def watched(goodbye: str) -> Iterator[None]:
    """In this block the first signal raises `Interrupted` in the main thread, a second one ends the process at once.

    Does nothing in other threads than the main one, which get no signals.

    Args:
      goodbye: what is printed where the process is ended at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    _heard.signum, _heard.postponed = None, False
    handlers = {signum: signal.signal(signum, _handle) for signum in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(reader, goodbye), daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        writer.close()  # which ends the thread
        listener.join()
        reader.close()
        _heard.signum = _heard.pass_on = None


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """In this block a signal only makes `requested` true; at the end of the block it raises `Interrupted`."""
    _heard.postponed = True
    try:
        yield
    finally:
        _heard.postponed = False
    if _heard.signum is not None:
        raise Interrupted(_heard.signum)


def _handle(signum: int, _frame) -> None:
    _heard.signum = signum
    if not _heard.postponed:
        raise Interrupted(signum)


def _listen(reader: socket.socket, goodbye: str) -> None:
    signum = _receive(reader)
    if signum is None:
        return
    _heard.signum = signum
    if _heard.postponed:  # a late checkpoint is better than none, so there is no limit to this
        if _heard.pass_on is not None:
            _heard.pass_on()
        _say(f"{signal.Signals(signum).name}: stopping after a checkpoint; a second signal stops at once")
    else:
        reader.settimeout(PATIENCE)
    with contextlib.suppress(TimeoutError):
        signum = _receive(reader)
    if signum is not None:
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h")  # a progress bar hides the cursor
        _say(goodbye)
        os._exit(128 + signum)


def _receive(reader: socket.socket) -> int | None:
    """The next signal of ours; None at the end of the block."""
    while heard := reader.recv(1):
        if heard[0] in SIGNALS:
            return heard[0]
    return None


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())  # not through a file whose lock the main thread may hold
