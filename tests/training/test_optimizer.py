"""The schedules of the learning rate, and the optimizer against its formula."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from populations import N, make_recipe

from mpt_jax import training


def test_the_learning_rate_follows_a_cosine_per_step_or_per_epoch():
    steps_per_epoch = math.ceil(N / 16)
    for unit, every in (("step", 1), ("epoch", steps_per_epoch)):
        recipe = make_recipe(schedule_unit=unit, learning_rate=0.2, epochs=5)
        schedule = training.learning_rate(recipe, N)
        total = recipe.total_steps(N)
        assert total == 5 * steps_per_epoch
        for step in range(total):
            expected = 0.1 * (1 + math.cos(math.pi * (step // every) / (total // every)))
            assert float(schedule(jnp.int32(step))) == pytest.approx(expected, rel=1e-5)
    constant = training.learning_rate(make_recipe(schedule="constant"), N)
    assert float(constant(jnp.int32(7))) == pytest.approx(0.1)


def test_the_learning_rate_drops_to_a_tenth_after_each_third():
    rate = training.learning_rate(make_recipe(schedule="thirds", epochs=90), 160)
    found = [float(rate(jnp.int32(10 * epoch + step))) for epoch, step in ((0, 0), (29, 9), (30, 0), (59, 9), (60, 0))]
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-6)


def test_weight_decay_is_added_to_the_gradient_before_the_momentum():
    recipe = make_recipe(schedule="constant", learning_rate=0.2, momentum=0.9, weight_decay=0.1)
    optimizer, params, velocity = training.make_optimizer(recipe, N), np.array([1.0, -2.0]), np.zeros(2)
    state = optimizer.init(jnp.asarray(params))
    for gradient in (np.array([0.5, 0.0]), np.array([-1.0, 3.0])):
        updates, state = optimizer.update(jnp.asarray(gradient), state, jnp.asarray(params))
        velocity = 0.9 * velocity + gradient + 0.1 * params
        np.testing.assert_allclose(updates, -0.2 * velocity, rtol=1e-6)
        params = params + np.asarray(updates)
