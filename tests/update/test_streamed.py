"""What a run does with data before it trains, where the images are streamed."""

import numpy as np
import pytest

from mpt_jax import data
from mpt_jax.errors import InputError


def test_a_streamed_run_is_prepared_as_one_from_memory(prepared):
    memory, streamed = (prepared(f"dataset.source={source}") for source in ("auto", "stream"))
    assert isinstance(memory.dataset.train.images, np.ndarray)
    assert isinstance(streamed.dataset.train.images, data.Stream)
    np.testing.assert_array_equal(streamed.mean, memory.mean)
    np.testing.assert_array_equal(streamed.std, memory.std)
    known = streamed.known(streamed.dataset.test, 0)
    np.testing.assert_array_equal(known.images, memory.known(memory.dataset.test, 0).images)


def test_methods_that_draw_their_own_batches_are_refused(prepared):
    with pytest.raises(InputError, match=r"balanced_meta_softmax draws its own batches .*dataset\.source=memory"):
        prepared("dataset.source=stream", "update.methods=balanced_meta_softmax")
