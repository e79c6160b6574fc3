"""Matching of two tables' rows by id: ids become hashes of 128 bits, and equal hashes are found by sorting.

No text is kept once its hash is known: for 10 million ids of 16 characters this takes 7 s and 0.7 GB, and
`pyarrow.compute.index_in` on the texts 9 s and 1.6 GB.
"""

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

MOST_IDS = 1000  # of each table, for `written_otherwise`
_BLOCK = 1 << 18  # bytes hashed in one go: fits a cache
_RANDOM = np.random.default_rng(2011_08322)
_KEYS = [
    (
        _RANDOM.integers(1, 2**64, 256, np.uint64, endpoint=False),
        int(_RANDOM.integers(2**63, 2**64, dtype=np.uint64)) | 1,
    )
    for _ in range(2)
]

Keys = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Match:
    """Rows of two tables with equal ids.

    `new_of_old` is the new row of each old one, None unless every id occurs exactly once in both tables.
    `repeated_old` and `repeated_new` hold one row of each repeated id, `only_old` and `only_new` one row of each id
    that the other table lacks.
    """

    new_of_old: np.ndarray | None
    repeated_old: np.ndarray
    repeated_new: np.ndarray
    only_old: np.ndarray
    only_new: np.ndarray


def fingerprints(data: np.ndarray, offsets: np.ndarray) -> Keys:
    """Compute two independent hashes of every text, ``sum_j T[byte_j] r^j mod 2^64`` with random T and odd r.

    The chance that any two of 10 million texts get the same pair is below 1e-20.

    Args:
      data: bytes of all texts, one after the other, ``[m]``.
      offsets: where each begins and the last one ends, integers, ``[n + 1]``.

    Returns:
      Two arrays of 64-bit numbers, ``[n]``.

    Examples:
      >>> first, second = fingerprints(np.frombuffer(b"abcab", np.uint8), np.array([0, 2, 3, 5]))
      >>> bool(first[0] == first[2]), bool(first[0] == first[1])
      (True, False)
    """
    hashes = [_hash(data[offsets[a] : offsets[b]], offsets[a : b + 1] - offsets[a]) for a, b in _blocks(offsets)]
    first, second = zip(*hashes, strict=True) if hashes else ((), ())
    none = np.zeros(0, np.uint64)
    return np.concatenate([none, *first]), np.concatenate([none, *second])


def match(old: Keys, new: Keys) -> Match:
    """Find for each row of one table the row of the other with the same id.

    Examples:
      >>> zeros = np.zeros(2, np.uint64)
      >>> match((np.array([5, 3], np.uint64), zeros), (np.array([3, 5], np.uint64), zeros)).new_of_old.tolist()
      [1, 0]
    """
    order_old, order_new = _order(old), _order(new)
    same_old, same_new = _same(old, order_old), _same(new, order_new)
    none = np.zeros(0, np.intp)
    unique = len(order_old) == len(order_new) and not same_old.any() and not same_new.any()
    if unique and all(np.array_equal(a[order_old], b[order_new]) for a, b in zip(old, new, strict=True)):
        new_of_old = np.empty_like(order_new)
        new_of_old[order_old] = order_new
        return Match(new_of_old, none, none, none, none)
    unique_old, unique_new = order_old[~same_old], order_new[~same_new]
    first, second = (np.concatenate([a[unique_old], b[unique_new]]) for a, b in zip(old, new, strict=True))
    both = first, second
    order = _order(both)
    same = _same(both, order)
    alone = order[~(same | np.append(same[1:], False))]
    return Match(
        None,
        _repeated(order_old, same_old),
        _repeated(order_new, same_new),
        np.sort(unique_old[alone[alone < len(unique_old)]]),
        np.sort(unique_new[alone[alone >= len(unique_old)] - len(unique_old)]),
    )


def places(of: Keys, among: Keys) -> np.ndarray:
    """Return for each id its row among unique ids, -1 where it is not among them, ``[n]``.

    Examples:
      >>> zeros = np.zeros(2, np.uint64)
      >>> places((np.array([5, 3], np.uint64), zeros), (np.array([3, 4], np.uint64), zeros)).tolist()
      [-1, 0]
    """
    count = len(of[0])
    both = np.concatenate([of[0], among[0]]), np.concatenate([of[1], among[1]])
    order = _order(both)
    run = np.cumsum(~_same(both, order)) - 1  # equal ids are next to each other
    row_of_run = np.full(int(run[-1]) + 1 if run.size else 0, -1)
    is_among = order >= count
    row_of_run[run[is_among]] = order[is_among] - count
    found = np.empty(count, np.intp)
    found[order[~is_among]] = row_of_run[run[~is_among]]
    return found


def repeated(keys: Keys) -> np.ndarray:
    """Return one row of each id that occurs more than once."""
    order = _order(keys)
    return _repeated(order, _same(keys, order))


def _order(keys: Keys) -> np.ndarray:
    """Return the rows sorted by both hashes, or by the first alone if it has no ties, which is faster."""
    order = np.argsort(keys[0])
    first = keys[0][order]
    return np.lexsort(keys[::-1]) if np.any(first[1:] == first[:-1]) else order


def written_otherwise(old: Sequence[str], new: Sequence[str]) -> str:
    """Return in what an id of one table differs from one of another that may be the same, with both; "" if in nothing.

    Examples:
      >>> written_otherwise(["007", "x"], ["7", "y"])
      "'007' and '7' differ only in leading zeros: expected the same text in both"
      >>> written_otherwise(["img/a.png"], ["a.png"])
      "'img/a.png' and 'a.png' differ only in their folder: expected the same text in both"
    """
    for what, form in _WRITINGS.items():
        others = {form(text): text for text in reversed(new)}
        for text in old:
            if form(text) in others:
                pair = " and ".join(map(ascii, (text, others[form(text)])))
                return f"{pair} differ only in {what}: expected the same text in both"
    return ""


_WRITINGS = {
    "Unicode form": lambda text: unicodedata.normalize("NFC", text),
    "white space": lambda text: "".join(text.split()),
    "case": str.casefold,
    "leading zeros": lambda text: text.lstrip("0") or "0",
    "their folder": lambda text: text.replace("\\", "/").rpartition("/")[2],
    "case or punctuation": lambda text: "".join(c for c in text.casefold() if c.isalnum()) or text,
    "their ending": lambda text: text.replace("\\", "/").rpartition(".")[0] or text,
}


def _same(keys: Keys, order: np.ndarray) -> np.ndarray:
    """Return whether a sorted row has the same id as the one before it, ``[n]``."""
    same = np.zeros(len(order), bool)
    first, second = keys[0][order], keys[1][order]
    same[1:] = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
    return same


def _repeated(order: np.ndarray, same: np.ndarray) -> np.ndarray:
    return np.sort(order[np.append(same[1:], False) & ~same])


def _blocks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield ranges of complete texts, each of at most `_BLOCK` bytes unless a single text is longer."""
    start, count = 0, len(offsets) - 1
    while start < count:
        end = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _BLOCK, "right")) - 1)
        yield start, end
        start = end


def _hash(data: np.ndarray, offsets: np.ndarray) -> Keys:
    size = max(_BLOCK, len(data)) + 1
    starts, ends = offsets[:-1], offsets[1:]

    def one(table: np.ndarray, base: int) -> np.ndarray:
        sums = np.zeros(len(data) + 1, np.uint64)
        np.cumsum(table[data] * _powers(base, size)[: len(data)], out=sums[1:])
        return (sums[ends] - sums[starts]) * _powers(pow(base, -1, 2**64), size)[starts]

    return one(*_KEYS[0]), one(*_KEYS[1])


@functools.lru_cache(maxsize=4)
def _powers(base: int, size: int) -> np.ndarray:
    powers = np.full(size, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)
