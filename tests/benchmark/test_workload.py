"""The random state and inputs have the form of those of a real run."""

import jax

from mpt_jax import training
from mpt_jax.benchmark import workload
from mpt_jax.objectives import METHODS
from mpt_jax.training import sharding


def test_the_random_state_has_the_shapes_of_training():
    setup, mesh = workload.Setup(model="convnet", batch=16), sharding.make_mesh()
    _, labels = workload.examples(setup.job, mesh)
    recipe, inputs = setup.recipe(), workload.make_inputs(setup, [METHODS["mpt_kl"]] * 3, labels)
    made = workload.make_state(recipe, inputs, setup.job.image_shape, 3)
    real = jax.eval_shape(lambda keys: training.init_state(recipe, keys, 3, (8, 8, 1), len(labels)), inputs.keys)
    assert jax.tree.structure(made) == jax.tree.structure(real)
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (made, real)]
    assert shapes[0] == shapes[1]
    assert set(inputs.teachers) == {"old", "new"} and inputs.teachers["old"].module.num_classes == 5
    assert set(workload.make_inputs(setup, [METHODS["pct_kl"]], labels).teachers) == {"old"}
    assert not workload.make_inputs(setup, [METHODS["no_treatment"]], labels).teachers


def test_members_at_once_defaults_to_the_choice_of_training():
    chosen = training.fastest_members_at_once()
    assert workload.Setup(model="convnet").recipe().members_at_once == chosen
    assert workload.Setup(model="convnet", members_at_once=chosen + 1).recipe().members_at_once == chosen + 1
