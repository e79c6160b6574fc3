"""Several processes, each with its own devices, that run the same command: JAX's multi-controller SPMD.

Every process has all the data and runs every line. Arrays are global, and the batch is split over the devices of all
processes. Only the first process writes files and progress, and its decision counts where processes could decide
differently. In a run of one process these functions do nothing.
"""

import contextlib
import ctypes
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from mpt_jax.errors import InputError, one_line, printable
from mpt_jax.runtime import interruption

HEARTBEAT = 30  # seconds without a heartbeat after which JAX considers a process dead and ends the others
GRACE = 10.0  # seconds that a process waits for the others to leave
LOST = 4  # exit status of a process that lost another one

_calls = itertools.count()  # the preemption service needs numbers that rise by one, the same in all processes
_watchdog: list[subprocess.Popen] = []

# Prints its argument if its parent ends without writing to it: killed, or aborted by JAX.
_WATCHDOG = "import sys\nif not sys.stdin.read(): print(sys.argv[1], file=sys.stderr)"


def join(
    command: str, coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the processes of a run; call it before any device is touched. `leave` is its counterpart.

    Args:
      command: the command that resumes the run, printed if this process ends early.
      coordinator: ``HOST:PORT`` of the first process; None: JAX detects TPU, Slurm, Kubernetes or Open MPI.

    Raises:
      InputError: no such cluster, or the other processes cannot be reached.
    """
    if coordinator and process_id == 0:
        _require_free(coordinator)
    jax.config.update("jax_enable_preemption_service", True)
    ours, before = signal.getsignal(signal.SIGTERM), _handler_of_sigterm()
    try:
        jax.distributed.initialize(
            *(coordinator, num_processes, process_id),
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=2 * HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        hint = "" if coordinator else "; if JAX detects no cluster, give --coordinator, --num-processes, --process-id"
        raise InputError(f"cannot join the other processes: {one_line(error)}{hint}") from error
    theirs = _handler_of_sigterm()
    if theirs and theirs != before and threading.current_thread() is threading.main_thread():
        # JAX's preemption service has replaced our handler. Ours also handles SIGINT, and ends a process that has
        # nothing to save, so restore it and let it forward SIGTERM.
        signal.signal(signal.SIGTERM, ours)
        notify = ctypes.CFUNCTYPE(None, ctypes.c_int)(theirs)
        interruption.forward_to(lambda: notify(signal.SIGTERM))
    _watchdog.append(
        subprocess.Popen(
            [sys.executable, "-ISc", _WATCHDOG, printable(f"error: {lost_message(command)}")],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
    )


def _require_free(coordinator: str) -> None:
    """Refuse a port that cannot be listened on, at which JAX would crash."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", int(coordinator.rpartition(":")[2])))
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--coordinator {coordinator}: process 0 cannot listen there ({one_line(error)}); expected a free port"
        ) from error


def _handler_of_sigterm() -> int | None:
    """Return the address of the process's handler, Python's or another; None: the default, or not a POSIX system."""
    if os.name != "posix":
        return None
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    handler = libc.signal(signal.SIGTERM, None)
    libc.signal(signal.SIGTERM, handler)
    return handler


def lost_message(command: str) -> str:
    """Return the message of a process that lost another one, or was itself killed."""
    return (
        f"process {jax.process_index()} of {jax.process_count()} ended early, as all do when one is lost; "
        f"to resume from the last checkpoint, run the same command in all of them: {command}"
    )


def leave(status: int) -> None:
    """Leave the other processes; exit immediately with this status if they do not respond."""
    if not _watchdog:
        return
    # JAX waits for all processes, and aborts if one is missing.
    shutdown = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    if status != LOST:
        shutdown.start()
        shutdown.join(GRACE)
    _watchdog.pop().communicate(b"done")
    if status == LOST or shutdown.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def is_distributed() -> bool:
    """Return whether the run has other processes. Touches no device unless `join` was called."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Return whether this is the process that writes: the only one, or number 0."""
    return not is_distributed() or jax.process_index() == 0


def all_gather(value: Any) -> list[Any]:
    """Return the JSON values of all processes, in their order. All must call it; each waits for the last."""
    return _all_gather({"value": value}) if is_distributed() else [value]


def require_same(value: Any, what: str) -> None:
    """Raise an `InputError` in all processes unless this JSON value is the same in all of them."""
    texts = [json.dumps(other, sort_keys=True) for other in all_gather(value)]
    if len(set(texts)) > 1:
        raise _SharedInputError(
            f"{what} differs between process 0 and process {[t == texts[0] for t in texts].index(False)}; "
            "give the same to all processes"
        )


class _SharedInputError(InputError):
    """An error that all processes raise, so that it need not be sent again."""


class _SharedOSError(OSError):
    """An error that all processes raise, so that it need not be sent again."""


def _all_gather(message: dict[str, Any]) -> list[Any]:
    """Return the values of all processes. If any sent an error, raise it in all of them."""
    content = np.frombuffer(json.dumps(message).encode(), np.uint8)
    longest = int(multihost_utils.process_allgather(np.int32(content.size)).max())
    padded = np.full(1 << longest.bit_length(), ord(" "), np.uint8)  # few sizes: each is compiled once
    padded[: content.size] = content
    messages = [json.loads(row.tobytes()) for row in multihost_utils.process_allgather(padded)]
    for error in (message["error"] for message in messages if "error" in message):
        raise (_SharedOSError if len(error) > 1 else _SharedInputError)(*error) from None
    return [message["value"] for message in messages]


@contextlib.contextmanager
def synchronized() -> Iterator[None]:
    """Run a block in all processes and wait at its end for the last one.

    An `InputError` or `OSError` in one process is raised in all of them.
    """
    if not is_distributed():
        yield
        return
    message: dict[str, Any] = {"value": None}
    try:
        yield
    except (_SharedInputError, _SharedOSError):
        raise
    except InputError as error:
        message = {"error": [str(error)]}
    except OSError as error:
        message = {"error": [error.errno, error.strerror or str(error), str(error.filename or "disk")]}
    _all_gather(message)


def from_first(function: Callable[[], Any]) -> Any:
    """Call a function in the first process only, and return its JSON value in all of them."""
    if not is_distributed():
        return function()
    value = None
    with synchronized():
        if is_first():
            value = function()
    return all_gather(value)[0]


def device_put(tree: Any, sharding: Any) -> Any:
    """Put arrays that every process holds completely on the devices, with one sharding or a tree of shardings."""
    if not is_distributed():
        return jax.device_put(tree, sharding)

    def put(leaf: Any, sharding: Sharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.jit(jax.random.wrap_key_data, out_shardings=sharding)(put(jax.random.key_data(leaf), sharding))
        array = np.asarray(leaf)
        array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
        # `jax.device_put` would send the full array to every process, to check that all hold the same.
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    shardings = jax.tree.map(lambda _: sharding, tree) if isinstance(sharding, Sharding) else sharding
    return jax.tree.map(put, tree, shardings)


def stop_requested() -> bool:
    """Return whether a signal has asked the run to end, at the same call in all processes.

    All processes must call it equally often. A signal to any of them notifies JAX's preemption service, which agrees
    on the call.
    """
    if not is_distributed():
        return interruption.requested()
    return multihost_utils.reached_preemption_sync_point(next(_calls))


def share_stop_request() -> None:
    """Send a signal that one process received to all, so that all end alike; for an `interruption.deferred` block."""
    if is_distributed() and any(all_gather(interruption.requested())):
        interruption.request(signal.SIGTERM)
