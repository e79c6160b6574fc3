"""Progress of a run: one bar per stage on a terminal, occasional plain lines elsewhere."""

import contextlib
import time
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from mpt_jax.errors import printable

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Progress of one stage at a time: `start`, any number of `advance`, `finish`; `log` prints a line at any time.

    Texts may hold names from elsewhere: what a terminal would act on is escaped.
    """

    def __init__(self, console: Console, bars: Bars | None):
        self.console, self._bars = console, bars
        self._task: TaskID | None = None
        self._unit = "step"
        self._title, self._total, self._first, self._last_line = "", 0, 0, 0.0
        self._measured_from: tuple[int, float] | None = None  # step and time

    def log(self, text: str) -> None:
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def start(self, title: str, done: int, total: int, unit: str = "step") -> None:
        title = printable(title)
        self._title, self._total, self._first, self._unit = title, total, done, unit
        self._measured_from, self._last_line = None, time.monotonic()
        resumed = f", resumed from {unit} {done}" if done else ""
        if self._bars is not None:
            self._task = self._bars.add_task(title, total=total, completed=done, values="compiling")
            if done:
                self.log(f"{title}{resumed}")
        else:
            self.log(f"{title}: {total} {unit}s{resumed}")

    def advance(self, step: int, values: Mapping[str, float]) -> None:
        text = "  ".join(f"{printable(name)} {value:.3f}" for name, value in values.items())
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=step, values=text, refresh=True)
            return
        now, left = time.monotonic(), ""
        if self._measured_from is None:
            self._measured_from = step, now  # the time before is mostly compilation
        elif step > self._measured_from[0]:
            first, started = self._measured_from
            left = f"about {(now - started) / (step - first) * (self._total - step):.0f} s left"
        if now - self._last_line >= SECONDS_BETWEEN_LINES and step > self._first:
            self._last_line = now
            self.log("  ".join(filter(None, [f"{self._title}: {self._unit} {step}/{self._total}", text, left])))

    def finish(self, text: str) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)
        self.log(text)


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """Yield a `Progress` on a console, and remove its bars at the end."""
    if not console.is_terminal:
        yield Progress(console, None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}", markup=False),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield Progress(console, bars)
