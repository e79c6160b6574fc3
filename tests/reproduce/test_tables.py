import pytest

from mpt_jax import config as configs
from mpt_jax.reproduce.__main__ import ROOT
from mpt_jax.reproduce.tables import BUDGETS, TABLES, Plan, Table

PLANS = [(name, budget) for name, table in TABLES.items() for budget in BUDGETS]


@pytest.mark.parametrize(("name", "budget"), PLANS)
def test_every_run_of_every_table_is_a_config_that_can_be_run(name, budget):
    for _, seeds, spec, overrides in TABLES[name].runs(budget):
        config = configs.load(str(ROOT / "configs" / spec), [*overrides, f"seeds={','.join(map(str, seeds))}"])
        assert config.seeds == seeds
        assert "no_treatment" in config.update.methods  # what all others are paired with


@pytest.mark.parametrize(("name", "budget"), PLANS)
def test_a_table_has_three_seeds_or_says_why_not(name, budget):
    plan = TABLES[name].plans[budget]
    one = ("cifar100", "cifar100-stem", "long-tail-cifar100", "architecture")
    assert len(plan.seeds) >= 3 or (budget == "cpu" and name in one)


def test_runs_cover_each_seed_of_each_scenario_once_and_the_first_seeds_first():
    plan = Plan("x.py", (0, 1, 2), seeds_of_a_run=2, overrides=("a=1",), scenarios={"s": ("b=1",), "t": ("b=2",)})
    table = Table("", "", {"cpu": plan})
    assert table.runs("cpu") == [
        ("s", (0, 1), "x.py", ("a=1", "b=1")),
        ("t", (0, 1), "x.py", ("a=1", "b=2")),
        ("s", (2,), "x.py", ("a=1", "b=1")),
        ("t", (2,), "x.py", ("a=1", "b=2")),
    ]
    assert [seeds for _, seeds, *_ in table.runs("cpu", (7,))] == [(7,), (7,)]
