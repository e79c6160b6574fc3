"""Comparison at equal accuracy, against shifted logits, and rates during training."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.files.predictions import released
from mpt_jax.posttraining import PosthocCurve
from mpt_jax.report.flips import Pair
from mpt_jax.reproduce import collection
from mpt_jax.update import workdir


def _pair(rng):
    labels = np.sort(np.r_[0, rng.integers(0, 5, 20)])
    return Pair(labels, labels.astype(str), rng.normal(size=(21, 3)), rng.normal(size=(21, 5)).astype(np.float32))


@given(st.integers(0, 2**32 - 1))
def test_the_shift_curve_agrees_with_shifted_logits(seed):
    rng = np.random.default_rng(seed)
    num_old, pair = 3, _pair(rng)
    curve = collection.shift_curve(pair, num_old)
    for c in (-2.5, -0.3, 0.0, 0.7, 40.0):
        predictions = (pair.new - c * (np.arange(5) >= num_old)).argmax(-1)
        step = np.searchsorted(curve.starts, c, "right") - 1
        known = pair.labels < num_old
        flips = known & (pair.old.argmax(-1) == pair.labels) & (predictions != pair.labels)
        assert curve.accuracy[step] == pytest.approx((predictions == pair.labels).mean())
        assert curve.nfr[step] == pytest.approx(flips.sum() / known.sum())


def test_at_equal_accuracy_a_model_is_no_better_than_itself_and_a_better_one_is():
    starts, accuracy = np.array([0.0, 1.0, 2.0]), np.array([0.7, 0.8, 0.6])
    curve = lambda nfr: PosthocCurve(starts, accuracy, accuracy, accuracy, np.array(nfr))  # noqa: E731
    same, better = curve([0.3, 0.2, 0.1]), curve([0.3, 0.1, 0.05])
    mine, theirs = collection.equalized(same, same)
    assert mine == theirs
    mine, theirs = collection.equalized(better, same, below=0.1)
    assert (mine, theirs) == pytest.approx((0.075, 0.15))  # halfway between the second and the third step
    low = PosthocCurve(starts, accuracy - 0.5, accuracy, accuracy, same.nfr)
    assert collection.equalized(low, same)[1] == pytest.approx(0.1)  # reached with fewer flips than any other point


def test_rates_during_training_are_those_of_the_snapshots_and_end_with_the_release(made, tmp_path):
    folder = shutil.copytree(made[0] / "workdir/features-cpu/seeds0", tmp_path / "run")
    run, rng = workdir.identity(workdir.read_facts(folder)), np.random.default_rng(0)
    steps = json.loads((folder / "releases/r1-no_treatment-seed0/card.json").read_text())["steps"]
    assert "training" not in collection.collect([folder], "", command="")
    before = released.read(folder / "predictions/r0-old-seed0.npz")
    labels, ids, old = (before[key] for key in ("labels", "ids", "logits"))
    logits = {}
    for name in ("no_treatment", "mpt_kl@bias=1"):
        release, logits[name] = f"r1-{name}-seed0", rng.normal(size=(len(labels), 10)).astype(np.float32)
        path = folder / "snapshots" / release / "1.npz"
        path.parent.mkdir(parents=True)
        about = {"release": f"{release} after 1 steps", "run": run}
        released.write(path, labels=labels, ids=ids, logits=logits[name], about=about)
    found = collection.collect([folder], "", command="")
    assert found["training"].keys() == logits.keys()
    for name, new in logits.items():
        during, end = found["training"][name]
        right, known = new.argmax(-1) == labels, labels < 5
        flips = known & (old.argmax(-1) == labels) & ~right
        expected = [1 / steps, right.mean(), right[known].mean(), right[~known].mean(), flips.sum() / known.sum()]
        assert during[:5] == pytest.approx(expected, abs=1e-4)
        (row,) = (row for row in found["rows"] if row["method"] == name)
        rates = [row[key] for key in ("accuracy", "accuracy_old_classes", "accuracy_new_classes", "nfr")]
        assert end == pytest.approx([1.0, *rates, *row["at_equal_accuracy"]], rel=1e-4)
    curves = [
        collection.shift_curve(Pair(labels, ids, old, logits[name]), 5) for name in ("mpt_kl@bias=1", "no_treatment")
    ]
    assert found["training"]["mpt_kl@bias=1"][0][5:] == pytest.approx(collection.equalized(*curves), rel=1e-4)
