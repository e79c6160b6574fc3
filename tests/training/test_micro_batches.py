"""A batch in parts gives the mean, and the results, of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax.training import micro_batches

BATCH = {"x": np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32), "y": np.arange(12)}


@pytest.mark.parametrize("parts", [1, 2, 6])
def test_the_mean_over_the_parts_is_that_over_the_batch(parts):
    seen = jax.jit(lambda batch: micro_batches.mean(parts, lambda b: (b["x"].mean(0), b["y"].mean()), batch))(BATCH)
    np.testing.assert_allclose(seen[0], BATCH["x"].mean(0), rtol=1e-5, atol=1e-6)
    assert float(seen[1]) == 5.5


def test_every_part_is_seen_alone():
    squares = micro_batches.mean(3, lambda x: x.mean() ** 2, jnp.arange(6.0))
    assert float(squares) == pytest.approx((1.5**2 + 2.5**2 + 3.5**2) / 3)  # of (0, 3), (1, 4), (2, 5)


@pytest.mark.parametrize("parts", [1, 2, 6])
def test_results_are_in_the_order_of_the_batch(parts):
    found = jax.jit(lambda x: micro_batches.concatenated(parts, lambda x: {"twice": 2 * x}, x))(BATCH["x"])
    np.testing.assert_array_equal(found["twice"], 2 * BATCH["x"])
