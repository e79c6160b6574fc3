"""Two or more models' predictions on the same examples, checked and aligned by id.

Each file is read once, batch by batch, however many pairs are made of them. Only if rows must be named are the ids of
the first file read a second time.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mpt_jax.compare import align, rows, vocabulary
from mpt_jax.compare.rows import HINT, NAMED, Rows, ids_of
from mpt_jax.errors import InputError, listed, unknown
from mpt_jax.files.predictions import formats

MOST_UNNAMED = 2**20  # old_classes as a number where nothing bounds it

Predictions = Any  # a path, a table or arrays by name, see `formats.open_source`


@dataclass(frozen=True)
class Pair:
    """Labels and both models' predictions, integers ``[n]``, in the order of the first file that was read.

    The first `num_old_classes` of `classes` are those that the old model knows; `known_from` says how that was
    determined. `tied` are the rows where either model has several largest scores. `names` are those of the old and the
    new source. `left_out` counts the rows that are not compared, by reason. `ids` returns the ids of some rows.
    """

    labels: np.ndarray
    old: np.ndarray
    new: np.ndarray
    classes: tuple[str, ...]
    num_old_classes: int
    known_from: str
    tied: np.ndarray
    names: tuple[str, str]
    left_out: Mapping[str, int]
    ids: Callable[[np.ndarray], list[str]]


@dataclass(frozen=True)
class Versions:
    """The rows of several models; row by row the same examples, unless there are `problems`.

    `shared` is what an index means for all of them, `old_classes` what the first model knows according to the user.
    """

    rows: tuple[Rows, ...]
    shared: tuple[str, ...]
    old_classes: int | tuple[str, ...] | None
    problems: tuple[str, ...]


def read(
    old: Predictions,
    new: Predictions,
    *,
    classes: Sequence[str] | None = None,
    old_classes: int | Sequence[str] | None = None,
    same: Mapping[str, str] | None = None,
    scores: str | None = None,
) -> Pair:
    """Read both models' predictions, align them by id and order the classes: those that the old model knows first.

    Raises:
      InputError: as of `read_versions` and `pair`.
    """
    return pair(read_versions([old, new], classes=classes, old_classes=old_classes, same=same, scores=scores), 0, 1)


def read_versions(
    given: Sequence[Predictions],
    *,
    classes: Sequence[str] | None = None,
    old_classes: int | Sequence[str] | None = None,
    same: Mapping[str, str] | None = None,
    scores: str | None = None,
) -> Versions:
    """Read each model's predictions once and align them with those of the first by id.

    Args:
      given: files, or arrays by column name, the oldest model's first.
      classes: what an index means, in all; by default what the file says, else the index is the class.
      old_classes: the classes that the first model knows: their number, their names (which are then also what an index
        means in its file) or their indices. By default its `class_names` or score columns, else every class that it
        predicts.
      same: names that mean another name's class, in all files.
      scores: which columns of scores are used, see `columns.prediction_columns`.

    Raises:
      InputError: files that cannot be used; `pair` reports rows that do not match.
    """
    if isinstance(old_classes, np.integer):
        old_classes = int(old_classes)
    if isinstance(old_classes, int) and old_classes < 1:
        raise InputError(f"old_classes is {old_classes}; expected the number of classes that the old model knows")
    shared, own = _unique(classes), None if isinstance(old_classes, int) else _unique(old_classes)
    same = same or {}
    versions: list[Rows] = []
    problems: list[str] = []
    disagreements: list[str] = []
    present: set[str] = set()
    for place, (each, name) in enumerate(zip(given, _names(given), strict=True)):
        version = rows.read(formats.open_source(each, name), shared, None if place else own, scores)
        present |= set(version.classes)
        version = rows.renamed(version, same)
        problems += version.problems
        if place and versions[0].ids_complete and version.ids_complete:
            match = align.match(versions[0].keys, version.keys)
            problems += _unmatched(versions[0], version, match)
            if match.new_of_old is not None:
                version = rows.reordered(version, match.new_of_old)
                disagreements += _disagreeing(versions[0], version)
        versions.append(version)
    _check_same(same, present)
    if problems:
        where = "both" if len(given) == 2 else "all files"
        problems[-1] += f"; expected every id once in {where}, with a label and a prediction"
    return Versions(
        tuple(versions),
        shared or (),
        old_classes if isinstance(old_classes, int) else own,
        (*problems, *disagreements),
    )


def pair(versions: Versions, old: int, new: int) -> Pair:
    """Return the predictions of two versions, by their positions, with the classes that the old one knows first.

    Raises:
      InputError: anything that makes the comparison invalid or can hide a flip, with the number of rows and examples.
    """
    before, after = versions.rows[old], versions.rows[new]
    given = versions.old_classes if old == 0 else None
    problems = [*versions.problems, *_hidden(before, after, versions.shared, given is not None)]
    if problems:
        raise InputError("; ".join(problems))
    if isinstance(given, int):
        known, known_from = _first_classes(given, versions.shared, before.known), "old_classes"
    elif before.known is not None:
        known, known_from = before.known, "old_classes" if given else "class_names or scores"
    else:
        known, known_from = before.predicted_classes(), "answers"  # a value of `known_from` in the JSON
    ids = partial(ids_of, versions.rows[0].source)
    return _merge(before, after, versions.shared, set(known), known_from, ids)


def _names(given: Sequence[Predictions]) -> list[str]:
    ages = ("old", "new") if len(given) == 2 else [f"version {place}" for place in range(1, len(given) + 1)]
    return [
        str(each) if isinstance(each, str | os.PathLike) else f"the {age} {_kind(each)}"
        for age, each in zip(ages, given, strict=True)
    ]


def _kind(given: Any) -> str:
    return "arrays" if isinstance(given, Mapping) else "table"


def _first_classes(count: int, shared: tuple[str, ...], known: tuple[str, ...] | None) -> tuple[str, ...]:
    counts = [len(named) for named in (shared, known) if named]
    if count > (most := min(counts, default=MOST_UNNAMED)):
        source = "the number of classes, class_names or scores" if counts else "or their names"
        raise InputError(f"old_classes is {count}; expected at most {most}, {source}")
    return (shared or known or tuple(map(str, range(count))))[:count]


def _merge(
    before: Rows,
    after: Rows,
    shared: tuple[str, ...],
    known: set[str],
    known_from: str,
    ids: Callable[[np.ndarray], list[str]],
) -> Pair:
    """Assign the same numbers to the classes of both: those that the old model knows, then the others."""
    source = before.source
    how = f"by its {'predictions' if known_from == 'answers' else known_from}"
    if unknown := set(before.predicted_classes()) - known:
        raise InputError(
            f"{source.name} predicts {listed(sorted(map(repr, unknown)))}, not among the {len(known)} classes that the "
            f"old model knows ({how}: {listed(sorted(map(repr, known)))}); expected predictions among these, or "
            "old_classes with the names of all that it knows"
        )
    classes = sorted({*shared, *known, *before.classes, *after.classes}, key=rows.class_order(shared))
    classes = [*(c for c in classes if c in known), *(c for c in classes if c not in known)]
    number = {name: place for place, name in enumerate(classes)}

    def renumbered(read: Rows, codes: np.ndarray) -> np.ndarray:
        return np.array([number[name] for name in read.classes], np.int32)[codes]

    labels = renumbered(before, before.labels)
    if not np.any(labels < len(known)):
        raise InputError(
            f"no row of {source.name} has a label that the old model knows ({how}: "
            f"{listed(list(map(repr, classes[: len(known)])))}); expected at least one{HINT}"
        )
    old, new = renumbered(before, before.predictions), renumbered(after, after.predictions)
    tied = np.zeros(len(labels), bool)
    for read in (before, after):
        tied |= read.tied if read.tied.size else False
    files = (source.name, after.source.name)
    return Pair(labels, old, new, tuple(classes), len(known), known_from, tied, files, {}, ids)


def _unmatched(before: Rows, after: Rows, match: align.Match) -> list[str]:
    problems = []
    for read, found, what in (
        (before, match.repeated_old, "more than once"),
        (after, match.repeated_new, "more than once"),
        (before, match.only_old, f"but not in {after.source.name}"),
        (after, match.only_new, f"but not in {before.source.name}"),
    ):
        if found.size:
            ids = [repr(text) for text in ids_of(read.source, found[:NAMED])]
            is_in = "id is" if found.size == 1 else "ids are"
            problems.append(f"{found.size:,} {is_in} in {read.source.name} {what}: {listed(ids, found.size)}")
    return problems


def _disagreeing(before: Rows, after: Rows) -> list[str]:
    number = {name: place for place, name in enumerate(before.classes)}
    labels = np.array([*(number.get(name, len(number)) for name in after.classes), -1], np.int32)[after.labels]
    found = np.flatnonzero((before.labels != labels) & (before.labels >= 0) & (labels >= 0))
    if not found.size:
        return []
    examples = [
        f"{text!r} is {before.classes[before.labels[row]]!r} and {after.classes[after.labels[row]]!r}"
        for text, row in zip(ids_of(before.source, found[:NAMED]), found[:NAMED], strict=True)
    ]
    disagree = "label disagrees" if found.size == 1 else "labels disagree"
    names = f"{before.source.name} and {after.source.name}"
    kinds = {any(name.isdecimal() for name in read.labelled_classes()) for read in (before, after)}
    hint = HINT if len(kinds) > 1 else "; expected the same label in both"
    return [f"{found.size:,} {disagree} between {names}: {listed(examples, found.size)}{hint}"]


def _hidden(before: Rows, after: Rows, shared: Sequence[str], old_classes_given: bool) -> list[str]:
    """Describe what in the names of the classes can hide a flip, see `vocabulary.problems`."""
    old, new = before.rows_by_label(), after.rows_by_label()
    labels = {name: max(old.get(name, 0), new.get(name, 0)) for name in {**old, **new}}
    return vocabulary.problems(
        labels,
        before.rows_by_prediction(),
        after.rows_by_prediction(),
        names=(before.source.name, after.source.name),
        declared={*shared, *(name for read in (before, after) if read.listed for name in read.known or ())},
        from_columns=() if before.listed else before.known or (),
        old_classes_given=old_classes_given or before.known is not None,
    )


def _check_same(same: Mapping[str, str], present: set[str]) -> None:
    """Reject a name that no file has, or that is to become a name which is renamed itself."""
    for name, meaning in same.items():
        if meaning in same:
            raise InputError(
                f"same says {name!r} is {meaning!r}, and that {meaning!r} is {same[meaning]!r}; expected one step"
            )
        if name not in present:
            raise InputError(unknown(f"class {name!r} in same", name, sorted(present)))


def _unique(given: Sequence[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"classes are given as {given!r}; expected a list of names, such as ['cat', 'dog']")
    names = tuple(map(str, given))
    repeated = formats.repeated(names)
    if repeated or not names:
        raise InputError(
            f"{f'class {repeated[0]!r} is given twice' if repeated else 'no class is given'}; expected each once"
        )
    return names
