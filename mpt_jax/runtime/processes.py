"""Several processes, each with devices of its own, that run the same command: JAX's multi-controller SPMD.

Every process has all the data and runs every line; arrays are global, and the batch is split over the devices of all.
Only the first process writes what is for people and other tools, and where processes could come to different decisions
its word counts. Alone, a process does all of this by doing nothing.
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

from mpt_jax.errors import InputError, one_line
from mpt_jax.runtime import interruption

HEARTBEAT = 30  # seconds without a sign of life after which JAX takes a process for dead and ends the others
PATIENCE = 10.0  # seconds that a process waits for the others to come to their end as well
LOST = 4  # exit status of a process that lost another one

_calls = itertools.count()  # the preemption service wants to hear numbers that rise by one, in all processes alike
_last_word: list[subprocess.Popen] = []

# Speaks when the process at the other end of its input has ended without a word: killed, or ended by JAX, which aborts.
_SPEAKER = "import sys\nif not sys.stdin.read(): print(sys.argv[1], file=sys.stderr)"


def join(
    command: str, coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Become one of the processes of a run, before any device is touched; `leave` ends it.

    Args:
      command: to go on with where this process ends before its time.
      coordinator: ``HOST:PORT`` of the first process; None: JAX finds TPU, Slurm, Kubernetes or Open MPI by itself.

    Raises:
      InputError: no such cluster, or the others cannot be reached.
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
        hint = "" if coordinator else "; where JAX finds no cluster, give --coordinator, --num-processes, --process-id"
        raise InputError(f"cannot join the other processes: {one_line(error)}{hint}") from error
    theirs = _handler_of_sigterm()
    if theirs and theirs != before and threading.current_thread() is threading.main_thread():
        # JAX's preemption service has put its own handler in the place of ours. Ours hears more signals, and ends a
        # process that has nothing to save, so it comes back and passes on what it hears.
        signal.signal(signal.SIGTERM, ours)
        notify = ctypes.CFUNCTYPE(None, ctypes.c_int)(theirs)
        interruption.pass_on(lambda: notify(signal.SIGTERM))
    _last_word.append(
        subprocess.Popen(
            [sys.executable, "-ISc", _SPEAKER, f"error: {lost(command)}"], stdin=subprocess.PIPE, start_new_session=True
        )
    )


def _require_free(coordinator: str) -> None:
    """Refuse a port that cannot be listened on, where JAX would crash."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", int(coordinator.rpartition(":")[2])))
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--coordinator {coordinator}: process 0 cannot listen there ({one_line(error)}); expected a free port"
        ) from error


def _handler_of_sigterm() -> int | None:
    """The address of the process's handler, whether Python's or another; None: the default, or no such signals."""
    if os.name != "posix":
        return None
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    handler = libc.signal(signal.SIGTERM, None)
    libc.signal(signal.SIGTERM, handler)
    return handler


def lost(command: str) -> str:
    """What is said where a process has lost another one, or its own life."""
    return (
        f"process {jax.process_index()} of {jax.process_count()} ends before its time, as all do when one is lost; "
        f"the same command in all of them goes on from the last checkpoint: {command}"
    )


def leave(status: int) -> None:
    """Say good-bye to the other processes; ends this one at once, with this status, where they do not answer."""
    if not _last_word:
        return
    # JAX waits for all of them, and aborts when they do not come.
    parting = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    if status != LOST:
        parting.start()
        parting.join(PATIENCE)
    _last_word.pop().communicate(b"said")
    if status == LOST or parting.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def several() -> bool:
    """Whether there are other processes. Touches no device where this one has not joined any."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that writes, the only one or number 0."""
    return not several() or jax.process_index() == 0


def exchanged(value: Any) -> list[Any]:
    """The JSON values of all processes, in their order. All must call it, and all wait for the last one."""
    return _exchanged({"value": value}) if several() else [value]


def require_same(value: Any, what: str) -> None:
    """Raises an `InputError` in all processes where this JSON value is not the same in all of them."""
    texts = [json.dumps(other, sort_keys=True) for other in exchanged(value)]
    if len(set(texts)) > 1:
        raise _AgreedInputError(
            f"{what} differs between process 0 and process {[t == texts[0] for t in texts].index(False)}"
        )


class _AgreedInputError(InputError):
    """One that all processes raise, and need not tell each other."""


class _AgreedOSError(OSError):
    """One that all processes raise, and need not tell each other."""


def _exchanged(message: dict[str, Any]) -> list[Any]:
    """The values of all processes; an error of any is raised in all, whatever they came here for."""
    content = np.frombuffer(json.dumps(message).encode(), np.uint8)
    longest = int(multihost_utils.process_allgather(np.int32(content.size)).max())
    room = np.full(1 << longest.bit_length(), ord(" "), np.uint8)  # few sizes: each is compiled once
    room[: content.size] = content
    messages = [json.loads(row.tobytes()) for row in multihost_utils.process_allgather(room)]
    for error in (message["error"] for message in messages if "error" in message):
        raise (_AgreedOSError if len(error) > 1 else _AgreedInputError)(*error) from None
    return [message["value"] for message in messages]


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that all processes go through, and that ends for all of them when it has ended for the last one.

    The user's errors, and those of the system, that come up in one process are raised in all of them.
    """
    if not several():
        yield
        return
    message: dict[str, Any] = {"value": None}
    try:
        yield
    except (_AgreedInputError, _AgreedOSError):
        raise
    except InputError as error:
        message = {"error": [str(error)]}
    except OSError as error:
        message = {"error": [error.errno, error.strerror or str(error), str(error.filename or "disk")]}
    _exchanged(message)


def decided(function: Callable[[], Any]) -> Any:
    """What the first process makes of this function, a JSON value; the others do not call it."""
    if not several():
        return function()
    value = None
    with together():
        if is_first():
            value = function()
    return exchanged(value)[0]


def put(tree: Any, sharding: Any) -> Any:
    """`jax.device_put` of arrays that every process has whole, with one sharding or a tree of them."""
    if not several():
        return jax.device_put(tree, sharding)

    def one(leaf: Any, sharding: Sharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.jit(jax.random.wrap_key_data, out_shardings=sharding)(one(jax.random.key_data(leaf), sharding))
        array = np.asarray(leaf)
        array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
        # `jax.device_put` would send all of it around, to see that it is the same in every process.
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    shardings = jax.tree.map(lambda _: sharding, tree) if isinstance(sharding, Sharding) else sharding
    return jax.tree.map(one, tree, shardings)


def asked_to_stop() -> bool:
    """Whether a signal has asked the run to end; of several processes all are told at the same call.

    They must call it equally often. A signal to any of them is a notice to JAX's preemption service, which agrees on
    the call.
    """
    if not several():
        return interruption.requested()
    return multihost_utils.reached_preemption_sync_point(next(_calls))


def agree_on_stop() -> None:
    """In the postponed block: a signal that one process has heard becomes one of all, which then end alike."""
    if several() and any(exchanged(interruption.requested())):
        interruption.request(signal.SIGTERM)
