"""Signals: SIGTERM and SIGINT end a run cleanly, with a checkpoint if there is something to save.

Python's handlers run between two bytecodes of the main thread, which may wait for minutes while a program compiles. A
thread also receives every signal (`signal.set_wakeup_fd`), and ends the process if the main thread cannot.
"""

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

from mpt_jax.errors import printable

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE = 3.0  # seconds that the main thread has to end if there is nothing to save


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end; `status` is the exit status that shells expect, 128 + the signal's number."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.status = 128 + signum


@dataclasses.dataclass
class _State:
    """The signal received so far. Signals belong to the process, and so does this."""

    signum: int | None = None
    deferred: bool = False
    forward_to: Callable[[], None] | None = None


_state = _State()


def requested() -> bool:
    """Return whether a signal has asked the run to end."""
    return _state.signum is not None


def request(signum: int) -> None:
    """Ask the run to end as this signal would, unless one has been received; for a `deferred` block."""
    _state.signum = _state.signum or signum


def forward_to(notify: Callable[[], None]) -> None:
    """Also call this function when a signal is deferred, until the end of the `handle_signals` block."""
    _state.forward_to = notify


@contextlib.contextmanager
def handle_signals(message: str) -> Iterator[None]:
    """Raise `Interrupted` in the main thread at the first signal; end the process immediately at the second.

    Does nothing in threads other than the main one, which receive no signals.

    Args:
      message: printed when the process is ended immediately.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    _state.signum, _state.deferred = None, False
    handlers = {signum: signal.signal(signum, _handle) for signum in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(reader, message), daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        writer.close()  # ends the thread
        listener.join()
        reader.close()
        _state.signum = _state.forward_to = None


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Make a signal only set `requested` inside this block, and raise `Interrupted` at its end."""
    _state.deferred = True
    try:
        yield
    finally:
        _state.deferred = False
    if _state.signum is not None:
        raise Interrupted(_state.signum)


def _handle(signum: int, _frame) -> None:
    _state.signum = signum
    if not _state.deferred:
        raise Interrupted(signum)


def _listen(reader: socket.socket, message: str) -> None:
    signum = _receive(reader)
    if signum is None:
        return
    _state.signum = signum
    if _state.deferred:  # no time limit: a late checkpoint is better than none
        if _state.forward_to is not None:
            _state.forward_to()
        _print(f"{signal.Signals(signum).name}: stopping after a checkpoint; a second signal stops immediately")
    else:
        reader.settimeout(GRACE)
    with contextlib.suppress(TimeoutError):
        signum = _receive(reader)
    if signum is not None:
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h")  # a progress bar hides the cursor
        _print(message)
        os._exit(128 + signum)


def _receive(reader: socket.socket) -> int | None:
    """Return the next of `SIGNALS`, or None at the end of the block."""
    while received := reader.recv(1):
        if received[0] in SIGNALS:
            return received[0]
    return None


def _print(text: str) -> None:
    os.write(2, f"{printable(text)}\n".encode())  # not through a file whose lock the main thread may hold
