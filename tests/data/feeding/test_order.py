"""Orders on the host equal those of the compiled program."""

import pickle

import jax
import numpy as np

from mpt_jax import data


def test_the_order_equals_that_of_the_compiled_program():
    order_keys, augment_keys = (jax.random.split(jax.random.key(seed), 2) for seed in (0, 1))
    chosen = np.stack([np.arange(0, 200, 2), np.arange(1, 200, 2)])
    order = data.Shuffled(order_keys, augment_keys, num_examples=100, batch_size=16, chosen=chosen)
    for step in (0, 5, 6, 7, 20):  # seven steps per epoch, the last one filled up
        for seed in (0, 1):
            permutation = data.epoch_permutation(order_keys[seed], step // 7, 100)
            expected = chosen[seed][data.batch_indices(permutation, step % 7, 16)]
            np.testing.assert_array_equal(order.rows(step, seed), expected)
    copy = pickle.loads(pickle.dumps(order))  # as it reaches a worker process
    np.testing.assert_array_equal(copy.rows(9, 1), order.rows(9, 1))


def test_the_seed_of_an_augmentation_depends_on_seed_and_epoch_alone():
    keys = jax.random.split(jax.random.key(0), 2)
    order = data.Shuffled(keys, keys, num_examples=100, batch_size=16)
    assert order.entropy(0, 0) == order.entropy(6, 0)
    assert len({order.entropy(step, seed) for step in (0, 7, 14) for seed in (0, 1)}) == 6


def test_consecutive_batches_have_every_row_once_and_are_padded_with_the_first():
    order = data.Consecutive(5, 2)
    assert [order.rows(step, 0).tolist() for step in range(3)] == [[0, 1], [2, 3], [4, 0]]
    assert order.entropy(0, 0) is None
