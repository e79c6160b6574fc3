import pytest

from mpt_jax.reproduce import __main__ as command
from mpt_jax.reproduce import tables

SMALL = tables.Plan(
    "features.py:digits",
    (0, 1),
    seeds_of_a_run=1,
    overrides=(
        *("optimizer.epochs=1", "update.tune={}", "dataset.train_per_class=25"),
        "update.methods=no_treatment,mpt_kl@bias=1,mpt_kl@bias=2,posthoc_bias",
    ),
)


@pytest.fixture(scope="session")
def small_table():
    """A table of two seeds that trains in seconds."""
    return tables.Table("Small", "Why?", dict.fromkeys(tables.BUDGETS, SMALL))


@pytest.fixture
def reproduce(tmp_path, monkeypatch):
    """A function that makes a plan the table `features` and runs its command in a folder."""

    def run(plan, *more, folder=tmp_path):
        folder.mkdir(exist_ok=True)
        monkeypatch.setitem(tables.TABLES, "features", tables.Table("", "", dict.fromkeys(tables.BUDGETS, plan)))
        monkeypatch.setattr("mpt_jax.report.plots.draw", lambda report, thumbnails: {})
        return command.main(["features", *(f"--{name}={folder / name}" for name in ("workdir", "results")), *more])

    return run


@pytest.fixture(scope="session")
def made(small_table, tmp_path_factory):
    """A folder in which the command has made the small table, and a function that gives the command again."""
    folder = tmp_path_factory.mktemp("reproduce")
    arguments = [f"--{name}={folder / name}" for name in ("workdir", "results")]

    def make(*more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(tables.TABLES, "features", small_table)
            patch.setattr("mpt_jax.report.plots.draw", lambda report, thumbnails: {})  # they take longer than the runs
            return command.main(["features", *arguments, *more])

    assert make() == 0
    return folder, make
