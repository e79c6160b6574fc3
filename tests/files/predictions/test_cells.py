"""Cells are text for a spreadsheet and a terminal, and names again when they are read."""

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mpt_jax.files.predictions import cells

SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
NAMES = st.text(st.one_of(st.sampled_from("'\\x1b=+-@0e.\t\r\n\x1b\x9b\u2028\u202eu"), st.characters(codec="utf-8")))


@given(NAMES)
@example("'s-Hertogenbosch")
@example("'=1")
@example("''-a\\x1b")
@example("'a\\b")
@example("\\x1b")
def test_a_name_is_read_as_it_was_written(name):
    assert cells.restored(cells.protected(name)) == name
    assert cells.is_marked(name) == (cells.protected(name) != name)


@given(NAMES)
def test_no_cell_is_a_formula_or_holds_what_a_terminal_acts_on(name):
    cell = cells.protected(name)
    if cell[:1] in SIGNS and cell:
        float(cell)  # a number
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029\u202e" for c in cell)


@pytest.mark.parametrize("name", ["-5", "+1.5e-3", "-.5", "cat", "a=1", "'t Gooi", 'ü,"x"', "C:\\images\\-1.png", ""])
def test_numbers_and_usual_names_stay(name):
    assert cells.protected(name) == name


@pytest.mark.parametrize(
    "name", ["=1+1", "+A1", "-A1", "@SUM(1)", "-3xYz", "--5", "-", "\t=1", "-1+1|cmd", "\uff1d1", "'=1", "-5\n"]
)
def test_formulas_get_an_apostrophe(name):
    assert cells.protected(name).startswith("'")


@pytest.mark.parametrize("cell", ["'t Gooi", "'", "''", "'a\\d", "'C:\\x1", "x'=1", "'a\\u12"])
def test_cells_of_other_programs_stay(cell):
    assert cells.restored(cell) == cell


def test_a_column_is_restored_with_its_missing_cells():
    column = pa.array(["'=1", None, "cat", "'t Gooi"])
    assert cells.restored_column(column).to_pylist() == ["=1", None, "cat", "'t Gooi"]
    for other in (pa.array(["cat", None]), pa.array([1.5, -2.0])):
        assert cells.restored_column(other) is other
