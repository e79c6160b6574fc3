"""Faults and unusual properties of a data set, reported before training."""

import collections
import dataclasses
import hashlib
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from mpt_jax.compare import vocabulary
from mpt_jax.errors import InputError, listed
from mpt_jax.runtime import regular_file


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of fault or unusual property, the examples, classes or files that have it, and the action taken.

    Examples:
      >>> print(Finding("images that cannot be read", ("cat/1.jpg (truncated)", "cat/7.jpg (no such file)"), "skipped"))
      images that cannot be read, skipped (2): cat/1.jpg (truncated), cat/7.jpg (no such file)
    """

    what: str
    names: tuple[str, ...]
    outcome: str  # "skipped", "kept", ...

    def __str__(self) -> str:
        return f"{self.what}, {self.outcome} ({len(self.names)}): {listed(self.names)}"


def resolve(source: str, faults: Mapping[str, Sequence[str]], policy: str) -> tuple[Finding, ...]:
    """Raise an error that lists the faults, or return them as findings if the policy is "skip".

    Raises:
      InputError: there are faults, and the policy is "error".

    Examples:
      >>> resolve("pets", {"images that cannot be read": ["cat/1.jpg"], "duplicate ids": []}, "skip")
      (Finding(what='images that cannot be read', names=('cat/1.jpg',), outcome='skipped'),)
    """
    faults = {what: names for what, names in faults.items() if names}
    if faults and policy == "error":
        found = "; ".join(f"{what} ({len(names)}): {listed(names)}" for what, names in faults.items())
        raise InputError(f"{source} has {found}; fix the files, or skip these images with dataset.on_bad_image=skip")
    return tuple(Finding(what, tuple(names), "skipped") for what, names in faults.items())


def shared_rows(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the ascending rows of `train` whose pixels or features are identical to an example of `test`.

    Examples:
      >>> images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
      >>> shared_rows(images, images[1:2]).tolist()
      [1]
    """
    in_test = {_digest(example) for example in test}
    return np.array([row for row, example in enumerate(train) if _digest(example) in in_test], np.int64)


def shared_files(train: Sequence[pathlib.Path], test: Sequence[pathlib.Path]) -> np.ndarray:
    """Return the ascending rows of `train` whose file has the content of a file in `test`.

    Only files whose length occurs in both are read.
    """
    by_length = collections.defaultdict(list)
    for path in test:
        by_length[path.stat().st_size].append(path)
    digests = {length: {_file_digest(path) for path in paths} for length, paths in by_length.items()}
    candidates = ((row, digests.get(path.stat().st_size, ()), path) for row, path in enumerate(train))
    return np.array([row for row, known, path in candidates if known and _file_digest(path) in known], np.int64)


def contradictory_rows(examples: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the ascending rows of examples that occur with several labels.

    Examples:
      >>> images = np.array([0, 1, 0, 1, 2], np.uint8).reshape(5, 1, 1, 1)
      >>> contradictory_rows(images, np.array([0, 3, 1, 3, 0])).tolist()
      [0, 2]
    """
    return _contradictory([_digest(example) for example in examples], labels)


def contradictory_files(files: Sequence[pathlib.Path], labels: np.ndarray) -> np.ndarray:
    """Return the ascending rows of files whose content occurs with several labels; only equal lengths are read."""
    lengths = [path.stat().st_size for path in files]
    several = {length for length, count in collections.Counter(lengths).items() if count > 1}
    contents = [
        _file_digest(path) if length in several else str(row).encode()
        for row, (path, length) in enumerate(zip(files, lengths, strict=True))
    ]
    return _contradictory(contents, labels)


def _contradictory(contents: Sequence[bytes], labels: np.ndarray) -> np.ndarray:
    labels_of = collections.defaultdict(set)
    for content, label in zip(contents, labels.tolist(), strict=True):
        labels_of[content].add(label)
    return np.array([row for row, content in enumerate(contents) if len(labels_of[content]) > 1], np.int64)


def unusual_classes(names: Sequence[str], train: np.ndarray, test: np.ndarray) -> tuple[Finding, ...]:
    """Return findings for classes with a single training example or no test example, from labels ``int [N]``.

    Examples:
      >>> print(*unusual_classes(["cat", "dog"], np.array([0, 0, 1]), np.array([0, 1])))
      classes with one training image, kept (1): dog
    """
    counts = [np.bincount(labels, minlength=len(names)) for labels in (train, test)]
    single, untested = (
        [names[k] for k in np.flatnonzero(c == n).tolist()] for c, n in zip(counts, (1, 0), strict=True)
    )
    found = {"classes with one training image": single, "classes without test images": untested}
    return tuple(Finding(what, tuple(chosen), "kept") for what, chosen in found.items() if chosen)


def similar_names(source: str, names: Sequence[str]) -> tuple[Finding, ...]:
    """Return the classes that may be one, by `mpt_jax.compare.vocabulary.spelling`.

    Raises:
      InputError: names that print alike: they differ only in white space or in the Unicode form of a letter.

    Examples:
      >>> print(*similar_names("pets", ["cat", "Cat", "dog"]))
      classes whose names are alike, kept apart (1): 'Cat' and 'cat'
    """
    groups, found = vocabulary.respelled(names), []
    for group in groups:
        if len({_printed(name) for name in group}) < len(group):
            shown = " and ".join(ascii(name) for name in group)
            raise InputError(
                f"{source} has classes whose names print alike: {shown}; expected one name for one class: rename them"
            )
        found.append(" and ".join(map(repr, group)))
    return (Finding("classes whose names are alike", tuple(found), "kept apart"),) if found else ()


def alike(name: str, names: Sequence[str]) -> str:
    """Return a note for a class that is not among the names, if it looks like one of them.

    Examples:
      >>> alike("Cat", ["cat", "dog"]), alike("fox", ["cat", "dog"])
      (", which looks like 'cat'", '')
    """
    for known in vocabulary.other_spellings([name], names).values():
        return f", which looks like {ascii(known) if _printed(known) == _printed(name) else repr(known)}"
    return ""


def _printed(name: str) -> str:
    """Return what is seen of a name: white space and the Unicode form of letters are not."""
    return unicodedata.normalize("NFC", " ".join(name.split()))


def duplicates(values: Sequence[str]) -> list[int]:
    """Return the positions of values that occur earlier in the sequence.

    Examples:
      >>> duplicates(["a", "b", "a", "a"])
      [2, 3]
    """
    if max(collections.Counter(values).values(), default=1) == 1:
        return []
    first: dict[str, int] = {}
    return [i for i, value in enumerate(values) if first.setdefault(value, i) != i]


def _file_digest(path: pathlib.Path) -> bytes:
    with regular_file.opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _digest(example: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(example).data).digest()
