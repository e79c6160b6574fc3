"""Runs on frozen features: what is computed once, and that its models are whole networks."""

import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import image_folder
import jax
import numpy as np
import pytest
import sklearn.datasets
from PIL import Image
from releases import release
from rich.console import Console

from mpt_jax import config as configs
from mpt_jax import models, update
from mpt_jax.cli.progress import Progress
from mpt_jax.errors import InputError
from mpt_jax.files import released_model, storage
from mpt_jax.files.predictions import released
from mpt_jax.files.sealed import sealed
from mpt_jax.update import frozen_features

SMALL = (
    *("seeds=0,1", "optimizer.epochs=2", "optimizer.batch_size=16", "dataset.validation_per_class=3"),
    *("dataset.data_dir=", "dataset.train_per_class=0", "dataset.crop_padding=0", "dataset.flip=False"),
    *("model.name=convnet", "dataset.mean=0.3", "dataset.std=0.4", "optimizer.learning_rate=1e-3"),
    *("optimizer.freeze=backbone", "update.tune={}"),
)
NUM_TRAIN, NUM_TEST = 150, 60
LOGITS = jax.jit(models.logits)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Folders of two pretrained networks by name, which know other classes."""
    folder = tmp_path_factory.mktemp("pretrained")
    for name in ("convnet", "vit_tiny"):
        release(folder / name, name, classes=tuple("abc"))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An .npz file of some of the digits."""
    digits = sklearn.datasets.load_digits()
    parts = {"train": slice(0, NUM_TRAIN), "test": slice(NUM_TRAIN, NUM_TRAIN + NUM_TEST)}
    arrays = {f"{part}_images": np.uint8(digits.images[rows] * 15)[..., None] for part, rows in parts.items()}
    labels = {f"{part}_labels": digits.target[rows] for part, rows in parts.items()}
    path = tmp_path_factory.mktemp("images") / "digits.npz"
    np.savez(path, **arrays, **labels)
    return path


@pytest.fixture
def frozen(prepared, pretrained, images):
    """A function from overrides to an executed run on frozen features, and the lines it has printed."""

    def execute(*overrides, **options):
        output = io.StringIO()
        progress = Progress(Console(file=output, width=200), None)
        start = [f"dataset.name={images}", f"model.pretrained={pretrained}/convnet"]
        run = prepared(*SMALL, *start, *overrides, progress=progress, **options)
        update.execute(run, "command")
        return run, output.getvalue().splitlines()

    return execute


def predictions(run):
    return {folder.name: released.read(run.predictions(folder)) for folder in run.all_released()}


def check_models_are_whole(run):
    """Check that each release predicts the logits in its predictions from the images, after it was copied."""
    test = run.dataset.test
    for folder in run.all_released():
        classifier, card = released_model.read(folder)
        assert card["image_shape"] == [8, 8, 1] and card["normalization"]["mean"] is not None
        expected = released.read(run.predictions(folder))
        np.testing.assert_array_equal(expected["ids"], test.ids)
        logits = np.asarray(LOGITS(classifier, test.images))
        np.testing.assert_allclose(expected["logits"], logits, rtol=0, atol=1e-5 * np.abs(logits).max())


def computed(lines):
    """Return how many images were computed by each network, from what the run has printed."""
    found = [re.fullmatch(r"features of ([\d,]+) images by (\w+): (.*)", line) for line in lines]
    totals = {m[2]: int(m[1].replace(",", "")) for m in found if m and not m[3].startswith("exist")}
    resumed = [
        re.fullmatch(r"features of [\d,]+ images by (\w+): \d+ images, resumed from image (\d+)", x) for x in lines
    ]
    return {name: total - sum(int(m[2]) for m in resumed if m and m[1] == name) for name, total in totals.items()}


def test_an_update_on_features_releases_whole_networks(frozen, tmp_path):
    run, lines = frozen("update.methods=no_treatment,mpt_kl,posthoc_bias", "update.bias=1")
    check_models_are_whole(run)
    assert computed(lines) == {"convnet": NUM_TRAIN + NUM_TEST}
    assert f"  features: 210 images, 512 each by convnet, computed once into {run.workdir}/features" in [
        line.rstrip() for line in update.plan(dataclasses.replace(run, workdir=tmp_path / "none"))
    ]
    assert {folder.name for folder in run.workdir.glob("backbone/*/*")} == {"backbone.json", "model"}
    card = run.card(run.folder(1, "mpt_kl", 0))
    assert card["architecture"] == {"name": "convnet", "options": {"dtype": "float32"}}
    assert len(run.all_released()) == 10
    of_releases = {path.stat().st_ino for path in run.workdir.glob("releases/*/backbone/**/*") if path.is_file()}
    assert of_releases == {path.stat().st_ino for path in run.workdir.glob("backbone/*/model/**/*") if path.is_file()}
    # A finished run computes nothing, and restores lost predictions.
    before = predictions(run)
    _, lines = frozen("update.methods=no_treatment,mpt_kl,posthoc_bias", "update.bias=1")
    assert not any(line.startswith("features") for line in lines)
    run.predictions(run.folder(1, "mpt_kl", 1)).unlink()
    run, lines = frozen("update.methods=no_treatment,mpt_kl,posthoc_bias", "update.bias=1")
    assert computed(lines) == {} and any(line.endswith("by convnet: exist") for line in lines)
    jax.tree.map(np.testing.assert_array_equal, predictions(run), before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(
            [
                *("update.methods=no_treatment,mpt_kl,bct", "update.bias=1"),
                *("update.memory=per_class:4", "update.memory_by=herding"),
            ],
            marks=pytest.mark.ci,
        ),
        [
            *("update.methods=no_treatment,soup,bcwi_fisher,mpt_kl_ema", "update.ensemble_size=2"),
            *("optimizer.name=adamw", "optimizer.clip_norm=0.1", "optimizer.head_learning_rate=1e-4"),
            *("optimizer.layer_decay=0.5", "optimizer.decay_exclude=bias", "optimizer.warmup_epochs=1"),
            "update.start=old",
        ],
    ],
)
def test_the_models_are_those_of_a_run_that_computes_features_in_every_step(frozen, tmp_path, overrides):
    overrides = [*overrides, "seeds=0"]
    once, lines = frozen(*overrides, folder=tmp_path / "once")
    every, of_every = frozen(*overrides, "training.precompute_features=False", folder=tmp_path / "every")
    assert computed(lines) and not computed(of_every) and not (every.workdir / "backbone").exists()
    found, expected = predictions(once), predictions(every)
    assert found.keys() == expected.keys()
    start = released_model.read(storage.path(once.config.model.pretrained))[0]

    def same(leaf, expected):  # an ensemble has it several times
        np.testing.assert_array_equal(leaf, np.broadcast_to(expected, leaf.shape))

    for name, values in expected.items():
        largest = np.abs(values["logits"]).max()
        np.testing.assert_allclose(found[name]["logits"], values["logits"], rtol=0, atol=1e-5 * largest)
        ours, theirs = (released_model.read(run.workdir / "releases" / name)[0] for run in (once, every))
        for one in (ours, theirs):
            for layer in ours.params.keys() - {"head"}:
                jax.tree.map(same, one.params[layer], start.params[layer])
            jax.tree.map(same, one.batch_stats, start.batch_stats)
        jax.tree.map(np.testing.assert_array_equal, (ours.mean, ours.std), (theirs.mean, theirs.std))
        for key, leaf in theirs.params["head"].items():
            np.testing.assert_allclose(ours.params["head"][key], leaf, rtol=0, atol=1e-5 * np.abs(leaf).max())


@pytest.mark.slow
def test_the_old_network_may_be_another_one(frozen, pretrained):
    run, lines = frozen(
        *("old_model.name=vit_tiny", f"old_model.pretrained={pretrained}/vit_tiny", "seeds=0"),
        "update.methods=no_treatment,pct_kl",
    )
    assert set(computed(lines)) == {"convnet", "vit_tiny"}
    names = {folder.name: run.card(folder)["architecture"]["name"] for folder in run.all_released()}
    assert names["r0-old-seed0"] == "vit_tiny" and {*names.values()} == {"convnet", "vit_tiny"}
    check_models_are_whole(run)


@pytest.mark.slow
def test_a_sequence_with_memory_and_fine_tuned_heads(frozen):
    run, _ = frozen(
        *("update.schedule=[4,7,10]", "update.memory=total:16", "update.memory_by=herding", "update.start=old"),
        *("update.methods=no_treatment,elodi", "update.ensemble_size=2", "optimizer.batch_size=16"),
    )
    check_models_are_whole(run)
    assert run.card(run.folder(2, "ensemble", 0))["architecture"]["ensemble"] is True


def test_runs_share_features_whatever_their_classes_and_splits(frozen, tmp_path):
    shared = [f"training.features_dir={tmp_path}/shared", "update.methods=no_treatment", "seeds=0"]
    _, lines = frozen(*shared, folder=tmp_path / "one")
    assert not (tmp_path / "one/features").exists()
    total = computed(lines)["convnet"]
    other = ["update.schedule=[3,6]", "dataset.class_order=seed:1", "dataset.validation_per_class=5"]
    second, lines = frozen(*shared, *other, folder=tmp_path / "two")
    assert total == NUM_TRAIN + NUM_TEST and computed(lines) == {}
    check_models_are_whole(second)


# Models that were there before


def test_an_adopted_old_model_of_the_same_backbone_is_a_head(frozen, tmp_path):
    first, _ = frozen("update.methods=no_treatment", "seeds=0", folder=tmp_path / "first")
    shutil.copytree(first.folder(0, "old", 0), tmp_path / "old")
    run, lines = frozen(
        *(f"update.old={tmp_path}/old", "update.methods=no_treatment,mpt_kl", "update.start=old"),
        *(f"training.features_dir={first.workdir}/features", "update.bias=1"),
    )
    assert computed(lines) == {} and run.card(run.folder(0, "old", 1))["backbone"]
    old = predictions(first)["r0-old-seed0"]["logits"]
    np.testing.assert_array_equal(predictions(run)["r0-old-seed1"]["logits"], old)
    check_models_are_whole(run)


@pytest.mark.slow
def test_an_adopted_old_model_of_another_backbone_has_features_of_its_own(frozen, tmp_path):
    names = tuple("01234")
    classifier = release(tmp_path / "old", "vit_tiny", classes=names, seed=3)
    run, lines = frozen(
        *(f"update.old={tmp_path}/old", "update.methods=no_treatment,pct_kl", "old_model.name=vit_tiny", "seeds=0"),
    )
    assert set(computed(lines)) == {"convnet", "vit_tiny"}
    check_models_are_whole(run)
    adopted = released_model.read(run.folder(0, "old", 0))[0]
    jax.tree.map(np.testing.assert_array_equal, adopted, classifier)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["dataset.flip=True"], "dataset.flip=True changes them at random"),
        (["optimizer.freeze_statistics=False"], "optimizer.freeze_statistics=False changes them in training"),
        (["update.old=OTHER", "update.start=old"], "update.start=old fine-tunes an old model with another backbone"),
        (["update.old=EACH{seed}"], "the old models of the seeds have different backbones"),
        (["update.old=ENSEMBLE"], "update.old is an ensemble"),
        (["training.precompute_features=False"], None),
        (["optimizer.freeze=conv1"], None),
    ],
)
def test_what_cannot_be_computed_once_is_computed_in_every_step(
    prepared, pretrained, images, tmp_path, overrides, reason
):
    names = tuple("01234")
    for seed, name in enumerate(("OTHER", "EACH0", "EACH1")):
        release(tmp_path / name, classes=names, seed=seed)
    release(tmp_path / "ENSEMBLE", classes=names, ensemble=2)
    output = io.StringIO()
    run = prepared(
        *(*SMALL, f"dataset.name={images}", f"model.pretrained={pretrained}/convnet", "update.methods=no_treatment"),
        *(override.replace("update.old=", f"update.old={tmp_path}/") for override in overrides),
        progress=Progress(Console(file=output, width=300), None),
    )
    assert run.backbones is None
    expected = f"frozen features are computed in every step: {reason}"
    assert (expected in output.getvalue().splitlines()) if reason else "frozen" not in output.getvalue()


@pytest.mark.parametrize("key", ["model.dropout", "old_model.drop_path", "dataset.flip", "dataset.crop_padding"])
def test_random_changes_of_images_or_features_are_a_reason(key):
    section, name = key.split(".")
    config = configs.Config()
    assert frozen_features.reason_against(config, has_statistics=True) is None
    config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{name: 1})})
    assert frozen_features.reason_against(config, has_statistics=True) == f"{key}=1 changes them at random"


def test_a_network_of_ones_own_is_a_reason_because_its_dropout_is_not_known():
    config = configs.Config(model=configs.ModelConfig(name="net.py:build"))
    reason = frozen_features.reason_against(config, has_statistics=False)
    assert reason == "model.name=net.py:build is a network of your own, which may have dropout"


# The cache


def test_features_of_another_network_are_refused(frozen, tmp_path):
    run, _ = frozen("update.methods=no_treatment", "seeds=0", folder=tmp_path / "one")
    (cache,) = (run.workdir / "features").iterdir()
    facts = json.loads((cache / "facts.json").read_text())
    (cache / "facts.json").write_text(json.dumps(sealed({**facts, "weights": "other"})))
    with pytest.raises(InputError, match="features of another network: weights is 'other'"):
        frozen("update.methods=no_treatment", "seeds=0", f"training.features_dir={run.workdir}/features")


def test_a_damaged_chunk_is_computed_again(frozen):
    run, _ = frozen("update.methods=no_treatment", "seeds=0")
    expected = predictions(run)
    for chunk in run.workdir.glob("features/*/*.npy"):
        chunk.write_bytes(chunk.read_bytes()[:-1])
    shutil.rmtree(run.folder(1, "no_treatment", 0))
    again, lines = frozen("update.methods=no_treatment", "seeds=0")
    assert any("its features are computed again" in line for line in lines) and computed(lines)
    jax.tree.map(np.testing.assert_array_equal, predictions(again), expected)


@pytest.mark.slow
def test_streamed_images_have_the_features_of_images_in_memory(frozen, tmp_path):
    image_folder.pets(tmp_path / "pets", counts=(40, 40, 40), test=10)
    settings = [
        *("dataset.name=folder", f"dataset.data_dir={tmp_path}/pets", "update.schedule=[2,3]", "dataset.channels=1"),
        *("update.methods=no_treatment", "seeds=0", "dataset.image_size=8"),
    ]
    in_memory, _ = frozen(*settings, folder=tmp_path / "one")
    streamed, lines = frozen(*settings, "dataset.source=stream", folder=tmp_path / "two")
    assert computed(lines) and streamed.contents != in_memory.contents
    shared = ("dataset.source=stream", f"training.features_dir={tmp_path}/two/features", "dataset.resize=9")
    _, lines = frozen(*settings, *shared, folder=tmp_path / "three")
    assert computed(lines)  # the same files, with another crop
    for name, expected in predictions(in_memory).items():
        jax.tree.map(np.testing.assert_array_equal, predictions(streamed)[name], expected)


# Interruptions

RUN = """
import pathlib, sys
from rich.console import Console
from mpt_jax import config, update
from mpt_jax.cli.progress import Progress
from mpt_jax.update import frozen_features
frozen_features.CHUNK_ROWS = 1
frozen_features.BATCH_BYTES = 10 * 64
run = update.prepare(config.load("digits", sys.argv[2:]), pathlib.Path(sys.argv[1]), Progress(Console(), None))
update.execute(run, "command")
"""


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_computes_features_resumes_with_identical_predictions(
    frozen, pretrained, images, tmp_path, monkeypatch
):
    overrides = [
        *(*SMALL, f"dataset.name={images}", f"model.pretrained={pretrained}/convnet"),
        *("update.methods=no_treatment", "seeds=0"),
    ]
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", RUN, str(folder), *overrides], stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(folder.glob("features/*/*.npy"))) < 3:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    monkeypatch.setattr(frozen_features, "BATCH_BYTES", 10 * 64)  # rows of other batches may differ by rounding
    resumed, lines = frozen(*overrides, folder=folder)
    whole, of_whole = frozen(*overrides, folder=tmp_path / "whole")
    assert 0 < computed(lines)["convnet"] <= computed(of_whole)["convnet"] - 3 * 10
    for name, expected in predictions(whole).items():
        jax.tree.map(np.testing.assert_array_equal, predictions(resumed)[name], expected)


MEASURE = """
import json, pathlib, resource, sys
from rich.console import Console
from mpt_jax import config, update
from mpt_jax.cli.progress import Progress
from mpt_jax.update import frozen_features
progress = Progress(Console(stderr=True), None)
run = update.prepare(config.load("digits", sys.argv[2:]), pathlib.Path(sys.argv[1]), progress)
frozen_features.CHUNK_ROWS, frozen_features.BATCH_BYTES = 64, 2**20
frozen_features.compute(run)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    release(tmp_path / "resnet18", "resnet18", (160, 160, 3), classes=tuple("abc"))
    image = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image, format="png")
    peak, counts, optimised = {}, (200, 1800), {**os.environ, "XLA_FLAGS": ""}
    for count in counts:
        for part, of_class in (("train", count // 4), ("test", 10)):
            for i in range(4 * of_class):
                path = tmp_path / f"{count}/{part}/{i % 4}/{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image.getvalue() + f"{part}{i}".encode())  # what follows the image is ignored
        overrides = [
            *(*SMALL, "dataset.name=folder", f"dataset.data_dir={tmp_path}/{count}", "dataset.image_size=160"),
            *("dataset.source=stream", "update.schedule=[2,4]", "update.methods=no_treatment", "model.name=resnet18"),
            *("dataset.mean=0.3,0.3,0.3", "dataset.std=0.4,0.4,0.4", f"model.pretrained={tmp_path}/resnet18"),
        ]
        line = [sys.executable, "-c", MEASURE, str(tmp_path / f"run{count}"), *overrides]
        printed = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, env=optimised).stdout
        peak[count] = int(printed.splitlines()[-1])
    of_images = (counts[1] - counts[0]) * 160 * 160 * 3 / 2**20
    assert peak[counts[1]] - peak[counts[0]] < of_images / 3, peak
