"""Cells: what is left out, what is marked, and that no line is broken inside."""

import pytest

from mpt_jax.reproduce import cells

CHANGE = {"change": -0.574, "p": 0.2, "interval_of_change": [-0.671, 0.449]}


def test_nothing_is_rendered_as_a_dash():
    functions = (cells.spread, cells.difference, cells.change, cells.tested_change, cells.estimated_change, cells.p)
    assert [render(None) for render in functions] == ["-"] * 6
    assert cells.change({"change": None}) == cells.estimated_change({"change": None}) == "-"  # no flips to compare with
    assert cells.p({"change": 0.5}) == "-"


@pytest.mark.parametrize(("p", "bold"), [(0.0499, True), (0.05, False), (None, False)])
def test_changes_with_a_p_below_5_percent_are_bold(p, bold):
    found = {"change": -0.574} | ({} if p is None else {"p": p})
    assert cells.tested_change(found) == cells.solid("**-57 %**" if bold else "-57 %")


def test_values_keep_their_signs_and_have_no_space_that_breaks():
    rendered = [
        cells.spread({"mean": 0.5, "std": 0.01}),
        cells.difference({"mean": 0.0123, "interval": [-0.001, 0.0256]}),
        cells.estimated_change(CHANGE),
        cells.p({"p": 0.0001}),
    ]
    assert not any(" " in cell for cell in rendered)
    assert [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in rendered] == [
        *("50.0 ± 1.0", "+1.2 [-0.1, +2.6]", "-57 % [-67, +45]", "< 0.001")
    ]
