"""The static settings of a stage."""

import dataclasses

import pytest
from populations import make_recipe

from mpt_jax import data


@pytest.mark.parametrize(("num_examples", "steps"), [(160, 10), (161, 11), (3, 1)])
def test_an_epoch_shows_every_example(num_examples, steps):
    recipe = make_recipe(epochs=7, batch_size=16)
    assert recipe.steps_per_epoch(num_examples) == steps
    assert recipe.total_steps(num_examples) == 7 * steps


@pytest.mark.parametrize(("accumulate", "size"), [(1, None), (2, 8), (16, 1)])
def test_micro_batches_divide_a_batch(accumulate, size):
    assert make_recipe(batch_size=16, accumulate=accumulate).micro_batch_size == size


def test_equal_recipes_share_a_compiled_program():
    assert hash(make_recipe()) == hash(make_recipe()) and make_recipe() == make_recipe()
    assert dataclasses.replace(make_recipe(), augmentation=data.Augmentation()) != make_recipe()
