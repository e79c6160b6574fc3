"""The pictures of a report, each as a PNG for `report.md` and as an SVG that follows light and dark for the page.

Every text is drawn as it is: a class may be called `$x_` without being taken for a formula.
"""

import contextlib
import dataclasses
import io
import logging
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax.files import storage

Report = Mapping[str, Any]
Drawn = tuple[Any, str] | None  # a figure, and what it shows in words

INK, FADED, GRID, PAPER = "#1a1a1a", "#8a8a8a", "#dddddd", "#ffffff"
BEST, BASE, TRADE = "#d9480f", "#2b7de0", "#8456d8"  # the best method, the baseline, the trivial trade
DARK = {INK: "#e6e6e6", GRID: "#3a3a3a", PAPER: "#161616"}
TOO_FAR = 0.1  # less accurate than the baseline by this: such a point would squeeze all others
MOST_CLASSES = 20  # of a picture
_STYLE = {
    **{
        "text.parse_math": False,
        "font.size": 9,
        "axes.labelcolor": INK,
        "text.color": INK,
    },
    **{"xtick.color": INK, "ytick.color": INK, "axes.edgecolor": FADED, "figure.facecolor": PAPER},
    **{"axes.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6},
    **{"svg.fonttype": "none", "svg.hashsalt": "mpt_jax"},  # the same bytes again
}
# Fonts for class names in scripts that matplotlib's own lacks, of Linux, macOS and Windows.
_SCRIPTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "IPAGothic", "NanumGothic", "Noto Sans Devanagari"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Nirmala UI"),
)
_INCHES, _DPI = 7.0, 130


@dataclasses.dataclass(frozen=True)
class Picture:
    """A plot in both forms, and what it shows in words."""

    alt: str
    png: bytes
    svg: str


def draw(report: Report, thumbnails: Mapping[str, np.ndarray]) -> dict[str, Picture]:
    """Every picture that the report has the numbers for, by name."""
    pictures = {}
    with style():
        for name, make in (*PICTURES.items(), ("gallery", lambda report: _gallery(report, thumbnails))):
            if drawn := make(report):
                figure, alt = drawn
                pictures[name] = Picture(alt, png(figure), "" if name == "gallery" else _svg(figure))
    return pictures


def write(folder: pathlib.Path, pictures: Mapping[str, Picture]) -> None:
    """The PNG files; those of an earlier report go."""
    storage.remove(folder)
    storage.make_folder(folder)
    for name, picture in pictures.items():
        (folder / f"{name}.png").write_bytes(picture.png)


def printable(text: str, most: int = 1000) -> str:
    """The text with what cannot be printed (control characters, changes of direction) written out.

    Of a text longer than `most` the middle is left out: the ends of long names tell them apart.

    Examples:
      >>> printable("a" + chr(10) + "b"), printable("left_ventricle_7", 9)
      ('a\\\\nb', 'left…le_7')
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    half = most // 2
    return shown if len(shown) <= most else f"{shown[: most - half - 1]}…{shown[-half:]}"


def focus(report: Report) -> list[str]:
    """The methods that the details are about: the best one, where there is one, and the baseline."""
    compared = report["comparison"]
    return [method for method in (compared["best"], compared["baseline"]) if method]


def far_off(report: Report) -> list[str]:
    """The methods that the trade-off leaves out: far less accurate than the baseline, or diverged."""
    summary, known = report["summary"], report["comparison"]["methods"]
    if report["comparison"]["baseline"] not in known:
        return list(summary)
    least = summary[report["comparison"]["baseline"]]["accuracy"]["mean"] - TOO_FAR
    return [m for m in summary if m not in known or summary[m]["accuracy"]["mean"] < least]


def _tradeoff(report: Report) -> Drawn:
    """Accuracy against negative flips on test images, a point per method with its intervals."""
    summary, left_out = report["summary"], far_off(report)
    points = {m: [100 * s[key]["mean"] for key in ("accuracy", "nfr")] for m, s in summary.items() if m not in left_out}
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
    _limits(axes, list(points.values()), corners)
    axes.set_xlabel("accuracy on all classes, % of the test images")
    axes.set_ylabel("negative flips, % of the old classes' images")
    first = [*focus(report), "posthoc_bias", "independent"]
    name_points(figure, axes, {m: points[m] for m in [*first, *points] if m in points}, bold=focus(report))
    listed = "; ".join(f"{method} {x:.1f} and {y:.1f}" for method, (x, y) in points.items())
    return figure, f"Accuracy and negative flips on test images, in %, a point per method: {listed}"


def _fronts(report: Report) -> Drawn:
    """The validation front of each method; the post-hoc bias is a curve of its own."""
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
    _limits(axes, [point for front in fronts.values() for point in front])
    axes.set_xlabel("accuracy on all classes, % of the validation images")
    axes.set_ylabel("negative flips, % of the old classes' images")
    first = [*focus(report), "posthoc_bias"]
    ends = {method: front[-1] for method, front in fronts.items()}
    several = {m: ends[m] for m in [*first, *sorted(ends, key=lambda m: -len(fronts[m]))] if m in ends}
    everywhere = [point for front in fronts.values() for point in front]
    name_points(figure, axes, several, bold=focus(report), others=everywhere)
    return figure, "Accuracy against negative flips on validation images, a line per method through its best candidates"


def _sequence(report: Report) -> Drawn:
    """Accuracy and negative flips at every release."""
    if not report["sequences"]:
        return None
    shown = [m for m in report["sequences"] if m in focus(report) or m == "posthoc_bias"]
    figure = lineages(
        report["sequences"], report["classes"]["schedule"], {method: _colour(report, method) for method in shown}
    )
    return figure, "Accuracy and negative flips of each method at every release"


def lineages(sequences: Mapping[str, Any], schedule: Sequence[int], colours: Mapping[str, str]) -> Any:
    """Accuracy and negative flips of each method at every release (see `metrics.sequence_metrics`).

    The methods that have a colour are named, the others are thin and grey.
    """
    grey = [method for method in sequences if method not in colours]
    labels = {**dict.fromkeys(grey[:1], "the others"), **{method: method for method in colours}}
    figure = new_figure(3.6, panels=0)[0]
    panels = (("accuracy_of_release", 0), ("nfr_against_previous", 1))
    for axes, (key, first) in zip(figure.subplots(1, 2), panels, strict=True):
        for method, lineage in sequences.items():
            shown = method in colours
            axes.plot(
                *(range(first, len(schedule)), [100 * value for value in lineage[key][first:]]),
                **{"color": colours.get(method, FADED), "label": labels.get(method)},
                **{"linestyle": "--" if method == "posthoc_bias" else "-", "linewidth": 1.8 if shown else 0.7},
                **{"marker": "o", "markersize": 4 if shown else 2.5, "zorder": 3 if shown else 2},
            )
        axes.set_xticks(range(first, len(schedule)), [str(count) for count in schedule[first:]])
        axes.set_xlabel("classes of the release")
        axes.set_ylim(0, None)
    figure.axes[0].set_ylabel("accuracy on the classes known, %")
    figure.axes[1].set_ylabel("negative flips since the release before, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _classes(report: Report) -> Drawn:
    """Negative flips per old class: the best method against the baseline."""
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
        # A ring around a disc: of equal values both are seen.
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
    """Which class the flipped images of which old class go to."""
    if not report["flips"]:
        return None
    method = focus(report)[0]
    flips = report["flips"][method]["confusion"]
    if not flips:
        return None
    num_old = report["classes"]["schedule"][-2]
    sums = [np.zeros(len(report["classes"]["order"]), int) for _ in range(2)]
    for label, answer, count in flips:
        sums[0][label] += count
        sums[1][answer] += count
    kept = [np.sort(np.argsort(-total, kind="stable")[: min(MOST_CLASSES, np.count_nonzero(total))]) for total in sums]
    table = np.zeros([len(side) for side in kept], int)
    for label, answer, count in flips:
        if label in kept[0] and answer in kept[1]:
            table[np.searchsorted(kept[0], label), np.searchsorted(kept[1], answer)] = count
    cell = 0.34
    figure, axes = new_figure(1.3 + cell * len(kept[0]) + 0.06 * max(map(len, _class_names(report, kept[1]))))
    axes.grid(False)
    for (row, column), count in np.ndenumerate(table):
        if count:
            depth = count / table.max()
            axes.add_patch(_patch(column, row, BEST, 0.12 + 0.78 * depth))
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, zorder=3)
    border = np.searchsorted(kept[1], num_old) - 0.5
    if -0.5 < border < len(kept[1]) - 0.5:
        axes.axvline(border, color=INK, linewidth=1, linestyle=":")
        axes.text(border + 0.08, -0.62, "new classes", ha="left", va="bottom", fontsize=8)
    axes.set_xlim(-0.5, len(kept[1]) - 0.5)
    axes.set_ylim(len(kept[0]) - 0.5, -0.5)
    axes.set_aspect("equal" if len(kept[1]) * cell < _INCHES - 2 else "auto")
    axes.set_xticks(range(len(kept[1])), _class_names(report, kept[1]), rotation=90 if _long(report, kept[1]) else 0)
    axes.set_yticks(range(len(kept[0])), _class_names(report, kept[0]))
    axes.set_xlabel("new model's answer")
    axes.set_ylabel("true class")
    return figure, f"Where the flipped images of {method} go, by class and new answer"


def _margins(report: Report) -> Drawn:
    """By how much the old classes' images are won, before and after the update."""
    methods = [*focus(report), *(m for m in report["flips"] if m not in focus(report) and m != "independent")][:3]
    found = {m: report["flips"][m]["margins"] for m in dict.fromkeys([*methods, "independent"]) if m in report["flips"]}
    found = {method: margins for method, margins in found.items() if margins}
    if not found:
        return None
    figure = new_figure(0.6 + 1.35 * len(found), panels=0)[0]
    panels = figure.subplots(len(found), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (method, margins) in zip(panels, found.items(), strict=True):
        edges, images = np.array(margins["edges"]), sum(margins["before"])
        for key, look in (
            ("before", {"color": FADED, "fill": True, "alpha": 0.35}),
            ("after", {"color": _colour(report, method, INK), "linewidth": 1.6}),
        ):
            share = 100 * np.array(margins[key]) / images / np.diff(edges)
            axes.stairs(share, edges, label={"before": "old model", "after": method}[key], **look)
        axes.axvline(0, color=INK, linewidth=1)
        axes.legend(loc="upper left", fontsize=8)
        axes.set_ylabel("% per logit")
        axes.grid(False)
    panels[-1].set_xlabel("margin of the true class over the best other one, logits (below 0: wrong)")
    return figure, f"Margins of the old classes' test images before and after the update, for {', '.join(found)}"


def _bias(report: Report) -> Drawn:
    """Accuracy and negative flips on validation images as the bias on the new classes grows."""
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
        axes.set_xlabel("bias on the new classes (b, or c after training)")
    figure.axes[0].set_ylabel("validation accuracy, %")
    figure.axes[1].set_ylabel("validation negative flips, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure, f"Accuracy and negative flips by the bias on the new classes, for {', '.join(swept)}"


def _gallery(report: Report, thumbnails: Mapping[str, np.ndarray]) -> Drawn:
    """The flipped images of the best method."""
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
        answers = ((image["label"], image["confidence_old"]), (image["answer"], image["confidence_new"]))
        lines_of_text = [f"{printable(names[k], 10)} {100 * sure:.0f} %" for k, sure in answers]
        axes.set_title("\n→ ".join(lines_of_text), fontsize=7.5)
    return figure, "Flipped images, each with the old model's answer above and the new one's below"


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
    """The negative flip rate of each old class over all seeds; None without images."""
    counts = report["flips"][method]["per_class"]
    return [flips / n if n else None for flips, n in zip(counts["negative_flips"], counts["count"], strict=True)]


def swept_bias(report: Report) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """Per method that was tried with several biases and nothing else: each with its candidate, rising."""
    swept = {}
    for method, choice in report["selection"].items():
        keys = {tuple(tried["numbers"]) for tried in choice["candidates"]}
        if len(choice["candidates"]) > 2 and keys <= {("bias",), ("posthoc_bias",)} and len(keys) == 1:
            (key,) = keys.pop()
            tried = [(t["numbers"][key], t) for t in choice["candidates"] if not t.get("diverged")]
            swept[method] = sorted(tried, key=lambda pair: pair[0])
    return swept


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The project's look, whatever a user's own matplotlibrc says."""
    import matplotlib
    import matplotlib.style
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = {"font.family": ["sans-serif", *(name for name in _SCRIPTS if name in installed)]}
    log = logging.getLogger("matplotlib.font_manager")  # says of each of these which weights it lacks
    level = log.level
    with matplotlib.style.context(["default", _STYLE, fonts]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a class name in a script that the fonts lack
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def new_figure(height: float, *, panels: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES, height), layout="constrained")
    return figure, figure.subplots() if panels else None


def _patch(column: float, row: float, colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, color=colour, alpha=alpha, linewidth=0)


def png(figure: Any, dpi: int = _DPI) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def _svg(figure: Any) -> str:
    """With a rule for each colour that is another one on a dark page; no date, so that it is the same again."""
    figure.patch.set_alpha(0)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    rules = "".join(
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    )
    rules += f"text:not([style*='fill:']){{fill:{DARK[INK]}}}"
    head, _, rest = text.partition(">")
    return f"{head}><style>@media (prefers-color-scheme: dark){{{rules}}}</style>{rest}"


def _colour(report: Report, method: str, other: str = FADED) -> str:
    compared = report["comparison"]
    known = {"posthoc_bias": TRADE, compared["baseline"]: BASE, compared["best"]: BEST}
    return known.get(method, other)


def _class_names(report: Report, positions: Sequence[int]) -> list[str]:
    return [printable(report["classes"]["order"][k], 18) for k in positions]


def _long(report: Report, positions: Sequence[int]) -> bool:
    return max(map(len, _class_names(report, positions))) > 3


def _limits(axes: Any, points: Sequence[Sequence[float]], corners: Sequence[Sequence[float]] = ()) -> None:
    """Room for the points and what else must be seen; the intervals of other points may be cut off."""
    whole = np.transpose([*points, *corners])
    for set_limits, values, seen in zip((axes.set_xlim, axes.set_ylim), np.transpose(points), whole, strict=True):
        room = max(0.25 * np.ptp(values), 0.3)
        low, high = min(values.min() - room, seen.min() - 0.1), max(values.max() + room, seen.max() + 0.1)
        set_limits(max(low, -0.2), min(high, 100.5))


def name_points(
    figure: Any,
    axes: Any,
    points: Mapping[str, Sequence[float]],
    *,
    bold: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    others: Sequence[Sequence[float]] = (),
) -> None:
    """A name beside each point where it covers none, nor the legend; points that coincide share one, some stay without.

    Args:
      points: method -> place, the ones to be named first in front.
      names: what is written instead of the method.
      others: further places that no name may cover.
    """
    figure.draw_without_rendering()  # so that the axes have their place
    shared: dict[tuple[float, float], list[str]] = {}
    for method, point in points.items():
        shared.setdefault((round(point[0], 6), round(point[1], 6)), []).append(method)
    spots = {point: axes.transData.transform(point) * 72 / figure.dpi for point in shared}  # in points of 1/72 inch
    drawn = [*spots.values(), *(axes.transData.transform(point) * 72 / figure.dpi for point in others)]
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in drawn]
    if legend := axes.get_legend():
        taken.append(tuple(legend.get_window_extent().extents * 72 / figure.dpi))
    frame = axes.get_window_extent()
    left, bottom, right, top = np.array([frame.x0, frame.y0, frame.x1, frame.y1]) * 72 / figure.dpi
    for point, methods in shared.items():
        is_bold, first = bool({*methods} & {*bold}), methods[0]
        text = (names or {}).get(first, first) + (f" (+{len(methods) - 1})" if len(methods) > 1 else "")
        width, height = (5.7 if is_bold else 5.0) * len(text), 10.0
        for far in (4, 10, 18, 28):
            places = [(far, far), (-far, far), (far, -far), (-far, -far), (far, 0), (-far, 0), (0, far), (0, -far)]
            boxes = [_box(spots[point], offset, width, height) for offset in places]
            free = [
                (offset, box)
                for offset, box in zip(places, boxes, strict=True)
                if left <= box[0] and box[2] <= right and bottom <= box[1] and box[3] <= top
                if not any(_overlap(box, other) for other in taken)
            ]
            if free:
                offset, box = free[0]
                taken.append(box)
                sides = ["right" if offset[0] < 0 else "left" if offset[0] else "center"]
                sides.append("top" if offset[1] < 0 else "bottom" if offset[1] else "center")
                line = {"arrowstyle": "-", "color": FADED, "linewidth": 0.5} if far > 4 else None
                axes.annotate(
                    *(text, point, offset),
                    **{"textcoords": "offset points", "ha": sides[0], "va": sides[1], "fontsize": 8, "zorder": 5},
                    **{"arrowprops": line, "fontweight": "bold" if is_bold else "normal"},
                    bbox={"facecolor": PAPER, "alpha": 0.7, "linewidth": 0, "pad": 0.5},
                )
                break


def _box(spot: Sequence[float], offset: tuple[float, float], width: float, height: float) -> tuple[float, ...]:
    x = spot[0] + offset[0] - (width if offset[0] < 0 else 0 if offset[0] else width / 2)
    y = spot[1] + offset[1] - (height if offset[1] < 0 else 0 if offset[1] else height / 2)
    return x, y, x + width, y + height


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
