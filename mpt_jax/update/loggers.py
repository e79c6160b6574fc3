"""Loggers that receive the lines of `metrics.jsonl` during a run: TensorBoard."""

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
    """Check, before any work is done, that events can be written.

    Raises:
      InputError: tensorboardX is not installed, or the work directory is in a bucket.
    """
    if storage.is_remote(folder):
        raise InputError(f"--tensorboard needs a local folder, but the work directory is {folder}; omit it")
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError("--tensorboard needs tensorboardX: `pip install 'mpt_jax[tensorboard]'`, or omit it")


@contextlib.contextmanager
def tensorboard(folder: pathlib.Path) -> Iterator[Callable[[Line], None]]:
    """Open TensorBoard's event files, and yield a function that writes a metrics line to them.

    The events of a member are in `folder/tensorboard/STAGE/MEMBER`. They equal the lines of `metrics.jsonl`, with every
    step once: the files of earlier sessions are written again from that file at the start, and those of a resumed stage
    when its first new line comes.

    Args:
      folder: the work directory.

    Raises:
      InputError: tensorboardX is not installed.
    """
    require_tensorboard(folder)
    from tensorboardX import SummaryWriter

    root, writers = folder / "tensorboard", {}

    def add(line: Line) -> None:
        path = root / stage_of(line) / line["member"].replace("/", "_")
        if path not in writers:
            writers[path] = SummaryWriter(str(path), flush_secs=10)
        for name, value in line["values"].items():
            if value is not None:  # None: not finite
                writers[path].add_scalar(name, value, line["step"])

    def rewrite(stage: str, lines: Iterable[Line]) -> None:
        close(stage)
        shutil.rmtree(root / stage, ignore_errors=True)
        for line in lines:
            add(line)

    def close(stage: str) -> None:
        for path in [path for path in writers if path.parent.name == stage]:
            writers.pop(path).close()

    earlier = workdir.read_metrics(folder)
    for stage in dict.fromkeys(map(stage_of, earlier)):
        rewrite(stage, [line for line in earlier if stage_of(line) == stage])
        close(stage)
    current: set[str] = set()  # stages with lines of this session

    def write(line: Line) -> None:
        stage = stage_of(line)
        if stage not in current:
            current.add(stage)
            lines = workdir.read_metrics(folder)  # without the steps that this stage repeats
            rewrite(stage, [one for one in lines if stage_of(one) == stage and one["step"] < line["step"]])
        add(line)

    try:
        yield write
    finally:
        for writer in writers.values():
            writer.close()


def stage_of(line: Line) -> str:
    """Return the name of the stage of a metrics line.

    Examples:
      >>> stage_of({"release": 1, "stage": "students", "member": "mpt_kl b=2 seed=0"})
      'r1-students'
    """
    return f"r{line['release']}-{line['stage']}"
