"""The section of a report that compares all methods: rates, trade-off, fronts, and how numbers were chosen."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from mpt_jax.methods import DERIVED
from mpt_jax.report import plots, table
from mpt_jax.report.blocks import Folded, Plot, Points, Table, Text, percent, points


def blocks(report: dict[str, Any], plot: Callable[[str, str], list[Plot]]) -> list[Any]:
    """Return the table of methods, the plot of the trade-off, and the details of the choice on validation images."""
    headings, rows = table.cells(report)
    last = report["rows"][-1]["release"]
    previous = [row["accuracy_previous"] for row in report["rows"] if row["release"] == last]
    seeds = len({row["seed"] for row in report["rows"]})
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    caption = "Test images; lower right is better. Bars are 95 % intervals and may be cut off at the frame."
    if omitted := plots.far_off(report):
        names = ", ".join(f"`{method}`" for method in omitted)
        caption += (
            f" Not shown, as diverged or more than {points(plots.TOO_FAR)} less accurate than the baseline: {names}."
        )
    several = bool(report["sequences"])
    averages = ["methods"] * several + ["seeds"] * (seeds > 1)
    averaged = f" (mean over {' and '.join(averages)})" if averages else ""
    return [
        Text(f"Rates in %, {over}." + (" Of the last release." if several else "")),
        Table(headings, rows, meanings=dict(table.columns())),
        Text(
            f"{'The previous releases predict' if several else 'The old model predicts'} "
            f"{percent(statistics.fmean(previous))} % of the old classes' test images correctly"
            f"{averaged}; no method can have more negative flips."
        ),
        *plot("tradeoff", caption),
        Folded("Columns", [Points([f"**{name}**: {meaning}." for name, meaning in table.columns()])]),
        Folded("Methods", [Points([f"`{name}`: {meaning}." for name, meaning in table.methods(report)])]),
        *_fronts(report, plot),
        *_selection(report),
    ]


def tuned_numbers(tuned: Mapping[str, float]) -> str:
    """Return tuned numbers as text.

    Examples:
      >>> tuned_numbers({"bias": 2.0, "old.weight": 0.5})
      'b = 2, old.weight = 0.5'
    """
    names = {"bias": "b"} | {row.number.name: row.number.symbol for row in DERIVED.values() if row.number}
    return ", ".join(f"{names.get(name, name)} = {value:.3g}" for name, value in tuned.items()) or "as published"


def _fronts(report: dict[str, Any], plot: Callable[[str, str], list[Plot]]) -> list[Any]:
    """Return the validation front of every method and its negative flips at equal accuracy."""
    fronts = report["fronts"]
    if not any(len(front["points"]) > 1 for front in fronts.values()):
        return []
    base = fronts["no_treatment"]["baseline_accuracy"]
    flips = fronts["no_treatment"]["nfr_at_baseline_accuracy"]
    rows = []
    for method, front in fronts.items():
        value = front["nfr_at_baseline_accuracy"]
        change = (
            f"{100 * (value / flips - 1):+.0f} %" if value is not None and flips and method != "no_treatment" else "-"
        )
        ends = [f"{percent(p['accuracy'])} / {percent(p['nfr'])}" for p in (front["points"][0], front["points"][-1])]
        rows.append([method, percent(value), change, *ends, str(len(front["points"]))])
    headings = ["method", "negative flips", "flips vs none", "fewest flips", "most accurate", "candidates"]
    caption = "Validation images; lower right is better. A line joins the best candidates of one method."
    if "posthoc_bias" in fronts:
        caption += (
            " `posthoc_bias` (dashed) needs no training: a method is worth its training only below the dashed line."
        )
    return [
        *plot("fronts", caption),
        Folded(
            "Negative flips at equal accuracy",
            [
                Text(
                    f"On validation images, at the {percent(base)} % accuracy of `no_treatment`, interpolated between "
                    "the candidates of a method that none of its others beats (its front). A dash: no candidate is "
                    "that accurate. If the whole front is more accurate, its lowest rate counts."
                ),
                Table(headings, rows),
                Text("Fewest flips, most accurate: accuracy / negative flips at the ends of the front, in %."),
            ],
        ),
    ]


def _selection(report: dict[str, Any]) -> list[Any]:
    """Return how numbers were chosen, for the methods with several candidates."""
    choices = {method: choice for method, choice in report["selection"].items() if len(choice["candidates"]) > 1}
    if not choices:
        return []
    rows = [
        [
            method,
            tuned_numbers(tried["numbers"]) + " (chosen)" * (i == choice["chosen"]),
            *("diverged" if tried.get("diverged") else percent(tried[key]) for key in ("accuracy", "nfr")),
        ]
        for method, choice in choices.items()
        for i, tried in enumerate(choice["candidates"])
    ]
    headings = ["method", "numbers", "validation accuracy", "validation negative flips"]
    return [Folded("How numbers were chosen", [Text(_rule(report)), Table(headings, rows, left=2)])]


def _rule(report: dict[str, Any]) -> str:
    method, first = next(found for found in report["selection"].items() if len(found[1]["candidates"]) > 1)
    number = DERIVED[method].number if method in DERIVED else None
    reference = "first candidate" if number and number.candidates else "independent model"
    required, tolerance = first["required_accuracy"], report["config"]["update"]["tolerance"]
    return (
        f"Chosen on {first['validation_images']} validation images, split from the training images: the candidate with "
        f"the fewest negative flips among those with at least {percent(required)} % accuracy (that of the "
        f"{reference} minus the tolerance of {points(tolerance)}), else the most accurate one. One image is "
        f"{100 / first['validation_images']:.2g} percentage points, so close choices depend on chance, which the "
        "standard deviations do not include."
    )
