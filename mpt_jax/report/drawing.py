"""The look of every figure: style, colours, the PNG and SVG files, and labels that do not overlap."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

INK, FADED, GRID, PAPER = "#1a1a1a", "#8a8a8a", "#dddddd", "#ffffff"
BEST, BASE, TRADE = "#d9480f", "#2b7de0", "#8456d8"  # the best method, the baseline, the post-hoc bias
WIDTH = 7.0  # inches
_DARK = {INK: "#e6e6e6", GRID: "#3a3a3a", PAPER: "#161616"}
_DPI = 130
_STYLE = {
    **{
        "text.parse_math": False,  # a class may be called $x_
        "font.size": 9,
        "axes.labelcolor": INK,
        "text.color": INK,
    },
    **{"xtick.color": INK, "ytick.color": INK, "axes.edgecolor": FADED, "figure.facecolor": PAPER},
    **{"axes.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6},
    **{"svg.fonttype": "none", "svg.hashsalt": "mpt_jax"},  # makes the files reproducible
}
# Fonts of Linux, macOS and Windows for class names in scripts that matplotlib's own font lacks.
_SCRIPTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "IPAGothic", "NanumGothic", "Noto Sans Devanagari"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Nirmala UI"),
)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Use the project's style, independent of the user's matplotlibrc."""
    import matplotlib
    import matplotlib.style
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = {"font.family": ["sans-serif", *(name for name in _SCRIPTS if name in installed)]}
    log = logging.getLogger("matplotlib.font_manager")  # reports the weights that each of these fonts lacks
    level = log.level
    with matplotlib.style.context(["default", _STYLE, fonts]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a script that no installed font has
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def new_figure(height: float, *, panels: int = 1) -> tuple[Any, Any]:
    """Return a figure of this height in inches and its axes; with 0 panels the axes are None."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots() if panels else None


def png(figure: Any, dpi: int = _DPI) -> bytes:
    """Return the figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def svg(figure: Any) -> str:
    """Return the figure as an SVG element whose colours follow the light or dark theme; it holds no date."""
    figure.patch.set_alpha(0)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    rules = "".join(
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in _DARK.items()
        for part in ("fill", "stroke")
    )
    rules += f"text:not([style*='fill:']){{fill:{_DARK[INK]}}}"
    head, _, rest = text.partition(">")
    return f"{head}><style>@media (prefers-color-scheme: dark){{{rules}}}</style>{rest}"


def set_limits(axes: Any, points: Sequence[Sequence[float]], corners: Sequence[Sequence[float]] = ()) -> None:
    """Set the limits of both axes, in percent, so that all points and corners are inside.

    The intervals of other points may be cut off at the frame.
    """
    whole = np.transpose([*points, *corners])
    for set_one, values, inside in zip((axes.set_xlim, axes.set_ylim), np.transpose(points), whole, strict=True):
        margin = max(0.25 * np.ptp(values), 0.3)
        low, high = min(values.min() - margin, inside.min() - 0.1), max(values.max() + margin, inside.max() + 0.1)
        set_one(max(low, -0.03 * high), min(high, 100.5))  # below 0 there is only half of a marker


def label_points(
    figure: Any,
    axes: Any,
    points: Mapping[str, Sequence[float]],
    *,
    bold: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    others: Sequence[Sequence[float]] = (),
) -> None:
    """Write a name next to each point so that it covers no point, no other name and not the legend.

    Points that coincide share a name. A point without enough space gets no name.

    Args:
      figure: the figure of the axes.
      axes: where the points have been drawn.
      points: method -> place, the ones to be named first in front.
      bold: methods whose names are bold.
      names: what to write instead of the method.
      others: further places that no name may cover.
    """
    figure.draw_without_rendering()  # sets the position of the axes
    shared: dict[tuple[float, float], list[str]] = {}
    for method, point in points.items():
        shared.setdefault((round(point[0], 6), round(point[1], 6)), []).append(method)
    spots = {point: axes.transData.transform(point) * 72 / figure.dpi for point in shared}  # in points of 1/72 inch
    drawn = [*spots.values(), *(axes.transData.transform(point) * 72 / figure.dpi for point in others)]
    taken: list[Sequence[float]] = [(x - 3, y - 3, x + 3, y + 3) for x, y in drawn]
    if legend := axes.get_legend():
        taken.append(legend.get_window_extent().extents * 72 / figure.dpi)
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


def draw_lineages(sequences: Mapping[str, Any], schedule: Sequence[int], colours: Mapping[str, str]) -> Any:
    """Return a figure of accuracy and negative flips of each method at every release.

    Methods with a colour are named; the others are thin and grey.

    Args:
      sequences: method -> `metrics.sequence_metrics`.
      schedule: number of classes of every release.
      colours: method -> colour.
    """
    grey = [method for method in sequences if method not in colours]
    labels = {**dict.fromkeys(grey[:1], "other methods"), **{method: method for method in colours}}
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
    figure.axes[0].set_ylabel("accuracy on all classes so far, %")
    figure.axes[1].set_ylabel("negative flips since the previous release, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _box(spot: Sequence[float], offset: tuple[float, float], width: float, height: float) -> tuple[float, ...]:
    x = spot[0] + offset[0] - (width if offset[0] < 0 else 0 if offset[0] else width / 2)
    y = spot[1] + offset[1] - (height if offset[1] < 0 else 0 if offset[1] else height / 2)
    return x, y, x + width, y + height


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
