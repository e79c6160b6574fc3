"""Occasional plain lines without a terminal, a bar on a terminal."""

import io

import pytest
from rich.console import Console

from mpt_jax.cli import progress


def shown(terminal, monkeypatch, seconds):
    clock = iter(seconds)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100)
    with progress.progress(console) as bars:
        bars.start("old, 2 seeds", 10, 100)
        for step in (20, 30, 55):
            bars.advance(step, {"loss": 0.5})
        bars.finish("old: done")
    return stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_names_are_neither_markup_nor_escapes(terminal):
    stream = io.StringIO()
    with progress.progress(Console(file=stream, force_terminal=terminal, width=200)) as bars:
        bars.start("[/red]\x1b[2J\u202e[bold]a\nb", 0, 100)
        bars.advance(1, {"\x1b[2J[/]": 0.5})
        bars.log("[/red]\x1b[2J\u202e[bold]a\nb")
        bars.finish("done")
    shown = stream.getvalue()
    assert r"[/red]\x1b[2J\u202e[bold]a\nb" in shown and "\u202e" not in shown and "[2J" in shown
    assert "\x1b[2J" not in shown and (terminal or "\x1b" not in shown)


def test_plain_lines_are_at_least_ten_seconds_apart_and_show_the_time_left(monkeypatch):
    lines = shown(False, monkeypatch, [0.0, 5.0, 12.0, 45.0]).splitlines()
    assert lines == [
        "old, 2 seeds: 100 steps, resumed from step 10",
        "old, 2 seeds: step 30/100  loss 0.500  about 49 s left",  # 7 s for 10 steps, 70 to go
        "old, 2 seeds: step 55/100  loss 0.500  about 51 s left",
        "old: done",
    ]


def test_the_time_left_excludes_compilation(monkeypatch):
    lines = shown(False, monkeypatch, [0.0, 100.0, 101.0, 113.5]).splitlines()
    assert lines[1:3] == [
        "old, 2 seeds: step 20/100  loss 0.500",
        "old, 2 seeds: step 55/100  loss 0.500  about 17 s left",  # 13.5 s for 35 steps, 45 to go
    ]


def test_a_terminal_shows_a_bar_and_keeps_the_last_line(monkeypatch):
    text = shown(True, monkeypatch, [float(n) for n in range(10)])
    assert "55/100" in text and "loss 0.500" in text and "old: done" in text
