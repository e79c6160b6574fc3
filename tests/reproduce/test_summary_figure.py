"""The figure of the first page."""

import copy

import numpy as np
import pytest
from matplotlib.figure import Figure

from mpt_jax.reproduce import page, results, summary_figure, tables
from mpt_jax.reproduce.__main__ import ROOT


def test_curves_are_averaged_over_seeds_and_begin_at_the_best_accuracy_or_as_trained():
    one = {"seeds": [0, 1, 2], "curves": {"a": [[-1.0, 0.5, 0.4], [1.0, 0.7, 0.2], [3.0, 0.1, 0.0]]}}
    other = {"seeds": [3], "curves": {"a": [[-1.0, 0.9, 0.8], [3.0, 0.5, 0.0]]}}
    # The best mean is at c = 1, but the model as trained is at c = 0, between the two points before it.
    curve = summary_figure.mean_curve([one, other], "a")
    np.testing.assert_allclose(curve, [[(3 * 0.7 + 0.7) / 4, (3 * 0.2 + 0.4) / 4], [(3 * 0.1 + 0.5) / 4, 0.0]])
    raised = {"seeds": [0], "curves": {"a": [[-3.0, 0.1, 0.9], [-2.0, 0.8, 0.5], [0.0, 0.6, 0.2]]}}
    np.testing.assert_allclose(summary_figure.mean_curve([raised], "a"), [[0.8, 0.5], [0.6, 0.2]])


@pytest.fixture
def two(made, monkeypatch):
    """A table of features and one of a network, both with the small table's results."""
    found = results.read(made[0] / "results/features-cpu.json")
    plans = tables.TABLES["features"].plans
    named = {
        "new": tables.Table("", "", plans, panel=tables.FEATURES),
        "old": tables.Table("", "", plans, panel=tables.FEATURES, replaced_by="new"),
        "network": tables.Table("", "", plans, panel=tables.RESNET),
    }
    monkeypatch.setattr(summary_figure, "TABLES", named)
    monkeypatch.setattr(page, "TABLES", named)
    return {name: {**copy.deepcopy(found), "table": name} for name in named}


def test_a_panel_shows_the_first_table_with_results(two, monkeypatch):
    drawn = []
    monkeypatch.setattr(summary_figure, "_draw_panel", lambda axes, runs: drawn.append(runs) or {})
    for run in two["new"]["runs"]:
        run["protocol"]["epochs"] = 99
    before = page.current([two["old"], two["network"]])
    after = page.current([two["new"], two["old"], two["network"]])
    assert summary_figure.draw(before) and summary_figure.draw(after)
    assert [runs[0]["protocol"]["epochs"] for runs in drawn] == [1, 1, 99, 1]
    assert summary_figure.draw([two["network"]]) is None


def test_a_panel_has_a_curve_and_a_dot_per_row_and_names_b(two):
    axes = Figure().subplots()
    runs = two["network"]["runs"]
    drawn = summary_figure._draw_panel(axes, runs)
    assert drawn.keys() == {"independent", "no_treatment", "mpt_kl"}
    assert len(axes.containers) == 3
    assert [text.get_text() for text in axes.texts] in (["b = 1"], ["b = 2"])
    base = summary_figure.mean_curve(runs, "no_treatment")
    np.testing.assert_allclose(np.transpose(drawn["no_treatment"].get_data()), 100 * base)


def test_the_committed_results_have_the_figure_and_it_is_the_same_every_time():
    found = page.current(page.tables(ROOT / "results"))
    picture = summary_figure.draw(found)
    assert picture.startswith(b"\x89PNG") and picture == summary_figure.draw(found)
    assert (ROOT / "results/plots" / summary_figure.FILE).exists()
