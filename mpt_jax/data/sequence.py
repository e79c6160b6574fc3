"""Images of a split one after the other, in memory or streamed: their digests, and batches of them."""

import hashlib
import pathlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mpt_jax.data.feeding.order import Consecutive
from mpt_jax.data.feeding.stream import Reader, Stream
from mpt_jax.errors import InputError, describe
from mpt_jax.runtime import hardware, regular_file

_PIECE = 64  # images that a thread reads at a time


def digests(images: np.ndarray | Stream) -> list[bytes]:
    """Return the SHA-256 of each image: of its pixels, or of a stream of its encoded file.

    Raises:
      InputError: a file cannot be read.

    Examples:
      >>> first, second, third = digests(np.array([[1, 2], [3, 4], [1, 2]], np.uint8))
      >>> first == third, first == second
      (True, False)
    """

    def of_piece(start: int) -> list[bytes]:
        rows = slice(start, start + _PIECE)
        if not isinstance(images, Stream):
            return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images[rows]]
        records = images.records[rows].tolist()
        try:
            return [_of_file(file) for file in images.encoded.read(records)]
        except OSError as error:
            raise InputError(
                f"an image cannot be read: one of {images.encoded.name(records[0])} and the {len(records) - 1} after "
                f"it ({describe(error)}); expected only readable images"
            ) from error

    with ThreadPoolExecutor(hardware.num_cores()) as pool:
        return [digest for piece in pool.map(of_piece, range(0, len(images), _PIECE)) for digest in piece]


def batches(images: np.ndarray | Stream, size: int, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield the images in order, at most `size` at a time; those of a stream are decoded ahead.

    Args:
      rows: int ``[n]``, which images; None: all.

    Raises:
      InputError: an image of a stream cannot be read.

    Examples:
      >>> [len(batch) for batch in batches(np.zeros((5, 2, 2, 1), np.uint8), 2)]
      [2, 2, 1]
    """
    rows = np.arange(len(images)) if rows is None else rows
    if not isinstance(images, Stream):
        for start in range(0, len(rows), size):
            yield images[rows[start : start + size]]
    elif len(rows):
        with Reader(images[rows], Consecutive(len(rows), size)) as reader:  # type: ignore[arg-type]  # several rows
            for start in range(0, len(rows), size):
                batch = np.empty((1, size, *images.image_shape), np.uint8)
                reader.fill(batch)
                yield batch[0, : len(rows) - start]


def _of_file(file: pathlib.Path | bytes) -> bytes:
    if isinstance(file, bytes):
        return hashlib.sha256(file).digest()
    with regular_file.opened(file) as stream:
        return hashlib.file_digest(stream, "sha256").digest()
