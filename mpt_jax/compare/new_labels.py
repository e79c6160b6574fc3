"""Labels of rows in the classes of the last release, whichever file shows them, and labels that were corrected.

A label of an earlier release means the new labels that its class stands for: one, several if the class is split, none
if it is retired. The truth of a row is one new label. A label that means several only has to agree with it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """What a label means: labels of the last release, or the name of a retired class."""

    labels: tuple[str, ...]
    retired: str = ""


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
    """

    versions: tuple[Rows, ...]
    retired: np.ndarray
    retired_names: tuple[str, ...]
    corrected: Corrected | None
    problems: tuple[str, ...]


def with_new_labels(
    versions: Sequence[Rows],
    earlier: Sequence[StandsFor],
    declared: Sequence[Collection[str]],
    changes: LabelChanges | None = None,
    shared: tuple[str, ...] | None = None,
) -> Labelled:
    """Return the rows with labels of the last release.

    Args:
      versions: aligned rows of models, the oldest first, and perhaps of a file of labels; each may have labels of any
        release.
      earlier: what the classes of each release before the last stand for, the oldest first.
      declared: of each of them, names that are said to be those of its labels, also of no row; none if nothing is said.
      changes: corrected labels; they count in place of those in the files, which may be former or corrected ones.
      shared: what an index means in `changes`.

    Raises:
      InputError: a label that may be one of an earlier release or of the last, or corrected labels of no row or of a
        class that no file has.
    """
    code_of: dict[Meaning, int] = {}

    def code(meaning: Meaning) -> int:
        return code_of.setdefault(meaning, len(code_of))

    codes = []
    for place, (read, names_) in enumerate(zip(versions, declared, strict=True)):
        meanings = _meanings(read, earlier, names_, must_be_clear=place >= len(earlier))
        table = np.array([*(code(meanings.get(name, Meaning((name,)))) for name in read.classes), -1], np.int32)
        codes.append(table[read.labels])
    corrected, after = _corrections(changes, versions, earlier, shared) if changes else (None, [])
    after_codes = np.array([code(meaning) for meaning in after], np.int32)
    former_codes = np.array([code(meaning) for meaning in corrected.former] if corrected else [], np.int32)
    meanings_ = list(code_of)
    # How many labels each means, 2 for more; the last is that of a missing label.
    size = np.array([*(min(len(meaning.labels), 2) for meaning in meanings_), -1], np.int8)

    truth = np.full(len(versions[0].labels), -1, np.int32)
    for wanted in (1, 0):  # a file with one label for a row tells more than one with a retired class
        for each in reversed(codes):
            truth = np.where((truth < 0) & (size[each] == wanted), each, truth)
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
        if (found := np.flatnonzero(~is_changed & ~_fits(each, truth, meanings_, code_of))).size:
            problems.append(_disagreement(read, found, truth, meanings_))

    names = tuple(dict.fromkeys(label for meaning in meanings_ for label in meaning.labels))
    number = {name: place for place, name in enumerate(names)}
    label_of = np.array([*(number[m.labels[0]] if len(m.labels) == 1 else -1 for m in meanings_), -1], np.int32)
    gone = tuple(meaning.retired for meaning in meanings_ if meaning.retired)
    gone_of = np.array([*(gone.index(m.retired) if m.retired else -1 for m in meanings_), -1], np.int32)
    return Labelled(
        tuple(_labelled(read, names, label_of[truth]) for read in versions),
        gone_of[truth],
        gone,
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
    read: Rows, earlier: Sequence[StandsFor], declared: Collection[str], *, must_be_clear: bool
) -> dict[str, Meaning]:
    """Return what each label of a file means.

    A name that several releases give to different classes is read as that of the release which has all of the file's
    labels. If more than one has them, or none, the truth is what another file shows, and a file of the last release has
    to be clear by itself: labels that were not changed yet would make flips of images that are right.

    Args:
      read: the file's rows.
      earlier: what the classes of each release before the last stand for.
      declared: further names that are said to be those of its labels.
      must_be_clear: whether it is a file of the last release.

    Raises:
      InputError: a label that may be one of several releases.
    """
    last = dict.fromkeys(new for older in earlier for news in older.values() for new in news)
    readings_of = {
        name: _readings(name, last, earlier) for name in {*last, *(name for each in earlier for name in each)}
    }
    gone = {name for name, readings in readings_of.items() if readings == [()]}  # labels of any release may be of these
    shown = {*read.labelled_classes(), *declared} & readings_of.keys() - gone

    def fits(classes: Collection[str]) -> bool:
        return shown == {*classes} - gone if declared else shown <= {*classes}

    of_last, fitting = fits(last), [older for older in earlier if fits(older)]
    found = {}
    for name in read.labelled_classes():
        readings = readings_of.get(name, [(name,)])
        possible = _readings(name, last if of_last else {}, fitting)
        several = possible if len(possible) > 1 else readings
        coarse = of_last and bool(_other_parts(name, readings, shown))  # perhaps not labelled anew yet
        if len(readings) == 1:
            news = readings[0]
        elif len(possible) == 1 and not coarse:
            news = possible[0]
        elif must_be_clear and of_last and not coarse and all(last.keys() <= older.keys() for older in fitting):
            news = (name,)  # as the last release has no class that an earlier one lacks, nothing could show it better
        elif must_be_clear or () in several:
            raise InputError(_ambiguous(read, name, readings, shown, last, earlier))
        else:
            news = tuple(dict.fromkeys(label for reading in several for label in reading))
        found[name] = Meaning(news, "" if news else name)
    return found


def _readings(name: str, last: Collection[str], earlier: Sequence[StandsFor]) -> list[tuple[str, ...]]:
    """Return what a label may mean as one of the last release and of each earlier one."""
    own = [(name,)] if name in last else []
    return [*dict.fromkeys([*own, *(older[name] for older in earlier if name in older)])]


def _other_parts(name: str, readings: Sequence[tuple[str, ...]], shown: Collection[str]) -> list[str]:
    """Return the other parts of a class that is split and keeps its name for one, if no label is of any of them."""
    parts = dict.fromkeys(label for reading in readings if name in reading for label in reading if label != name)
    return [] if parts.keys() & {*shown} else [*parts]


def _ambiguous(
    read: Rows,
    name: str,
    readings: Sequence[tuple[str, ...]],
    shown: Collection[str],
    last: Collection[str],
    earlier: Sequence[StandsFor],
) -> str:
    """Describe a label that means different classes, what beside it shows which, and what would."""
    before = dict.fromkeys(old for older in earlier for old in older)
    of_earlier = [f"{old!r} from before" for old in before if old in shown and old not in last]
    of_last = [f"{new!r} from after it" for new in last if new in shown and new not in before]
    beside = [*of_earlier[:1], *of_last[:1]]
    missing = _other_parts(name, readings, shown) or [new for new in last if new not in before and not of_last]
    return (
        f"{read.source.name} has the label {name!r}, which means another class before the class map than after it"
        + (f", beside {' and '.join(beside)}" if beside else "")
        + (f", and no label {listed(list(map(repr, missing)), most=3)}" if missing else "")
        + "; expected labels of the classes after it in all files"
        + (", or --classes with the names of all of these, if they are" if missing else "")
    )


def _corrections(
    changes: LabelChanges, versions: Sequence[Rows], earlier: Sequence[StandsFor], shared: tuple[str, ...] | None
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
    known: dict[str, tuple[str, ...]] = {}
    for older in earlier:
        known = {**older, **known}
    carried = {new for news in known.values() for new in news}
    in_files = {name for read in versions for name in (*read.classes, *(read.known or ()))}
    valid = {*in_files, *carried, *known, *(shared or ())}

    def name(text: str) -> str:
        return str(columns.class_name(text, shared, changes.name))

    former, names, after = [], [], []
    for place in chosen:
        before, now = name(changes.former[place]), name(changes.corrected[place])
        news = known.get(before, (before,))
        former.append(Meaning(news, "" if news else before))
        names.append(before)
        if now not in valid:  # a slip would make a new class, whose rows cannot flip
            what = f"class {now!r}, to which {changes.name} corrects the label of {changes.ids[place]!r}"
            raise InputError(unknown(what, now, sorted(valid)))
        news = (now,) if now in carried else known.get(now, (now,))
        if len(news) > 1:
            raise InputError(
                f"{changes.name} corrects the label of {changes.ids[place]!r} to {now!r}, which is split into "
                f"{listed(list(map(repr, news)))}; expected one of these"
            )
        after.append(Meaning(news, "" if news else now))
    return Corrected(places[chosen], tuple(former), tuple(names), len(changes.ids)), after


def _fits(
    codes: np.ndarray, truth: np.ndarray, meanings: Sequence[Meaning], code_of: Mapping[Meaning, int]
) -> np.ndarray:
    """Return whether a label is missing, or the truth is among what it means, ``[n]``."""
    fits = (codes == truth) | (codes < 0) | (truth < 0)
    several = [code for code, meaning in enumerate(meanings) if len(meaning.labels) > 1]
    unsure = np.flatnonzero(~fits)
    if not several or not unsure.size:
        return fits
    row = np.full(len(meanings), len(several))
    row[several] = np.arange(len(several))
    allowed = np.zeros((len(several) + 1, len(meanings)), bool)  # the last row is for labels that mean one class
    for place, code in enumerate(several):
        members = (code_of.get(Meaning((label,))) for label in meanings[code].labels)
        allowed[place, [member for member in members if member is not None]] = True
    fits[unsure] = allowed[row[codes[unsure]], truth[unsure]]
    return fits


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
        return one == other or bool({*meanings[one].labels} & {*meanings[other].labels})

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
                f"{listed(examples, len(unfit))}"
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
        f"{rows.named(read, found, 'a label that the class map splits')}, the first into "
        f"{_shown(meanings[each[found[0]]])}; expected the new labels in the last file, or --labels FILE with them"
    )


def _disagreement(read: Rows, found: np.ndarray, truth: np.ndarray, meanings: Sequence[Meaning]) -> str:
    examples = [
        f"{id_!r} is {read.classes[read.labels[row]]!r} and {_shown(meanings[truth[row]])}"
        for id_, row in zip(_ids(read, found), found, strict=False)
    ]
    disagree = "label disagrees" if found.size == 1 else "labels disagree"
    return f"{found.size:,} {disagree} between {read.source.name} and another file: {listed(examples, found.size)}"


def _ids(read: Rows, found: np.ndarray) -> list[str]:
    return ids_of(read.order, found[:NAMED])


def _shown(meaning: Meaning) -> str:
    return listed(list(map(repr, meaning.labels))) if meaning.labels else f"{meaning.retired!r} (retired)"


def _labelled(read: Rows, names: Sequence[str], labels: np.ndarray) -> Rows:
    """Return the rows with other labels, positions in `names`."""
    classes = tuple(dict.fromkeys([*read.classes, *names]))
    place = {name: code for code, name in enumerate(classes)}
    return replace(read, classes=classes, labels=np.array([*(place[name] for name in names), -1], np.int32)[labels])
