import json

import jax
import numpy as np
import pytest

from mpt_jax import report, update
from mpt_jax.files import checkpoint, storage
from mpt_jax.update import workdir


@pytest.mark.slow
def test_a_run_in_a_bucket_resumes_and_equals_a_local_one(store, bucket, executed, tmp_path):
    """The store fails for good within a checkpoint of the students; begun again, the run ends as if it had not."""
    options = (
        "seeds=0",
        "update.methods=mpt_kl",
        "optimizer.epochs=1",
        "training.checkpoint_every=2",
        "training.steps_per_dispatch=1",
    )
    local = executed(*options, folder=tmp_path / "run")
    broken = []

    def fail(method, path):
        if method == "POST" and "checkpoints%2Fr1-students%2F4" in path:
            broken.append(path)
        return 400 if len(broken) > 1 else None

    store.fail = fail
    with pytest.raises(OSError, match="cannot be written"):
        executed(*options, folder=bucket)
    store.fail = lambda method, path: None
    remote = executed(*options, folder=bucket)
    assert len(local.all_released()) == len(remote.all_released()) > 2
    for ours, theirs in zip(remote.all_released(), local.all_released(), strict=True):
        assert checkpoint.read_card(ours)["digest"] == checkpoint.read_card(theirs)["digest"]
        answers = [workdir.read_predictions(run.predictions(f)) for run, f in ((remote, ours), (local, theirs))]
        jax.tree.map(np.testing.assert_array_equal, *answers)
    rows = [make(folder)["rows"] for make, folder in ((report.write, bucket), (report.build, tmp_path / "run"))]
    assert [row["nfr"] for row in rows[0]] == [row["nfr"] for row in rows[1]]
    names, written = storage.files(bucket), storage.files(tmp_path / "run")
    assert {name for name in names if "/model/" not in name and not name.startswith(("report", "plots"))} == {
        name for name in written if "/model/" not in name
    }
    assert "report.html" in names and any(name.startswith("plots/") for name in names)
    assert json.loads((bucket / "report.json").read_text())["rows"]
    assert not update.execute(remote, "command")  # nothing left to do
