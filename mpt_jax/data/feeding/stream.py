"""Images that stay encoded on disk until they are needed.

A `Stream` takes the place of an array of pixels. It is indexed like an array; a part of it is another stream, and only
`numpy.asarray` decodes. Which images a step sees is a pure function of (seed, step), so the position in a stream is the
step number alone. A random crop is a function of (seed, epoch, row). Neither depends on the number of threads or
processes that decode.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from mpt_jax.data import images
from mpt_jax.data.dataset_config import COVER, DatasetConfig, Resizing
from mpt_jax.data.feeding import crops
from mpt_jax.data.feeding.order import Consecutive, Order
from mpt_jax.errors import InputError
from mpt_jax.runtime import hardware

CONTAINER_LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")
LARGEST_SHARE = 1 / 4  # of the memory that decoded images may take before they are streamed

_PIECE = 32  # images that one thread or process decodes at a time
_MOST_THREADS = 16  # more would wait for each other, because the Python part of PIL runs in one thread at a time


class Encoded(Protocol):
    """Random access to encoded images by record number; sent to the processes that decode."""

    def read(self, records: Sequence[int]) -> Sequence[pathlib.Path | bytes]:
        """Return the files of these records, or their contents."""

    def name(self, record: int) -> str:
        """Return the name of a record in messages."""

    def sizes(self, records: Sequence[int]) -> list[int]:
        """Return the bytes of the files of these records, by which changes are detected; empty if unknown."""


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
    """The feature `image` of a TFDS data source that does not decode images."""

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
    """Return the smallest of the bytes of memory of the first device, the machine and its container."""
    limits = []
    with contextlib.suppress(OSError, ValueError):  # "max" means no limit
        limits.append(int(CONTAINER_LIMIT.read_text()))
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    stats = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats and "bytes_limit" in stats:
        limits.append(stats["bytes_limit"])
    return min(limits, default=2**34)


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """Encoded images that act like an array ``uint8 [N, H, W, C]``; `numpy.asarray` decodes them.

    Attributes:
      encoded: the source of the images.
      records: the record number of each row, ``int64 [N]``.
      image_shape: height, width and channels of every decoded image.
      augmentation: "crop_flip": resized by `images.decode`, and augmented on the device; "imagenet":
        `crops.random_box` and a flip in training, `images.decode` otherwise.
      resizing: see `images.decode`.
      as_stored: see `images.decode`.
      workers: processes that decode; 0: one thread of this process per core, 16 at most.
    """

    encoded: Encoded
    records: np.ndarray
    image_shape: tuple[int, int, int]
    augmentation: str = "crop_flip"
    resizing: Resizing = COVER
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
        """Return the bytes of each image's file, ``int64 [N]``; ``[0]`` if the images are not files."""
        return np.array(self.encoded.sizes(self.records.tolist()), np.int64)

    def __getitem__(self, rows: Any) -> "Stream | np.ndarray":
        """Return the decoded image of one row, or a stream of several."""
        chosen = self.records[rows]
        part = dataclasses.replace(self, records=np.atleast_1d(chosen))
        return np.asarray(part)[0] if np.ndim(chosen) == 0 else part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("copy=False, but a stream must be decoded into a new array; expected copy=None or True")
        out = images.blank(len(self), *self.image_shape)
        with Reader(self, Consecutive(len(self), _PIECE)) as reader:
            for start in range(0, len(self), _PIECE):
                piece = np.empty((1, _PIECE, *self.image_shape), np.uint8)
                reader.fill(piece)
                out[start : start + _PIECE] = piece[0, : len(self) - start]
        return out if dtype is None else out.astype(dtype)

    def decode(self, file: pathlib.Path | bytes, random: np.random.Generator | None = None) -> np.ndarray:
        """Decode an image to what a network sees, ``uint8 [H, W, C]``.

        Args:
          random: of the augmentation in training; None: evaluation.

        Raises:
          ValueError: the image cannot be read.
        """
        *size, channels = self.image_shape
        options: dict[str, Any] = {"channels": channels, "size": size, "as_stored": self.as_stored}
        if self.augmentation != "imagenet" or random is None:
            return images.decode(file, resizing=self.resizing, **options)
        flip = random.random() < 0.5
        return images.decode_box(file, lambda w, h: crops.random_box(w, h, random), flip=flip, **options)


class Reader:
    """The decoded batches of an order one after the other, decoded in parallel and ahead of time.

    Args:
      start: the first step.
      part: the part of every batch to read, if several processes share a batch.
      ahead: steps whose images may be waiting.
    """

    def __init__(self, stream: Stream, order: Order, *, start: int = 0, part: slice = slice(None), ahead: int = 1):
        import grain  # takes a second, which runs on images in memory save

        bounds = range(*part.indices(order.batch_size))
        pieces = _Pieces(stream, order, start, bounds)
        self._sizes = [len(piece) for piece in pieces.parts]
        threads = min(hardware.num_cores(), _MOST_THREADS)
        waiting = max(2 * (stream.workers or threads), ahead * order.seeds * len(self._sizes))
        read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=waiting)
        if stream.workers:
            read = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        dataset = grain.MapDataset.source(pieces).to_iter_dataset(read)
        if stream.workers:
            _parse_flags()
            each = grain.MultiprocessingOptions(stream.workers, per_worker_buffer_size=-(-waiting // stream.workers))
            dataset = dataset.mp_prefetch(each, worker_init_fn=_start_worker)
        self._pieces = iter(dataset)

    def fill(self, out: np.ndarray) -> None:
        """Write the next batch to `out`, ``uint8 [seeds, part, H, W, C]``.

        Raises:
          InputError: an image cannot be read.
        """
        for batch in out:
            start = 0
            for size in self._sizes:
                piece = next(self._pieces)
                if isinstance(piece, str):
                    raise InputError(
                        f"an image cannot be read: {piece}; expected only readable images: fix it, or remove it from "
                        "the data set (a stream finds it only now; dataset.source=memory reads all images first)"
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
    """Pieces of batches by number: of each step the seeds, and of each seed the parts of its batch."""

    def __init__(self, stream: Stream, order: Order, start: int, bounds: range):
        self.stream, self.order, self.start = stream, order, start
        self.parts = [bounds[i : i + _PIECE] for i in range(0, len(bounds), _PIECE)]

    def __len__(self) -> int:
        return 2**31 * self.order.seeds * len(self.parts)  # the reader knows when to stop

    def __getitem__(self, number: int) -> np.ndarray | str:
        step, number = divmod(number, self.order.seeds * len(self.parts))
        seed, number = divmod(number, len(self.parts))
        step, part = step + self.start, self.parts[number]
        rows, entropy = self.order.rows(step, seed)[part.start : part.stop], self.order.entropy(step, seed)
        records = self.stream.records[rows].tolist()
        out = np.empty((len(rows), *self.stream.image_shape), np.uint8)
        for i, file in enumerate(self.stream.encoded.read(records)):
            random = None if entropy is None else np.random.default_rng((*entropy, int(rows[i])))
            try:
                out[i] = self.stream.decode(file, random)
            except ValueError as error:  # as text, because an exception from another process loses its type
                return f"{self.stream.encoded.name(records[i])} ({error})"
        return out


def _parse_flags() -> None:
    """Mark absl's flags as parsed: grain reads them when it starts processes, which fails if they are not."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _start_worker(_index: int, _count: int) -> None:
    """Leave the accelerators to the process that trains."""
    jax.config.update("jax_platforms", "cpu")
