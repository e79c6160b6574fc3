"""Images that stay encoded on disk until they are wanted: a `Stream` stands where an array of all pixels would.

A stream is indexed like an array, but a part of it is a stream again, and only `numpy.asarray` decodes. Which images a
step sees is a pure function of (seed, step), so that the place in a stream is the number of the step and nothing else;
a random crop is a function of (seed, epoch, row). Neither depends on how many threads or processes decode.
"""

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from mpt_jax.data import images
from mpt_jax.data.dataset_config import DatasetConfig
from mpt_jax.data.feeding import crops
from mpt_jax.data.feeding.sampling import epoch_permutation, steps_per_epoch
from mpt_jax.errors import InputError

CONTAINER_LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")
LARGEST_SHARE = 1 / 4  # of the memory that decoded images may take before they are streamed

_PIECE = 32  # images that one thread or process decodes at a time
_MOST_THREADS = 16  # beyond, they wait for each other: what PIL does in Python is done by one at a time


class Encoded(Protocol):
    """Random access to encoded images, by record number; sent to worker processes."""

    def read(self, records: Sequence[int]) -> Sequence[pathlib.Path | bytes]:
        """Of these records the files, or what is in them."""

    def name(self, record: int) -> str:
        """What a message calls it."""

    def sizes(self, records: Sequence[int]) -> list[int]:
        """Bytes of the files of these records, by which changed ones are told without being read; none if unknown."""


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
    """Image files."""

    paths: list[pathlib.Path]

    def read(self, records: Sequence[int]) -> list[pathlib.Path]:
        return [self.paths[record] for record in records]

    def name(self, record: int) -> str:
        return str(self.paths[record])

    def sizes(self, records: Sequence[int]) -> list[int]:
        return [self.paths[record].stat().st_size for record in records]


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """The feature `image` of a TFDS data source whose images are not decoded."""

    source: Any
    what: str

    def read(self, records: Sequence[int]) -> list[bytes]:
        return [example["image"] for example in self.source.__getitems__(list(records))]

    def name(self, record: int) -> str:
        return f"image {record} of {self.what}"

    def sizes(self, records: Sequence[int]) -> list[int]:
        return []


def must_stream(settings: DatasetConfig, count: int, shape: Sequence[int] | None) -> bool:
    """Return whether to stream `count` images of this shape (None: unknown) instead of decoding them into memory."""
    if settings.augmentation == "imagenet" or settings.source == "stream":
        return True
    return settings.source == "auto" and shape is not None and count * math.prod(shape) > LARGEST_SHARE * memory()


def memory() -> int:
    """Bytes of the first device's memory, or of the machine's (or the container's) where that is less."""
    limits = []
    with contextlib.suppress(OSError, ValueError):  # "max" where there is none
        limits.append(int(CONTAINER_LIMIT.read_text()))
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    stats = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats and "bytes_limit" in stats:
        limits.append(stats["bytes_limit"])
    return min(limits, default=2**34)


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """Encoded images as if they were an array ``uint8 [N, H, W, C]``; `numpy.asarray` decodes them.

    Attributes:
      encoded: where they are.
      records: of each row, ``int64 [N]``.
      image_shape: height, width and channels of every image once it is decoded.
      augmentation: "crop_flip": brought to their size as `images.decode` says, and augmented on the device; "imagenet":
        `crops.random_box` and a flip in training, `crops.centre_box` otherwise.
      as_stored: see `images.decode`.
      workers: processes that decode; 0: a thread of this process for each of its cores, 16 at most.
    """

    encoded: Encoded
    records: np.ndarray
    image_shape: tuple[int, int, int]
    augmentation: str = "crop_flip"
    as_stored: bool = False
    workers: int = 0

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __len__(self) -> int:
        return len(self.records)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.image_shape)

    def sizes(self) -> np.ndarray:
        """Bytes of each image's file, ``int64 [N]``; ``[0]`` where they have none of their own."""
        return np.array(self.encoded.sizes(self.records.tolist()), np.int64)

    def __getitem__(self, rows: Any) -> "Stream | np.ndarray":
        """The decoded image of one row; of several a stream."""
        chosen = self.records[rows]
        part = dataclasses.replace(self, records=np.atleast_1d(chosen))
        return np.asarray(part)[0] if np.ndim(chosen) == 0 else part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a stream has no array yet; expected a copy")
        out = images.blank(len(self), *self.image_shape)
        with Reader(self, Consecutive(len(self), _PIECE)) as reader:
            for start in range(0, len(self), _PIECE):
                piece = np.empty((1, _PIECE, *self.image_shape), np.uint8)
                reader.fill(piece)
                out[start : start + _PIECE] = piece[0, : len(self) - start]
        return out if dtype is None else out.astype(dtype)

    def decode(self, file: pathlib.Path | bytes, random: np.random.Generator | None = None) -> np.ndarray:
        """An encoded image as a network is shown it, ``uint8 [H, W, C]``; with random numbers as one to train on.

        Raises:
          ValueError: it cannot be read.
        """
        *size, channels = self.image_shape
        options = {"channels": channels, "size": size, "as_stored": self.as_stored}
        if self.augmentation != "imagenet":
            return images.decode(file, **options)
        if random is None:
            return images.decode_box(file, lambda w, h: crops.centre_box(w, h, size), **options)
        flip = random.random() < 0.5
        return images.decode_box(file, lambda w, h: crops.random_box(w, h, random), flip=flip, **options)


class Order(Protocol):
    """Which rows a step sees; sent to worker processes."""

    seeds: int
    batch_size: int

    def rows(self, step: int, seed: int) -> np.ndarray:
        """``int32 [batch_size]``."""

    def entropy(self, step: int, seed: int) -> tuple[int, ...] | None:
        """What, with the row, the random numbers of an image depend on; None: it is not augmented."""


@dataclasses.dataclass(frozen=True)
class Consecutive:
    """Every row once, in order; the last batch is filled up with row 0.

    Examples:
      >>> Consecutive(3, 2).rows(1, seed=0).tolist()
      [2, 0]
    """

    num_examples: int
    batch_size: int
    seeds: int = 1

    def rows(self, step: int, seed: int) -> np.ndarray:
        rows = step * self.batch_size + np.arange(self.batch_size, dtype=np.int32)
        return np.where(rows < self.num_examples, rows, np.int32(0))

    def entropy(self, step: int, seed: int) -> None:
        return None


class Shuffled:
    """The order that `sampling.epoch_permutation` and `sampling.batch_indices` give within a compiled program.

    It is computed on the CPU, where it is needed, so nothing has to be sent or saved.

    Args:
      order_keys: typed keys ``[seeds]``, of the permutations.
      augment_keys: typed keys ``[seeds]``, of the random crops.
      num_examples: that each seed learns from.
      chosen: ``int32 [seeds, num_examples]``, their rows; None: the rows are ``0 .. num_examples-1``.
    """

    def __init__(
        self,
        order_keys: jax.Array,
        augment_keys: jax.Array,
        *,
        num_examples: int,
        batch_size: int,
        chosen: np.ndarray | None = None,
    ):
        self.seeds, self.batch_size = order_keys.shape[0], batch_size
        self._num_examples, self._chosen = num_examples, chosen
        self._keys, self._implementation = (
            np.asarray(jax.random.key_data(order_keys)),
            str(jax.random.key_impl(order_keys)),
        )
        self._entropy = [tuple(words) for words in np.asarray(jax.random.key_data(augment_keys)).tolist()]
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_cached")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._cached = functools.lru_cache(maxsize=2 * self.seeds)(self._permutation)

    def rows(self, step: int, seed: int) -> np.ndarray:
        epoch, step_in_epoch = divmod(step, steps_per_epoch(self._num_examples, self.batch_size))
        with self._lock:  # or all threads would begin an epoch by computing it
            permutation = self._cached(epoch, seed)
        positions = step_in_epoch * self.batch_size + np.arange(self.batch_size)
        rows = permutation[positions % self._num_examples]
        return rows if self._chosen is None else self._chosen[seed][rows]

    def entropy(self, step: int, seed: int) -> tuple[int, ...]:
        return (*self._entropy[seed], step // steps_per_epoch(self._num_examples, self.batch_size))

    def _permutation(self, epoch: int, seed: int) -> np.ndarray:
        with jax.default_device(_host()):  # an accelerator is busy with the steps before
            key = jax.random.wrap_key_data(self._keys[seed], impl=self._implementation)
            return np.asarray(_epoch_permutation(key, np.int32(epoch), self._num_examples))


_epoch_permutation = jax.jit(epoch_permutation, static_argnums=2)


class Reader:
    """The decoded batches of an order, one after the other, in parallel and ahead of time.

    Args:
      start: the first step.
      part: of every batch, what is read: a process of several reads its own images only.
      ahead: steps whose images may be waiting.
    """

    def __init__(self, stream: Stream, order: Order, *, start: int = 0, part: slice = slice(None), ahead: int = 1):
        import grain  # a second that runs on images in memory do without

        bounds = range(*part.indices(order.batch_size))
        pieces = _Pieces(stream, order, start, bounds)
        self._sizes = [len(piece) for piece in pieces.parts]
        threads = min(cores(), _MOST_THREADS)
        waiting = max(2 * (stream.workers or threads), ahead * order.seeds * len(self._sizes))
        read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=waiting)
        if stream.workers:
            read = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        dataset = grain.MapDataset.source(pieces).to_iter_dataset(read)
        if stream.workers:
            _settle_flags()
            each = grain.MultiprocessingOptions(stream.workers, per_worker_buffer_size=-(-waiting // stream.workers))
            dataset = dataset.mp_prefetch(each, worker_init_fn=_start_worker)
        self._pieces = iter(dataset)

    def fill(self, out: np.ndarray) -> None:
        """Write the next batch, ``uint8 [seeds, part, H, W, C]``.

        Raises:
          InputError: an image cannot be read.
        """
        for batch in out:
            start = 0
            for size in self._sizes:
                piece = next(self._pieces)
                if isinstance(piece, str):
                    raise InputError(
                        f"an image cannot be read: {piece}; mend it or take it out of the data set "
                        "(a stream finds it only here; dataset.source=memory looks at all of them first)"
                    )
                batch[start : start + size] = piece
                start += size

    def close(self) -> None:
        """Stop reading ahead."""
        if self._pieces is not None:
            self._pieces.close()
            self._pieces = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Pieces:
    """Pieces of batches by number, as grain's random-access source: seeds of a step, and parts of a seed's batch."""

    def __init__(self, stream: Stream, order: Order, start: int, bounds: range):
        self.stream, self.order, self.start = stream, order, start
        self.parts = [bounds[i : i + _PIECE] for i in range(0, len(bounds), _PIECE)]

    def __len__(self) -> int:
        return 2**31 * self.order.seeds * len(self.parts)  # whoever reads knows where to stop

    def __getitem__(self, number: int) -> np.ndarray | str:
        step, number = divmod(number, self.order.seeds * len(self.parts))
        seed, part = divmod(number, len(self.parts))
        step, part = step + self.start, self.parts[part]
        rows, entropy = self.order.rows(step, seed)[part.start : part.stop], self.order.entropy(step, seed)
        records = self.stream.records[rows].tolist()
        out = np.empty((len(rows), *self.stream.image_shape), np.uint8)
        for i, file in enumerate(self.stream.encoded.read(records)):
            random = None if entropy is None else np.random.default_rng((*entropy, int(rows[i])))
            try:
                out[i] = self.stream.decode(file, random)
            except ValueError as error:  # as text: an exception loses its type on the way from a process
                return f"{self.stream.encoded.name(records[i])} ({error})"
        return out


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _host() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names accelerators alone
        return jax.local_devices()[0]


def _settle_flags() -> None:
    """grain asks absl's flags when it starts processes, and absl refuses answers before a command line was parsed."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _start_worker(_index: int, _count: int) -> None:
    """The accelerators belong to the process that trains."""
    jax.config.update("jax_platforms", "cpu")
