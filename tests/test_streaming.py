"""Streamed images give the same weights as images in memory bit for bit, and the same predictions up to rounding."""

import functools
import json
import os
import pathlib

import chex
import jax
import jax.numpy as jnp
import load_dataset
import numpy as np
import pytest
import random_weights
from flax import linen as nn
from populations import recipe_of

from mpt_jax import data, models, objectives, train, training
from mpt_jax.data import photos
from mpt_jax.data.feeding import feed
from mpt_jax.models import Classifier
from mpt_jax.objectives import METHODS
from mpt_jax.training import inference, loop, population, sharding

OLD, ALL = 5, 10
IMAGENET = pathlib.Path(__file__).parent.parent / "configs/imagenet.py"
ROWS = ("no_treatment", "mpt_kl")


@pytest.fixture(scope="module")
def digits(digits_dir):
    options = {"data_dir": digits_dir, "train_per_class": 9}
    return {source: load_dataset.load(source=source, **options).train for source in ("memory", "stream")}


class Tiny(nn.Module):
    """A network that compiles quickly."""

    num_classes: int = ALL
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="conv")(x))
        return nn.Dense(self.num_classes, name="head")(x.reshape(len(x), -1))


def make_recipe(**changes):
    settings = dict(module=models.build("convnet", ALL), num_old_classes=OLD, batch_size=16, epochs=2)
    settings |= dict(
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        augmentation=data.Augmentation(crop_padding=1, flip=True),
        steps_per_call=4,
    )
    return recipe_of(**settings | changes)


def make_inputs(split, rows=None, objective_rows=ROWS):
    keys = jax.vmap(jax.random.key)(jnp.arange(2, dtype=jnp.uint32))
    module = models.build("convnet", ALL)
    params, batch_stats = random_weights.init_each(module, keys, (8, 8, 1))
    middle = np.full(1, 0.5, np.float32)
    teacher = Classifier(module, params, batch_stats, *(np.stack([middle, middle]),) * 2)
    old = jax.tree.map(lambda leaf: leaf[..., :OLD] if leaf.shape[-1] == ALL else leaf, teacher)
    old = old.replace(module=models.build("convnet", OLD))
    return training.Inputs(
        labels=split.labels,
        mean=middle,
        std=middle,
        keys=keys,
        objectives=objectives.stack([METHODS[row] for row in objective_rows]),
        teachers={"old": old, "new": teacher} if "mpt_kl" in objective_rows else {},
        rows=rows,
    )


class Stopped(Exception):
    pass


def fit(recipe, inputs, images, folder, devices=1, members=1, stop_at=None):
    mesh, seen = sharding.make_mesh(jax.devices()[:devices], members=members), []

    def on_values(step, values):
        seen.append((step, values))
        if step == stop_at:
            raise Stopped

    state, _ = loop.fit(
        recipe,
        sharding.population_mesh(mesh, len(inputs.keys), inputs.num_objectives),
        inputs,
        images,
        folder=folder,
        checkpoint_every=5,
        teacher_digests=(),
        on_start=lambda step: None,
        on_values=on_values,
    )
    return jax.device_get(state), seen


@pytest.mark.slow
@pytest.mark.ci
def test_a_resumed_stream_gives_the_weights_of_images_in_memory(digits, tmp_path, compiled):
    recipe = make_recipe(module=Tiny(), epochs=1)
    inputs = make_inputs(digits["memory"], objective_rows=("no_treatment",))
    stream = digits["stream"].images
    whole, seen = fit(recipe, inputs, digits["memory"].images, tmp_path / "whole")
    with pytest.raises(Stopped):
        fit(recipe, inputs, stream, tmp_path / "broken", stop_at=6)
    resumed, seen_after = fit(recipe, inputs, stream, tmp_path / "broken")
    assert [step for step, _ in seen_after] == [6]  # 5 of 6 steps were saved
    chex.assert_trees_all_equal(resumed, whole)
    chex.assert_trees_all_equal(seen_after[-1], seen[-1])
    assert compiled["train_steps"] == 2  # one for each kind of input


def test_each_device_gets_the_batches_of_its_own_seeds(digits, tmp_path):
    recipe, rows = make_recipe(module=Tiny(), epochs=1), ("no_treatment", "label_smoothing")
    found = {
        source: fit(
            *(recipe, make_inputs(split, objective_rows=rows), split.images, tmp_path / source), devices=4, members=4
        )
        for source, split in digits.items()
    }
    chex.assert_trees_all_equal(found["stream"], found["memory"])


@pytest.fixture
def default_emitters(monkeypatch):
    """Compile the train steps as users do: the older emitters of the other tests round a stream differently."""
    if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]:
        options = {"xla_cpu_use_fusion_emitters": True}
        jit = functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2,), compiler_options=options)
        monkeypatch.setattr(population, "train_steps", jit(population.train_steps.__wrapped__))


@pytest.mark.slow  # six compilations
@pytest.mark.parametrize(("at_once", "devices", "part"), [(8, 1, False), (1, 1, True), (8, 4, True)])
def test_streaming_is_bit_identical_for_populations_subsets_and_several_devices(
    digits, tmp_path, monkeypatch, default_emitters, at_once, devices, part
):
    monkeypatch.setattr(feed, "WINDOW_BYTES", 3 * 2 * 16 * 64)  # three steps per call
    rows = np.stack([np.arange(0, 80, dtype=np.int32), np.arange(10, 90, dtype=np.int32)]) if part else None
    recipe = make_recipe(members_at_once=at_once)
    found = {
        source: fit(recipe, make_inputs(split, rows), split.images, tmp_path / source, devices)
        for source, split in digits.items()
    }
    chex.assert_trees_all_equal(found["stream"], found["memory"])
    assert [step for step, _ in found["stream"][1]] == ([4, 5, 8, 10] if part else [4, 5, 8, 10, 12])


def test_streamed_predictions_equal_those_from_memory(digits):
    keys = jax.random.split(jax.random.key(0), 2)
    module = models.build("convnet", ALL)
    params, batch_stats = random_weights.init_each(module, keys, (8, 8, 1))
    stack = Classifier(module, params, batch_stats, *(np.full((2, 1), 0.5, np.float32),) * 2)
    mesh = sharding.make_mesh(jax.devices()[:4])
    expected, found = (
        inference.predict(stack, digits[source].images, batch_size=37, mesh=mesh) for source in ("memory", "stream")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow  # compiles three stages
def test_the_smoke_run_of_imagenet_reads_jpeg_files_and_writes_a_report(tmp_path):
    line = ["--config", str(IMAGENET) + ":smoke", f"--workdir={tmp_path}/run", f"--config.dataset.data_dir={tmp_path}"]
    assert train.main(line) == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert {row["method"] for row in report["rows"]} >= {"independent", "no_treatment"}
    predictions = np.load(tmp_path / "run/predictions/r1-independent-seed0.npz")
    assert sorted(predictions["ids"]) == sorted(f"{name}_{i}" for name in photos.CLASSES for i in range(24, 30))
