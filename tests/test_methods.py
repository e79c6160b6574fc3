"""The registry: every row is complete, and the table in the documentation is the registry's."""

import method_table
import pytest

from mpt_jax import methods, objectives
from mpt_jax.update import lineage

ROWS = methods.rows()


def test_a_name_is_trained_or_derived():
    assert not objectives.METHODS.keys() & methods.DERIVED.keys()
    assert list(ROWS) == [*objectives.METHODS, *methods.DERIVED]


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_a_formula_a_family_and_known_papers(name):
    row = ROWS[name]
    assert row.doc and "\n" not in row.doc and row.family != "Others"
    assert all(paper in methods.PAPERS or " " in paper for paper in row.papers)
    assert row.papers or name == "no_treatment"


@pytest.mark.parametrize("name", methods.DERIVED)
def test_derived_methods_are_made_from_trained_models(name):
    row, populations = methods.DERIVED[name], (lineage.INDEPENDENT, lineage.ENSEMBLE, "update.posthoc_of")
    assert row.made_from and all(objectives.is_trained(m) or m in populations for m in row.made_from)
    assert row.build or name in populations
    assert row.number is None or (not row.number.candidates) == (row.number.choose is not None)


def test_every_paper_is_cited():
    assert {paper for row in ROWS.values() for paper in row.papers} >= methods.PAPERS.keys()


def test_the_documentation_has_the_methods_of_the_registry():
    assert method_table.PAGE.read_text("utf-8") == method_table.page(), "run python docs/method_table.py"
