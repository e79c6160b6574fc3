"""The first state of a population, and the placement of its inputs."""

import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from populations import ALL, LINEAR, OLD, SHAPE, assert_same, first_state, make_inputs, make_recipe

from mpt_jax import training
from mpt_jax.training import sharding


def test_a_student_starts_from_the_weights_of_the_old_model():
    recipe = make_recipe(averaged=True)
    inputs = make_inputs((0, 1), ("pct_lm", "pct_lm"))
    old = inputs.teachers["old"]
    fresh, started = jax.device_get((first_state(recipe, inputs), first_state(recipe, inputs, start=old)))
    for row in (0, 1):
        for part, leaves in old.params.items():
            for name, leaf in leaves.items():
                ours, random = (state.params[part][name][:, row] for state in (started, fresh))
                np.testing.assert_array_equal(ours[..., : leaf.shape[-1]], leaf)
                np.testing.assert_array_equal(ours[..., leaf.shape[-1] :], random[..., leaf.shape[-1] :])
                assert (ours.shape != leaf.shape) == (part == "head")
        assert_same(jax.tree.map(lambda leaf, r=row: leaf[:, r], started.batch_stats), jax.device_get(old.batch_stats))
    assert not np.allclose(fresh.params["head"]["kernel"][..., :OLD], started.params["head"]["kernel"][..., :OLD])
    assert_same(started.opt_state, fresh.opt_state)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(started.opt_state))
    assert_same(started.average, (started.params, started.batch_stats))


def test_a_new_state_is_the_first_state_placed_on_the_mesh():
    recipe, inputs = make_recipe(module=LINEAR, sampled=True), make_inputs((0, 1), ("no_treatment",) * 2)
    mesh = sharding.population_mesh(sharding.make_mesh(jax.devices()[:4], members=4), 2, 2)
    placed = training.place(mesh, inputs)
    assert placed.keys.sharding.spec == P("seeds") and placed.labels.sharding.is_fully_replicated
    state = training.new_state(recipe, mesh, placed, SHAPE)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == sharding.state_shardings(mesh, state)
    assert_same(jax.device_get(state), jax.device_get(first_state(recipe, inputs)))
    assert state.log_rates.shape == (2, 2, ALL) and state.average is None


def test_sums_start_at_zero_for_every_member():
    inputs = make_inputs((0, 1), ("no_treatment",) * 3)
    assert inputs.num_objectives == 3
    for skip, names in ((False, {"loss", "accuracy"}), (True, {"loss", "accuracy", "skipped"})):
        sums = training.zero_sums(make_recipe(skip_nonfinite=skip), inputs)
        assert sums.keys() == names and all((value == np.zeros((2, 3))).all() for value in sums.values())
