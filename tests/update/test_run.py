"""Which images a stage learns from."""

import numpy as np
import pytest

from mpt_jax import data, models
from mpt_jax.files import released_model
from mpt_jax.update.lineage import Stage
from mpt_jax.update.run import training_rows

OLD, STUDENTS = Stage(0, "old", ("old",)), Stage(1, "students", ("no_treatment",))


def counts(run, stage=STUDENTS):
    """Return the number of images of each class that the first seed learns from."""
    rows, known = training_rows(run, stage), run.known(run.dataset.train, stage.release)
    labels = known.labels if rows is None else known.labels[rows[0]]
    return np.bincount(labels, minlength=run.num_classes(stage.release)).tolist()


def test_memory_and_long_tail_limit_what_a_release_learns_from(prepared):
    whole, few, more, none, tail = (
        prepared("seeds=0,1", "optimizer.batch_size=24", *overrides)
        for overrides in (
            [],
            ["update.memory=per_class:3"],
            ["update.memory=total:25"],
            ["update.memory=none"],
            ["dataset.imbalance=8"],
        )
    )
    everything = counts(whole)
    assert counts(few) == [3] * 5 + everything[5:] and counts(more) == [5] * 5 + everything[5:]
    assert counts(none) == [0] * 5 + everything[5:]
    assert counts(tail) == sorted(counts(tail), reverse=True) and counts(tail)[0] == 8 * counts(tail)[-1]
    rows = [training_rows(run, STUDENTS) for run in (few, more)]
    assert all(set(a) < set(b) for a, b in zip(*rows, strict=True))  # per seed
    assert set(rows[0][0]) != set(rows[0][1])  # each seed draws its own
    assert all(np.all(np.diff(row) > 0) for row in rows[0])
    train = whole.dataset.train.ids
    assert not set(train) & {*whole.dataset.validation.ids, *whole.dataset.test.ids}
    for run in (few, none):  # the first release has no classes to remember
        assert training_rows(run, OLD) is None


def test_more_data_starts_from_a_part_of_each_class(prepared):
    run = prepared("seeds=0,1", "update.schedule=[10,10]", "update.old_fraction=0.5", "optimizer.batch_size=24")
    rows, everything = training_rows(run, OLD), counts(run)
    assert training_rows(run, STUDENTS) is None
    half = [int(np.floor(n / 2 + 0.5)) for n in everything]
    assert [np.bincount(run.dataset.train.labels[row]).tolist() for row in rows] == [half, half]
    assert set(rows[0]) != set(rows[1])


@pytest.mark.parametrize("method", [pytest.param("independent", marks=pytest.mark.slow), "no_treatment"])
def test_herding_uses_the_features_of_the_previous_release(executed, method):
    """Images that are dropped stay dropped: the memory of a class is a prefix of the earlier one."""
    run = executed(
        *("update.schedule=[5,7,10]", "update.memory=total:16", "update.memory_by=herding"),
        "update.methods=no_treatment",
    )
    train = run.dataset.train
    first, second = (training_rows(run, Stage(r, method, (method,))) for r in (1, 2))
    for i, seed in enumerate(run.config.seeds):
        old, _ = released_model.read(run.folder(0, "old", seed))
        before, _ = released_model.read(run.folder(1, method, seed))
        for label in range(7):
            own = np.flatnonzero(train.labels == label)
            network = old if label < 5 else before
            order = own[data.herding(np.asarray(models.features(network, train.images[own])))]
            kept = [set(rows[i]) & set(own) for rows in (first, second)]
            if label < 5:
                assert kept[0] == set(order[: (4 if label < 1 else 3)])  # 16 = 1 * 4 + 4 * 3
            assert kept[1] == set(order[: (3 if label < 2 else 2)])  # 16 = 2 * 3 + 5 * 2
