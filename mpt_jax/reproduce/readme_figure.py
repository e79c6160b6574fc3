"""The figure of the README: what an update with MPT changes, on two data sets, from the committed results."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.report import drawing
from mpt_jax.report.drawing import BASE, BEST, FADED, INK
from mpt_jax.reproduce import summary
from mpt_jax.reproduce.results import BASELINE

FILE = "readme.png"  # in results/plots
_INCHES, _DPI = (8.0, 3.6), 200  # shown 800 pixels wide; twice as many for sharp screens
_GREY = "#5c5c5c"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One data set: a table, the row that represents MPT, and rows to compare it with."""

    title: str
    table: str  # a file in results/, without .json
    mpt: str  # the row chosen on validation images
    mpt_name: str
    others: Mapping[str, str]  # row -> where its label goes: left, right, above, below


PANELS = (
    Panel(
        "Handwritten digits, 5 → 10 classes",
        "digits-cpu",
        "mpt_kl@bias=12",
        "mpt_kl, b = 12",
        {"pct_kl": "right", "posthoc_bias": "below"},
    ),
    Panel(
        "CIFAR-100, 50 → 100 classes",
        "cifar100-seeds-cpu",
        "mpt_lm@bias=1",
        "mpt_lm, b = 1",
        {"pct_kl": "right", "posthoc_bias": "below"},
    ),
)
_LABELS = {"pct_kl": "PCT", "posthoc_bias": "post-hoc bias"}
_PLACES = {
    "left": ((-8, 0), "right", "center"),
    "right": ((8, 0), "left", "center"),
    "above": ((0, 7), "center", "bottom"),
    "below": ((0, -7), "center", "top"),
}


def draw(tables: Mapping[str, Mapping[str, Any]]) -> bytes | None:
    """Draw the figure from the tables of `results/`, by file name; return a PNG file, or None if a table is missing."""
    if any(panel.table not in tables for panel in PANELS):
        return None
    from matplotlib.figure import Figure

    with drawing.style():
        figure = Figure(figsize=_INCHES, layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            _draw_panel(axes, panel, tables[panel.table]["runs"])
        figure.supxlabel("accuracy on all classes after the update, %   (more is better →)", fontsize=10)
        figure.supylabel(
            "negative flips: right before the update,\nwrong after it, %   (← fewer is better)", fontsize=10
        )
        return drawing.png(figure, dpi=_DPI)


def _draw_panel(axes: Any, panel: Panel, runs: Sequence[Mapping[str, Any]]) -> None:
    rows = rates(runs)
    points = {method: rows[method] for method in (BASELINE, panel.mpt, *panel.others)}
    start, end = points[BASELINE], points[panel.mpt]
    near = {"textcoords": "offset points", "zorder": 5}
    small = {**near, "fontsize": 9.5, "color": _GREY}
    bold = {**near, "fontsize": 11, "fontweight": "bold", "ha": "left"}
    for method, point in points.items():
        colour, size = {BASELINE: (BASE, 11), panel.mpt: (BEST, 13)}.get(method, (FADED, 7))
        axes.plot(*point, "o", color=colour, markersize=size, zorder=4)
    for method, place in panel.others.items():
        offset, ha, va = _PLACES[place]
        axes.annotate(_LABELS[method], points[method], offset, **small, ha=ha, va=va)
    axes.annotate(
        *("", end, start),
        arrowprops={
            **{"arrowstyle": "-|>,head_width=0.4,head_length=0.8", "color": BEST, "linewidth": 2.6},
            **{"shrinkA": 7, "shrinkB": 8},
        },
    )
    axes.annotate("plain retraining", start, (0, 10), **bold | {"ha": "center"}, va="bottom", color=BASE)
    axes.annotate("MPT", end, (0, -10), **bold | {"ha": "center"}, va="top", color=BEST)
    axes.annotate(panel.mpt_name, end, (0, -23), **small, ha="center", va="top")
    middle = [(a + b) / 2 for a, b in zip(start, end, strict=True)]
    fewer = f"{100 * (1 - end[1] / start[1]):.0f} % fewer\nnegative flips"
    axes.annotate(fewer, middle, (12, 4), **bold | {"fontsize": 12}, va="center", color=BEST)
    xs, ys = zip(*points.values(), strict=True)
    width = max(xs) - min(xs)
    axes.set_xlim(min(xs) - 0.25 * width, max(xs) + 0.55 * width)
    axes.set_ylim(0, 1.2 * max(ys))
    axes.locator_params(nbins=5)
    seeds = len({seed for run in runs for seed in run["seeds"]})
    axes.set_title(f"{panel.title} ({seeds} seeds)", fontsize=10.5, color=INK, loc="left")


def rates(runs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return accuracy on all classes and negative flips of each row in %, from the first scenario that has it."""
    found: dict[str, tuple[float, float]] = {}
    for methods in summary.summarize(runs).values():
        for method, spreads in methods.items():
            if "nfr" in spreads:
                found.setdefault(method, (100 * spreads["accuracy"]["mean"], 100 * spreads["nfr"]["mean"]))
    return found
