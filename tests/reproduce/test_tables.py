"""The definitions of the tables."""

import pytest

from mpt_jax import config as configs
from mpt_jax.reproduce.__main__ import ROOT
from mpt_jax.reproduce.tables import BUDGETS, FEATURES, RESNET, TABLES, Plan, Run, Table

PLANS = [(name, budget) for name, table in TABLES.items() for budget in BUDGETS]


@pytest.mark.parametrize(("name", "budget"), PLANS)
def test_every_run_has_a_valid_config_and_the_baseline(name, budget):
    for run in TABLES[name].runs(budget):
        trained = []
        for part in run.parts:
            overrides = [*run.overrides, *part, f"seeds={','.join(map(str, run.seeds))}"]
            assert not any("{" in value.replace("={}", "") for value in overrides)
            config = configs.load(str(ROOT / "configs" / run.config), overrides)
            assert config.seeds == run.seeds
            trained += config.update.methods
        assert trained[0] == "no_treatment"  # the baseline of all others
        assert len(trained) == len({*trained})


@pytest.mark.parametrize(("name", "budget"), PLANS)
def test_tables_have_three_seeds_with_known_exceptions_on_a_cpu(name, budget):
    plan = TABLES[name].plans[budget]
    one_seed = ("cifar100", "cifar100-paper", "cifar100-stem", "long-tail-cifar100", "architecture")
    assert len(plan.seeds) >= 3 or (budget == "cpu" and name in one_seed)


def test_runs_cover_every_scenario_and_seed_once_first_seeds_first():
    plan = Plan("x.py", (0, 1, 2), seeds_of_a_run=2, overrides=("a=1",), scenarios={"s": ("b=1",), "t": ("b=2",)})
    table = Table("", "", {"cpu": plan})
    assert table.runs("cpu") == [
        Run("s", (0, 1), "x.py", ("a=1", "b=1")),
        Run("t", (0, 1), "x.py", ("a=1", "b=2")),
        Run("s", (2,), "x.py", ("a=1", "b=1")),
        Run("t", (2,), "x.py", ("a=1", "b=2")),
    ]
    assert [run.seeds for run in table.runs("cpu", (7,))] == [(7,), (7,)]


def test_every_seed_can_have_its_own_order_of_the_classes():
    plan = Plan("x.py", (3, 4), seeds_of_a_run=1, overrides=("dataset.class_order=seed:{seed}",))
    orders = [run.overrides for run in Table("", "", {"cpu": plan}).runs("cpu")]
    assert orders == [("dataset.class_order=seed:3",), ("dataset.class_order=seed:4",)]


def test_the_published_protocol_has_the_constants_of_the_paper_and_no_validation_images():
    for budget, seeds in (("cpu", (0,)), ("gpu", (0, 1, 2))):
        (run,) = TABLES["cifar100-paper"].runs(budget)
        assert run.seeds == seeds
        for part in run.parts:
            config = configs.load(str(ROOT / "configs" / run.config), [*run.overrides, *part])
            optimizer, model, images = config.optimizer, config.model, config.dataset
            assert (optimizer.epochs, optimizer.batch_size, optimizer.learning_rate) == (100, 128, 0.1)
            assert (optimizer.schedule, optimizer.schedule_unit) == ("cosine", "epoch")
            assert (model.name, model.stem, config.update.schedule) == ("resnet18", "imagenet", (50, 100))
            assert (images.train_per_class, images.validation_per_class, images.class_order) == (0, 0, "natural")


def test_headlines_are_scenarios_and_replacements_and_panels_exist():
    for table in TABLES.values():
        assert all(table.headline.keys() <= plan.scenarios.keys() for plan in table.plans.values())
        assert table.replaced_by in {"", *TABLES}
        assert table.panel in {"", FEATURES, RESNET}
        assert table.headline or not table.panel  # the panel shows the first scenario
    assert {table.panel for table in TABLES.values()} == {"", FEATURES, RESNET}
