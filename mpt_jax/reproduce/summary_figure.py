"""The figure of the first page: flips of the methods at every accuracy, on real features and on a whole network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax.report import drawing
from mpt_jax.report.drawing import FADED, INK
from mpt_jax.reproduce import plots, summary
from mpt_jax.reproduce.results import BASELINE
from mpt_jax.reproduce.tables import FEATURES, RESNET, TABLES

FILE = "summary.png"  # in results/plots
_ROWS = ("independent", BASELINE, "label_smoothing", "pct_kl", "mpt_lm", "mpt_kl")  # later ones are drawn above
_NAMES = {BASELINE: "no_treatment: plain retraining", "independent": "independent: plain retraining again (chance)"}
_COLOURS = {**plots.COLOURS, "label_smoothing": "#9c5a2d"}
_LEAST = 5.0  # points of accuracy below the best one that are shown
_CAPTION = (
    "Negative flips at every accuracy: a constant subtracted from the logits of the new classes moves a model along "
    "its curve. At equal accuracy the lower curve is better. Dots: the models as trained, with standard deviations. "
    "Of several b, the one chosen on validation images is shown."
)


def draw(tables: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Draw the first table of each panel, with its first scenario of the summary; return a PNG file.

    Args:
      tables: results whose curves can be drawn, in the order of the tables.

    Returns:
      None if a panel has no table.
    """
    first = {panel: [t for t in tables if TABLES[t["table"]].panel == panel][:1] for panel in (FEATURES, RESNET)}
    if not all(first.values()):
        return None
    from matplotlib.figure import Figure

    with drawing.style():
        figure = Figure(figsize=(8.0, 3.9), layout="constrained")
        handles: dict[str, Any] = {}
        for axes, (panel, (table,)) in zip(figure.subplots(1, len(first)), first.items(), strict=True):
            scenario, *_ = TABLES[table["table"]].headline
            runs = [run for run in table["runs"] if run["scenario"] == scenario]
            handles |= {row: line for row, line in _draw_panel(axes, runs).items()}
            seeds, epochs = len({seed for run in runs for seed in run["seeds"]}), runs[0]["protocol"]["epochs"]
            classes = " → ".join(map(str, runs[0]["classes"]))
            of = f"{classes} classes, {epochs} epochs, {seeds} seed{'s' * (seeds > 1)}"
            axes.set_title(f"CIFAR-100, {panel}\n{of}", fontsize=9.5, color=INK, loc="left")
            axes.set_xlabel("accuracy on all classes, %")
        figure.supylabel("negative flips, %", fontsize=9)
        shown = {_NAMES.get(row, row): handles[row] for row in _ROWS[::-1] if row in handles}
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3)
        return drawing.png(figure, dpi=200)


def show(link: str) -> str:
    """Return the Markdown of the figure and its caption.

    Examples:
      >>> show("plots/summary.png").splitlines()[0]
      '![Negative flips at every accuracy](plots/summary.png)'
    """
    return f"![{_CAPTION.partition(':')[0]}]({link})\n\n*{_CAPTION}*"


def mean_curve(runs: Sequence[Mapping[str, Any]], method: str) -> np.ndarray:
    """Return the curve of a method: means of accuracy and negative flip rate over all seeds, ``[constants, 2]``.

    It begins at the constant with the best accuracy, or at 0, the model as trained, if that is lower. Below it a model
    has more flips and is less accurate.
    """
    curves = [(np.array(run["curves"][method]), len(run["seeds"])) for run in runs if method in run["curves"]]
    constants = np.unique(np.concatenate([curve[:, 0] for curve, _ in curves]))
    values = [[np.interp(constants, curve[:, 0], curve[:, k]) for k in (1, 2)] for curve, _ in curves]
    curve = np.average(values, axis=0, weights=[seeds for _, seeds in curves]).T
    return curve[constants >= min(constants[curve[:, 0].argmax()], 0.0)]


def _draw_panel(axes: Any, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw a curve and a dot per row; return the curves by row."""
    (scenario,) = {run["scenario"] for run in runs}
    spreads = summary.summarize(runs)[scenario]
    drawn, limits = {}, []
    for order, row in enumerate(_ROWS):
        method, _ = summary.representative(runs, row).get(scenario, ("", False))
        if not any(method in run["curves"] for run in runs):
            continue
        accuracy, nfr = 100 * mean_curve(runs, method).T
        style = {"color": _COLOURS.get(row, FADED), "zorder": 2 + order}
        (drawn[row],) = axes.plot(accuracy, nfr, **style, linewidth=1.5, linestyle=":" if row == "independent" else "-")
        point, error = ([100 * spreads[method][key][of] for key in ("accuracy", "nfr")] for of in ("mean", "std"))
        axes.errorbar(*point, error[1], error[0], **style, marker="o", markersize=5, elinewidth=0.9)
        if row.startswith("mpt"):
            axes.annotate(
                summary.margin(method, runs[0]), point, (-4, 5), textcoords="offset points", ha="right", fontsize=8
            )
        limits.append((accuracy.max(), max(nfr[0], point[1] + error[1])))
    best = max(accuracy for accuracy, _ in limits)
    axes.set_xlim(best - _LEAST, best + 0.06 * _LEAST)
    axes.set_ylim(0, 1.05 * max(nfr for _, nfr in limits))
    return drawn
