"""A finished run with its report."""

import pytest
from workdirs import make_workdir_with_predictions

from mpt_jax import report


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Return the folder of a run with a report, and the report."""
    folder = make_workdir_with_predictions(tmp_path_factory.mktemp("run"))
    return folder, report.write(folder)
