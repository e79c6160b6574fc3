"""Frozen teachers, and the tape of their logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from populations import ALL, IMAGES, ROWS, assert_close, make_inputs, make_recipe, train

from mpt_jax import data, models, training
from mpt_jax.training import batches, sharding, teachers
from mpt_jax.training.state import SeedInputs


@pytest.mark.slow
@pytest.mark.ci
def test_frozen_teachers_give_the_same_students():
    with jax.enable_x64(True):
        module = models.build("linear", ALL, dtype="float64")  # the students'; the teachers have BatchNorm
        recipe, inputs = make_recipe("float64", module=module), make_inputs((0, 1), ROWS, "float64")
        old = inputs.teachers["old"]
        teachers = {
            **inputs.teachers,
            "old": old.replace(mean=0 * old.mean + inputs.mean, std=0 * old.std + inputs.std),
        }
        inputs = inputs.replace(teachers=teachers)
        frozen = {name: training.freeze(teacher, inputs.mean, inputs.std) for name, teacher in teachers.items()}
        assert (
            frozen["old"].mean is None and frozen["new"].mean is not None
        )  # the student's normalisation, and another one
        assert_close(train(recipe, inputs.replace(teachers=frozen)), train(recipe, inputs))


def test_only_the_head_of_the_old_head_is_kept():
    inputs = make_inputs(rows=("pct_lm",))
    frozen = teachers.freeze_all({"old": inputs.teachers["old"], "old_head": inputs.teachers["old"]}, inputs.mean, 1.0)
    assert frozen["old_head"].params.keys() == {"head"} and not frozen["old_head"].batch_stats
    assert frozen["old"].module.folded
    assert teachers.old_head(frozen) is frozen["old_head"].params["head"]
    assert teachers.old_head({"old": frozen["old"]}) is None


@pytest.mark.parametrize(
    ("at_once", "groups", "sampled", "expected"),
    [(1, 1, False, True), (4, 1, False, False), (3, 1, False, True), (4, 2, False, True), (1, 2, True, False)],
)
def test_logits_are_recorded_if_members_would_compute_them_several_times(at_once, groups, sampled, expected):
    recipe = make_recipe(members_at_once=at_once, sampled=sampled)
    assert teachers.needs_tape(recipe, num_objectives=4, groups=groups) == expected


def test_the_tape_holds_the_logits_on_the_batch_of_every_step():
    recipe, inputs = make_recipe(steps_per_call=5, accumulate=2), jax.device_put(make_inputs(rows=("mpt_kl",)))
    one = jax.tree.map(lambda leaf: leaf[0], inputs.teachers)
    seed = SeedInputs(one, inputs.keys[0], None, None, None, jnp.int32(0))
    mesh = sharding.make_mesh(jax.devices()[:1])

    @jax.jit
    def record(start, stop):
        call = batches.Call(recipe, mesh, inputs, data.Window(jnp.asarray(IMAGES)), start, stop)
        of_seed = batches.of_seed(call, seed)
        return teachers.record(of_seed, 1), [of_seed.at(start + i).images for i in range(3)]

    tape, images = record(jnp.int32(2), jnp.int32(5))
    assert {source: logits.shape for source, logits in tape.items()} == {"old": (5, 16, 3), "new": (5, 16, 6)}
    logits_of = jax.jit(models.logits)
    for source, logits in tape.items():
        for i in range(3):
            np.testing.assert_allclose(logits[i], logits_of(one[source], images[i]), rtol=1e-5, atol=1e-6)
        assert not np.any(logits[3:])
