"""Where the train steps find their images: on the device all the time, or streamed to it ahead of each call."""

import math
import time
from typing import Any

import jax
import numpy as np
from flax import struct
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mpt_jax.data.feeding.order import Order
from mpt_jax.data.feeding.stream import Reader, Stream

WINDOW_BYTES = 2**27  # of the images of one call, on each process; up to four times as much is in flight


class Window(struct.PyTreeNode):
    """The images of one call of the train steps, on the devices.

    Attributes:
      images: uint8 ``[N, H, W, C]``, all images; of a stream ``[seeds, steps, batch, H, W, C]``, the batches of the
        call, split over the devices by `batch`.
      rows: int32 ``[seeds, steps, batch]``, which examples these batches hold; None: all images are here, and the
        program draws its batches.
    """

    images: jax.Array
    rows: jax.Array | None = None

    @property
    def streamed(self) -> bool:
        """Whether these are the batches of one call."""
        return self.rows is not None


class Resident:
    """Images that stay on the device: every call finds all of them.

    Attributes:
      steps: most steps of one call.
    """

    def __init__(self, images: jax.Array, steps: int):
        self.steps, self._images = steps, images

    def window(self, begin: int, stop: int) -> Window:
        """Return all images; they do not depend on the steps."""
        return Window(self._images)

    def close(self) -> None:
        """Do nothing: nothing is running."""


class Feed:
    """Images that are decoded while the device works on the previous call.

    Each process reads the part of every batch that its own devices hold.

    Attributes:
      steps: most steps of one call: as many as fit in `WINDOW_BYTES`.
      waited: seconds that `window` has waited for images.

    Args:
      order: of the rows.
      steps: most steps of one call.
      batches: how a batch is placed on the devices.
    """

    def __init__(self, stream: Stream, order: Order, *, steps: int, batches: NamedSharding):
        self._stream, self._order, self._batches = stream, order, batches
        self._part = local_part(batches, order.batch_size)
        each = order.seeds * (self._part.stop - self._part.start) * math.prod(stream.image_shape)
        self.steps = max(1, min(steps, WINDOW_BYTES // each))
        self.waited = 0.0
        self._reader: Reader | None = None
        self._step = 0

    def window(self, begin: int, stop: int) -> Window:
        """Return the batches of the steps ``begin .. stop-1`` with room for `steps`.

        Steps that follow on those of the last call have been read ahead.
        """
        started, order, stream = time.perf_counter(), self._order, self._stream
        local = (order.seeds, self.steps, self._part.stop - self._part.start, *stream.image_shape)
        pixels = np.zeros(local, np.uint8)  # new for every call: a CPU device uses it without a copy
        rows = np.zeros((order.seeds, self.steps, order.batch_size), np.int32)
        if stop > begin:
            if self._reader is None or begin != self._step:
                self.close()
                self._reader = Reader(stream, order, start=begin, part=self._part, ahead=self.steps)
            for step in range(begin, stop):
                self._reader.fill(pixels[:, step - begin])
                rows[:, step - begin] = [order.rows(step, seed) for seed in range(order.seeds)]
            self._step = stop
        self.waited += time.perf_counter() - started
        mesh = self._batches.mesh
        whole = (*local[:2], order.batch_size, *stream.image_shape)
        return Window(
            jax.make_array_from_process_local_data(
                NamedSharding(mesh, P(None, None, *self._batches.spec)), pixels, whole
            ),
            jax.make_array_from_process_local_data(NamedSharding(mesh, P()), rows, rows.shape),
        )

    def close(self) -> None:
        """Stop reading ahead."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def local_part(batches: NamedSharding, size: int) -> slice:
    """Return the part of a batch, sharded over its only axis, that the devices of this process hold.

    Examples:
      >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
      >>> local_part(NamedSharding(mesh, P("data")), 16)
      slice(0, 16, None)
    """
    held: Any = batches.addressable_devices_indices_map((size,)).values()
    bounds = [index[0].indices(size)[:2] for index in held]
    return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))
