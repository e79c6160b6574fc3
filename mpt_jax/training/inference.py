"""Predictions of trained classifiers, in batches over all devices."""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mpt_jax import data, models
from mpt_jax.models import Classifier
from mpt_jax.runtime import processes


def predict(
    classifiers: Classifier,
    images: np.ndarray | data.Stream,
    *,
    batch_size: int,
    mesh: Mesh,
    output: Callable[[Classifier, jax.Array], jax.Array] = models.logits,
) -> np.ndarray:
    """Compute the raw logits of a stack of classifiers on uint8 images ``[N, H, W, C]``.

    The last batch is padded, so that it needs no program of its own. Streamed images are decoded once each, a batch
    ahead; their logits equal those of an array up to rounding.

    Args:
      classifiers: leaves ``[members, ...]``.
      output: `models.logits`, or `models.features`.

    Returns:
      float32 ``[members, N, num_classes]``.
    """
    count = len(images)
    batch_size = -(-min(batch_size, count) // mesh.size) * mesh.size
    batches = -(-count // batch_size)
    if processes.is_distributed():  # each process may have them on its own device
        classifiers = jax.device_get(classifiers)
    if isinstance(images, data.Stream):
        return _predict_stream(output, classifiers, images, batch_size, mesh)[:, :count]
    padded = np.concatenate([images, np.repeat(images[:1], batches * batch_size - count, axis=0)])
    padded = padded.reshape(batches, batch_size, *images.shape[1:])
    logits = _predict(output, classifiers, processes.device_put(padded, NamedSharding(mesh, P(None, mesh.axis_names))))
    return _fetch(logits).reshape(logits.shape[0], batches * batch_size, -1)[:, :count]


def stream(
    classifier: Classifier,
    batches: Iterable[tuple[Any, np.ndarray]],
    output: Callable[[Classifier, jax.Array], jax.Array] = models.logits,
    *,
    batch_size: int,
    mesh: Mesh,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Compute the raw logits of one classifier batch by batch, and read a batch while the device works on the last one.

    Args:
      classifier: without leading axes; it is folded.
      batches: pairs of a tag and inputs, uint8 ``[n, H, W, C]`` or floats ``[n, D]``, with n from 1 to `batch_size`.
      output: `models.logits`, or `models.features`.
      batch_size: every batch is padded to it, and to a multiple of the devices, so that one program serves all.

    Yields:
      The tag and logits, float32 ``[n, num_classes]``, or features, float32 ``[n, D]``.
    """
    size, split = -(-batch_size // mesh.size) * mesh.size, NamedSharding(mesh, P(mesh.axis_names))
    classifier = jax.device_put(models.fold(classifier), NamedSharding(mesh, P()))

    def dispatched():
        for tag, inputs in batches:
            padded = np.concatenate([inputs, np.repeat(inputs[:1], size - len(inputs), axis=0)])
            yield tag, _COMPILED[output](classifier, jax.device_put(padded, split)), len(inputs)

    for tag, logits, count in _one_behind(dispatched()):
        yield tag, np.asarray(logits, np.float32)[:count]


def _predict_stream(
    output: Callable, classifiers: Classifier, stream: data.Stream, batch_size: int, mesh: Mesh
) -> np.ndarray:
    sharding, order = NamedSharding(mesh, P(None, mesh.axis_names)), data.Consecutive(len(stream), batch_size)
    part = data.local_part(NamedSharding(mesh, P(mesh.axis_names)), batch_size)

    def dispatched():
        with data.Reader(stream, order, part=part) as reader:
            for _ in range(-(-len(stream) // batch_size)):
                batch = np.empty((1, part.stop - part.start, *stream.image_shape), np.uint8)
                reader.fill(batch)
                whole = (1, batch_size, *stream.image_shape)
                yield _predict(output, classifiers, jax.make_array_from_process_local_data(sharding, batch, whole))

    logits = np.concatenate([_fetch(logits) for logits in _one_behind(dispatched())], axis=1)
    return logits.reshape(logits.shape[0], -1, logits.shape[-1])


def _fetch(logits: jax.Array) -> np.ndarray:
    """Return the logits of all processes, on the host."""
    whole = multihost_utils.process_allgather(logits, tiled=True) if processes.is_distributed() else logits
    return np.asarray(whole, np.float32)


def _one_behind(dispatched: Iterable[Any]) -> Iterator[Any]:
    """Yield each item after the next one is dispatched, so that the device works while the host waits for a result."""
    waiting: collections.deque[Any] = collections.deque()
    for each in dispatched:
        waiting.append(each)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


_COMPILED = {output: jax.jit(output) for output in (models.logits, models.features)}


@functools.partial(jax.jit, static_argnums=0)
def _predict(output: Callable, classifiers: Classifier, batches: jax.Array) -> jax.Array:
    def one(classifier):
        return jax.lax.map(functools.partial(output, classifier), batches)

    return jax.lax.map(one, classifiers)
