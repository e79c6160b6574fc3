"""How the classes of one release become those of the next: renamed, merged, split or retired; the others stay.

One description serves the trainer and the release gate. All of it follows from a matrix: which new labels an old class
stands for. Pure functions on names and arrays; `files.class_changes` reads a map from a file.
"""

import graphlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpt_jax.errors import InputError, listed, unknown

KEYS = ("rename", "merge", "split", "retire")
EXAMPLE = '{"rename": {"car": "automobile"}, "merge": {"cat": ["tabby", "siamese"]}, "retire": ["floppy disk"]}'


@dataclass(frozen=True)
class ClassMap:
    """What happens to the classes of a release that do not stay as they are; one without entries changes nothing.

    Attributes:
      rename: the new name by the old one.
      merge: the old classes by the name of the new one, which may be that of an old one among them.
      split: the new classes by the name of the old one, which may be one of them: then it means less than before.
      retire: old classes that no image belongs to any more.

    Raises:
      InputError: entries that contradict each other; `targets` checks the names against the classes of the release.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    retire: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, sizes, expected in (
            ("merge", self.merge, "two or more old classes, or rename for one"),
            ("split", self.split, "two or more new classes, or rename for one"),
        ):
            for name, members in sizes.items():
                if len(members) < 2:
                    raise InputError(f"{what} of {name!r} is {list(members)}; expected {expected}")
        for old, new in self.rename.items():
            if old == new:
                raise InputError(
                    f"rename of {old!r} to itself; expected another name, or no entry for a class that stays"
                )
        olds = [*self.rename, *(old for members in self.merge.values() for old in members), *self.split, *self.retire]
        if twice := _repeated(olds):
            raise InputError(f"old class {twice!r} is given twice; expected each in one of {', '.join(KEYS)}, once")
        news = [*self.rename.values(), *self.merge, *(new for parts in self.split.values() for new in parts)]
        if twice := _repeated(news):
            raise InputError(
                f"new class {twice!r} is given twice; expected each once: several old classes become one by merge"
            )
        try:  # a class may keep its name as that of a merged class or of a part
            graphlib.TopologicalSorter({old: {*new} - {old} for old, new in self.changed().items()}).prepare()
        except graphlib.CycleError as error:
            raise InputError(
                f"{' -> '.join(map(repr, reversed(error.args[1])))} is a cycle, so that no label shows which class is "
                "meant; expected a name for one of them that no class had before"
            ) from error

    def changed(self) -> dict[str, tuple[str, ...]]:
        """Return the new classes that each old class in the map stands for.

        Examples:
          >>> ClassMap(merge={"cat": ("tabby", "siamese")}, retire=("disk",)).changed()
          {'tabby': ('cat',), 'siamese': ('cat',), 'disk': ()}
        """
        return {
            **{old: (new,) for old, new in self.rename.items()},
            **{old: (new,) for new, members in self.merge.items() for old in members},
            **{old: tuple(parts) for old, parts in self.split.items()},
            **{old: () for old in self.retire},
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the entries as JSON and TOML have them, without the empty ones.

        Examples:
          >>> ClassMap(split={"dog": ("puppy", "adult dog")}).as_dict()
          {'split': {'dog': ['puppy', 'adult dog']}}
        """
        found = {
            "rename": dict(self.rename),
            "merge": {new: list(members) for new, members in self.merge.items()},
            "split": {old: list(parts) for old, parts in self.split.items()},
            "retire": list(self.retire),
        }
        return {key: value for key, value in found.items() if value}


def parse(given: Any, where: str = "class_map") -> ClassMap:
    """Return the class map that a mapping describes, as a TOML or JSON file has it.

    Args:
      given: `rename`, `merge`, `split` and `retire`, each optional; see `ClassMap`. A number is the name of a class.
      where: what errors call it.

    Raises:
      InputError: an unknown key, a value of another type, or entries that contradict each other.

    Examples:
      >>> parse({"rename": {"car": "automobile"}, "retire": ["floppy disk"]})
      ClassMap(rename={'car': 'automobile'}, merge={}, split={}, retire=('floppy disk',))
    """
    if isinstance(given, ClassMap):
        return given
    if not isinstance(given, Mapping):
        raise InputError(f"{where} is {given!r}; expected a mapping such as {EXAMPLE}")
    try:
        for key in given:
            if key not in KEYS:
                raise InputError(unknown(f"key {key!r}", str(key), KEYS))
        tables = {key: _table(given.get(key, {}), key) for key in KEYS[:3]}
        return ClassMap(
            rename={old: _name(new, f"rename of {old!r}") for old, new in tables["rename"].items()},
            merge={new: _names(members, f"merge of {new!r}") for new, members in tables["merge"].items()},
            split={old: _names(parts, f"split of {old!r}") for old, parts in tables["split"].items()},
            retire=_names(given.get("retire", ()), "retire"),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def targets(map_: ClassMap, old_classes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the new classes that each old class stands for: one, several if it is split, none if it is retired.

    Args:
      map_: from the old classes to the new ones.
      old_classes: all names of the old release.

    Raises:
      InputError: a name in the map that is no old class, a new name that an old class keeps, or no class remains.

    Examples:
      >>> targets(ClassMap(rename={"car": "automobile"}, split={"dog": ("puppy", "adult dog")}), ["car", "dog", "owl"])
      [('automobile',), ('puppy', 'adult dog'), ('owl',)]
    """
    changed, known = map_.changed(), set(old_classes)
    for name in changed:
        if name not in known:
            raise InputError(unknown(f"old class {name!r} in the class map", name, list(old_classes)))
    for news in changed.values():
        for new in news:
            if new in known and new not in changed:
                raise InputError(
                    f"new class {new!r} of the class map is also an old class that stays; expected another name, or "
                    f"{new!r} among the classes that are merged"
                )
    found = [changed.get(name, (name,)) for name in old_classes]
    if old_classes and not any(found):
        raise InputError("the class map retires all classes; expected one that stays")
    return found


def carried_over(map_: ClassMap, old_classes: Sequence[str]) -> list[str]:
    """Return the new classes that any old one stands for, in the order of the old ones; the others are new.

    Examples:
      >>> merged = ClassMap(merge={"cat": ("tabby", "siamese")}, retire=("disk",))
      >>> carried_over(merged, ["tabby", "owl", "disk", "siamese"])
      ['cat', 'owl']
    """
    return list(dict.fromkeys(new for news in targets(map_, old_classes) for new in news))


def matrix(map_: ClassMap, old_classes: Sequence[str], new_classes: Sequence[str]) -> np.ndarray:
    """Return which new labels each old class stands for, the matrix ``A``.

    The old answer i was right on an image of the new class j where ``A[i, j]``. Columns without a true are the classes
    that are new; a part of a split class is not. A row without a true is a retired class. Maps of consecutive releases
    compose to ``A_1 @ A_2 > 0``.

    Args:
      map_: from the old classes to the new ones.
      old_classes: K_old names.
      new_classes: K_new names: those that the old ones become, and new ones.

    Returns:
      Booleans, ``[K_old, K_new]``.

    Raises:
      InputError: as of `targets`, or new classes that lack one that the old ones become, or have one that they lose.

    Examples:
      >>> split = ClassMap(split={"dog": ("puppy", "adult dog")})
      >>> matrix(split, ["dog", "owl"], ["puppy", "adult dog", "owl", "fox"]) + 0
      array([[1, 1, 0, 0],
             [0, 0, 1, 0]])
    """
    place = {name: column for column, name in enumerate(new_classes)}
    found = np.zeros((len(old_classes), len(new_classes)), bool)
    for row, (old, news) in enumerate(zip(old_classes, targets(map_, old_classes), strict=True)):
        for new in news:
            if new not in place:
                reason = "stays" if new == old else f"becomes {new!r}"
                raise InputError(
                    f"old class {old!r} {reason} by the class map and is not among the new classes; expected it there, "
                    f"or {old!r} in retire: {listed(list(map(repr, new_classes)))}"
                )
            found[row, place[new]] = True
    lost = [name for name in old_classes if name in place and not found[:, place[name]].any()]
    if lost:
        raise InputError(
            f"{lost[0]!r} is among the new classes, and by the class map no old class becomes it; expected no entry of "
            "the map for it if it stays, or another name"
        )
    return found


def groups(allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the groups of classes in which an old and a new model can be compared: the connected blocks of a matrix.

    A class that stays or is renamed is a group of its own; so are the old classes that are merged with what they
    become, and a class that is split with its parts. Over a group, an old model's logit is the logsumexp of its old
    classes, a new model's that of its new ones.

    Args:
      allowed: which new labels each old class stands for, ``[K_old, K_new]``, see `matrix`.

    Returns:
      The group of each old class, ``[K_old]``, and of each new class, ``[K_new]``: 0, 1, ... in the order of the old
      classes; -1 for retired and for new classes.

    Examples:
      >>> groups(np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]], bool))
      (array([ 0,  1,  1, -1]), array([ 0,  0,  1, -1]))
    """
    count = len(allowed)
    rows, columns = np.nonzero(allowed)
    first_old = np.where(allowed.any(1), np.arange(count), count)
    while True:  # each class takes the first old class that is connected with it
        first_new = np.full(allowed.shape[1], count)
        np.minimum.at(first_new, columns, first_old[rows])
        before = first_old.copy()
        np.minimum.at(first_old, rows, first_new[columns])
        if np.array_equal(first_old, before):
            break
    names = np.unique(first_old[first_old < count])
    number = np.full(count + 1, -1)
    number[names] = np.arange(len(names))
    return number[first_old], number[first_new]


def compose(first: ClassMap, second: ClassMap, old_classes: Sequence[str]) -> ClassMap:
    """Return the map of two consecutive releases at once; its matrix is that of the first times that of the second.

    Classes that are new in between are no old classes: an old class that is merged with one of them is renamed.

    Args:
      first: from the old classes to those in between.
      second: from those in between to the new ones; it may name classes that the first release added.
      old_classes: all names of the oldest release.

    Raises:
      InputError: the two cannot be written as one map, as where one part of a split class is merged with another class.
        Their matrices compose in any case.

    Examples:
      >>> compose(ClassMap(rename={"car": "auto"}), ClassMap(merge={"vehicle": ("auto", "bus")}), ["car", "bus", "owl"])
      ClassMap(rename={}, merge={'vehicle': ('car', 'bus')}, split={}, retire=())
    """
    later = second.changed()
    news_of = {
        old: tuple(dict.fromkeys(new for between in news for new in later.get(between, (between,))))
        for old, news in zip(old_classes, targets(first, old_classes), strict=True)
    }
    olds_of: dict[str, list[str]] = {}
    for old, news in news_of.items():
        for new in news:
            olds_of.setdefault(new, []).append(old)
    for new, olds in olds_of.items():
        if len(olds) > 1 and (wider := [old for old in olds if len(news_of[old]) > 1]):
            raise InputError(
                f"{listed(list(map(repr, olds)))} become {new!r}, and {wider[0]!r} also "
                f"{listed([repr(each) for each in news_of[wider[0]] if each != new])}; that is no merge and no split: "
                "expected two maps, one for each release"
            )
    return ClassMap(
        rename={
            old: news[0]
            for old, news in news_of.items()
            if len(news) == 1 and news != (old,) and len(olds_of[news[0]]) == 1
        },
        merge={new: tuple(olds) for new, olds in olds_of.items() if len(olds) > 1},
        split={old: news for old, news in news_of.items() if len(news) > 1},
        retire=tuple(old for old, news in news_of.items() if not news),
    )


def _table(given: Any, key: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InputError(f"{key} is {given!r}; expected names by name, such as {EXAMPLE}")
    return {_name(name, key): value for name, value in given.items()}


def _names(given: Any, what: str) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(f"{what} is {given!r}; expected a list of names")
    return tuple(_name(name, what) for name in given)


def _name(given: Any, what: str) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int) or given == "":
        raise InputError(f"{what} has {given!r}; expected the name of a class")
    return str(given)


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
