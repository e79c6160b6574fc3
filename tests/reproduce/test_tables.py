"""The definitions of the tables."""

import pytest

from mpt_jax import config as configs
from mpt_jax.reproduce.__main__ import ROOT
from mpt_jax.reproduce.tables import BUDGETS, TABLES, Plan, Table

PLANS = [(name, budget) for name, table in TABLES.items() for budget in BUDGETS]


@pytest.mark.parametrize(("name", "budget"), PLANS)
def test_every_run_has_a_valid_config(name, budget):
    for _, seeds, spec, overrides in TABLES[name].runs(budget):
        config = configs.load(str(ROOT / "configs" / spec), [*overrides, f"seeds={','.join(map(str, seeds))}"])
        assert config.seeds == seeds
        assert "no_treatment" in config.update.methods  # the baseline of all others


@pytest.mark.parametrize(("name", "budget"), PLANS)
def test_tables_have_three_seeds_with_known_exceptions_on_a_cpu(name, budget):
    plan = TABLES[name].plans[budget]
    one_seed = ("cifar100", "cifar100-stem", "long-tail-cifar100", "architecture")
    assert len(plan.seeds) >= 3 or (budget == "cpu" and name in one_seed)


def test_runs_cover_every_scenario_and_seed_once_first_seeds_first():
    plan = Plan("x.py", (0, 1, 2), seeds_of_a_run=2, overrides=("a=1",), scenarios={"s": ("b=1",), "t": ("b=2",)})
    table = Table("", "", {"cpu": plan})
    assert table.runs("cpu") == [
        ("s", (0, 1), "x.py", ("a=1", "b=1")),
        ("t", (0, 1), "x.py", ("a=1", "b=2")),
        ("s", (2,), "x.py", ("a=1", "b=1")),
        ("t", (2,), "x.py", ("a=1", "b=2")),
    ]
    assert [seeds for _, seeds, *_ in table.runs("cpu", (7,))] == [(7,), (7,)]
