"""Batches inside the program: their order, their augmentation, their labels and precomputed logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from populations import ALL, IMAGES, LABELS, NOT_AUGMENTED, N, batch_of, make_inputs, make_recipe

from mpt_jax import data
from mpt_jax.training import batches, sharding
from mpt_jax.training.state import SeedInputs

KEY = jax.random.key(0)
TABLES = {"new": np.random.default_rng(1).normal(size=(2, N, ALL)).astype(np.float32)}


def batches_of(recipe, rows=None, window=None, start=0, stop=5, number=0):
    inputs = make_inputs(rows=("no_treatment",)).replace(
        rows=None if rows is None else rows[None], precomputed_logits=TABLES
    )
    inputs = jax.device_put(inputs)
    seed = SeedInputs({}, KEY, rows, None, window, jnp.int32(number))
    mesh, images = sharding.make_mesh(jax.devices()[:1]), data.Window(jnp.asarray(IMAGES))
    return batches.of_seed(batches.Call(recipe, mesh, inputs, images, jnp.int32(start), jnp.int32(stop)), seed)


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (2, 8), (5, 5)])
def test_rows_are_those_of_the_permutation_of_each_epoch(start, stop):
    draw = jax.jit(lambda start, stop: batches.draw_rows(jax.random.fold_in(KEY, 1), start, stop, N, 16, size=7))
    rows = np.asarray(draw(jnp.int32(start), jnp.int32(stop)))
    assert rows.shape == (7, 16) and not rows[stop - start :].any()
    for step in range(start, stop):
        np.testing.assert_array_equal(rows[step - start], batch_of(KEY, step))


@pytest.mark.parametrize("number", [0, 3])
def test_a_batch_has_the_images_labels_and_precomputed_logits_of_its_rows(number):
    batch = batches_of(make_recipe(**NOT_AUGMENTED), start=2, number=number).at(jnp.int32(4))
    rows = batch_of(KEY, 4)
    np.testing.assert_array_equal(batch.images, IMAGES[rows])
    np.testing.assert_array_equal(batch.labels, LABELS[rows])
    np.testing.assert_array_equal(batch.teacher_logits["new"], TABLES["new"][number % 2, rows])


def test_a_seed_with_chosen_rows_sees_no_other_images():
    chosen = jnp.arange(1, N, 2, dtype=jnp.int32)
    of_seed = batches_of(make_recipe(**NOT_AUGMENTED), rows=chosen)
    np.testing.assert_array_equal(of_seed.class_counts, np.bincount(LABELS[1::2], minlength=ALL))
    rows = np.asarray(chosen)[batch_of(KEY, 1, num_examples=N // 2)]
    np.testing.assert_array_equal(of_seed.at(jnp.int32(1)).images, IMAGES[rows])
    positions = of_seed.of_positions(jnp.array([3, 0]), KEY)
    np.testing.assert_array_equal(positions.labels, LABELS[[7, 1]])


def test_augmentation_depends_on_seed_and_step_alone():
    at = lambda step, start: np.asarray(batches_of(make_recipe(), start=start).at(jnp.int32(step)).images)  # noqa: E731
    np.testing.assert_array_equal(at(3, 0), at(3, 2))
    expected = data.augment(
        jax.random.fold_in(jax.random.fold_in(KEY, 2), 3),
        IMAGES[batch_of(KEY, 3)],
        data.Augmentation(crop_padding=1, flip=True),
    )
    np.testing.assert_array_equal(at(3, 0), expected)


def test_a_stream_gives_the_same_batches_and_refuses_other_positions():
    rows = np.stack([batch_of(KEY, step) for step in range(5)])
    streamed = batches_of(make_recipe(), window=data.Window(jnp.asarray(IMAGES[rows]), jnp.asarray(rows)))
    resident = batches_of(make_recipe())
    for step in (0, 4):
        for found, expected in zip(*map(jax.tree.leaves, (streamed.at(step), resident.at(step))), strict=True):
            np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="images in memory"):
        streamed.of_positions(jnp.array([0]), KEY)


def test_steps_are_visited_in_order_with_their_batches():
    of_seed = batches_of(make_recipe(**NOT_AUGMENTED))

    def record(carry, step, batch):
        return carry.at[step].set(batch.labels)

    found = batches.over_steps(of_seed, record, jnp.full((5, 16), -1), jnp.int32(1), jnp.int32(4))
    expected = [LABELS[batch_of(KEY, step)] if 1 <= step < 4 else np.full(16, -1) for step in range(5)]
    np.testing.assert_array_equal(found, expected)
