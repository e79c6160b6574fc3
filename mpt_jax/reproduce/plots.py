"""The figures of a table, drawn from `results/`."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax import objectives
from mpt_jax.report import drawing
from mpt_jax.report.drawing import BASE, BEST, FADED, TRADE, new_figure
from mpt_jax.reproduce import summary
from mpt_jax.reproduce.results import BASELINE

Runs = Sequence[Mapping[str, Any]]
COLOURS = {
    "mpt_kl": BEST,
    "mpt_lm": "#2f9e44",
    "mpt_no_distillation": "#e8a500",
    "pct_kl": "#0c9aa5",
    "balanced_softmax": "#9c5a2d",
    BASELINE: BASE,
    "posthoc_bias": TRADE,
}
MOST_LOST = 6.0  # points of accuracy below the baseline; less accurate rows would compress the scale


def draw(runs: Runs) -> dict[str, bytes]:
    """Draw every figure that the runs have the numbers for; return PNG files by name."""
    pictures = {}
    with drawing.style():
        for name, make in FIGURES.items():
            if (drawn := make(runs)) is not None:
                pictures[name] = drawing.png(drawn)
    return pictures


def families(methods: Sequence[str], number: str = "bias") -> dict[str, dict[float, str]]:
    """Group methods by row and by the value of a number, for rows trained at several values of it.

    Examples:
      >>> families(["no_treatment", "mpt_kl@bias=2", "mpt_kl@bias=0", "mpt_lm@bias=1"])
      {'mpt_kl': {0.0: 'mpt_kl@bias=0', 2.0: 'mpt_kl@bias=2'}}
    """
    found: dict[str, dict[float, str]] = {}
    for method in filter(objectives.is_trained, methods):
        numbers = objectives.own_numbers(method)
        if list(numbers) == [number]:
            found.setdefault(method.partition("@")[0], {})[numbers[number]] = method
    return {row: dict(sorted(values.items())) for row, values in found.items() if len(values) > 1}


def _tradeoff(runs: Runs) -> Any:
    """Plot accuracy against negative flips, a panel per scenario."""
    summaries = summary.summarize(runs)
    columns = min(len(summaries), 3)
    lines = -(-len(summaries) // columns)
    figure = new_figure(4.4 if len(summaries) == 1 else 2.9 * lines, panels=0)[0]
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(summaries) :]:
        axes.remove()
    for axes, (scenario, methods) in zip(panels, summaries.items(), strict=False):
        points = {m: [100 * s[key]["mean"] for key in ("accuracy", "nfr")] for m, s in methods.items() if "nfr" in s}
        least = points[BASELINE][0] - MOST_LOST if BASELINE in points else -1
        points = {method: point for method, point in points.items() if point[0] >= least}
        found = families(list(points))
        for row, values in found.items():
            axes.plot(
                *np.transpose([points[method] for method in values.values()]),
                **{"color": COLOURS.get(row, FADED), "linewidth": 1.2, "zorder": 2, "label": row},
            )
        for run in (run for run in runs if run["scenario"] == scenario):
            if curve := run["curves"].get(BASELINE):
                axes.plot(
                    *(100 * np.array(curve)[:, 1:]).T,
                    **{"color": TRADE, "linestyle": "--", "linewidth": 0.8, "zorder": 1},
                )
        for method, point in points.items():
            colour = COLOURS.get(method.partition("@")[0], FADED)
            axes.plot(*point, "o", color=colour, markersize=4.5, zorder=3)
        span = np.ptp(list(points.values()), axis=0) + 0.5
        low, high = np.min(list(points.values()), axis=0), np.max(list(points.values()), axis=0)
        axes.set_xlim(low[0] - 0.12 * span[0], high[0] + 0.3 * span[0])
        axes.set_ylim(max(low[1] - 0.15 * span[1], 0), high[1] + 0.15 * span[1])
        numbers = {method: f"{b:g}" for values in found.values() for b, method in values.items()}
        first = [m for m in ("mpt_kl", BASELINE, "posthoc_bias", "ensemble", *numbers) if m in points]
        ordered = {m: points[m] for m in [*first, *points]}
        if found:
            axes.legend(fontsize=7, title="at several values of b", title_fontsize=7, loc="upper right")
        drawing.label_points(figure, axes, ordered, bold=["mpt_kl"], names=numbers)
        axes.set_title(scenario, fontsize=9)
    figure.supxlabel("accuracy on all classes, %", fontsize=9)
    figure.supylabel("negative flips, % of the old classes' images", fontsize=9)
    return figure


def _bias(runs: Runs) -> Any:
    """Plot negative flips, accuracy and accuracy on new classes against b, a line style per scenario."""
    summaries = {
        scenario: methods
        for scenario, methods in summary.summarize(runs).items()
        if any(len(values) > 2 for values in families(list(methods)).values())
    }
    if not summaries:
        return None
    keys = {
        "nfr": "negative flips, %",
        "accuracy": "accuracy on all classes, %",
        "accuracy_new_classes": "accuracy on new classes, %",
    }
    figure = new_figure(2.9, panels=0)[0]
    for axes, (key, label) in zip(figure.subplots(1, len(keys)), keys.items(), strict=True):
        for (scenario, methods), line in zip(summaries.items(), itertools.cycle(("-", "--", "-.")), strict=False):
            of = f", {scenario}" if scenario else ""
            for row, values in families(list(methods)).items():
                known = {b: methods[method][key] for b, method in values.items() if key in methods[method]}
                means, deviations = ([100 * spread[name] for spread in known.values()] for name in ("mean", "std"))
                axes.errorbar(
                    *(list(known), means, deviations),
                    **{"color": COLOURS.get(row, FADED), "marker": "o", "markersize": 4, "label": row + of},
                    **{"linestyle": line, "linewidth": 1.4, "elinewidth": 0.8},
                )
            level = 100 * methods[BASELINE][key]["mean"]
            axes.axhline(level, color=BASE, linestyle=line, linewidth=1, label=BASELINE + of)
        axes.set_xlabel("b")
        axes.set_ylabel(label)
    columns = 4 if len(summaries) == 1 else 2  # the scenario makes names longer
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=columns)
    return figure


def _shown(runs: Runs) -> list[str]:
    """Return the methods of the detailed figures: the baseline, and the one chosen on validation or else `mpt_kl`."""
    (best,) = summary.choose(runs).values()
    flips = runs[0]["flips"]
    trained = list(families(list(flips)).get("mpt_kl", {}).values())
    return [BASELINE, *[method for method in (best if len(best) == 1 else trained[-1:]) if method in flips]]


def _has_details(runs: Runs) -> bool:
    return len({run["scenario"] for run in runs}) == 1 and bool(families(list(runs[0]["flips"])))


def _margins(runs: Runs) -> Any:
    """Plot the margins of the old classes' test images before and after the update, for the first run."""
    if not _has_details(runs):
        return None
    flips = runs[0]["flips"]
    shown = list(dict.fromkeys([BASELINE, *families(list(flips)).get("mpt_kl", {}).values(), *_shown(runs)]))
    found = {method: flips[method]["margins"] for method in shown if flips[method]["margins"]}
    figure = new_figure(0.6 + 1.25 * len(found), panels=0)[0]
    panels = figure.subplots(len(found), 1, sharex=True, squeeze=False).flat
    for axes, (method, margins) in zip(panels, found.items(), strict=True):
        for key, colour in (("before", FADED), ("after", BEST)):
            axes.stairs(
                margins[key],
                margins["edges"],
                fill=key == "before",
                alpha=0.45 if key == "before" else 1,
                color=colour,
                label=key,
            )
            axes.axvline(margins[f"median_{key}"], color=colour, linewidth=1, linestyle=":")
        axes.axvline(0, color=drawing.INK, linewidth=0.8)
        axes.set_title(f"{method}: median {margins['median_before']:.2f} -> {margins['median_after']:.2f}", fontsize=8)
    figure.axes[-1].set_xlabel("margin: logit of the true class - largest other logit (below 0: wrong)")
    figure.axes[0].legend(loc="upper right", fontsize=7)
    figure.supylabel("old classes' test images", fontsize=9)
    return figure


def _learning(runs: Runs) -> Any:
    """Plot the accuracy on the training batches, for the first run."""
    history = runs[0]["history"]
    if not _has_details(runs) or not history:
        return None
    figure, axes = new_figure(3.4)
    for method, points in history.items():
        row = method.partition("@")[0]
        step, _, accuracy = np.array(points, float).T
        axes.plot(step, 100 * accuracy, color=COLOURS.get(row, FADED), linewidth=0.9, label=row)
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    axes.legend(handles.values(), handles.keys(), fontsize=7)
    axes.set_xlabel("step")
    axes.set_ylabel("accuracy on training batches, %")
    return figure


def _epochs(runs: Runs) -> Any:
    """Plot accuracy and negative flips on the test images during training, for the first run."""
    training = runs[0].get("training")
    if not training:
        return None
    of_row = families(list(training))
    lines = {
        method: line
        for values in of_row.values()
        for method, line in zip(values.values(), ("-", "--", ":", "-."), strict=False)
    }
    figure = new_figure(3.6, panels=0)[0]
    columns = {1: "accuracy on all classes, %", 3: "accuracy on new classes, %", 4: "negative flips, %"}
    for axes, (column, label) in zip(figure.subplots(1, len(columns)), columns.items(), strict=True):
        for method, points in training.items():
            values = np.array(points, float).T
            style = {"color": COLOURS.get(method.partition("@")[0], FADED), "linestyle": lines.get(method, "-")}
            axes.plot(values[0], 100 * values[column], linewidth=1.1, label=method, **style)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=7)
    return figure


def _classes(runs: Runs) -> Any:
    """Plot the negative flips of every old class over all runs, sorted by those of the baseline."""
    if not _has_details(runs):
        return None
    rates = {}
    for method in _shown(runs):
        counts = [run["flips"][method]["per_class"] for run in runs if method in run["flips"]]
        rates[method] = [
            100 * statistics.fmean(count["negative_flips"][k] / max(count["count"][k], 1) for count in counts)
            for k in range(len(counts[0]["count"]))
        ]
    order = np.argsort(rates[BASELINE])[::-1]
    figure, axes = new_figure(3.0)
    for (method, values), colour in zip(rates.items(), (BASE, BEST), strict=False):
        axes.plot(np.array(values)[order], "o", color=colour, markersize=3.5, label=method)
    axes.legend(fontsize=7)
    axes.set_xlabel("old classes, sorted by the negative flips of no_treatment")
    axes.set_ylabel("negative flips, %")
    return figure


def _sequence(runs: Runs) -> Any:
    """Plot accuracy and negative flips at every release, if the only scenario of a table has several updates.

    Of a row at several values of b, the one that was chosen on validation images is named.
    """
    found = summary.sequences(runs)
    if len(found) != 1:
        return None
    (sequences,) = found.values()
    named = {
        method: colour
        for row, colour in COLOURS.items()
        for method, _ in summary.representative(runs, row).values()
        if method in sequences
    }
    return drawing.draw_lineages(sequences, runs[0]["classes"], named)


FIGURES = {
    **{"tradeoff": _tradeoff, "sequence": _sequence, "bias": _bias, "margins": _margins, "learning": _learning},
    **{"epochs": _epochs, "classes": _classes},
}
