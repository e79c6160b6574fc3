"""The figures of a table."""

from lineages import LINEAGE

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


def test_rates_during_training_are_plotted_where_a_run_has_them(made):
    run, *_ = results.read(made[0] / "results/features-cpu.json")["runs"]
    assert plots._epochs([run]) is None
    line = [[10.0, 0.5, 0.6, 0.4, 0.125, None, None], [20.0, 0.75, 0.8, 0.7, 0.25, None, None]]
    figure = plots._epochs([run | {"training": {"no_treatment": line, "mpt_kl@bias=1": line, "mpt_kl@bias=2": line}}])
    for axes, values in zip(figure.axes, ([50, 75], [40, 70], [12.5, 25]), strict=True):
        assert [list(one.get_xdata()) for one in axes.lines] == [[10, 20]] * 3
        assert [list(one.get_ydata()) for one in axes.lines] == [values] * 3
    styles = [(one.get_color(), one.get_linestyle()) for one in figure.axes[0].lines]
    assert len(set(styles)) == 3


def test_a_sequence_of_updates_has_its_own_figure(made):
    runs = results.read(made[0] / "results/features-cpu.json")["runs"]
    assert plots._sequence(runs) is None
    for run in runs:
        run |= {"classes": [5, 7, 10], "sequences": dict.fromkeys(run["flips"], LINEAGE)}
    accuracy, nfr = plots._sequence(runs).axes
    assert [list(line.get_xdata()) for line in accuracy.lines] == [[0, 1, 2]] * 5
    assert [list(line.get_ydata()) for line in nfr.lines] == [[12.5, 25.0]] * 5
    names = [text.get_text() for text in accuracy.figure.legends[0].get_texts()]
    assert len([name for name in names if name.startswith("mpt_kl@bias=")]) == 1  # of two values of b
    assert {"no_treatment", "posthoc_bias", "other methods"} <= {*names}
