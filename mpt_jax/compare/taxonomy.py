"""The answers of several releases in the classes of the last one.

A class map says which new labels an old class stands for. An old answer that stands for the true label of its row was
right and takes that label's name, so that the rest of the gate counts as for models of one list of classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mpt_jax import class_map
from mpt_jax.class_map import ClassMap
from mpt_jax.compare.new_labels import Release, StandsFor
from mpt_jax.compare.rows import Rows
from mpt_jax.errors import InputError, listed


class Answers(NamedTuple):
    """Predictions as a model gave them, positions in `names`, ``[n]``.

    The answer `a` stands for the classes j with ``allowed[a, j]``; `first` is one of them, which a wrong answer takes,
    or for a retired class a code of its own beyond the others.
    """

    codes: np.ndarray
    names: tuple[str, ...]
    allowed: np.ndarray
    first: np.ndarray

    def right(self, labels: np.ndarray) -> np.ndarray:
        """Return whether each answer stands for the label, ``[n]``."""
        return self.allowed[self.codes, labels]


@dataclass(frozen=True)
class Mapped:
    """What a class map adds to a pair of models.

    Attributes:
      old: the old model's answers.
      new: the new model's, which are of an earlier release than the last in a step of a chain.
      maps: from the old model's release to the last one.
      retired: rows that are not compared by retired class.
      retired_codes: the codes beyond those of classes, of answers that stand for none.
    """

    old: Answers
    new: Answers
    maps: tuple[ClassMap, ...]
    retired: Mapping[str, int]
    retired_codes: int

    def split(self) -> list[str]:
        """Return the old classes that stand for several labels."""
        return [self.old.names[place] for place in np.flatnonzero(self.old.allowed.sum(1) > 1)]


def releases(versions: Sequence[Rows], maps: Sequence[ClassMap], labels: set[str]) -> list[Release]:
    """Return, for each version, what its classes stand for in the last one, through all maps in between.

    Args:
      versions: of n releases, the oldest first.
      maps: of the n - 1 steps.
      labels: names that are a label of any row; a class in a map has to be one of these or known to its model.

    Raises:
      InputError: another number of maps, one that does not fit the classes of its release, or a version that still
        predicts or lists a class which a map has renamed, merged or retired.
    """
    if len(maps) != len(versions) - 1:
        steps = len(versions) - 1
        raise InputError(
            f"class_map has {len(maps)} {'map' if len(maps) == 1 else 'maps'} for {len(versions)} versions; expected "
            f"{steps}, one for each step in order" + (", with an empty file where nothing changes" if steps > 1 else "")
        )
    becomes: list[dict[str, tuple[str, ...]]] = []
    carried: list[str] = []
    gone: Mapping[str, tuple[str, ...]] = {}
    for read, map_ in zip(versions, [*maps, ClassMap()], strict=True):
        _require_current(read, carried, gone)
        known = [*dict.fromkeys([*(read.known or ()), *read.predicted_classes(), *carried])]
        changed = map_.changed()
        if read.known is None:
            known += [name for name in changed if name in labels and name not in known]
        try:
            targets = class_map.targets(map_, known)
        except InputError as error:
            hint = "" if read.known or becomes else "; or --old-classes with all classes that the old model knows"
            raise InputError(f"{read.source.name}: {error}{hint}") from error
        becomes.append(dict(zip(known, targets, strict=True)))
        carried = [*dict.fromkeys(new for news in targets for new in news)]
        gone = {old: news for old, news in changed.items() if old not in carried}
    found = [Release(becomes[-1], listed=versions[-1].known is not None)]
    for read, map_, own in reversed([*zip(versions[:-1], maps, becomes[:-1], strict=True)]):
        found.insert(0, _before(found[0], own, map_, listed=read.known is not None))
    return found


def _before(later: Release, own: Mapping[str, tuple[str, ...]], map_: ClassMap, *, listed: bool) -> Release:
    """Return the release before another one, from what its classes become in that."""
    stands_for, retired = {}, {}
    for name, news in own.items():
        stands_for[name] = tuple(dict.fromkeys(last for new in news for last in later.stands_for.get(new, (new,))))
        gone = dict.fromkeys(last for new in news for last in later.retired.get(new, ()))
        if gone or not news:
            retired[name] = tuple(gone) or (name,)
    made = {new for news in map_.changed().values() for new in news}
    return Release(stands_for, retired, listed, frozenset((made | later.later) - own.keys()))


def _require_current(read: Rows, carried: Sequence[str], gone: Mapping[str, tuple[str, ...]]) -> None:
    """Reject a version whose classes are not those that the map before it leads to."""
    for name in (*read.predicted_classes(), *(read.known or ())):
        if name in gone:
            what = f"becomes {listed(list(map(repr, gone[name])))}" if gone[name] else "is retired"
            raise InputError(
                f"{read.source.name} has the class {name!r}, which {what} by the class map; expected predictions and "
                "names of the classes after it"
            )
    if read.known is not None and (missing := [name for name in carried if name not in read.known]):
        raise InputError(
            f"{read.source.name} does not know the class {missing[0]!r}, which stays or results by the class map; "
            f"expected it among its classes ({listed(list(map(repr, read.known)))}), or as retired in the map"
        )


def answers(read: Rows, meaning: StandsFor, number: Mapping[str, int], retired: Mapping[str, int]) -> Answers:
    """Return a model's predictions with what they stand for.

    Args:
      read: rows of the model.
      meaning: the labels that its classes stand for.
      number: the code of each label, 0 to K - 1.
      retired: the code of each retired class, from K on.
    """
    names = tuple(dict.fromkeys([*read.classes, *meaning]))
    news = [meaning.get(name, (name,)) for name in names]
    allowed = np.zeros((len(names), len(number) + len(retired)), bool)
    for row, labels in enumerate(news):
        allowed[row, [number[label] for label in labels if label in number]] = True
    # A name that is only a label, such as a former one, is no answer.
    first = [number.get(labels[0], 0) if labels else retired[name] for name, labels in zip(names, news, strict=True)]
    return Answers(read.predictions, names, allowed, np.array(first, np.int32))


def in_new_classes(old: Answers, new: Answers, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both models' predictions as codes of the last release's classes, ``[n]``.

    A right answer takes the label. Two wrong answers are the same if the old one stands for the new one.

    Args:
      old: answers of the old model.
      new: answers of the new model.
      labels: codes of the last release, ``[n]``.
    """
    after = np.where(new.right(labels), labels, new.first[new.codes])
    before = np.where(old.allowed[old.codes, after], after, old.first[old.codes])
    return np.where(old.right(labels), labels, before).astype(np.int32), after.astype(np.int32)


def of_top(given: Answers, top: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the classes of the largest scores as codes of the last release, ``[n, k]``.

    Args:
      given: answers of the model.
      top: positions in their names, ``[n, k]``.
      labels: codes of the last release, ``[n]``.
    """
    return np.where(given.allowed[top, labels[:, None]], labels[:, None], given.first[top]).astype(np.int32)
