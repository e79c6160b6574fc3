"""What a person sees while a run works: a bar per stage on a terminal, plain lines now and then elsewhere."""

import contextlib
import time
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """One stage at a time: `start`, `advance` any number of times, `finish`; `say` prints a line at any moment."""

    def __init__(self, console: Console, bars: Bars | None):
        self.console, self._bars, self._task = console, bars, None
        self._unit = "step"
        self._title, self._total, self._first, self._began, self._last_line = "", 0, 0, 0.0, 0.0

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def start(self, title: str, done: int, total: int, unit: str = "step") -> None:
        self._title, self._total, self._first, self._unit = title, total, done, unit
        self._began = self._last_line = time.monotonic()
        resumed = f", going on from {unit} {done}" if done else ""
        if self._bars is not None:
            self._task = self._bars.add_task(title, total=total, completed=done, values="compiling")
            if done:
                self.say(f"{title}{resumed}")
        else:
            self.say(f"{title}: {total} {unit}s{resumed}")

    def advance(self, step: int, values: Mapping[str, float]) -> None:
        text = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        if self._bars is not None:
            self._bars.update(self._task, completed=step, values=text, refresh=True)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES and step > self._first:
            self._last_line = now
            left = (now - self._began) / (step - self._first) * (self._total - step)
            self.say(
                f"{self._title}: {self._unit} {step}/{self._total}  {text}{'  ' if text else ''}about {left:.0f} s left"
            )

    def finish(self, text: str) -> None:
        if self._bars is not None:
            self._bars.remove_task(self._task)
        self.say(text)


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """A `Progress` on this console, whose bars are gone afterwards."""
    if not console.is_terminal:
        yield Progress(console, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield Progress(console, bars)
