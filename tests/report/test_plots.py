"""What is drawn covers nothing else that is drawn, and can be read."""

import itertools
import types

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.text import Text

from mpt_jax.report import plots


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("place", ["upper right", "lower left"])
def test_names_of_points_keep_off_the_legend_the_points_and_each_other(seed, place):
    with plots.style():
        figure, axes = plots.new_figure(3.0)
        points = {f"method_{i}": point for i, point in enumerate(np.random.default_rng(seed).uniform(size=(40, 2)))}
        for method, point in points.items():
            axes.plot(*point, "o", markersize=4.5, label=method if len(method) == 8 else None)  # those of one digit
        axes.set(xlim=(0, 1), ylim=(0, 1))
        legend = axes.legend(fontsize=7, loc=place)
        plots.name_points(figure, axes, points, bold=["method_3"])
        figure.draw_without_rendering()
        names = [Text.get_window_extent(name) for name in axes.texts]  # without the lines to the points
        spots = axes.transData.transform(list(points.values()))
        assert 5 < len(names) < len(points)  # where there is no room left some stay without
        frame = axes.get_window_extent().padded(1)
        for box in names:
            assert not box.overlaps(legend.get_window_extent())
            assert not any(box.contains(*spot) for spot in spots)
            assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        assert not any(one.overlaps(other) for one, other in itertools.combinations(names, 2))


def test_names_in_other_scripts_are_drawn_where_the_system_has_a_font_for_them(monkeypatch):
    installed = [types.SimpleNamespace(name=name) for name in ("DejaVu Sans", "PingFang SC", "Comic Sans")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", installed)
    with plots.style():
        assert matplotlib.rcParams["font.family"] == ["sans-serif", "PingFang SC"]
    assert matplotlib.rcParams["font.family"] == ["sans-serif"]
