"""Features of images by the digests of the images, in a folder that many runs may share.

FOLDER/facts.json     what the features are of; the folder is named by the digest of this
FOLDER/DIGEST.npy     a chunk: one record per image, of its digest and its features; DIGEST is of this and of the facts

Chunks are written completely or not at all, and never changed. So a killed run loses at most the chunk that it was
writing, runs may add chunks at the same time, and a chunk that is damaged or of another network is found by its name.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax.errors import DAMAGED, InputError
from mpt_jax.files import storage
from mpt_jax.files.sealed import read_sealed, sealed

FACTS = "facts.json"


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureCache:
    """The features that a folder holds.

    Attributes:
      folder: of this network.
      width: features per image.
      key: digest of the facts.
      chunks: records of `image` and `features`; those of a local folder are mapped, not read.
      row_of: chunk and row of each image, by its digest.
    """

    folder: pathlib.Path
    width: int
    key: str
    chunks: list[np.ndarray] = dataclasses.field(default_factory=list)
    row_of: dict[bytes, tuple[int, int]] = dataclasses.field(default_factory=dict)

    def missing(self, images: Sequence[bytes]) -> list[int]:
        """Return the positions of the images without features; of equal images the first."""
        first = {image: i for i, image in reversed(list(enumerate(images))) if image not in self.row_of}
        return sorted(first.values())

    def add(self, images: Sequence[bytes], features: np.ndarray) -> None:
        """Write the features of some images, ``float32 [n, width]``, as a chunk.

        Raises:
          OSError: the disk is full, or the folder cannot be written.
        """
        chunk = np.zeros(len(images), _record(self.width))
        chunk["image"] = np.array(images, "V32")
        chunk["features"] = features
        content = io.BytesIO()
        np.save(content, chunk)
        storage.write_bytes(self.folder / f"{_digest(self.key, content.getbuffer())}.npy", content.getvalue())
        self.index(chunk)

    def read(self, images: Sequence[bytes], out: np.ndarray) -> None:
        """Write the features of these images to `out`, ``float32 [n, width]``.

        Raises:
          KeyError: an image without features.
        """
        places = np.array([self.row_of[image] for image in images], np.int64).reshape(-1, 2)
        for number in np.unique(places[:, 0]):
            here = np.flatnonzero(places[:, 0] == number)
            out[here] = self.chunks[number]["features"][places[here, 1]]

    def index(self, chunk: np.ndarray) -> None:
        """Make the features of a chunk known."""
        number = len(self.chunks)
        self.chunks.append(chunk)
        self.row_of.update((image, (number, row)) for row, image in enumerate(chunk["image"].tolist()))


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the digest of the facts that decide what features are: the network, its weights and its inputs."""
    return str(sealed(facts)["seal"])


def check(folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Check that the cache of a network below `folder`, if it exists, is of this network; nothing is written.

    Raises:
      InputError: the folder holds the features of another network, or its facts are damaged.
    """
    own, expected = folder / key_of(facts), sealed(facts)
    if (own / FACTS).exists() and (found := read_sealed(own / FACTS)) != expected:
        other = next((key for key in expected if found.get(key) != expected[key]), "seal")
        raise InputError(
            f"{own} holds features of another network: {other} is {found.get(other)!r}, not {expected[other]!r}; "
            "remove that folder, or give another training.features_dir"
        )


def open_cache(
    folder: pathlib.Path, facts: Mapping[str, Any], width: int, log: Callable[[str], None] = print
) -> FeatureCache:
    """Open the cache of a network below `folder`, and create it if it does not exist.

    Chunks that are damaged or of another network are removed, so that their images are computed again.

    Args:
      facts: JSON values, see `key_of`.
      width: features per image.
      log: receives a line for each chunk that is removed.

    Raises:
      InputError: the folder holds the features of another network.
      OSError: it cannot be written.
    """
    cache = FeatureCache(folder / key_of(facts), width, key_of(facts))
    path = cache.folder / FACTS
    if not path.exists():
        storage.make_folder(cache.folder)
        storage.write_text(path, json.dumps(sealed(facts), indent=1) + "\n")
    check(folder, facts)

    def remove(path: pathlib.Path, reason: str) -> None:
        log(f"{path} {reason}: its features are computed again")
        path.unlink()

    _read_chunks(cache, remove)
    return cache


def _read_chunks(cache: FeatureCache, reject: Callable[[pathlib.Path, str], None]) -> None:
    for name in storage.files(cache.folder):
        if not name.endswith(".npy") or "/" in name:
            continue
        path = cache.folder / name
        try:
            chunk = _open(path)
        except DAMAGED as error:
            reject(path, f"is damaged ({type(error).__name__})")
            continue
        if path.stem != _digest(cache.key, path.read_bytes() if storage.is_remote(path) else np.memmap(path, mode="r")):
            reject(path, "is damaged or of another network")
        elif chunk.dtype != _record(cache.width) or chunk.ndim != 1:
            reject(path, f"holds {chunk.dtype} {list(chunk.shape)}, not {cache.width} features per image")
        else:
            cache.index(chunk)


def _open(path: pathlib.Path) -> np.ndarray:
    if storage.is_remote(path):
        return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _record(width: int) -> np.dtype:
    return np.dtype([("image", "V32"), ("features", "<f4", (width,))])


def _digest(key: str, content: Any) -> str:
    result = hashlib.sha256(key.encode())
    result.update(content)
    return result.hexdigest()
