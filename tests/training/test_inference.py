"""Predictions in padded batches, of stacks and over devices, equal those of each model on each image."""

import jax
import numpy as np
import pytest
import random_weights

from mpt_jax import models
from mpt_jax.models import Classifier
from mpt_jax.training import inference, sharding

get_logits = jax.jit(models.logits)


def make_stack(count, seed=0):
    module = models.build("convnet", 4)
    keys = jax.random.split(jax.random.key(seed), count)
    params, batch_stats = random_weights.init_each(module, keys, (8, 8, 1))
    mean, std = np.full((count, 1), 0.3, np.float32), np.full((count, 1), 0.5, np.float32)
    return Classifier(module=module, params=params, batch_stats=batch_stats, mean=mean, std=std)


_SLOW = [pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((20, 1), (100, 1), (16, 8))]


@pytest.mark.parametrize(("batch_size", "devices"), [(7, 1), (3, 8), *_SLOW])
def test_batching_keeps_every_image_in_its_place(batch_size, devices):
    stack, images = make_stack(3), np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
    mesh = sharding.make_mesh(jax.devices()[:devices])
    logits = inference.predict(stack, images, batch_size=batch_size, mesh=mesh)
    assert logits.shape == (3, 20, 4) and logits.dtype == np.float32
    for member in range(3):
        one = jax.tree.map(lambda leaf, member=member: leaf[member], stack)
        expected = np.concatenate([get_logits(one, images[i : i + 1]) for i in range(20)])
        np.testing.assert_allclose(logits[member], expected, rtol=1e-5, atol=1e-5)


def test_stacks_of_one_shape_compile_once_for_any_last_batch(compiled):
    mesh = sharding.make_mesh(jax.devices()[:1])
    for seed, count in ((0, 24), (1, 17), (2, 23)):  # three batches of 8, the last one full or not
        images = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), np.uint8)
        assert inference.predict(make_stack(2, seed), images, batch_size=8, mesh=mesh).shape == (2, count, 4)
    assert compiled["_predict"] == 1


def test_a_stream_yields_a_batch_after_reading_the_next_one():
    classifier, events = jax.tree.map(lambda leaf: leaf[0], make_stack(1)), []
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)

    def batches():
        for name, rows in (("a", slice(0, 2)), ("b", slice(2, 4)), ("c", slice(4, 5))):
            events.append(f"{name} is read")
            yield name, images[rows]

    found = []
    mesh = sharding.make_mesh(jax.devices()[:1])
    for name, logits in inference.stream(classifier, batches(), batch_size=2, mesh=mesh):
        events.append(f"{name} is predicted")
        found.append(logits)
    assert events == ["a is read", "b is read", "a is predicted", "c is read", "b is predicted", "c is predicted"]
    np.testing.assert_allclose(np.concatenate(found), get_logits(classifier, images), rtol=1e-5, atol=1e-5)
