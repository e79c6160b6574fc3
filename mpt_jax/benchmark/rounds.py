"""Fair comparisons: alternating rounds, ratios of medians, and other programs that take part as commands."""

import json
import math
import shlex
import shutil
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpt_jax.errors import InputError

Log = Callable[[str], None]


def alternate(rounds: int, contestants: Mapping[str, Callable[[], float]], log: Log) -> dict[str, list[float]]:
    """Measure every contestant once per round; return the milliseconds of each by round.

    Examples:
      >>> ticks = iter(range(9))
      >>> alternate(2, {"a": lambda: next(ticks), "b": lambda: next(ticks)}, log=lambda text: None)
      {'a': [0, 2], 'b': [1, 3]}
    """
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(1, rounds + 1):
        for name, measure in contestants.items():
            values[name].append(measure())
            log(f"round {number} of {rounds}, {name}: {values[name][-1]:.4g} ms")
    return values


def compare(times: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    """Return the ratio of the medians, and the ratio in each round.

    Examples:
      >>> compare([1.0, 2.0, 6.0], [4.0, 4.0, 4.0])
      {'ratio': 0.5, 'ratios': [0.25, 0.5, 1.5]}
    """
    ratios = [mine / other for mine, other in zip(times, others, strict=True)]
    return {"ratio": statistics.median(times) / statistics.median(others), "ratios": ratios}


def check_command(command: str) -> None:
    """Check that a peer's command can be started, before any slow work.

    Raises:
      InputError: there is no such program.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"cannot read the command {command!r}: {error}") from error
    if not words or not shutil.which(words[0]):
        raise InputError(f"cannot run {command!r}: no such program; expected a command such as 'python peer.py'")


def peer_milliseconds(command: str, batch: int) -> float:
    """Run a command; return `median_ms` from the JSON object in its last line of output.

    Raises:
      InputError: the command fails, prints something else, or reports another `batch`.
    """
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{command!r} ended with status {done.returncode}: {last_line(done.stderr)}")
    line = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        reported = json.loads(line)
        milliseconds, peers_batch = float(reported["median_ms"]), reported.get("batch", batch)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{command!r} printed {line[:80]!r}; expected a JSON object with 'median_ms'") from error
    if not (math.isfinite(milliseconds) and milliseconds > 0):
        raise InputError(f"{command!r} measured median_ms={milliseconds}; expected a number above 0")
    if peers_batch != batch:
        raise InputError(f"{command!r} has batch {peers_batch}; expected {batch}, or pass --batch {peers_batch}")
    return milliseconds


def last_line(stderr: str) -> str:
    """Return the last line of a failed command's stderr, where Python prints the error."""
    return (stderr.strip().splitlines() or ["no message"])[-1]
