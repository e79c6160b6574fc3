"""The Python API: `mpt_jax.run` trains an update, or resumes it, and returns its report."""

import base64
import contextlib
import dataclasses
import html
import io
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group

from mpt_jax import config as configs
from mpt_jax import report as reports
from mpt_jax import update
from mpt_jax.cli import compilation_cache
from mpt_jax.cli.progress import progress
from mpt_jax.config import Config
from mpt_jax.errors import InputError, printable
from mpt_jax.files import permissions, schema, storage
from mpt_jax.report import table
from mpt_jax.runtime import processes
from mpt_jax.update import lock, loggers
from mpt_jax.update import workdir as workdirs

Line = Mapping[str, Any]  # of metrics.jsonl


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """The result of a run. A notebook shows its table and plots; `print` shows the table."""

    workdir: pathlib.Path
    contents: dict[str, Any]  # of report.json

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """One entry per release, method and seed; rates are fractions from 0 to 1."""
        return self.contents["rows"]

    @property
    def summary(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """By method and rate, the mean, standard deviation (`std`) and `count` over the seeds of the last release."""
        return self.contents["summary"]

    @property
    def comparison(self) -> Mapping[str, Any]:
        """How certain the differences between the methods are, and which method is `best`."""
        return self.contents["comparison"]

    @property
    def paths(self) -> Mapping[str, pathlib.Path]:
        """The files and folders of the work directory by name: `html`, `markdown`, `json`, `plots`, `releases`, ..."""
        names = {"html": "report.html", "markdown": "report.md", "json": "report.json", "metrics": "metrics.jsonl"}
        names |= {name: name for name in ("plots", "releases", "predictions")}
        return {key: self.workdir / name for key, name in names.items()}

    def __rich__(self) -> Group:
        return Group(table.terminal(self.contents), table.legend(self.contents))

    def __str__(self) -> str:
        text = io.StringIO()
        Console(file=text, width=80).print(self)
        return text.getvalue()

    def __repr__(self) -> str:
        return f"Report(workdir={str(self.workdir)!r}, methods={list(self.summary)})"

    def _repr_html_(self) -> str:
        headings, rows = table.cells(self.contents)
        cells = [headings, *rows]
        tags = ["th", *["td"] * len(rows)]
        lines = [
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
            for tag, row in zip(tags, cells, strict=True)
        ]
        title = html.escape(table.title(self.contents)).replace("\n", "<br>")
        in_order = re.findall(r"!\[(.*)\]\(plots/(.+?)\)", storage.read_bytes(self.paths["markdown"]).decode())
        plots = [
            f'<img style="max-width: 100%" alt="{html.escape(alt)}" src="data:image/png;base64,'
            f'{base64.b64encode(storage.read_bytes(self.paths["plots"] / name)).decode()}">'
            for alt, name in in_order
        ]
        full = html.escape(printable(str(self.paths["html"])))
        return "\n".join([f"<p>{title}</p>", "<table>", *lines, "</table>", *plots, f"<p>full report: {full}</p>"])


def run(
    config: configs.Source,
    workdir: str | os.PathLike[str] | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    new_run: bool = False,
    quiet: bool = False,
    on_metrics: Callable[[Line], None] | None = None,
) -> Report:
    """Train an update and return its report; the same call again resumes it.

    Existing models of the work directory are not trained again. A stage that was interrupted resumes from its last
    checkpoint, see `training.checkpoint_every`.

    Args:
      config: name of a shipped config or path of a config file, also with a variant (`digits:all`, `PATH.py:VARIANT`),
        nested values as in a config file, or a `Config`.
      workdir: folder for everything that is written, also `gs://BUCKET/FOLDER`; default: `runs/<config>`.
      overrides: config values by dotted key, such as `{"optimizer.epochs": 20, "update.methods": ["mpt_kl"]}`.
      new_run: if the work directory has a run of another config, use `workdir-2` (or -3, ...) next to it.
      quiet: print neither plan nor progress.
      on_metrics: called with every line of `metrics.jsonl` after it is written. After a resume, repeated steps are
        reported again.

    Raises:
      InputError: the config, the data or the work directory cannot be used; the message says what would work. It names
        the options of the command: `--workdir` is `workdir` here, `--new-run` is `new_run=True`, and
        `--config.KEY=VALUE` is an override.
      OSError: the disk is full. The same call resumes when there is space.
    """
    resolved = configs.load(config, overrides or {})
    if workdir is None:
        if not isinstance(config, str | os.PathLike):
            raise InputError("run needs a workdir if the config is not a file; expected a folder, such as runs/mine")
        workdir = default_workdir(os.fspath(config))
    if not isinstance(workdir, str | os.PathLike):
        raise InputError(f"workdir is {workdir!r}; expected the path of a folder, such as runs/mine")
    folder = storage.path(os.fspath(workdir))
    if new_run:
        folder = new_run_folder(folder, resolved)
    source = repr(os.fspath(config)) if isinstance(config, str | os.PathLike) else "config"
    more = f", overrides={dict(overrides)!r}" if overrides else ""
    command = f"mpt_jax.run({source}, {str(folder)!r}{more})"
    report = train(resolved, folder, command=command, console=Console(quiet=quiet), on_metrics=on_metrics)
    if report is None:  # in all processes but the first, which has written it by now
        report = Report(folder, schema.read(folder / "report.json"))
    return report


def train(
    config: Config,
    folder: pathlib.Path,
    *,
    command: str,
    console: Console,
    plan_only: bool = False,
    tensorboard: bool = False,
    compile_cache: bool = True,
    on_metrics: Callable[[Line], None] | None = None,
) -> Report | None:
    """Train what is missing in a work directory and write its report; the body of `run` and of `mpt_jax.train`.

    Args:
      command: how to start this run again, as `config.json` records it.
      console: for the plan and the progress.
      plan_only: print the plan and return None.
      tensorboard: also write TensorBoard events.
      compile_cache: read and write compiled programs in the user's cache folder.
      on_metrics: see `run`.

    Returns:
      The report; None after a plan, and in all processes but the first.
    """
    if tensorboard:
        loggers.require_tensorboard(folder)
    first = processes.is_first()
    with _quiet_libraries(), progress(console) as shown, contextlib.ExitStack() as stack:
        if compile_cache:
            compilation_cache.enable(shown.log)
        if reason := permissions.writable_by_others(folder):
            shown.log(f"{reason}: a change that others make in {folder} changes what this run releases")
        with processes.synchronized():
            prepared = update.prepare(config, folder, shown)
        for line in update.plan(prepared):
            shown.log(line)
        if plan_only:
            return None
        listeners = [on_metrics] if on_metrics and first else []
        with processes.synchronized():
            if first:
                stack.enter_context(lock.hold(folder, shown.log))
                if tensorboard:
                    listeners.append(stack.enter_context(loggers.tensorboard(folder)))
        lock.require_shared(folder)
        if not update.execute(dataclasses.replace(prepared, on_metrics=tuple(listeners)), command):
            shown.log(f"nothing to train: all releases of {folder} exist")
        with processes.synchronized():
            return Report(folder, reports.write(folder)) if first else None


def default_workdir(spec: str) -> pathlib.Path:
    """Return the work directory of a config, by its name and variant.

    Examples:
      >>> default_workdir("configs/cifar100.py:smoke").as_posix()
      'runs/cifar100-smoke'
    """
    return pathlib.Path("runs") / configs.run_name(spec)


def new_run_folder(folder: pathlib.Path, config: Config) -> pathlib.Path:
    """Return the folder, or the first of `folder-2`, `folder-3`, ... without a run of another config."""
    return storage.path(processes.from_first(lambda: str(workdirs.next_free(folder, configs.to_dict(config)))))


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silence what libraries log about damaged and unfinished files: this package removes or reports them itself."""
    levels = {"absl": logging.ERROR, "asyncio": logging.CRITICAL}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
