"""A file of the old model's predictions in place of a trained old model."""

import jax
import numpy as np
import pytest

from mpt_jax import config as configs
from mpt_jax import report
from mpt_jax.errors import InputError
from mpt_jax.files import released_model
from mpt_jax.files.predictions import released
from mpt_jax.report import contents
from mpt_jax.update import lineage, precomputed_logits, releases, stages, workdir


def predictions_file(run, seed):
    """Return a run's old model's logits on all images, as the columns of a file, in a random order."""
    stack = jax.tree.map(lambda leaf: leaf[None], released_model.read(run.folder(0, "old", seed))[0])
    parts = (run.dataset.train, run.dataset.validation, run.dataset.test)
    columns = {
        "ids": np.concatenate([part.ids for part in parts]),
        "logits": np.concatenate([run.predict(stack, part)[0] for part in parts]),
    }
    order = np.random.default_rng(0).permutation(len(columns["ids"]))
    return {name: values[order] for name, values in columns.items()}


def same_students(executed, tmp_path, methods, *more):
    """Check that students of trained old models and of files with their logits are the same; return the latter run."""
    trained = executed(f"update.methods={','.join(methods)}", *more, folder=tmp_path / "network")
    for seed in trained.config.seeds:
        np.savez(tmp_path / f"old-{seed}.npz", **predictions_file(trained, seed))
    independent = f"update.independent={tmp_path}/network/releases/r1-independent-seed{{seed}}"
    predictions = f"old.predictions={tmp_path}/old-{{seed}}.npz"
    run = executed(f"update.methods={','.join(methods)}", *more, independent, predictions, folder=tmp_path / "file")
    for seed in run.config.seeds:
        ours, theirs = (released.read(r.predictions(r.folder(0, "old", seed)))["logits"] for r in (run, trained))
        np.testing.assert_array_equal(ours, theirs)
        for method in methods:
            ours, theirs = (released_model.read(r.folder(1, method, seed)) for r in (run, trained))
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6), ours[0].params, theirs[0].params
            )
            assert ours[1]["selection"] == theirs[1]["selection"]
    return run


@pytest.mark.slow
@pytest.mark.ci
def test_a_file_of_logits_teaches_the_same_as_the_old_model(executed, tmp_path):
    run = same_students(executed, tmp_path, ("pct_kl", "posthoc_bias"))
    card = released_model.read_card(run.folder(0, "old", 0))
    assert card["architecture"] == {"predictions": f"{tmp_path}/old-0.npz"} and not card["files"]
    assert not (run.folder(0, "old", 0) / "model").exists()
    assert released_model.read_card(run.folder(1, "pct_kl", 0))["parents"] == {"r0-old-seed0": card["digest"]}
    rows = report.build(run.workdir)["rows"]
    assert all(0 < row["nfr"] < row["accuracy_previous"] for row in rows)
    assert f"old model from {tmp_path}/old-{{seed}}.npz" in contents._scenario(configs.to_dict(run.config))


@pytest.mark.slow
def test_a_file_teaches_the_same_with_a_memory_member_by_member_and_for_several_seeds(executed, tmp_path):
    more = ("training.members_at_once=1", "update.memory=per_class:15")
    same_students(executed, tmp_path, ("no_treatment", "pct_kl", "mpt_kl_per_class"), *more)


CLASSES = [f"digit {i}" for i in range(10)]  # of the features


@pytest.fixture
def run_with_file(prepared, features_file, tmp_path):
    """Return a function that prepares a run from the columns of a file of predictions."""

    def read(columns, *overrides, name="old.npz"):
        path = tmp_path / name
        if path.suffix == ".npz":
            np.savez(path, **columns)
        else:
            path.write_text(columns)
        small = ("model.name=linear", "seeds=0,1", "update.methods=pct_kl", "dataset.train_per_class=3")
        few = ("optimizer.batch_size=8", "dataset.validation_per_class=2")
        return prepared(*small, *few, f"dataset.name={features_file}", f"old.predictions={path}", *overrides)

    return read


@pytest.fixture(scope="module")
def table(features_file):
    """An id and five scores for every example of the features; their ids are numbers."""
    ids = np.arange(1797) + 1000
    return {"id": ids, "logits": np.random.default_rng(0).normal(size=(1797, 5)).astype(np.float32)}


def scores_of(table, ids):
    return table["logits"][ids.astype(int) - 1000]


def test_logits_are_matched_by_id_in_every_part(run_with_file, table):
    shuffled = np.random.default_rng(1).permutation(1797)
    run = run_with_file({name: values[shuffled] for name, values in table.items()})
    for part in (run.dataset.train, run.dataset.validation, run.dataset.test):
        np.testing.assert_array_equal(run.predict(run.read(0, "old"), part), [scores_of(table, part.ids)] * 2)
    assert run.precomputed.logits.shape[0] == 1  # both seeds share one table, also on the device
    assert run.precomputed.one(0).digests == run.precomputed.one(1).digests


def test_a_file_per_seed(run_with_file, table, tmp_path):
    np.savez(tmp_path / "old1.npz", **{**table, "logits": table["logits"] + 1})
    run = run_with_file(table, f"old.predictions={tmp_path}/old{{seed}}.npz", name="old0.npz")
    first, second = run.predict(run.read(0, "old"), run.dataset.test)
    np.testing.assert_array_equal(second, first + np.float32(1))
    assert run.precomputed.one(0).digests != run.precomputed.one(1).digests
    assert run.precomputed.one(1).files == (f"{tmp_path}/old1.npz",)


def test_probabilities_become_logits(run_with_file, table):
    odds = np.exp(table["logits"].astype(float))
    odds[:, 4] = 0
    run = run_with_file({"id": table["id"], "probabilities": odds / odds.sum(1, keepdims=True)})
    test = run.dataset.test
    found, ours = run.predict(run.read(0, "old"), test)[0], scores_of(table, test.ids)
    np.testing.assert_allclose(found[:, :4] - found[:, :1], (ours - ours[:, :1])[:, :4], atol=1e-5)
    np.testing.assert_allclose(found[:, 4], np.log(precomputed_logits.SMALLEST), rtol=1e-6)


def test_a_file_of_test_images_is_enough_if_no_method_learns_from_the_old_model(run_with_file, table):
    tested = {name: values[1000:] for name, values in table.items()}
    without = ("update.methods=no_treatment,mpt_no_distillation", "dataset.validation_per_class=0")
    run = run_with_file(tested, *without)
    assert run.predict(run.read(0, "old"), run.dataset.test).shape == (2, 797, 5)
    with pytest.raises(InputError, match=r"training images without a row \(30\): '1\d+', .*, \.\.\.; expected one row"):
        run_with_file(tested, "dataset.validation_per_class=0")


def test_ids_of_another_form_are_shown(run_with_file, table):
    other = table | {"id": [f"image {i}" for i in range(1797)]}
    with pytest.raises(InputError, match=r"none of the file's ids is an image of the run, the first is 'image 0'$"):
        run_with_file(other)


def rows(**changes):
    """Return a function that changes columns of the table."""
    return lambda table: {name: changes.get(name, lambda values: values)(values) for name, values in table.items()}


def with_value(value, *places):
    def change(values):
        values = values.copy()
        values[list(places)] = value
        return values

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            rows(id=lambda ids: ids[:1795], logits=lambda z: z[:1795]),
            r"test images without a row \(2\): '279\d', '279\d'; exp",
        ),
        (rows(id=with_value(2795, 1796)), r"without a row \(1\): '2796'; ids in more than one row \(1\): '2795'"),
        (rows(logits=with_value(np.nan, 1795)), r"rows with scores that are not finite numbers \(1\): '2795'"),
        (rows(logits=with_value(-np.inf, 1795, 1790)), r"rows with scores .* \(2\): '27"),
        (
            rows(logits=lambda z: z[:, :4]),
            r"scores of 4 classes, but the old model of update.schedule=\[5, 10\] knows 5; expected 5 scores per row",
        ),
        (
            lambda t: {"id": t["id"], "probabilities": np.full((1797, 5), 0.3)},
            r"probabilities below 0 or whose sum is not 1",
        ),
        (
            lambda t: {"id": t["id"], "prediction": t["id"] % 5},
            "expected one of 'logits', 'scores' and 'probabilities'",
        ),
        (lambda t: {"id": t["id"], "logits": t["logits"], "scores": t["logits"]}, "expected one"),
        (lambda t: t | {"class_names": ["a", "b", "c", "d", "e"]}, "no class 'a'"),
        (lambda t: {"logits": t["logits"]}, "expected one called 'id'"),
    ],
)
def test_a_file_that_does_not_fit_the_run_is_an_error(run_with_file, table, change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run_with_file(change(table))
    assert not (tmp_path / "run").exists()


def test_the_classes_of_the_file_come_first_in_its_order(run_with_file, table):
    names = [CLASSES[i] for i in (7, 2, 9, 0, 4)]
    run = run_with_file(table | {"class_names": names})
    assert run.dataset.class_names == (*names, *(c for c in CLASSES if c not in names))
    np.testing.assert_array_equal(
        run.predict(run.read(0, "old"), run.dataset.test)[0], scores_of(table, run.dataset.test.ids)
    )
    fixed = run_with_file(table | {"class_names": names}, "dataset.class_order=0,2,4,7,9,...")
    assert fixed.dataset.class_names[:5] == tuple(CLASSES[i] for i in (0, 2, 4, 7, 9))
    columns = scores_of(table, fixed.dataset.test.ids)[:, [3, 1, 4, 0, 2]]
    np.testing.assert_array_equal(fixed.predict(fixed.read(0, "old"), fixed.dataset.test)[0], columns)
    by_key = run_with_file(table, f"old.classes={','.join(names)}")
    assert by_key.dataset.class_names == run.dataset.class_names
    with pytest.raises(InputError, match=r"without 'digit 1', one of the first 5 of dataset.class_order=\(0, 1"):
        run_with_file(table | {"class_names": names}, "dataset.class_order=0,1,2,3,4", "update.schedule=[5,5]")
    with pytest.raises(InputError, match=r"old.classes=digit 0,.*; expected the same"):
        run_with_file(table | {"class_names": names}, f"old.classes={','.join(sorted(names))}")


@pytest.mark.parametrize(
    ("more", "classes"), [([], CLASSES[:5]), (["dataset.class_order=5,4,3,2,1,..."], CLASSES[5:0:-1])]
)
def test_numbered_columns_are_positions_in_the_class_order(run_with_file, table, more, classes):
    columns = [3, 0, 4, 1, 2]
    lines = ["id," + ",".join(f"logit_{k}" for k in columns)]
    lines += [f"{i}," + ",".join(str(z[k]) for k in columns) for i, z in zip(*table.values(), strict=True)]
    run = run_with_file("\n".join(lines), *more, name="old.csv")
    assert run.dataset.class_names[:5] == tuple(classes)
    found = run.predict(run.read(0, "old"), run.dataset.test)[0]
    np.testing.assert_allclose(found, scores_of(table, run.dataset.test.ids), rtol=1e-6)


def test_lost_predictions_are_restored_from_the_file_unless_it_changed(run_with_file, table, tmp_path):
    run = run_with_file(table)
    workdir.claim(run.workdir, stages._facts(run, "command"))
    stages.make(run, lineage.Stage(0, "old", ("old",)))
    folder = run.folder(0, "old", 1)
    before = run.predictions(folder).read_bytes()
    run.predictions(folder).write_bytes(before[:-9])
    assert releases.restore_predictions(run) and not releases.restore_predictions(run)
    assert run.predictions(folder).read_bytes() == before
    run_with_file(table)
    with pytest.raises(InputError, match=r"r0-old-seed1 has no weights: .* known only by its predictions in .*old.npz"):
        released_model.read(folder)
    with pytest.raises(InputError, match=r"old.npz holds other predictions than .*r0-old-seed0 was made with; restore"):
        run_with_file({"id": table["id"], "logits": table["logits"] + 1})
