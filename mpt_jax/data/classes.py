"""The classes of a run and their order."""

import difflib
from collections.abc import Sequence
from numbers import Integral

import numpy as np

from mpt_jax.errors import InputError, listed


def class_order(spec: str | Sequence[int | str], names: Sequence[str]) -> tuple[int, ...]:
    """Return the data set's class indices in the order of the run: position ``p`` holds class ``order[p]``.

    Args:
      spec: one of

        - "natural": the order of the data set;
        - "seed:N": the permutation of numpy's ``RandomState(N)``, as in most papers on class-incremental learning;
        - a list of classes, as a sequence or separated by commas. An int is an index; text is a name, or else an
          index. Classes that are not listed do not exist for the run. A final "..." stands for all classes that are
          not listed, in the order of the data set.
      names: the data set's class names in its own order.

    Raises:
      InputError: an invalid spec, an unknown class, an index out of range, a class listed twice.

    Examples:
      >>> class_order("natural", ["cat", "dog", "owl"])
      (0, 1, 2)
      >>> class_order("seed:1993", ["cat", "dog", "owl"])
      (0, 2, 1)
      >>> class_order("owl, cat", ["cat", "dog", "owl"])
      (2, 0)
      >>> class_order(["owl", "..."], ["cat", "dog", "owl"])
      (2, 0, 1)
    """
    if spec == "natural":
        return tuple(range(len(names)))
    if isinstance(spec, str) and spec.startswith("seed:"):
        seed = spec.removeprefix("seed:")
        if not (seed.isdecimal() and int(seed) < 2**32):
            raise InputError(f"dataset.class_order={spec!r}; expected seed:N with N from 0 to {2**32 - 1}")
        return tuple(np.random.RandomState(int(seed)).permutation(len(names)).tolist())
    if isinstance(spec, str):
        spec = [item.strip() for item in spec.split(",")]
    if not isinstance(spec, Sequence) or not spec:
        raise InputError(f"dataset.class_order={spec!r}; expected 'natural', 'seed:N' or a list of classes")
    names, spec = list(names), list(spec)
    has_rest = spec[-1] in ("...", ...) and spec[-1] not in names
    order = tuple(_index(item, names) for item in (spec[:-1] if has_rest else spec))
    duplicates = sorted({index for index in order if order.count(index) > 1})
    if duplicates:
        name, index = names[duplicates[0]], duplicates[0]
        raise InputError(f"dataset.class_order lists class {name!r} (index {index}) more than once; expected it once")
    if has_rest:
        listed = set(order)
        order += tuple(index for index in range(len(names)) if index not in listed)
    return order


def positions(order: Sequence[int], num_classes: int) -> np.ndarray:
    """Return the position of each of the data set's classes in the order, ``int32 [num_classes]``; -1 if not in it.

    Examples:
      >>> positions((2, 0), 3).tolist()
      [1, -1, 0]
    """
    result = np.full(num_classes, -1, np.int32)
    result[list(order)] = np.arange(len(order))
    return result


def _index(item: int | str, names: list[str]) -> int:
    if isinstance(item, str):
        if item in names:
            return names.index(item)
        if item == "...":
            raise InputError(
                "dataset.class_order: '...' stands for the classes that are not listed; expected it once, at the end"
            )
        if not item.removeprefix("-").isdecimal():
            close = difflib.get_close_matches(item, ["natural", "seed:N", *names], n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"the classes are {listed(names, most=10)}"
            raise InputError(f"dataset.class_order: no class {item!r}; expected 'natural', 'seed:N' or classes; {hint}")
        item = int(item)
    if not isinstance(item, Integral) or isinstance(item, bool):
        raise InputError(f"dataset.class_order: {item!r}; expected a class name or an index")
    if not 0 <= item < len(names):
        raise InputError(f"dataset.class_order: index {item}; expected 0 to {len(names) - 1}")
    return int(item)
