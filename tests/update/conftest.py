"""Fixtures that prepare or execute a small run on the digits, with their pixels as features, which compiles quickly."""

import io
import pathlib

import pytest
from rich.console import Console

from mpt_jax import config as configs
from mpt_jax import update
from mpt_jax.cli.progress import Progress

DIGITS = pathlib.Path(__file__).resolve().parents[2] / "configs/digits.py"
SMALL = (
    *("seeds=0,1", "optimizer.epochs=2", "optimizer.batch_size=32", "dataset.validation_per_class=10"),
    *("dataset.data_dir=", "model.name=mlp", "dataset.train_per_class=30", "training.steps_per_dispatch=3"),
)


@pytest.fixture
def prepared(digits_dir, tmp_path, one_device, without_plots):
    """A function from overrides to a prepared `Run` on one device (tests of `train` use two, of `sharding` eight)."""

    def prepare(*overrides, folder=tmp_path / "run", progress=None):
        config = configs.load(str(DIGITS), [f"dataset.data_dir={digits_dir}", "update.tune={}", *overrides])
        return update.prepare(config, folder, progress or Progress(Console(file=io.StringIO()), None))

    return prepare


@pytest.fixture
def executed(prepared, features_file):
    """A function from overrides to an executed `Run`; the overrides are added to those in `SMALL`."""

    def execute(*overrides, **options):
        run = prepared(*SMALL, f"dataset.name={features_file}", *overrides, **options)
        update.execute(run, "command")
        return run

    return execute
