"""The figure of the README: drawn from the committed results, with the rows that validation chose."""

import pytest

from mpt_jax.reproduce import readme_figure, results
from mpt_jax.reproduce.__main__ import ROOT
from mpt_jax.reproduce.summary import choose

NAMES = ("digits-cpu", "cifar100-cpu", "cifar100-seeds-cpu")


@pytest.fixture(scope="module")
def tables():
    return {name: results.read(ROOT / "results" / f"{name}.json") for name in NAMES}


def test_the_figure_is_the_same_every_time(tables):
    picture = readme_figure.draw(tables)
    assert picture.startswith(b"\x89PNG") and picture == readme_figure.draw(tables)
    assert (ROOT / "results/plots" / readme_figure.FILE).exists()


def test_without_its_tables_there_is_no_figure(tables):
    assert readme_figure.draw({"digits-cpu": tables["digits-cpu"]}) is None


def test_mpt_is_the_row_that_validation_chose(tables):
    digits, cifar = readme_figure.PANELS
    assert choose(tables["digits-cpu"]["runs"])["from scratch, by b"] == [digits.mpt]
    # Chosen on seed 0, and shown on the three other seeds.
    assert choose(tables["cifar100-cpu"]["runs"])[""] == [cifar.mpt]


def test_rates_are_percentages_of_the_first_scenario_that_has_the_row():
    rows = [
        {"method": method, "seed": seed, **dict.fromkeys(results.RATES, rate)}
        for method, rate in (("a", 0.25), ("b", 0.5))
        for seed in (0, 1)
    ]
    later = [{**row, "method": "a", **dict.fromkeys(results.RATES, 0.75)} for row in rows]
    runs = [{"scenario": "first", "rows": rows}, {"scenario": "second", "rows": later}]
    assert readme_figure.rates(runs) == {"a": (25.0, 25.0), "b": (50.0, 50.0)}
