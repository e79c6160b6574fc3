"""Numbers of a report as text."""

from mpt_jax.report import blocks


def test_rates_are_in_percent_and_differences_in_percentage_points():
    assert blocks.percent(None) == "-" and blocks.percent(0) == "0.00" and blocks.percent(1) == "100.00"
    assert blocks.interval([0.1, 0.2]) == " [10.00, 20.00]" and blocks.interval(None, sign="+") == ""
    assert blocks.points(0.01) == "1 percentage point" and blocks.points(0.1) == "10 percentage points"
