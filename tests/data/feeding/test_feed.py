"""Windows of images: all of them, or the batches of one call, read ahead."""

import jax
import load_dataset
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mpt_jax import data
from mpt_jax.data.feeding import feed


@pytest.fixture(scope="module")
def digits(digits_dir):
    options = {"data_dir": digits_dir, "train_per_class": 9}
    return {source: load_dataset.load(source=source, **options).train.images for source in ("memory", "stream")}


def make_feed(stream, steps=4):
    keys = jax.random.split(jax.random.key(0), 2)
    order = data.Shuffled(keys, keys, num_examples=len(stream), batch_size=16)
    batches = NamedSharding(jax.make_mesh((2,), ("data",), devices=jax.devices()[:2]), P("data"))
    return order, data.Feed(stream, order, steps=steps, batches=batches)


def test_a_window_holds_the_batches_of_its_steps(digits):
    order, fed = make_feed(digits["stream"])
    for begin, stop in ((0, 0), (0, 1), (1, 5), (5, 7), (2, 4)):  # the last does not follow, as after a restart
        window = fed.window(begin, stop)
        assert window.streamed and window.images.shape == (2, 4, 16, 8, 8, 1)
        for step in range(begin, stop):
            rows = [order.rows(step, seed) for seed in (0, 1)]
            np.testing.assert_array_equal(window.rows[:, step - begin], rows)
            np.testing.assert_array_equal(window.images[:, step - begin], digits["memory"][np.stack(rows)])
    assert fed.waited > 0
    fed.close()


def test_a_window_has_as_many_steps_as_fit_its_memory(digits, monkeypatch):
    for limit, steps in ((3 * 2 * 16 * 64, 3), (1, 1), (10**9, 4)):
        monkeypatch.setattr(feed, "WINDOW_BYTES", limit)
        assert make_feed(digits["stream"])[1].steps == steps


def test_resident_images_are_the_window_of_every_call(digits):
    resident = data.Resident(digits["memory"], 7)
    assert resident.steps == 7 and not resident.window(3, 5).streamed
    np.testing.assert_array_equal(resident.window(0, 0).images, digits["memory"])
    resident.close()
