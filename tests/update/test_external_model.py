"""An old model from elsewhere: its answers in a file, or its weights from PyTorch, in the place of a trained one."""

import re

import jax
import numpy as np
import pytest

from mpt_jax import config as configs
from mpt_jax import models, report
from mpt_jax.errors import InputError
from mpt_jax.files import released_model
from mpt_jax.files.predictions import released
from mpt_jax.models import pytorch_weights
from mpt_jax.objectives import METHODS
from mpt_jax.report import contents
from mpt_jax.update import external_model, lineage, releases, selection, stages, workdir


def answers(run, seed):
    """What a run's old model says of all images, as the columns of a file, in a random order."""
    stack = jax.tree.map(lambda leaf: leaf[None], released_model.read(run.folder(0, "old", seed))[0])
    parts = (run.dataset.train, run.dataset.validation, run.dataset.test)
    columns = {
        "ids": np.concatenate([part.ids for part in parts]),
        "logits": np.concatenate([run.predict(stack, part)[0] for part in parts]),
    }
    order = np.random.default_rng(0).permutation(len(columns["ids"]))
    return {name: values[order] for name, values in columns.items()}


def same_students(executed, tmp_path, methods, *more):
    """A run with old models trained, and one with files of their logits, whose students must be the same."""
    taught = executed(f"update.methods={','.join(methods)}", *more, folder=tmp_path / "network")
    for seed in taught.config.seeds:
        np.savez(tmp_path / f"old-{seed}.npz", **answers(taught, seed))
    independent = f"update.independent={tmp_path}/network/releases/r1-independent-seed{{seed}}"
    predictions = f"old.predictions={tmp_path}/old-{{seed}}.npz"
    run = executed(f"update.methods={','.join(methods)}", *more, independent, predictions, folder=tmp_path / "file")
    for seed in run.config.seeds:
        ours, theirs = (released.read(r.predictions(r.folder(0, "old", seed)))["logits"] for r in (run, taught))
        np.testing.assert_array_equal(ours, theirs)
        for method in methods:
            ours, theirs = (released_model.read(r.folder(1, method, seed)) for r in (run, taught))
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6), ours[0].params, theirs[0].params
            )
            assert ours[1]["selection"] == theirs[1]["selection"]
    return run


def test_a_file_of_the_old_models_logits_teaches_what_the_old_model_taught(executed, tmp_path):
    run = same_students(executed, tmp_path, ("pct_kl", "posthoc_bias"), "seeds=0", "model.name=linear")
    card = released_model.read_card(run.folder(0, "old", 0))
    assert card["architecture"] == {"predictions": f"{tmp_path}/old-0.npz"} and not card["files"]
    assert not (run.folder(0, "old", 0) / "model").exists()
    assert released_model.read_card(run.folder(1, "pct_kl", 0))["parents"] == {"r0-old-seed0": card["digest"]}
    rows = report.build(run.workdir)["rows"]
    assert all(0 < row["nfr"] < row["accuracy_previous"] for row in rows)
    assert f"old model by {tmp_path}/old-{{seed}}.npz" in contents._scenario(configs.to_dict(run.config))


@pytest.mark.slow
def test_also_with_a_memory_and_member_by_member_and_for_several_seeds(executed, tmp_path):
    more = ("training.members_at_once=1", "update.memory=per_class:15")
    same_students(executed, tmp_path, ("no_treatment", "pct_kl", "mpt_kl_per_class"), *more)


def claim(run):
    """Make the work directory, as the first command of a run does."""
    facts = {"config": configs.to_dict(run.config), "images": {}, "command": "command", **run.provenance}
    workdir.claim(run.workdir, facts)


CLASSES = [f"digit {i}" for i in range(10)]  # of the features


@pytest.fixture
def recorded(prepared, features_file, tmp_path):
    """A function from the columns of a file of predictions to a run with it; `run.precomputed` has been read."""

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
    """An id and five scores for every image of the features, the ids of which are numbers."""
    ids = np.arange(1797) + 1000
    return {"id": ids, "logits": np.random.default_rng(0).normal(size=(1797, 5)).astype(np.float32)}


def scores_of(table, ids):
    return table["logits"][ids.astype(int) - 1000]


def test_answers_are_found_by_id_in_every_part(recorded, table):
    shuffled = np.random.default_rng(1).permutation(1797)
    run = recorded({name: values[shuffled] for name, values in table.items()})
    for part in (run.dataset.train, run.dataset.validation, run.dataset.test):
        np.testing.assert_array_equal(run.predict(run.read(0, "old"), part), [scores_of(table, part.ids)] * 2)
    assert run.precomputed.logits.shape[0] == 1  # both seeds share it, on the device too
    assert run.precomputed.one(0).digests == run.precomputed.one(1).digests


def test_a_file_per_seed(recorded, table, tmp_path):
    np.savez(tmp_path / "old1.npz", **{**table, "logits": table["logits"] + 1})
    run = recorded(table, f"old.predictions={tmp_path}/old{{seed}}.npz", name="old0.npz")
    first, second = run.predict(run.read(0, "old"), run.dataset.test)
    np.testing.assert_array_equal(second, first + np.float32(1))
    assert run.precomputed.one(0).digests != run.precomputed.one(1).digests
    assert run.precomputed.one(1).files == (f"{tmp_path}/old1.npz",)


def test_probabilities_become_logits(recorded, table):
    odds = np.exp(table["logits"].astype(float))
    odds[:, 4] = 0
    run = recorded({"id": table["id"], "probabilities": odds / odds.sum(1, keepdims=True)})
    test = run.dataset.test
    found, ours = run.predict(run.read(0, "old"), test)[0], scores_of(table, test.ids)
    np.testing.assert_allclose(found[:, :4] - found[:, :1], (ours - ours[:, :1])[:, :4], atol=1e-5)
    np.testing.assert_allclose(found[:, 4], np.log(external_model.SMALLEST), rtol=1e-6)


def test_test_images_are_enough_where_no_method_learns_from_the_old_model(recorded, table):
    tested = {name: values[1000:] for name, values in table.items()}
    without = ("update.methods=no_treatment,mpt_no_distillation", "dataset.validation_per_class=0")
    run = recorded(tested, *without)
    assert run.predict(run.read(0, "old"), run.dataset.test).shape == (2, 797, 5)
    with pytest.raises(InputError, match=r"training images without a row \(30\): '1\d+', .*, \.\.\.; expected one row"):
        recorded(tested, "dataset.validation_per_class=0")


def rows(**changes):
    """A function that changes columns of the table."""
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
        (rows(id=with_value(2795, 1796)), r"without a row \(1\): '2796'; ids .* more than once \(1\): '2795'"),
        (rows(logits=with_value(np.nan, 1795)), r"rows with scores that are not finite numbers \(1\): '2795'"),
        (rows(logits=with_value(-np.inf, 1795, 1790)), r"rows with scores .* \(2\): '27"),
        (rows(logits=lambda z: z[:, :4]), r"scores of 4 classes, but update.schedule=\[5, 10\] .* knows 5"),
        (lambda t: {"id": t["id"], "probabilities": np.full((1797, 5), 0.3)}, r"probabilities below 0 or not of sum 1"),
        (
            lambda t: {"id": t["id"], "prediction": t["id"] % 5},
            "expected one of 'logits', 'scores' and 'probabilities'",
        ),
        (lambda t: {"id": t["id"], "logits": t["logits"], "scores": t["logits"]}, "expected one"),
        (lambda t: t | {"class_names": ["a", "b", "c", "d", "e"]}, "no class 'a'"),
        (lambda t: {"logits": t["logits"]}, "expected one called 'id'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(recorded, table, change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        recorded(change(table))
    assert not (tmp_path / "run").exists()


def test_the_classes_of_the_file_come_first_and_its_order_is_kept(recorded, table):
    names = [CLASSES[i] for i in (7, 2, 9, 0, 4)]
    run = recorded(table | {"class_names": names})
    assert run.dataset.class_names == (*names, *(c for c in CLASSES if c not in names))
    np.testing.assert_array_equal(
        run.predict(run.read(0, "old"), run.dataset.test)[0], scores_of(table, run.dataset.test.ids)
    )
    fixed = recorded(table | {"class_names": names}, "dataset.class_order=0,2,4,7,9,...")
    assert fixed.dataset.class_names[:5] == tuple(CLASSES[i] for i in (0, 2, 4, 7, 9))
    columns = scores_of(table, fixed.dataset.test.ids)[:, [3, 1, 4, 0, 2]]
    np.testing.assert_array_equal(fixed.predict(fixed.read(0, "old"), fixed.dataset.test)[0], columns)
    by_key = recorded(table, f"old.classes={','.join(names)}")
    assert by_key.dataset.class_names == run.dataset.class_names
    with pytest.raises(InputError, match=r"without 'digit 1', one of the first 5 of dataset.class_order=\(0, 1"):
        recorded(table | {"class_names": names}, "dataset.class_order=0,1,2,3,4", "update.schedule=[5,5]")
    with pytest.raises(InputError, match=r"old.classes=digit 0,.*; expected the same"):
        recorded(table | {"class_names": names}, f"old.classes={','.join(sorted(names))}")


@pytest.mark.parametrize(
    ("more", "classes"), [([], CLASSES[:5]), (["dataset.class_order=5,4,3,2,1,..."], CLASSES[5:0:-1])]
)
def test_columns_by_number_are_places_in_the_class_order(recorded, table, more, classes):
    columns = [3, 0, 4, 1, 2]
    lines = ["id," + ",".join(f"logit_{k}" for k in columns)]
    lines += [f"{i}," + ",".join(str(z[k]) for k in columns) for i, z in zip(*table.values(), strict=True)]
    run = recorded("\n".join(lines), *more, name="old.csv")
    assert run.dataset.class_names[:5] == tuple(classes)
    found = run.predict(run.read(0, "old"), run.dataset.test)[0]
    np.testing.assert_allclose(found, scores_of(table, run.dataset.test.ids), rtol=1e-6)


def test_a_release_without_weights_is_mended_from_the_file_unless_that_has_changed(recorded, table, tmp_path):
    run = recorded(table)
    claim(run)
    stages.make(run, lineage.Stage(0, "old", ("old",)))
    folder = run.folder(0, "old", 1)
    before = run.predictions(folder).read_bytes()
    run.predictions(folder).write_bytes(before[:-9])
    assert releases.restore_predictions(run) and not releases.restore_predictions(run)
    assert run.predictions(folder).read_bytes() == before
    recorded(table)
    with pytest.raises(InputError, match=r"r0-old-seed1 has no weights: .* known only by its predictions in .*old.npz"):
        released_model.read(folder)
    with pytest.raises(InputError, match=r"old.npz holds other predictions than .*r0-old-seed0 was made with; restore"):
        recorded({"id": table["id"], "logits": table["logits"] + 1})


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with random weights of a small vision transformer under timm's names, and its network."""
    safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra 'weights'")
    module, rng = models.build("vit_tiny", 3), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: models.init(module, jax.random.key(0), (8, 8, 3)))[0]
    state = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        keys = tuple(key.key for key in path)
        shape, _ = pytorch_weights._layout(keys, leaf.shape, module)
        state[f"module.{pytorch_weights._name(keys, module)}"] = 0.1 * rng.standard_normal(shape, np.float32)
    path = tmp_path_factory.mktemp("weights") / "old.safetensors"
    safetensors.save_file(state, path)
    return path


@pytest.fixture
def images(tmp_path):
    """An .npz file of small images in five classes."""
    rng, path = np.random.default_rng(0), tmp_path / "images.npz"
    parts = {part: rng.integers(0, 256, (40, 8, 8, 3), np.uint8) for part in ("train", "test")}
    arrays = {f"{part}_images": values for part, values in parts.items()}
    arrays |= {f"{part}_labels": np.arange(40) % 5 for part in parts}
    np.savez(path, class_names=["ant", "bee", "cat", "dog", "eel"], **arrays)
    return path


def test_weights_from_pytorch_become_the_old_release(prepared, weights, images, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra 'weights'")
    shared = (
        *("seeds=0", "dataset.validation_per_class=0", "update.schedule=[3,5]", "optimizer.batch_size=8"),
        *(f"dataset.name={images}", "model.name=vit_tiny", "update.methods=no_treatment", f"old.weights={weights}"),
    )
    normalised = ("old.mean=0.5,0.4,0.3", "old.std=0.2,0.3,0.4")
    run = prepared(*shared, *normalised, "old.classes=eel,bee,dog")
    assert run.dataset.class_names == ("eel", "bee", "dog", "ant", "cat")
    classifier, card = run.adopted["old"][0]
    assert card["adopted_from"] == str(weights) and card["classes"] == ["eel", "bee", "dog"]
    for ours in (run, classifier):  # an update must not change how a deployed model's input is prepared
        np.testing.assert_array_equal(ours.mean, np.float32([0.5, 0.4, 0.3]))
        np.testing.assert_array_equal(ours.std, np.float32([0.2, 0.3, 0.4]))
    other = prepared(*shared, *normalised, "old.classes=eel,bee,dog", "dataset.class_order=1,3,4,...")
    np.testing.assert_array_equal(
        other.adopted["old"][0][0].params["head"]["kernel"], classifier.params["head"]["kernel"][:, [1, 2, 0]]
    )
    apart = prepared(*shared, *normalised, "dataset.mean=0,0,0", "dataset.std=1,1,1")
    assert apart.mean.tolist() == [0, 0, 0] and apart.adopted["old"][0][0].mean.tolist() == classifier.mean.tolist()
    claim(run)
    stages.make(run, lineage.Stage(0, "old", ("old",)))
    released, card = released_model.read(run.folder(0, "old", 0))
    jax.tree.map(np.testing.assert_array_equal, released.params, classifier.params)
    assert card["architecture"]["name"] == "vit_tiny" and card["classes"] == ["eel", "bee", "dog"]
    assert card["dataset"] == "unknown" and card["steps"] == 0
    said = " ".join(run.progress.console.file.getvalue().split())  # its weights are random
    assert re.search(r"old, seed 0: adopted from .*; accuracy \d+\.\d % on the test images of its classes", said)
    changed = safetensors.load_file(weights)
    changed["module.head.bias"] += 1
    safetensors.save_file(changed, tmp_path / "changed.safetensors")
    same = [each for each in shared if not each.startswith("old.weights")]
    again = (*same, *normalised, "old.classes=eel,bee,dog")
    prepared(*again, f"old.weights={weights}")
    kept = weights.read_bytes()
    weights.write_bytes((tmp_path / "changed.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"old.safetensors holds other weights than .*r0-old-seed0 was made with"):
        prepared(*again, f"old.weights={weights}")
    weights.write_bytes(kept)
    for more, message in (
        (
            ["update.schedule=[4,5]"],
            r"does not fit vit_tiny with 4 classes .*'head.weight' \[3, 128\] instead of \[4, 128\]",
        ),
        (["old_model.name=resnet18"], r"names are missing: 'bn1.bias'.* names are unknown: 'blocks"),
        (["old.classes=eel,bee,fly"], "no class 'fly'"),
        (["old.mean=0.5", "old.std=0.5"], "old.mean=.*; expected 3 values"),
        (
            ["old.mean=124,116,104", "old.std=58,57,57"],
            r"old.mean=\[124.*; expected numbers up to 1, in units of pixel/255",
        ),
        (["old.weights=nowhere.safetensors"], "no file nowhere.safetensors"),
    ):
        with pytest.raises(InputError, match=message):
            prepared(*shared, *normalised, *more, folder=tmp_path / "refused")


def test_the_classes_of_a_released_model_come_first(prepared, features_file, tmp_path):
    shared = ("seeds=0", "model.name=linear", "update.methods=no_treatment", f"dataset.name={features_file}")
    mixed = prepared(*shared, "dataset.class_order=3,9,1,0,5,...")
    params, batch_stats = models.init(models.build("linear", 5), jax.random.key(0), (64,))
    old = models.Classifier(models.build("linear", 5), params, batch_stats, mixed.mean, mixed.std)
    note = {"steps": 0, "seconds": 0.0, "examples_per_second": 0.0}
    claim(mixed)
    releases.write(mixed, 0, selection.Member("old", METHODS["no_treatment"]), 0, jax.device_get(old), note)
    folder = mixed.folder(0, "old", 0)
    follows = prepared(*shared, f"update.old={folder}", folder=tmp_path / "next")
    assert follows.dataset.class_names == mixed.dataset.class_names
    with pytest.raises(InputError, match="another class order"):
        prepared(*shared, f"update.old={folder}", "dataset.class_order=seed:1", folder=tmp_path / "next")
