"""The figures of a table."""

from mpt_jax.reproduce import plots, results


def test_a_figure_has_one_panel_per_scenario(made):
    runs = results.read(made[0] / "results/features-cpu.json")["runs"]
    several = [{**run, "scenario": f"scenario {i}"} for i in range(5) for run in runs]
    panels = plots._tradeoff(several).axes
    assert [axes.get_title() for axes in panels] == [f"scenario {i}" for i in range(5)]
    assert all(axes.get_visible() and len(axes.lines) > 3 for axes in panels)


def test_the_effect_of_b_is_plotted_for_scenarios_with_three_values(made):
    run, *_ = results.read(made[0] / "results/features-cpu.json")["runs"]
    third = [{**row, "method": "mpt_kl@bias=4"} for row in run["rows"] if row["method"] == "mpt_kl@bias=2"]
    longer = [{**run, "scenario": scenario, "rows": [*run["rows"], *third]} for scenario in ("one", "two")]
    assert plots._bias([run]) is None  # two values
    figure = plots._bias([run, *longer])
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {
        *("mpt_kl, one", "no_treatment, one", "mpt_kl, two", "no_treatment, two")
    }
    lines = [container.lines[0] for container in figure.axes[0].containers]
    assert [list(line.get_xdata()) for line in lines] == [[1, 2, 4]] * 2
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
