"""Members side by side fit a device, and rematerialised networks keep fewer activations."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from populations import ALL, IMAGES, SHAPE, N, make_inputs, make_recipe

from mpt_jax import models, training
from mpt_jax.models import parameters
from mpt_jax.training import device_memory, sharding


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", [models.vit.ViT(ALL, patch=1, width=16, depth=3, heads=2), models.resnet.ResNet(ALL, depths=(1, 1))]
)
def test_rematerialised_networks_have_the_same_parameters_and_keep_fewer_activations(module):
    remat = module.clone(remat=True)
    shapes = [jax.eval_shape(lambda m=m: models.init(m, jax.random.key(0), SHAPE)) for m in (module, remat)]
    assert shapes[0] == shapes[1]
    images = jax.ShapeDtypeStruct((2, *SHAPE), jnp.float32)
    outputs = [jax.eval_shape(functools.partial(models.train_forward, m), *shapes[0], images) for m in (module, remat)]
    assert outputs[0] == outputs[1]
    kept, between = (device_memory._kept(m, SHAPE) for m in (module, remat))
    assert 0 < between < 0.6 * kept
    assert between < device_memory.activations(module, SHAPE, remat=True) < kept


def test_members_side_by_side_fit_the_device():
    inputs, mesh = make_inputs((0, 1), ("no_treatment", "pct_lm")), sharding.make_mesh(jax.devices()[:2])
    recipe = make_recipe()

    def chosen(limit, accumulate=1, **changes):
        optimizer = dataclasses.replace(recipe.optimizer, accumulate=accumulate)
        changed = dataclasses.replace(recipe, optimizer=optimizer, **changes)
        return training.limit_members(changed, mesh, inputs, IMAGES, limit).members_at_once

    state = jax.eval_shape(lambda keys: training.init_state(recipe, keys, 2, SHAPE, N), inputs.keys)
    teachers = jax.tree.leaves(inputs.teachers)
    fixed = N * 64 + N * 4 + sum(np.asarray(leaf).nbytes for leaf in teachers) + device_memory.tree_bytes(state)
    work = 16 // 2 * device_memory.activations(recipe.module, SHAPE) + 2 * device_memory.tree_bytes(state.params) // 4
    fits = lambda members: math.ceil((fixed + members * work) / device_memory.SHARE) + 1  # noqa: E731
    assert [chosen(fits(members)) for members in (1, 2, 3)] == [1, 2, 3]
    assert chosen(fits(4)) == chosen(None) == recipe.members_at_once  # all four
    assert chosen(fits(3) - 4) == 2 and chosen(1) == 1
    assert chosen(fits(3), members_at_once=2) == 2
    assert chosen(fits(1) + 8 * work // 3, accumulate=4) > chosen(fits(1) + 8 * work // 3)


def test_frozen_layers_keep_no_activations_and_no_state_of_the_optimizer():
    inputs, mesh = make_inputs((0, 1), ("no_treatment", "pct_lm")), sharding.make_mesh(jax.devices()[:1])
    whole, frozen = (make_recipe(name="adamw", freeze=freeze) for freeze in ((), ("backbone",)))
    kept = [
        device_memory.activations(whole.module, SHAPE, freeze=r.optimizer.freeze, fixed=r.fixed)
        for r in (whole, frozen)
    ]
    assert kept[1] == 4 * 4 * 4 * 6  # float32: the 4 x 4 x 6 inputs of the head
    assert kept[0] > 5 * kept[1]
    states = [
        jax.eval_shape(lambda keys, r=r: training.init_state(r, keys, 2, SHAPE, N), inputs.keys)
        for r in (whole, frozen)
    ]
    head, rest = (
        sum(leaf.size for leaf in jax.tree.leaves(part))
        for part in parameters.split(states[0].params, ("conv*", "norm*"))
    )
    sizes = [device_memory.tree_bytes(state.opt_state) for state in states]
    assert sizes[0] - sizes[1] == 2 * 4 * rest and head > 0  # two moments
    limit = next(
        n for n in range(10_000, 10**7, 5_000) if training.limit_members(frozen, mesh, inputs, IMAGES, n) == frozen
    )
    assert training.limit_members(whole, mesh, inputs, IMAGES, limit).members_at_once < 4
