"""Every epoch is a permutation, and batches fill its end from its start."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpt_jax.data.feeding.sampling import batch_indices, epoch_permutation, steps_per_epoch

KEY = jax.random.key(0)


def epoch_of_batches(key, epoch, num_examples, batch_size):
    permutation = epoch_permutation(key, epoch, num_examples)
    steps = range(steps_per_epoch(num_examples, batch_size))
    return np.stack([batch_indices(permutation, step, batch_size) for step in steps])


@pytest.mark.parametrize(("num_examples", "batch_size"), [(12, 4), (7, 7), (5, 1)])
def test_every_example_is_seen_once_if_the_batch_size_divides(num_examples, batch_size):
    batches = epoch_of_batches(KEY, 3, num_examples, batch_size)
    assert batches.shape == (num_examples // batch_size, batch_size)
    assert sorted(batches.ravel()) == list(range(num_examples))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 5))
def test_the_last_batch_is_filled_from_the_start_of_the_epoch(num_examples, batch_size, epoch):
    seen = epoch_of_batches(KEY, epoch, num_examples, batch_size).ravel()
    permutation = np.asarray(epoch_permutation(KEY, epoch, num_examples))
    assert sorted(permutation) == list(range(num_examples))
    repeats = -(-len(seen) // num_examples)
    np.testing.assert_array_equal(seen, np.tile(permutation, repeats)[: len(seen)])
    assert 0 <= len(seen) - num_examples < batch_size


def test_steps_per_epoch():
    assert [steps_per_epoch(n, 128) for n in (1, 128, 129, 50_000)] == [1, 1, 2, 391]
    for bad in ((0, 1), (1, 0), (5, -1)):
        with pytest.raises(ValueError, match="at least one example per batch"):
            steps_per_epoch(*bad)


def test_the_permutation_depends_on_key_and_epoch_alone():
    first = epoch_permutation(KEY, 0, 50)
    chex.assert_type(first, jnp.int32)
    chex.assert_trees_all_equal(first, epoch_permutation(jax.random.key(0), 0, 50))
    assert (first != epoch_permutation(KEY, 1, 50)).any()
    assert (first != epoch_permutation(jax.random.key(1), 0, 50)).any()
    assert (first != jnp.arange(50)).any()


def test_every_position_has_every_example_equally_often():
    permutations = jax.vmap(lambda epoch: epoch_permutation(KEY, epoch, 5))(jnp.arange(5000))
    counts = np.stack([np.bincount(column, minlength=5) for column in np.asarray(permutations).T])
    assert abs(counts - 1000).max() < 5 * np.sqrt(5000 * 0.2 * 0.8)  # five standard deviations


def test_jit_scan_and_vmap_give_the_same_batches():
    keys = jax.random.split(jax.random.key(9), 3)
    expected = np.stack([epoch_of_batches(key, 4, 11, 4) for key in keys])

    @jax.jit
    def one_seed(key, epoch):
        permutation = epoch_permutation(key, epoch, 11)
        return jax.lax.scan(lambda _, step: (None, batch_indices(permutation, step, 4)), None, jnp.arange(3))[1]

    batches = jax.vmap(one_seed, in_axes=(0, None))(keys, 4)
    chex.assert_type(batches, jnp.int32)
    np.testing.assert_array_equal(batches, expected)
    np.testing.assert_array_equal(one_seed(keys[1], jnp.uint32(4)), expected[1])
