"""Which classes a run has, in which order, and how many of them each release knows."""

import difflib
from collections.abc import Sequence
from numbers import Integral

import numpy as np

from mpt_jax.errors import InputError


def class_order(spec: str | Sequence[int | str], names: Sequence[str]) -> tuple[int, ...]:
    """The data set's class indices in the order in which the run learns them: position ``p`` holds class ``order[p]``.

    Args:
      spec: "natural"; "seed:N", the permutation of numpy's ``RandomState(N)``, as in most papers on class-incremental
        learning; or the classes themselves, as a sequence or separated by commas: an int is an index, text is a
        name or else an index. A list may leave classes out, and these do not exist for the run; "..." at its end
        stands for all that it does not name, in the data set's order, such as new ones after those of an old model.
      names: the data set's class names in its own order.

    Raises:
      InputError: not such a spec, an unknown class, an index out of range, a class listed twice.

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
            raise InputError(f"dataset.class_order={spec!r}: expected seed:N with N from 0 to {2**32 - 1}")
        return tuple(np.random.RandomState(int(seed)).permutation(len(names)).tolist())
    if isinstance(spec, str):
        spec = [item.strip() for item in spec.split(",")]
    if not isinstance(spec, Sequence) or not spec:
        raise InputError(f"dataset.class_order={spec!r}: expected 'natural', 'seed:N' or a list of classes")
    names, spec = list(names), list(spec)
    rest = spec[-1] in ("...", ...) and spec[-1] not in names
    order = tuple(_index(item, names) for item in (spec[:-1] if rest else spec))
    twice = sorted({index for index in order if order.count(index) > 1})
    if twice:
        raise InputError(f"dataset.class_order lists class {names[twice[0]]!r} (index {twice[0]}) more than once")
    if rest:
        named = set(order)
        order += tuple(index for index in range(len(names)) if index not in named)
    return order


def _index(item: int | str, names: list[str]) -> int:
    if isinstance(item, str):
        if item in names:
            return names.index(item)
        if item == "...":
            raise InputError("dataset.class_order: '...' stands for the classes not named; expected once, at the end")
        if not item.removeprefix("-").isdecimal():
            close = difflib.get_close_matches(item, ["natural", "seed:N", *names], n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"the classes are {', '.join(names[:10])} ..."
            raise InputError(f"dataset.class_order: no class {item!r}, and not 'natural' or 'seed:N'; {hint}")
        item = int(item)
    if not isinstance(item, Integral) or isinstance(item, bool):
        raise InputError(f"dataset.class_order: {item!r} is neither a class name nor an index")
    if not 0 <= item < len(names):
        raise InputError(f"dataset.class_order: index {item} is not between 0 and {len(names) - 1}")
    return int(item)
