"""A test part for image files that have none, chosen by the content of each file."""

import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from mpt_jax.runtime import regular_file


def held_out(digests: Sequence[bytes], labels: np.ndarray, fraction: float) -> np.ndarray:
    """Return which images are for testing, bool ``[N]``: those whose digest, scaled to [0, 1), is below `fraction`.

    An image's part depends on its content only. It does not change when images or classes are added, so no training
    image of an old model becomes a test image of a new one.

    Small classes are the exception. If no image of a class is below the fraction, the one with the smallest digest goes
    to the test part. If all are, the one with the largest digest goes to the training part. Copies go together.

    Examples:
      >>> digests = [bytes([value]) * 32 for value in (10, 200, 120, 130)]
      >>> held_out(digests, np.array([0, 0, 1, 1]), 0.2).tolist()
      [True, False, True, False]
    """
    numbers = np.array([int.from_bytes(digest[:8], "big") for digest in digests], np.uint64)
    in_test = numbers < np.uint64(int(fraction * 2**64))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        smallest, largest = numbers[members].min(), numbers[members].max()
        if smallest < largest:
            in_test[members[numbers[members] == smallest]] = True
            in_test[members[numbers[members] == largest]] = False
        else:
            in_test[members] = False  # all are copies of one image: keep them for training
    return in_test


def digest(file: pathlib.Path) -> bytes:
    """Return the SHA-256 of a file; of its name if it cannot be read, which is reported when it is decoded."""
    try:
        with regular_file.opened(file) as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return hashlib.sha256(os.fsencode(file)).digest()
