"""Where the lines of `metrics.jsonl` also go while a run works: TensorBoard."""

import contextlib
import importlib.util
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mpt_jax.errors import InputError
from mpt_jax.files import storage
from mpt_jax.update import workdir

Line = Mapping[str, Any]


def require_tensorboard(folder: pathlib.Path) -> None:
    """Find out before any work is done whether events can be written.

    Raises:
      InputError: tensorboardX is not installed, or the work directory is in a bucket.
    """
    if storage.is_remote(folder):
        raise InputError(f"--tensorboard writes to local folders, but the work directory is {folder}; leave it out")
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError("--tensorboard needs tensorboardX: `pip install 'mpt_jax[tensorboard]'`, or leave it out")


@contextlib.contextmanager
def tensorboard(folder: pathlib.Path) -> Iterator[Callable[[Line], None]]:
    """A function that writes a metrics line as events under `folder/tensorboard/STAGE/MEMBER`.

    The events say what `metrics.jsonl` says, and every step once: those of earlier sessions are written anew from it at
    the start, and those of a stage that goes on from a checkpoint once more when it does.

    Args:
      folder: the work directory.

    Raises:
      InputError: tensorboardX is not installed.
    """
    require_tensorboard(folder)
    from tensorboardX import SummaryWriter

    root, writers = folder / "tensorboard", {}

    def add(line: Line) -> None:
        place = root / stage_of(line) / line["member"].replace("/", "_")
        if place not in writers:
            writers[place] = SummaryWriter(str(place), flush_secs=10)
        for name, value in line["values"].items():
            if value is not None:  # what was not finite
                writers[place].add_scalar(name, value, line["step"])

    def begin(stage: str, lines: Iterable[Line]) -> None:
        close(stage)
        shutil.rmtree(root / stage, ignore_errors=True)
        for line in lines:
            add(line)

    def close(stage: str) -> None:
        for place in [place for place in writers if place.parent.name == stage]:
            writers.pop(place).close()

    earlier = workdir.read_metrics(folder)
    for stage in dict.fromkeys(map(stage_of, earlier)):
        begin(stage, [line for line in earlier if stage_of(line) == stage])
        close(stage)
    going_on: set[str] = set()

    def write(line: Line) -> None:
        stage = stage_of(line)
        if stage not in going_on:
            going_on.add(stage)
            lines = workdir.read_metrics(folder)  # without the steps that this stage does again
            begin(stage, [one for one in lines if stage_of(one) == stage and one["step"] < line["step"]])
        add(line)

    try:
        yield write
    finally:
        for writer in writers.values():
            writer.close()


def stage_of(line: Line) -> str:
    """The name of the stage that a metrics line is about.

    Examples:
      >>> stage_of({"release": 1, "stage": "students", "member": "mpt_kl b=2 seed=0"})
      'r1-students'
    """
    return f"r{line['release']}-{line['stage']}"
