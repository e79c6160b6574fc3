"""A population equals its members trained alone, in calls of any size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from populations import (
    ALL,
    IMAGES,
    LINEAR,
    NOT_AUGMENTED,
    ROWS,
    Dropped,
    N,
    assert_close,
    assert_same,
    first_state,
    make_inputs,
    make_recipe,
    member,
    take_steps,
    train,
)

from mpt_jax import data, training
from mpt_jax.training import sharding
from mpt_jax.training.population import advance


@functools.cache
def exact(seeds, rows, **options):
    """Train in float64: in float32, a ReLU that opens by rounding would move a gradient by a thousandth."""
    recipe = {key: options.pop(key) for key in ("members_at_once",) if key in options}
    with jax.enable_x64(True):
        return train(make_recipe("float64", **recipe), make_inputs(seeds, rows, "float64"), **options)


@pytest.mark.slow
def test_eight_devices_give_the_same_result_as_one():
    assert_close(exact((0, 1), ROWS, devices=8), exact((0, 1), ROWS))


@pytest.mark.slow  # ("training on chosen rows" compares seeds trained alone too)
@pytest.mark.parametrize("at_once", [1, 3, pytest.param(8, marks=pytest.mark.ci)])
def test_a_population_equals_its_members_trained_alone(at_once):
    state, values = exact((0, 1), ROWS, members_at_once=at_once)
    rows = (3,) if at_once == 8 else range(4)  # each compiles another program
    for seed in (0, 1):
        for index in rows:
            alone, alone_values = exact((seed,), (ROWS[index],))
            assert_close(member(state, seed, index), member(alone, 0, 0))
            assert_close(member(values, seed, index), member(alone_values, 0, 0))


def test_seeds_and_objectives_differ_and_objectives_start_equal():
    recipe, inputs = make_recipe(module=LINEAR), make_inputs((0, 1), ROWS)
    start = first_state(recipe, inputs)
    kernel = max(jax.tree.leaves(start.params), key=lambda leaf: leaf.size)
    assert_same(kernel[:, 0], kernel[:, 3])
    assert not np.allclose(kernel[0], kernel[1])
    state, _ = train(recipe, inputs)
    kernel = max(jax.tree.leaves(state.params), key=lambda leaf: leaf.size)
    pairs = [(kernel[0, i], kernel[0, j]) for i in range(4) for j in range(i)] + [(kernel[0, 0], kernel[1, 0])]
    assert not any(np.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_calls_of_any_size_give_bit_identical_results_from_one_program():
    recipe, inputs = make_recipe(module=LINEAR), make_inputs(rows=ROWS)
    whole, _ = train(recipe, inputs, chunks=[9])
    before = training.train_steps._cache_size()
    parts, _ = train(recipe, inputs, chunks=[1, 4, 2, 2])  # epochs end after steps 3, 6, 9: chunks cross them
    assert_same(whole, parts)
    assert training.train_steps._cache_size() == before


def test_dropout_does_not_depend_on_calls_on_devices_or_on_members_side_by_side():
    recipe, rows = make_recipe(module=Dropped(ALL), accumulate=2, **NOT_AUGMENTED), ("no_treatment", "label_smoothing")
    inputs = make_inputs((0, 1), rows)
    whole, _ = train(recipe, inputs)
    assert_same(whole, train(recipe, inputs, chunks=[2, 1, 3])[0])
    assert_close(whole, train(recipe, inputs, devices=8)[0], 1e-6)
    in_turn = make_recipe(module=Dropped(ALL), accumulate=2, members_at_once=1, **NOT_AUGMENTED)
    assert_close(whole, train(in_turn, inputs)[0], 1e-6)


def test_the_state_is_donated_and_the_teachers_are_not():
    recipe, inputs = make_recipe(module=LINEAR), make_inputs(rows=ROWS)
    inputs = jax.device_put(inputs, jax.devices()[0])
    state = first_state(recipe, inputs)
    teacher = jax.device_get(inputs.teachers["old"].params)
    after, _ = take_steps(recipe, state, inputs, 0, 2)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert_same(jax.device_get(inputs.teachers["old"].params), teacher)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_members_in_turn_are_updated_in_place(seeds):
    inputs = make_inputs(seeds, ("no_treatment",) * 16)
    inputs = inputs.replace(mean=np.zeros(3), std=np.ones(3))
    window = data.Window(np.zeros((N, 64, 64, 3), np.uint8))
    recipe, none = make_recipe(module=LINEAR, members_at_once=1, **NOT_AUGMENTED), jnp.int32(0)
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = jax.eval_shape(lambda: training.init_state(recipe, inputs.keys, 16, (64, 64, 3), N))
    sizes = training.train_steps.lower(recipe, mesh, state, inputs, window, none, none).compile().memory_analysis()
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert sizes.temp_size_in_bytes < 0.7 * held  # room for one member, and with two seeds for those of one seed


@pytest.mark.parametrize(
    "rows_of_objectives",
    [("no_treatment", "balanced_softmax"), pytest.param(("balanced_meta_softmax",), marks=pytest.mark.slow)],
)
def test_training_on_chosen_rows_equals_training_without_the_other_images(rows_of_objectives):
    random = np.random.default_rng(3)
    rows = np.stack([np.sort(random.permutation(N)[:23]) for _ in range(2)]).astype(np.int32)
    recipe = make_recipe(module=LINEAR, sampled="balanced_meta_softmax" in rows_of_objectives)
    inputs = make_inputs((0, 1), rows_of_objectives).replace(rows=rows)
    assert inputs.num_examples == 23
    state, values = train(recipe, inputs)
    for seed in (0, 1):
        alone = make_inputs((seed,), rows_of_objectives)
        without = alone.replace(labels=alone.labels[rows[seed]])
        as_rows = train(recipe, alone.replace(rows=rows[seed : seed + 1]))
        assert_close(as_rows, train(recipe, without, images=IMAGES[rows[seed]]), 1e-6)
        assert_close((member(state, seed, 0), member(values, seed, 0)), jax.tree.map(lambda x: x[0, 0], as_rows), 1e-4)
    assert np.abs(state.params["head"]["kernel"][0] - state.params["head"]["kernel"][1]).max() > 1e-2


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_every_entry_is_advanced_with_its_own_arguments(size, at_once):
    carry = {"a": jnp.arange(float(size)), "b": jnp.ones((size, 2))}, jnp.zeros(size)

    def function(tree, total, x):
        return jax.tree.map(lambda leaf: leaf + x, tree), total - x

    tree, total = jax.jit(lambda carry, x: advance(at_once, function, carry, x))(carry, 10 * jnp.arange(float(size)))
    np.testing.assert_array_equal(tree["a"], 11 * np.arange(size))
    np.testing.assert_array_equal(tree["b"][:, 1], 1 + 10 * np.arange(size))
    np.testing.assert_array_equal(total, -10 * np.arange(size))
