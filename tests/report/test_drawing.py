"""Labels overlap nothing, and class names in any script can be drawn."""

import itertools
import types

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.text import Text

from mpt_jax.report import drawing


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("place", ["upper right", "lower left"])
def test_labels_overlap_neither_the_legend_nor_points_nor_each_other(seed, place):
    with drawing.style():
        figure, axes = drawing.new_figure(3.0)
        points = {f"method_{i}": point for i, point in enumerate(np.random.default_rng(seed).uniform(size=(40, 2)))}
        for method, point in points.items():
            axes.plot(*point, "o", markersize=4.5, label=method if len(method) == 8 else None)  # ten in the legend
        axes.set(xlim=(0, 1), ylim=(0, 1))
        legend = axes.legend(fontsize=7, loc=place)
        drawing.label_points(figure, axes, points, bold=["method_3"])
        figure.draw_without_rendering()
        names = [Text.get_window_extent(name) for name in axes.texts]  # without the line to the point
        spots = axes.transData.transform(list(points.values()))
        assert 5 < len(names) < len(points)  # a point without enough space has no name
        frame = axes.get_window_extent().padded(1)
        for box in names:
            assert not box.overlaps(legend.get_window_extent())
            assert not any(box.contains(*spot) for spot in spots)
            assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        assert not any(one.overlaps(other) for one, other in itertools.combinations(names, 2))


def test_names_in_other_scripts_are_drawn_if_a_font_is_installed(monkeypatch):
    installed = [types.SimpleNamespace(name=name) for name in ("DejaVu Sans", "PingFang SC", "Comic Sans")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", installed)
    with drawing.style():
        assert matplotlib.rcParams["font.family"] == ["sans-serif", "PingFang SC"]
    assert matplotlib.rcParams["font.family"] == ["sans-serif"]


def test_limits_hold_all_points_and_end_just_below_zero():
    axes = drawing.new_figure(3.0)[1]
    drawing.set_limits(axes, [(96.0, 0.0), (97.0, 1.4)], [(95.0, 0.1), (99.9, 2.0)])
    assert axes.get_xlim() == pytest.approx((94.9, 100.0)) and axes.get_ylim() == pytest.approx((-0.063, 2.1))


def test_an_svg_follows_the_dark_theme_and_is_reproducible():
    def draw():
        with drawing.style():
            figure, axes = drawing.new_figure(2.0)
            axes.plot([0, 1], [0, 1], label="$x_")
            axes.legend()
            return drawing.svg(figure)

    text = draw()
    assert text == draw() and text.startswith("<svg") and "prefers-color-scheme: dark" in text and "$x_" in text
