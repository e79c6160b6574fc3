"""Labels of rows in the classes of the last release, whichever file shows them, and labels that were corrected.

A label of an earlier release means the new labels that its class stands for: one, several if the class is split, none
if it is retired, or some and a retired one if a part of a split class was retired later. The truth of a row is one new
label, or a retired class. A label that means several only has to agree with it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mpt_jax.compare import align, rows
from mpt_jax.compare.rows import NAMED, Rows, ids_of
from mpt_jax.errors import InputError, listed, unknown
from mpt_jax.files.class_changes import LabelChanges
from mpt_jax.files.predictions import columns

StandsFor = Mapping[str, tuple[str, ...]]
"""The labels of the last release that each class of an earlier one stands for."""


class Meaning(NamedTuple):
    """What a label may mean: labels of the last release, and retired classes by the last name that they had."""

    labels: tuple[str, ...]
    retired: tuple[str, ...] = ()


@dataclass(frozen=True)
class Release:
    """The classes of a release, as labels of it are read.

    Attributes:
      stands_for: what each class stands for in the last release, through all maps in between.
      retired: the retired classes that a class stands for too, by the last name that they had.
      listed: whether these are all classes of the release; else a class that stays may be missing.
      later: names that a map makes after this release.
    """

    stands_for: StandsFor
    retired: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    listed: bool = True
    later: frozenset[str] = frozenset()

    def meaning(self, name: str) -> Meaning:
        """Return what a label of this release means."""
        return Meaning(self.stands_for[name], self.retired.get(name, ()))

    def may_have(self, names: Collection[str]) -> bool:
        """Return whether all of the names may be classes of this release."""
        return self.stands_for.keys() >= {*names} if self.listed else not self.later & {*names}


@dataclass(frozen=True)
class Corrected:
    """Rows whose label was corrected, places ``[m]``, with what their former labels mean, and how they were called.

    `listed` is the number of corrected labels in the file, also of ids that are not compared.
    """

    places: np.ndarray
    former: tuple[Meaning, ...]
    names: tuple[str, ...]
    listed: int


@dataclass(frozen=True)
class Labelled:
    """Rows of models, and perhaps of a file of labels, with labels of the last release; problems are for `InputError`.

    The rows of a retired class have no label; `retired` are their positions in `retired_names`, else -1, ``[n]``.
    `unclear` are the rows whose labels mean several, ``[n]``.
    """

    versions: tuple[Rows, ...]
    retired: np.ndarray
    retired_names: tuple[str, ...]
    unclear: np.ndarray
    corrected: Corrected | None
    problems: tuple[str, ...]


def as_they_are(versions: Sequence[Rows]) -> Labelled:
    """Return rows whose labels are those of one release."""
    count = len(versions[0].labels)
    return Labelled(tuple(versions), np.full(count, -1, np.int32), (), np.zeros(count, bool), None, ())


def with_new_labels(
    versions: Sequence[Rows],
    releases: Sequence[Release],
    declared: Sequence[Collection[str]],
    changes: LabelChanges | None = None,
    shared: tuple[str, ...] | None = None,
    same: Mapping[str, str] = MappingProxyType({}),
) -> Labelled:
    """Return the rows with labels of the last release.

    Args:
      versions: aligned rows of models, the oldest first, and perhaps of a file of labels; each may have labels of any
        release.
      releases: the classes of each model, the oldest first.
      declared: of each of them, names that are said to be those of its labels, also of no row; none if nothing is said.
      changes: corrected labels; they count in place of those in the files, which may be former or corrected ones.
      shared: the names of the last release, which are what an index means in `changes`.
      same: names that mean another name's class, in `changes`.

    Raises:
      InputError: a label that may be one of an earlier release or of the last, or corrected labels of no row or of a
        class that no file has.
    """
    code_of: dict[Meaning, int] = {}

    def code(meaning: Meaning) -> int:
        return code_of.setdefault(meaning, len(code_of))

    codes = []
    of_last = {same.get(name, name) for name in shared or ()}
    for place, (read, names_) in enumerate(zip(versions, declared, strict=True)):
        must_be_clear = place >= len(releases) - 1
        is_last = must_be_clear and bool(of_last) and {*names_} == of_last
        meanings = _meanings(read, releases, names_, must_be_clear=must_be_clear, is_last=is_last)
        table = np.array([*(code(meanings.get(name, Meaning((name,)))) for name in read.classes), -1], np.int32)
        codes.append(table[read.labels])
    corrected, after = _corrections(changes, versions, releases, shared or (), same) if changes else (None, [])
    after_codes = np.array([code(meaning) for meaning in after], np.int32)
    former_codes = np.array([code(meaning) for meaning in corrected.former] if corrected else [], np.int32)
    meanings_ = list(code_of)
    clear = [len(meaning.labels + meaning.retired) == 1 for meaning in meanings_]
    kinds = (
        [one and bool(meaning.labels) for one, meaning in zip(clear, meanings_, strict=True)],
        [one and bool(meaning.retired) for one, meaning in zip(clear, meanings_, strict=True)],
        [not meaning.labels for meaning in meanings_],  # retired, whichever of several it is
    )
    truth = np.full(len(versions[0].labels), -1, np.int32)
    for is_clear in kinds:  # a file with one label for a row tells more than one with a retired class
        chosen = np.array([*is_clear, False])  # the last is that of a missing label
        for each in reversed(codes):
            truth = np.where((truth < 0) & chosen[each], each, truth)
    is_changed = np.zeros(len(truth), bool)
    problems = []
    if corrected:
        is_changed[corrected.places] = True
        truth[corrected.places] = after_codes
        problems += _unfit_corrections(versions, codes, corrected, after_codes, former_codes, meanings_)
    unclear = (truth < 0) & np.logical_or.reduce([each >= 0 for each in codes])
    if unclear.any():
        problems.append(_unclear(versions, codes, np.flatnonzero(unclear), meanings_))
    for read, each in zip(versions, codes, strict=True):
        if (found := np.flatnonzero(~is_changed & ~_fits(each, truth, meanings_))).size:
            problems.append(_disagreement(read, found, truth, meanings_))

    names = tuple(dict.fromkeys(label for meaning in meanings_ for label in meaning.labels))
    number = {name: place for place, name in enumerate(names)}
    label_of = np.array([*(number[m.labels[0]] if m.labels else -1 for m in meanings_), -1], np.int32)
    gone = tuple(dict.fromkeys(" or ".join(m.retired) for m in meanings_ if not m.labels))
    gone_of = np.array([*(-1 if m.labels else gone.index(" or ".join(m.retired)) for m in meanings_), -1], np.int32)
    return Labelled(
        tuple(_labelled(read, names, label_of[truth]) for read in versions),
        gone_of[truth],
        gone,
        unclear,
        corrected,
        tuple(problems),
    )


def at(corrected: Corrected | None, kept: np.ndarray, count: int) -> Corrected | None:
    """Return the corrected labels of the rows that are kept, by their places among `count` rows."""
    if corrected is None:
        return None
    place = np.full(count, -1)
    place[kept] = np.arange(len(kept))
    places = place[corrected.places]
    chosen = np.flatnonzero(places >= 0).tolist()
    return replace(
        corrected,
        places=places[places >= 0],
        former=tuple(corrected.former[each] for each in chosen),
        names=tuple(corrected.names[each] for each in chosen),
    )


def _meanings(
    read: Rows, releases: Sequence[Release], declared: Collection[str], *, must_be_clear: bool, is_last: bool
) -> dict[str, Meaning]:
    """Return what each label of a file means.

    A name that several releases give to different classes is read as that of the release which has all of the file's
    labels. If more than one has them, or none, the truth is what another file shows, and a file of the last release has
    to be clear by itself: labels that were not changed yet would make flips of images that are right.

    Args:
      read: the file's rows.
      releases: the classes of each release.
      declared: further names that are said to be those of its labels.
      must_be_clear: whether it is a file of the last release.
      is_last: whether they are said to be those of the last release, which then has to have all labels.

    Raises:
      InputError: a label that may be one of several releases.
    """
    *earlier, _ = releases
    last = _last(releases)
    readings_of = {
        name: _readings(name, last, earlier)
        for name in {*last, *(name for each in earlier for name in each.stands_for)}
    }
    # Labels of any release may be of these.
    gone = {name for name, readings in readings_of.items() if not any(each.labels for each in readings)}
    shown = {*read.labelled_classes(), *declared} & readings_of.keys() - gone

    def is_of(release: Release) -> bool:
        if declared and release.listed:
            return shown == release.stands_for.keys() - gone
        return release.may_have(shown)

    of_last = shown == last.keys() - gone if declared else shown <= last.keys()
    fitting = [older for older in earlier if is_of(older)]
    found = {}
    for name in read.labelled_classes():
        readings = readings_of.get(name, [Meaning((name,))])
        possible = _readings(name, last if of_last else {}, fitting)
        several = possible if len(possible) > 1 else readings
        # A class that keeps its name for a part of it is perhaps not labelled anew yet, if no label is of another part.
        others = [{*each.labels} - {*possible[0].labels} for each in readings if name in each.labels and possible]
        is_coarse = len(possible) == 1 and any(parts and not parts & shown for parts in others)
        if len(readings) == 1:
            found[name] = readings[0]
        elif is_last and of_last and name in last:
            found[name] = Meaning((name,))
        elif len(possible) == 1 and not is_coarse:
            found[name] = possible[0]
        elif must_be_clear or not all(each.labels for each in several):
            raise InputError(_ambiguous(read, name, readings, shown, last, earlier))
        else:
            found[name] = Meaning(
                tuple(dict.fromkeys(label for each in several for label in each.labels)),
                tuple(dict.fromkeys(gone for each in several for gone in each.retired)),
            )
    return found


def _last(releases: Sequence[Release]) -> dict[str, None]:
    """Return the classes of the last release: those that earlier ones become, and its own."""
    *earlier, newest = releases
    becomes = (new for older in earlier for news in older.stands_for.values() for new in news)
    return dict.fromkeys([*becomes, *newest.stands_for])


def _readings(name: str, last: Collection[str], earlier: Sequence[Release]) -> list[Meaning]:
    """Return what a label may mean as one of the last release and of each earlier one."""
    own = [Meaning((name,))] if name in last else []
    return [*dict.fromkeys([*own, *(older.meaning(name) for older in earlier if name in older.stands_for)])]


def _ambiguous(
    read: Rows,
    name: str,
    readings: Sequence[Meaning],
    shown: Collection[str],
    last: Collection[str],
    earlier: Sequence[Release],
) -> str:
    """Describe a label that means different classes, what beside it shows which, and what would."""
    before = dict.fromkeys(old for older in earlier for old in older.stands_for)
    of_earlier = [f"{old!r} from before" for old in before if old in shown and old not in last]
    of_last = [f"{new!r} from after it" for new in last if new in shown and new not in before]
    beside = [*of_earlier[:1], *of_last[:1]]
    parts = dict.fromkeys(label for each in readings if name in each.labels for label in each.labels if label != name)
    missing = [label for label in parts if label not in shown]
    missing = missing or [new for new in last if new not in before and not of_last]
    return (
        f"{read.source.name} has the label {name!r}, which means another class before the class map than after it"
        + (f", beside {' and '.join(beside)}" if beside else "")
        + (f", and no label {listed(list(map(repr, missing)), most=3)}" if missing else "")
        + "; expected labels of the classes after it in all files, or --classes with the names of all of these, if "
        "they are"
    )


def _corrections(
    changes: LabelChanges,
    versions: Sequence[Rows],
    releases: Sequence[Release],
    shared: Sequence[str],
    same: Mapping[str, str],
) -> tuple[Corrected, list[Meaning]]:
    """Return the corrected rows, and what their labels mean now."""
    first = versions[0]
    places = align.places(rows.fingerprints(pa.array(changes.ids, pa.large_string())), first.keys)
    chosen = np.flatnonzero(places >= 0).tolist()
    if not chosen:
        raise InputError(
            f"no id of {changes.name}, such as {changes.ids[0]!r}, is in {first.source.name}, which has ids such as "
            f"{ids_of(first.source, np.array([0]))[0]!r}; expected the same ids"
        )
    *earlier, _ = releases
    in_files = (
        name for read in versions for name in (*read.labelled_classes(), *read.predicted_classes(), *(read.known or ()))
    )
    last = _last(releases)
    valid = {*in_files, *last, *(name for older in earlier for name in older.stands_for), *shared}
    of_last = {same.get(name, name) for name in shared}

    def named(place: int, text: str, what: str) -> tuple[str, Meaning]:
        """Return the name of a label, and what it means."""
        found = str(columns.class_name(text, tuple(shared), changes.name))
        name, which = same.get(found, found), f"{what} of {changes.ids[place]!r} in {changes.name}"
        if name not in valid and what == _NEW:  # a slip would make a new class, whose rows cannot flip
            raise InputError(f"{unknown(f'class {name!r}, {which}', name, sorted(valid))} (--classes names others)")
        readings = _readings(name, last, earlier) or [Meaning((name,))]
        if len(readings) > 1 and name not in of_last:
            raise InputError(
                f"{name!r}, {which}, means another class before the class map than after it; expected --classes with "
                "the names of the classes after it, if it is one of these"
            )
        return name, Meaning((name,)) if len(readings) > 1 else readings[0]

    kept, former, names, after = [], [], [], []
    for place in chosen:
        before, was = named(place, changes.former[place], "the former label")
        now, becomes = named(place, changes.corrected[place], _NEW)
        if now == before:
            continue  # two names of one class
        if len(becomes.labels + becomes.retired) > 1:
            raise InputError(
                f"{changes.name} corrects the label of {changes.ids[place]!r} to {now!r}, which is split into "
                f"{_shown(becomes)}; expected one of these"
            )
        kept.append(place)
        former.append(was)
        names.append(before)
        after.append(becomes)
    return Corrected(places[kept], tuple(former), tuple(names), len(changes.ids)), after


_NEW = "the corrected label"


def _fits(codes: np.ndarray, truth: np.ndarray, meanings: Sequence[Meaning]) -> np.ndarray:
    """Return whether a label is missing, or the truth is among what it means, ``[n]``."""
    fits = (codes == truth) | (codes < 0) | (truth < 0)
    unsure = np.flatnonzero(~fits)
    if not unsure.size:
        return fits
    with_end: dict[tuple[str, bool], list[int]] = {}
    for code, meaning in enumerate(meanings):
        for end in _ends(meaning):
            with_end.setdefault(end, []).append(code)
    several = np.unique(codes[unsure])
    allowed = np.zeros((len(several), len(meanings)), bool)
    for place, code in enumerate(several.tolist()):
        allowed[place, [other for end in _ends(meanings[code]) for other in with_end[end]]] = True
    fits[unsure] = allowed[np.searchsorted(several, codes[unsure]), truth[unsure]]
    return fits


def _ends(meaning: Meaning) -> list[tuple[str, bool]]:
    """Return each class that a label may mean, and whether it is retired."""
    return [*((label, False) for label in meaning.labels), *((name, True) for name in meaning.retired)]


def _unfit_corrections(
    versions: Sequence[Rows],
    codes: Sequence[np.ndarray],
    corrected: Corrected,
    after: np.ndarray,
    former: np.ndarray,
    meanings: Sequence[Meaning],
) -> list[str]:
    """Describe corrected rows that have neither the former label nor the corrected one in a file."""

    def overlap(one: int, other: int) -> bool:
        return bool({*_ends(meanings[one])} & {*_ends(meanings[other])})

    problems = []
    for read, each in zip(versions, codes, strict=True):
        here = each[corrected.places].tolist()
        unfit = [
            place
            for place, (found, now, before) in enumerate(zip(here, after.tolist(), former.tolist(), strict=True))
            if found >= 0 and not overlap(found, now) and not overlap(found, before)
        ]
        if unfit:
            examples = [
                f"{id_!r} is {_shown(meanings[here[place]])}, corrected from {_shown(meanings[former[place]])} to "
                f"{_shown(meanings[after[place]])}"
                for id_, place in zip(_ids(read, corrected.places[unfit]), unfit, strict=False)
            ]
            problems.append(
                f"{len(unfit):,} {'label' if len(unfit) == 1 else 'labels'} of {read.source.name} "
                f"{'is' if len(unfit) == 1 else 'are'} neither the former nor the corrected one: "
                f"{listed(examples, len(unfit))}; expected one of these two in each file"
            )
    return problems


def _unclear(
    versions: Sequence[Rows], codes: Sequence[np.ndarray], found: np.ndarray, meanings: Sequence[Meaning]
) -> str:
    """Describe rows whose labels mean several new ones in every file."""
    read, each = next(
        (read, each) for read, each in zip(reversed(versions), reversed(codes), strict=True) if each[found[0]] >= 0
    )
    return (
        f"{rows.named(read, found, 'a label that means several classes after the class map')}, the first "
        f"{_shown(meanings[each[found[0]]])}; expected the new labels in the last file, or --labels FILE with them"
    )


def _disagreement(read: Rows, found: np.ndarray, truth: np.ndarray, meanings: Sequence[Meaning]) -> str:
    examples = [
        f"{id_!r} is {read.classes[read.labels[row]]!r} and {_shown(meanings[truth[row]])}"
        for id_, row in zip(_ids(read, found), found, strict=False)
    ]
    disagree = "label disagrees" if found.size == 1 else "labels disagree"
    return (
        f"{found.size:,} {disagree} between {read.source.name} and another file: {listed(examples, found.size)}; "
        "expected labels of one release in each file, and --classes if a name means another class after the class map"
    )


def _ids(read: Rows, found: np.ndarray) -> list[str]:
    return ids_of(read.order, found[:NAMED])


def _shown(meaning: Meaning) -> str:
    return listed([*map(repr, meaning.labels), *(f"{name!r} (retired)" for name in meaning.retired)])


def _labelled(read: Rows, names: Sequence[str], labels: np.ndarray) -> Rows:
    """Return the rows with other labels, positions in `names`."""
    classes = tuple(dict.fromkeys([*read.classes, *names]))
    place = {name: code for code, name in enumerate(classes)}
    return replace(read, classes=classes, labels=np.array([*(place[name] for name in names), -1], np.int32)[labels])
