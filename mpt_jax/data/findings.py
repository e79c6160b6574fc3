"""What is wrong with a data set, by name, before anything is trained on it."""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mpt_jax.errors import InputError

POLICIES = ("error", "skip")

_NAMED = 5  # of a long list; the count says how many there are


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of fault, or of peculiarity, the examples (or classes, or files) that have it, and what was done.

    Examples:
      >>> print(Finding("images that cannot be read", ("cat/1.jpg (truncated)", "cat/7.jpg (no file)"), "left out"))
      images that cannot be read, left out (2): cat/1.jpg (truncated), cat/7.jpg (no file)
    """

    what: str
    names: tuple[str, ...]
    outcome: str  # "left out", "kept", ...

    def __str__(self) -> str:
        return f"{self.what}, {self.outcome} ({len(self.names)}): {_listed(self.names)}"


def settle(source: str, faults: Mapping[str, Sequence[str]], policy: str) -> tuple[Finding, ...]:
    """Faults as an error that lists them, or, where the policy is "skip", as findings: their examples are left out.

    Raises:
      InputError: there are faults and the policy is "error".

    Examples:
      >>> settle("pets", {"images that cannot be read": ["cat/1.jpg"], "ids given twice": []}, "skip")
      (Finding(what='images that cannot be read', names=('cat/1.jpg',), outcome='left out'),)
    """
    faults = {what: names for what, names in faults.items() if names}
    if faults and policy == "error":
        listed = "; ".join(f"{what} ({len(names)}): {_listed(names)}" for what, names in faults.items())
        raise InputError(f"{source} has {listed}; mend it, or leave these out with dataset.on_bad_image=skip")
    return tuple(Finding(what, tuple(names), "left out") for what, names in faults.items())


def shared_rows(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Ascending rows of `train` whose very pixels, or features, are also in `test`.

    Examples:
      >>> images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
      >>> shared_rows(images, images[1:2]).tolist()
      [1]
    """
    tested = {_digest(example) for example in test}
    return np.array([row for row, example in enumerate(train) if _digest(example) in tested], np.int64)


def shared_files(train: Sequence[pathlib.Path], test: Sequence[pathlib.Path]) -> np.ndarray:
    """Ascending rows of `train` whose very file is also in `test`; only files of equal length are read."""
    tested = collections.defaultdict(list)
    for path in test:
        tested[path.stat().st_size].append(path)
    contents = {length: {_file_digest(path) for path in paths} for length, paths in tested.items()}
    alike = ((row, contents.get(path.stat().st_size, ()), path) for row, path in enumerate(train))
    return np.array([row for row, digests, path in alike if digests and _file_digest(path) in digests], np.int64)


def peculiar_classes(names: Sequence[str], train: np.ndarray, test: np.ndarray) -> tuple[Finding, ...]:
    """Classes to be learnt from one example, and classes that no test example speaks for, from labels ``int [N]``.

    Examples:
      >>> print(*peculiar_classes(["cat", "dog"], np.array([0, 0, 1]), np.array([0, 1])))
      classes with one training image, kept (1): dog
    """
    counts = [np.bincount(labels, minlength=len(names)) for labels in (train, test)]
    single, untested = ([names[k] for k in np.flatnonzero(c == n)] for c, n in zip(counts, (1, 0), strict=True))
    found = {"classes with one training image": single, "classes without a test image": untested}
    return tuple(Finding(what, tuple(listed), "kept") for what, listed in found.items() if listed)


def twice(values: Sequence[str]) -> list[int]:
    """Positions of values that stand further up already.

    Examples:
      >>> twice(["a", "b", "a", "a"])
      [2, 3]
    """
    if max(collections.Counter(values).values(), default=1) == 1:
        return []
    seen: set[str] = set()
    return [i for i, value in enumerate(values) if value in seen or seen.add(value)]


def _file_digest(path: pathlib.Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _digest(example: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(example)).digest()


def _listed(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 200 else f"{name[:197]}..." for name in names[:_NAMED]]
    more = len(names) - len(shown)
    text = ", ".join(shown) + (f" and {more} more" if more else "")
    return "".join(c if c.isprintable() else "?" for c in text)  # a file's name must not steer a terminal
