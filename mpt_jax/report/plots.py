"""The pictures of a report, each as a PNG for `report.md` and as an SVG for the page that follows light and dark."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mpt_jax.errors import printable
from mpt_jax.files import storage
from mpt_jax.report.drawing import (
    BASE,
    BEST,
    FADED,
    INK,
    TRADE,
    WIDTH,
    draw_lineages,
    label_points,
    new_figure,
    png,
    set_limits,
    style,
    svg,
)

Report = Mapping[str, Any]
Drawn = tuple[Any, str] | None  # a figure and its description, None if the report lacks the numbers

TOO_FAR = 0.1  # accuracy below the baseline at which a method is omitted: it would compress the scale of the others
MOST_CLASSES = 20  # in one picture


@dataclasses.dataclass(frozen=True)
class Picture:
    """A plot in both forms, and its description in words."""

    alt: str
    png: bytes
    svg: str


def draw(report: Report, thumbnails: Mapping[str, np.ndarray]) -> dict[str, Picture]:
    """Draw every picture that the report has the numbers for; return them by name."""
    pictures = {}
    with style():
        for name, make in (*PICTURES.items(), ("gallery", lambda report: _gallery(report, thumbnails))):
            if drawn := make(report):
                figure, alt = drawn
                pictures[name] = Picture(alt, png(figure), "" if name == "gallery" else svg(figure))
    return pictures


def write(folder: pathlib.Path, pictures: Mapping[str, Picture]) -> None:
    """Write the PNG files, in place of those of an earlier report."""
    storage.remove(folder)
    storage.make_folder(folder)
    for name, picture in pictures.items():
        storage.write_bytes(folder / f"{name}.png", picture.png)


def focus(report: Report) -> list[str]:
    """Return the methods that the details are about: the best one, if there is one, and the baseline."""
    compared = report["comparison"]
    return [method for method in (compared["best"], compared["baseline"]) if method]


def far_off(report: Report) -> list[str]:
    """Return the methods that the trade-off omits: far less accurate than the baseline, or diverged."""
    summary, known = report["summary"], report["comparison"]["methods"]
    if report["comparison"]["baseline"] not in known:
        return list(summary)
    least = summary[report["comparison"]["baseline"]]["accuracy"]["mean"] - TOO_FAR
    return [m for m in summary if m not in known or summary[m]["accuracy"]["mean"] < least]


def _tradeoff(report: Report) -> Drawn:
    """Plot accuracy against negative flips on test images, a point per method with its intervals."""
    summary, omitted = report["summary"], far_off(report)
    points = {m: [100 * s[key]["mean"] for key in ("accuracy", "nfr")] for m, s in summary.items() if m not in omitted}
    if not points:
        return None
    figure, axes = new_figure(4.6)
    for method, point in points.items():
        found = report["comparison"]["methods"][method]
        ends = [found[key]["interval"] for key in ("accuracy", "nfr")]
        bars = [
            np.abs(100 * np.array(end)[:, None] - value) if end else None
            for end, value in zip(ends, point, strict=True)
        ]
        shown = method in focus(report)
        axes.errorbar(
            *(point[0], point[1], bars[1], bars[0], "o"),
            **{"color": _colour(report, method), "markersize": 6.5 if shown else 4.5, "zorder": 4 if shown else 3},
            **{"elinewidth": 1.3 if shown else 0.5},
        )
    found = [report["comparison"]["methods"][method] for method in focus(report) if method in points]
    intervals = [[f[key]["interval"] for key in ("accuracy", "nfr")] for f in found]
    corners = [[100 * end for end in ends] for pair in intervals if all(pair) for ends in zip(*pair, strict=True)]
    set_limits(axes, list(points.values()), corners)
    axes.set_xlabel("accuracy on all classes, % of the test images")
    axes.set_ylabel("negative flips, % of the old classes' images")
    first = [*focus(report), "posthoc_bias", "independent"]
    label_points(figure, axes, {m: points[m] for m in [*first, *points] if m in points}, bold=focus(report))
    listed = "; ".join(f"{method} {x:.1f} and {y:.1f}" for method, (x, y) in points.items())
    return figure, f"Accuracy and negative flips on test images, in %, a point per method: {listed}"


def _fronts(report: Report) -> Drawn:
    """Plot the validation front of each method; the post-hoc bias is dashed."""
    fronts = {
        method: sorted((100 * p["accuracy"], 100 * p["nfr"]) for p in front["points"])
        for method, front in report["fronts"].items()
    }
    if not any(len(front) > 1 for front in fronts.values()):
        return None
    least = 100 * (report["fronts"]["no_treatment"]["baseline_accuracy"] - TOO_FAR)
    fronts = {m: near for m, front in fronts.items() if (near := [point for point in front if point[0] >= least])}
    figure, axes = new_figure(4.6)
    for method, front in fronts.items():
        trade, shown = method == "posthoc_bias", method in focus(report)
        axes.plot(
            *np.transpose(front),
            **{"color": _colour(report, method), "marker": "s" if trade else "o", "linestyle": "--" if trade else "-"},
            **{"markersize": 5 if shown or trade else 3.5, "linewidth": 1.8 if shown or trade else 0.9},
            **{"zorder": 4 if shown else 3},
        )
    set_limits(axes, [point for front in fronts.values() for point in front])
    axes.set_xlabel("accuracy on all classes, % of the validation images")
    axes.set_ylabel("negative flips, % of the old classes' images")
    first = [*focus(report), "posthoc_bias"]
    ends = {method: front[-1] for method, front in fronts.items()}
    several = {m: ends[m] for m in [*first, *sorted(ends, key=lambda m: -len(fronts[m]))] if m in ends}
    everywhere = [point for front in fronts.values() for point in front]
    label_points(figure, axes, several, bold=focus(report), others=everywhere)
    return figure, "Accuracy and negative flips on validation images, a line per method through its best candidates"


def _sequence(report: Report) -> Drawn:
    """Plot accuracy and negative flips at every release."""
    if not report["sequences"]:
        return None
    shown = [m for m in report["sequences"] if m in focus(report) or m == "posthoc_bias"]
    figure = draw_lineages(
        report["sequences"], report["classes"]["schedule"], {method: _colour(report, method) for method in shown}
    )
    return figure, "Accuracy and negative flips of each method at every release"


def _classes(report: Report) -> Drawn:
    """Plot negative flips per old class of the best method and the baseline."""
    if not report["flips"]:
        return None
    rates = {method: class_rates(report, method) for method in focus(report)}
    worst = sorted(range(len(next(iter(rates.values())))), key=lambda k: -max(rate[k] or 0 for rate in rates.values()))
    worst = worst[:MOST_CLASSES][::-1]
    figure, axes = new_figure(1.1 + 0.24 * len(worst))
    names = _class_names(report, worst)
    for row, k in enumerate(worst):
        ends = [100 * (rate[k] or 0) for rate in rates.values()]
        axes.plot([min(ends), max(ends)], [row, row], color=FADED, linewidth=1.5, zorder=2)
    for method, rate in rates.items():
        values = [100 * (rate[k] or 0) for k in worst]
        # A disc inside a ring, so that equal values are both visible.
        best = method == focus(report)[0]
        shape = {"markersize": 6 if best else 9, "markeredgewidth": 2, "fillstyle": "full" if best else "none"}
        axes.plot(values, range(len(worst)), "o", color=_colour(report, method), label=method, zorder=3, **shape)
    axes.set_yticks(range(len(worst)), names)
    axes.set_xlabel("negative flips, % of the class's test images")
    axes.set_xlim(0, None)
    axes.set_ylim(-0.6, len(worst) - 0.4)
    figure.legend(loc="outside upper center", ncols=2)
    return figure, f"Negative flips of each old class for {' and '.join(rates)}"


def _confusion(report: Report) -> Drawn:
    """Plot as which class the flipped images of each old class are now predicted."""
    if not report["flips"]:
        return None
    method = focus(report)[0]
    flips = report["flips"][method]["confusion"]
    if not flips:
        return None
    num_old = report["classes"]["not_new"]
    sums = [np.zeros(len(report["classes"]["order"]), int) for _ in range(2)]
    for label, predicted, count in flips:
        sums[0][label] += count
        sums[1][predicted] += count
    kept = [np.sort(np.argsort(-total, kind="stable")[: min(MOST_CLASSES, np.count_nonzero(total))]) for total in sums]
    table = np.zeros([len(side) for side in kept], int)
    for label, predicted, count in flips:
        if label in kept[0] and predicted in kept[1]:
            table[np.searchsorted(kept[0], label), np.searchsorted(kept[1], predicted)] = count
    cell = 0.34
    figure, axes = new_figure(1.3 + cell * len(kept[0]) + 0.06 * max(map(len, _class_names(report, kept[1]))))
    axes.grid(False)
    for (row, column), count in np.ndenumerate(table):
        if count:
            share = count / table.max()
            axes.add_patch(_patch(column, row, BEST, 0.12 + 0.78 * share))
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, zorder=3)
    border = np.searchsorted(kept[1], num_old) - 0.5
    if -0.5 < border < len(kept[1]) - 0.5:
        axes.axvline(border, color=INK, linewidth=1, linestyle=":")
        axes.text(border + 0.08, -0.62, "new classes", ha="left", va="bottom", fontsize=8)
    axes.set_xlim(-0.5, len(kept[1]) - 0.5)
    axes.set_ylim(len(kept[0]) - 0.5, -0.5)
    axes.set_aspect("equal" if len(kept[1]) * cell < WIDTH - 2 else "auto")
    axes.set_xticks(range(len(kept[1])), _class_names(report, kept[1]), rotation=90 if _long(report, kept[1]) else 0)
    axes.set_yticks(range(len(kept[0])), _class_names(report, kept[0]))
    axes.set_xlabel("prediction of the new model")
    axes.set_ylabel("true class")
    return figure, f"Number of images that flip with {method}, by true class and new prediction"


def _margins(report: Report) -> Drawn:
    """Plot the margins of the old classes' images before and after the update."""
    methods = [*focus(report), *(m for m in report["flips"] if m not in focus(report) and m != "independent")][:3]
    found = {m: report["flips"][m]["margins"] for m in dict.fromkeys([*methods, "independent"]) if m in report["flips"]}
    found = {method: margins for method, margins in found.items() if margins}
    if not found:
        return None
    figure = new_figure(0.6 + 1.35 * len(found), panels=0)[0]
    panels = figure.subplots(len(found), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (method, margins) in zip(panels, found.items(), strict=True):
        edges, images = np.array(margins["edges"]), sum(margins["before"])
        for key, line in (
            ("before", {"color": FADED, "fill": True, "alpha": 0.35}),
            ("after", {"color": _colour(report, method, INK), "linewidth": 1.6}),
        ):
            share = 100 * np.array(margins[key]) / images / np.diff(edges)
            axes.stairs(share, edges, label={"before": "old model", "after": method}[key], **line)
        axes.axvline(0, color=INK, linewidth=1)
        axes.legend(loc="upper left", fontsize=8)
        axes.set_ylabel("% of images\nper logit")
        axes.grid(False)
    panels[-1].set_xlabel("margin: logit of the true class minus the largest other logit (below 0: wrong)")
    return figure, f"Margins of the old classes' test images before and after the update, for {', '.join(found)}"


def _bias(report: Report) -> Drawn:
    """Plot accuracy and negative flips on validation images against the bias on the new classes."""
    swept = swept_bias(report)
    if not swept:
        return None
    figure = new_figure(3.4, panels=0)[0]
    for axes, key in zip(figure.subplots(1, 2), ("accuracy", "nfr"), strict=True):
        for method, tried in swept.items():
            axes.plot(
                *np.transpose([(number, 100 * candidate[key]) for number, candidate in tried]),
                **{"color": _colour(report, method), "label": method, "markersize": 4},
                **{
                    "marker": "s" if method == "posthoc_bias" else "o",
                    "linestyle": "--" if method == "posthoc_bias" else "-",
                },
            )
        axes.set_xlabel("bias on the new classes (b in training, c after it)")
    figure.axes[0].set_ylabel("validation accuracy, %")
    figure.axes[1].set_ylabel("validation negative flips, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure, f"Accuracy and negative flips by the bias on the new classes, for {', '.join(swept)}"


def _gallery(report: Report, thumbnails: Mapping[str, np.ndarray]) -> Drawn:
    """Show the flipped images of the best method."""
    images = report["flips"][focus(report)[0]]["images"] if report["flips"] else []
    images = [image for image in images if image["id"] in thumbnails]
    if not images:
        return None
    columns = 6
    lines = -(-len(images) // columns)
    figure = new_figure(1.55 * lines, panels=0)[0]
    names = report["classes"]["order"]
    for axes in figure.subplots(lines, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, image in zip(figure.axes, images, strict=False):
        thumbnail = thumbnails[image["id"]]
        axes.imshow(thumbnail.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        predictions = ((image["label"], image["confidence_old"]), (image["answer"], image["confidence_new"]))
        lines_of_text = [f"{printable(names[k], 10)} {100 * sure:.0f} %" for k, sure in predictions]
        axes.set_title("\n→ ".join(lines_of_text), fontsize=7.5)
    return figure, "Flipped images, each with the prediction of the old model above that of the new one"


PICTURES = {
    "tradeoff": _tradeoff,
    "fronts": _fronts,
    "sequence": _sequence,
    "classes": _classes,
    "confusion": _confusion,
    "margins": _margins,
    "bias": _bias,
}


def class_rates(report: Report, method: str) -> list[float | None]:
    """Return the negative flip rate of each old class over all seeds; None for a class without images."""
    counts = report["flips"][method]["per_class"]
    return [flips / n if n else None for flips, n in zip(counts["negative_flips"], counts["count"], strict=True)]


def swept_bias(report: Report) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """Return, for each method tuned over three biases or more and nothing else, its candidates by rising bias."""
    swept = {}
    for method, choice in report["selection"].items():
        keys = {tuple(tried["numbers"]) for tried in choice["candidates"]}
        if len(choice["candidates"]) > 2 and keys <= {("bias",), ("posthoc_bias",)} and len(keys) == 1:
            (key,) = keys.pop()
            tried = [(t["numbers"][key], t) for t in choice["candidates"] if not t.get("diverged")]
            swept[method] = sorted(tried, key=lambda pair: pair[0])
    return swept


def _patch(column: float, row: float, colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, color=colour, alpha=alpha, linewidth=0)


def _colour(report: Report, method: str, other: str = FADED) -> str:
    compared = report["comparison"]
    known = {"posthoc_bias": TRADE, compared["baseline"]: BASE, compared["best"]: BEST}
    return known.get(method, other)


def _class_names(report: Report, positions: Iterable[int]) -> list[str]:
    return [printable(report["classes"]["order"][k], 18) for k in positions]


def _long(report: Report, positions: Iterable[int]) -> bool:
    return max(map(len, _class_names(report, positions))) > 3
