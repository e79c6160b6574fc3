"""A member with learned class rates: its batches and the logits of its teachers."""

import jax
import numpy as np
import pytest
from populations import LINEAR, first_state, long_tailed, make_recipe, trajectory, with_objectives

from mpt_jax import objectives
from mpt_jax.models import Classifier


@pytest.mark.slow
def test_teachers_see_the_batch_that_the_learned_rates_draw():
    objective = objectives.Objective(0.0, terms=(objectives.Term("new", "lm"),), sampler_rate=0.1)
    for at_once in (1, 8):
        recipe = make_recipe(module=LINEAR, sampled=True, members_at_once=at_once)
        inputs = with_objectives(long_tailed(), objective, objective.replace(sampler_rate=0.2))
        start = first_state(recipe, inputs)
        params = jax.tree.map(lambda leaf: leaf[:, 0], start.params)
        teacher = Classifier(LINEAR, params, {}, mean=inputs.mean[None], std=inputs.std[None])
        _, (values,) = trajectory(recipe, inputs.replace(teachers={"new": teacher}), 1)
        np.testing.assert_allclose(values["loss"], 0, atol=1e-10)  # teacher and student are the same network
        _, (values,) = trajectory(recipe, inputs.replace(teachers={"new": teacher.replace(mean=teacher.mean + 1)}), 1)
        assert (values["loss"] > 0.1).all()
