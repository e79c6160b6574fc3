"""The timed program runs the real train steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax import data, training
from mpt_jax.benchmark import program, workload
from mpt_jax.objectives import METHODS
from mpt_jax.training import sharding


@pytest.mark.slow
def test_the_program_runs_the_steps_of_training_in_order(one_device):
    setup, mesh = workload.Setup(model="convnet", batch=16, steps=2), sharding.make_mesh()
    rows = [METHODS["mpt_kl"], METHODS["mpt_kl"].replace(bias=1.0)]
    images, labels = workload.examples(setup.job, mesh)
    timed = program.Program(setup, rows, images, labels, mesh)  # runs one step
    assert timed.run(4) > 0 and timed.milliseconds() > 0 and timed.call_milliseconds() > 0

    recipe, inputs = setup.recipe(), workload.make_inputs(setup, rows, labels)
    state, inputs = jax.device_put(
        (workload.make_state(recipe, inputs, setup.job.image_shape, 2), inputs),
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
    )
    done = 1 + 4 + 2 * program.CALLS
    window = data.Window(images)
    state, values = training.train_steps(recipe, mesh, state, inputs, window, jnp.int32(0), jnp.int32(done))
    assert np.isfinite(values["loss"]).all()
    for expected, found in zip(jax.tree.leaves(state), jax.tree.leaves(timed._state), strict=True):
        np.testing.assert_array_equal(expected, found)
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[0, i], state.params) for i in (0, 1))
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


def test_a_population_on_more_devices_than_the_images():
    """Measurements load the images once, on one core, before the mesh of a population is chosen."""
    setup, cores = workload.Setup(model="convnet", batch=16, steps=1), jax.devices()[:2]
    images, labels = workload.examples(setup.job, sharding.make_mesh(cores[:1]))
    mesh = training.choose_mesh(sharding.make_mesh(cores[:1]), cores, setup.network(), images, 1, 2)
    assert mesh.size == 2
    timed = program.Program(setup, [METHODS["no_treatment"]] * 2, images, labels, mesh)
    assert timed.at_once == 2 and timed.run(1) > 0
