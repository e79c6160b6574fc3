"""Two or more models' predictions on the same examples, checked and aligned by id.

Each file is read once, batch by batch, however many pairs are made of them. Only if rows must be named are the ids of
the first file read a second time.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from mpt_jax.class_map import ClassMap
from mpt_jax.compare import align, new_labels, rows, taxonomy, vocabulary
from mpt_jax.compare import extras as extras_
from mpt_jax.compare.extras import Extras
from mpt_jax.compare.new_labels import Corrected, Release, StandsFor
from mpt_jax.compare.rows import HINT, NAMED, Rows, ids_of
from mpt_jax.compare.taxonomy import Mapped
from mpt_jax.errors import InputError, listed, unknown
from mpt_jax.files import class_changes
from mpt_jax.files.predictions import formats
from mpt_jax.files.predictions.formats import Source

RETIRED, UNLABELLED = "rows of retired classes", "rows without a label"
SKIP = "; --unlabelled skip leaves out the rows without a label"
MOST_UNNAMED = 2**20  # old_classes as a number where nothing bounds it

Predictions = Any  # a path, a table or arrays by name, see `formats.open_source`


@dataclass(frozen=True)
class Pair:
    """Labels and both models' predictions, integers ``[n]``, in the order of the first file that was read.

    The first `num_old_classes` of `classes` are those that the old model knows; `known_from` says how that was
    determined. `tied` are the rows where either model has several largest scores. `names` are those of the old and the
    new source. `left_out` counts the rows that are not compared, by reason. `ids` returns the ids of some rows,
    and `extras` what else is known of them. `top` are both models' classes of the largest scores, ``[n, k]``, and
    `confidences` their largest scores, ``[n]``, if wanted. With class maps, labels and predictions are in the classes
    of the last release, and `mapped` has the answers as they were given. `corrected` are rows with a corrected label.
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
    extras: Extras = field(default_factory=Extras)
    top: tuple[np.ndarray, np.ndarray] | None = None
    confidences: tuple[np.ndarray, np.ndarray] | None = None
    mapped: Mapped | None = None
    corrected: Corrected | None = None


@dataclass(frozen=True)
class Versions:
    """The rows of several models; row by row the same examples, unless there are `problems`.

    `shared` is what an index means for all of them, `old_classes` what the first model knows according to the user.
    `left_out` counts the rows that are not compared, and `kept` are the places of the others, None: all. With class
    `maps`, one for each step, `meanings` are the labels of the last release that each version's classes stand for, and
    `retired` counts the rows of each retired class, which are not compared. `corrected` are rows with a corrected
    label.
    """

    rows: tuple[Rows, ...]
    shared: tuple[str, ...]
    old_classes: int | tuple[str, ...] | None
    problems: tuple[str, ...]
    left_out: Mapping[str, int]
    kept: np.ndarray | None
    extras: Extras = field(default_factory=Extras)
    maps: tuple[ClassMap, ...] = ()
    meanings: tuple[StandsFor, ...] = ()
    retired: Mapping[str, int] = field(default_factory=dict)
    corrected: Corrected | None = None


def read(
    old: Predictions,
    new: Predictions,
    **options: Any,
) -> Pair:
    """Read both models' predictions, align them by id and order the classes: those that the old model knows first.

    Args:
      old: the old model's file, or arrays by column name.
      new: the same of the new model.
      options: of `read_versions`.

    Raises:
      InputError: as of `read_versions` and `pair`.
    """
    return pair(read_versions([old, new], **options), 0, 1)


def read_versions(
    given: Sequence[Predictions],
    *,
    classes: Sequence[str] | None = None,
    old_classes: int | Sequence[str] | None = None,
    same: Mapping[str, str] | None = None,
    scores: str | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Predictions | None = None,
    unlabelled: str | None = None,
    extra: Sequence[str] = (),
    metadata: Predictions | None = None,
    weight: str | None = None,
    must_pass: Any = None,
    class_map: Any = None,
    label_changes: Any = None,
    prepare: Callable[[Source], Source] = lambda source: source,
    top_k: int = 0,
    confidences: bool = False,
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
      columns: names of the columns in all files by their usual name, see `formats.renamed`.
      labels: a file or table of ids and labels, for files that have none.
      unlabelled: "skip" leaves out the rows without a label; with "only" there are none.
      extra: columns that define slices, each in at least one of the files; where several have it they must agree.
      metadata: a further file or table, with an id and some of these columns.
      weight: the column of weights, in at least one of the files.
      must_pass: ids or a file of them, see `extras.places_of`.
      class_map: how the classes of each version become those of the next, a file or mapping for each step; see
        `class_map.ClassMap`.
      label_changes: corrected labels, see `class_changes.read_label_changes`.
      prepare: changes each source before it is read, columns with their usual names.
      top_k: how many classes with the largest scores are kept.
      confidences: whether the largest scores are kept.

    Raises:
      InputError: files that cannot be used; `pair` reports rows that do not match.
    """
    shared, old_classes = given_classes(classes, old_classes)
    own = None if isinstance(old_classes, int) else old_classes
    same, names = same or {}, _names(given)
    maps = _class_maps(class_map)
    changes = None if label_changes is None else class_changes.read_label_changes(label_changes)
    if maps and old_classes is not None and own is None:
        raise InputError(
            f"old_classes is {old_classes}; expected names with class_map: the classes that the old model knows"
        )
    tables = {role: each for role, each in (("labels", labels), ("metadata", metadata)) if each is not None}
    names += [
        str(each) if isinstance(each, str | os.PathLike) else f"the {role}' {_kind(each)}"
        for role, each in tables.items()
    ]
    sources = [_open(each, name, columns) for each, name in zip([*given, *tables.values()], names, strict=True)]
    sources = formats.renamed(sources, columns or {})
    opened, others = sources[: len(given)], dict(zip(tables, sources[len(given) :], strict=True))
    opened = [prepare(source) for source in opened]
    labels_source, metadata_source = others.get("labels"), others.get("metadata")
    extras_.require_columns([*opened, *([labels_source] if labels_source else [])], metadata_source, extra, weight)
    needs_label = labels is None and unlabelled != "only"
    versions: list[Rows] = []
    problems: list[str] = []
    present: set[str] = set()
    for place, source in enumerate(opened):
        is_last = place == len(opened) - 1
        version = rows.read(
            *(source, shared if is_last or not maps else None, None if place else own, scores),
            needs_label=needs_label,
            extra=extra,
            weight=weight,
            top_k=top_k,
            confidences=confidences,
        )
        if maps:
            rows.require_names(version, "classes" * is_last if place else "old_classes")
        present |= set(version.classes)
        version = rows.renamed(version, same)
        problems += version.problems
        if place and versions[0].ids_complete and version.ids_complete:
            match = align.match(versions[0].keys, version.keys)
            problems += _unmatched(versions[0], version, match, {name for each in maps for name in each.retire})
            if match.new_of_old is not None:
                version = rows.reordered(version, match.new_of_old, versions[0].source)
        versions.append(version)
    left_out, hint = {}, ""
    if labels_source:
        listed_labels, more = _read_labels(prepare(labels_source), shared, versions[0], extra, weight)
        present |= set(listed_labels.classes)
        versions.append(rows.renamed(listed_labels, same))
        left_out = {"labels without a prediction": more} if more else {}
    check_same(same, present)
    versions, missing = _without_missing(versions, shared or ())
    problems += missing
    releases = [Release({}) for _ in given]
    relabelled = new_labels.as_they_are(versions)
    if maps:
        _require_own_names(versions[: len(given) - 1], shared)
        labelled_as = {name for version in versions for name in version.labelled_classes()}
        releases = taxonomy.releases(versions[: len(given)], maps, labelled_as)
    if (maps or changes) and all(version.order is opened[0] for version in versions):
        of_last = shared or ()
        declared = [
            {
                same.get(name, name)
                for name in version.source.label_names or (of_last if place >= len(given) - 1 else ())
            }
            for place, version in enumerate(versions)
        ]
        relabelled = new_labels.with_new_labels(versions, releases, declared, changes, shared, same)
        versions, problems = list(relabelled.versions), [*problems, *relabelled.problems]
    retired, retired_names, corrected = relabelled.retired, relabelled.retired_names, relabelled.corrected
    explained = (retired >= 0) | relabelled.unclear  # why rows have no label of the last release
    if labels is None and not unlabelled:
        without_label = [
            (version, np.flatnonzero((version.labels < 0) & (~explained if explained.any() else True)))
            for version in versions
        ]
        problems += [rows.named(version, found, "no label") for version, found in without_label if found.size]
        hint = SKIP if any(found.size for _, found in without_label) else ""
    if problems and problems[-1] not in relabelled.problems:  # those say what is expected
        where = "both" if len(given) == 2 else "all files"
        problems[-1] += f"; expected every id once in {where}, with a label and a prediction{hint}"
    kept, extras = None, Extras()
    if unlabelled != "only" and all(version.order is opened[0] for version in versions):
        extras, unfit = extras_.read(
            versions, metadata=metadata_source, extra=extra, weight=weight, must_pass=must_pass
        )
        problems += unfit
        versions = [replace(version, factors={}, weights=None) for version in versions]
        versions, labelled, disagreements = _with_one_label(versions)
        problems += disagreements
        if not labelled.all():
            unlabelled_rows = np.flatnonzero(~labelled & ~explained)
            if labels is not None and not unlabelled and unlabelled_rows.size:
                problems.append(rows.named(versions[0], unlabelled_rows, "no label") + SKIP)
            if not labelled.any():
                problems.append("no row has a label; expected some, or --labels FILE")
            kept = np.flatnonzero(labelled)
            why = "no label, or one of a retired class" if retired_names else "no label"
            extras = extras_.at(extras, kept, len(labelled), versions[0], why)
            corrected = new_labels.at(corrected, kept, len(labelled))
            versions = [rows.reordered(version, kept, version.order) for version in versions]
            found = {RETIRED: len(labelled) - len(kept) - unlabelled_rows.size, UNLABELLED: unlabelled_rows.size}
            left_out |= {reason: count for reason, count in found.items() if count}
    return Versions(
        tuple(versions[: len(given)]),
        shared or (),
        old_classes,
        tuple(problems),
        left_out,
        kept,
        extras,
        tuple(maps),
        tuple(release.stands_for for release in releases),
        dict(
            zip(retired_names, np.bincount(retired[retired >= 0], minlength=len(retired_names)).tolist(), strict=True)
        ),
        corrected,
    )


def pair(versions: Versions, old: int, new: int) -> Pair:
    """Return the predictions of two versions, by their positions, with the classes that the old one knows first.

    Raises:
      InputError: anything that makes the comparison invalid or can hide a flip, with the number of rows and examples.
    """
    before, after = versions.rows[old], versions.rows[new]
    given = versions.old_classes if old == 0 else None
    meanings = (versions.meanings[old], versions.meanings[new]) if versions.maps else ({}, {})
    problems = list(versions.problems)
    if not (problems and versions.maps):  # then labels may still be those of different releases
        problems += _hidden(before, after, versions.shared, given is not None, meanings)
    if problems:
        raise InputError("; ".join(problems))
    if isinstance(given, int):
        known, known_from = _first_classes(given, versions.shared, before.known), "old_classes"
    elif before.known is not None:
        known, known_from = before.known, "old_classes" if given else "class_names or scores"
    else:
        known, known_from = before.predicted_classes(), "answers"  # a value of `known_from` in the JSON
    ids = partial(ids_of_rows, versions)
    if versions.maps:
        merged = _merge_mapped(before, after, versions, (old, new), known, known_from, ids)
    else:
        merged = _merge(before, after, versions.shared, set(known), known_from, versions.left_out, ids)
    weights = versions.extras.weights
    if weights is not None and not weights[merged.labels < merged.num_old_classes].any():
        raise InputError(
            f"the weights of the rows whose label {before.source.name} knows are all 0; expected some above"
        )
    return replace(merged, extras=versions.extras, corrected=versions.corrected)


def without_labels(versions: Versions) -> Pair:
    """Return the predictions of two versions that have no labels, which are then -1; the classes are all of both.

    Raises:
      InputError: rows that do not match, names of classes that look like one class, or names in one file and indices in
        the other.
    """
    before, after = versions.rows
    problems = [*versions.problems, *_respelled(before, after, versions.shared)]
    if problems:
        raise InputError("; ".join(problems))
    classes = sorted({*versions.shared, *before.classes, *after.classes}, key=rows.class_order(versions.shared))
    number = {name: place for place, name in enumerate(classes)}
    old, new = (
        np.array([number[name] for name in read.classes], np.int32)[read.predictions] for read in (before, after)
    )
    return Pair(
        labels=np.full(len(old), -1, np.int32),
        old=old,
        new=new,
        classes=tuple(classes),
        num_old_classes=len(classes),
        known_from="answers",
        tied=_tied(before, after),
        names=(before.source.name, after.source.name),
        left_out=versions.left_out,
        ids=partial(ids_of_rows, versions),
    )


def ids_of_rows(versions: Versions, places: np.ndarray) -> list[str]:
    """Return the ids of some of the rows that are compared."""
    return ids_of(versions.rows[0].source, places if versions.kept is None else versions.kept[places])


def given_classes(
    classes: Sequence[str] | None, old_classes: int | Sequence[str] | None
) -> tuple[tuple[str, ...] | None, int | tuple[str, ...] | None]:
    """Return the classes and those that the old model knows as the user gives them, checked.

    Raises:
      InputError: no list of unique names, or a number below 1.
    """
    if isinstance(old_classes, int | np.integer):
        if old_classes < 1:
            raise InputError(f"old_classes is {old_classes}; expected the number of classes that the old model knows")
        return _unique(classes), int(old_classes)
    return _unique(classes), _unique(old_classes)


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
    left_out: Mapping[str, int],
    ids: Callable[[np.ndarray], list[str]],
) -> Pair:
    """Assign the same numbers to the classes of both: those that the old model knows, then the others."""
    _require_known(before, known, known_from)
    classes = _ordered({*shared, *known, *before.classes, *after.classes}, known, shared)
    number = {name: place for place, name in enumerate(classes)}

    def renumbered(read: Rows, codes: np.ndarray) -> np.ndarray:
        return np.array([number[name] for name in read.classes], np.int32)[codes]

    labels = renumbered(before, before.labels)
    _require_known_label(before, labels, classes[: len(known)], known_from)
    old, new = renumbered(before, before.predictions), renumbered(after, after.predictions)
    tied = _tied(before, after)
    files = (before.source.name, after.source.name)
    merged = Pair(labels, old, new, tuple(classes), len(known), known_from, tied, files, left_out, ids)
    if before.top is not None and after.top is not None:
        merged = replace(merged, top=(renumbered(before, before.top), renumbered(after, after.top)))
    if before.confidences is not None and after.confidences is not None:
        merged = replace(merged, confidences=(before.confidences, after.confidences))
    return merged


def _merge_mapped(
    before: Rows,
    after: Rows,
    versions: Versions,
    step: tuple[int, int],
    known: Sequence[str],
    known_from: str,
    ids: Callable[[np.ndarray], list[str]],
) -> Pair:
    """Assign numbers to the classes of the last release, as `_merge`, and express both models' answers in them."""
    of_old, of_new = (versions.meanings[place] for place in step)
    _require_known(before, set(known), known_from)
    known_now = {new for name in known for new in of_old.get(name, (name,))}
    others = {new for meaning in (of_old, of_new) for news in meaning.values() for new in news}
    others |= {new for name in after.predicted_classes() for new in of_new.get(name, (name,))}
    classes = _ordered({*versions.shared, *known_now, *others, *before.labelled_classes()}, known_now, versions.shared)
    number = {name: place for place, name in enumerate(classes)}
    gone = dict.fromkeys(name for meaning in (of_old, of_new) for name, news in meaning.items() if not news)
    retired = {name: len(classes) + place for place, name in enumerate(gone)}
    labels = np.array([number.get(name, -1) for name in before.classes], np.int32)[before.labels]
    _require_known_label(before, labels, classes[: len(known_now)], known_from)
    old, new = (
        taxonomy.answers(read, meaning, number, retired) for read, meaning in ((before, of_old), (after, of_new))
    )
    merged = Pair(
        labels,
        *taxonomy.in_new_classes(old, new, labels),
        (*classes, *(f"{name} (retired)" if name in number else name for name in gone)),
        len(known_now),
        known_from,
        _tied(before, after),
        (before.source.name, after.source.name),
        versions.left_out,
        ids,
        mapped=Mapped(old, new, versions.maps[step[0] :], versions.retired, len(gone)),
    )
    if before.top is not None and after.top is not None:
        merged = replace(
            merged, top=(taxonomy.of_top(old, before.top, labels), taxonomy.of_top(new, after.top, labels))
        )
    if before.confidences is not None and after.confidences is not None:
        merged = replace(merged, confidences=(before.confidences, after.confidences))
    return merged


def _ordered(names: set[str], known: Collection[str], shared: Sequence[str]) -> list[str]:
    """Return the names in the order of `rows.class_order`, those that the old model knows first."""
    ordered = sorted(names, key=rows.class_order(shared))
    return [*(name for name in ordered if name in known), *(name for name in ordered if name not in known)]


def _how(known_from: str) -> str:
    return f"by its {'predictions' if known_from == 'answers' else known_from}"


def _require_known(before: Rows, known: set[str], known_from: str) -> None:
    """Reject predictions of classes that the old model is said not to know."""
    if unknown := set(before.predicted_classes()) - known:
        raise InputError(
            f"{before.source.name} predicts {listed(sorted(map(repr, unknown)))}, not among the {len(known)} classes "
            f"that the old model knows ({_how(known_from)}: {listed(sorted(map(repr, known)))}); expected predictions "
            "among these, or old_classes with the names of all that it knows"
        )


def _require_known_label(before: Rows, labels: np.ndarray, known: Sequence[str], known_from: str) -> None:
    """Reject rows none of which can flip."""
    if not np.any(labels < len(known)):
        raise InputError(
            f"no row of {before.source.name} has a label that the old model knows ({_how(known_from)}: "
            f"{listed(list(map(repr, known)))}); expected at least one{HINT}"
        )


def _tied(before: Rows, after: Rows) -> np.ndarray:
    """Return the rows where either model has several largest scores, ``[n]``."""
    tied = np.zeros(len(before.predictions), bool)
    for read in (before, after):
        tied |= read.tied if read.tied.size else False
    return tied


def _respelled(before: Rows, after: Rows, shared: Sequence[str]) -> list[str]:
    """Describe names that look like one class, or like names on one side and indices on the other, without labels."""
    kinds = [{name.isdecimal() for name in read.predicted_classes()} for read in (before, after)]
    if {True} in kinds and {False} in kinds:
        first = [repr(read.predicted_classes()[0]) for read in (before, after)]
        return [
            f"{before.source.name} predicts {first[0]} and {after.source.name} {first[1]}; expected either names or "
            f"indices in both{HINT}"
        ]
    return vocabulary.problems(
        {},
        before.rows_by_prediction(),
        after.rows_by_prediction(),
        names=(before.source.name, after.source.name),
        declared={*shared, *(name for read in (before, after) if read.listed for name in read.known or ())},
        old_classes_given=True,
    )


def _unmatched(before: Rows, after: Rows, match: align.Match, retired: Collection[str]) -> list[str]:
    """Describe ids that are not once in both files, and why that may be so."""
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
    if match.only_old.size and match.only_new.size:
        only = ((before, match.only_old), (after, match.only_new))
        texts = [ids_of(read.source, found[: align.MOST_IDS]) for read, found in only]
        if how := align.written_otherwise(*texts):
            problems[-1] += f"; {how}"
    labels = {before.classes[code] for code in np.unique(before.labels[match.only_old]) if code >= 0}
    if labels and labels <= {*retired}:
        problems[-1] += (
            f"; the rows that only {before.source.name} has are of retired classes: expected them in both files, "
            "without a label where the class is gone, or in neither"
        )
    return problems


def _with_one_label(versions: Sequence[Rows]) -> tuple[list[Rows], np.ndarray, list[str]]:
    """Return aligned versions with the labels that any of them has, which rows have one, and where they differ."""
    first, problems = versions[0], []
    for other in versions[1:]:
        first, differing = _with_labels_of(first, other)
        problems += differing
    merged = [first, *(_with_labels_of(other, first)[0] for other in versions[1:])]
    return merged, first.labels >= 0, problems


def _without_missing(versions: Sequence[Rows], shared: Sequence[str]) -> tuple[list[Rows], list[str]]:
    """Mark labels and predictions that read as missing, such as "nan" or -1, and describe such predictions."""
    missing = vocabulary.missing(
        {name for version in versions for name in version.labelled_classes()},
        {name for version in versions for name in version.predicted_classes()},
        {*shared, *(name for version in versions for name in version.known or ())},
    )
    marked, problems = [rows.without(version, missing) for version in versions], []
    for before, after in zip(versions, marked, strict=True):
        if names := missing & {*before.predicted_classes()}:
            lost = np.flatnonzero((after.predictions < 0) & (before.predictions >= 0))
            what = f"no prediction ({listed(sorted(map(repr, names)))} means none, unless it is among --classes)"
            problems.append(rows.named(before, lost, what))
    return marked, problems


def _open(given: Predictions, name: str, columns: Mapping[str, str] | None) -> Source:
    ids = [*formats.IDS, *(name for usual, name in (columns or {}).items() if usual == "id")]
    return formats.open_source(given, name, ids)


def _read_labels(
    source: Source, shared: tuple[str, ...] | None, first: Rows, extra: Sequence[str], weight: str | None
) -> tuple[Rows, int]:
    """Read a file of ids and labels; return the labels in the order of the first model's rows, and how many others.

    Raises:
      InputError: an id that occurs twice.
    """
    read = rows.read(source, shared, None, needs_prediction=False, extra=extra, weight=weight)
    if (found := align.repeated(read.keys)).size:
        raise InputError(f"{rows.named(read, found, 'an id that occurs again')}; expected one label for each id")
    places = align.places(first.keys, read.keys)
    in_order = rows.reordered(read, places, first.source)
    more = len(read.labels) - np.count_nonzero(places >= 0)
    return replace(in_order, labels=np.where(places < 0, -1, in_order.labels)), int(more)


def _with_labels_of(read: Rows, other: Rows) -> tuple[Rows, list[str]]:
    """Return the rows with another file's labels where they have none, and describe where the labels differ."""
    classes = tuple(dict.fromkeys([*read.classes, *other.classes]))
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([*(number[name] for name in other.classes), -1], np.int32)[other.labels]
    lacking = read.labels < 0
    merged = replace(read, classes=classes, labels=np.where(lacking, labels, read.labels)) if lacking.any() else read
    found = np.flatnonzero((merged.labels != labels) & (labels >= 0))
    if not found.size:
        return merged, []
    examples = [
        f"{text!r} is {classes[merged.labels[row]]!r} and {classes[labels[row]]!r}"
        for text, row in zip(ids_of(read.order, found[:NAMED]), found[:NAMED], strict=True)
    ]
    disagree = "label disagrees" if found.size == 1 else "labels disagree"
    names = f"{read.source.name} and {other.source.name}"
    kinds = {any(name.isdecimal() for name in each.labelled_classes()) for each in (read, other)}
    hint = HINT if len(kinds) > 1 else "; expected the same label in both"
    if {*read.labelled_classes()} - {*other.labelled_classes()} and {*other.labelled_classes()} - {
        *read.labelled_classes()
    }:
        hint += ", or --class-map FILE if classes were renamed, merged or split"
    return merged, [f"{found.size:,} {disagree} between {names}: {listed(examples, found.size)}{hint}"]


def _hidden(
    before: Rows,
    after: Rows,
    shared: Sequence[str],
    old_classes_given: bool,
    meanings: tuple[StandsFor, StandsFor],
) -> list[str]:
    """Describe what in the names of the classes can hide a flip, see `vocabulary.problems`; old names as new labels."""
    old, new = before.rows_by_label(), after.rows_by_label()
    labels = {name: max(old.get(name, 0), new.get(name, 0)) for name in {**old, **new}}

    def shown(names: Iterable[str], meaning: StandsFor) -> list[str | None]:
        """Return the label that each class stands for, of several the most frequent."""
        return [max(meaning.get(name, (name,)), key=lambda label: labels.get(label, 0), default=None) for name in names]

    def predicted(read: Rows, meaning: StandsFor) -> dict[str, int]:
        counts = read.rows_by_prediction()
        found: dict[str, int] = {}
        for label, rows_ in zip(shown(counts, meaning), counts.values(), strict=True):
            if label is not None:
                found[label] = found.get(label, 0) + rows_
        return found

    def known(read: Rows, meaning: StandsFor) -> set[str]:
        return {label for label in shown(read.known or (), meaning) if label is not None}

    def labels_of(prediction: str) -> dict[str, int]:
        codes = [code for code, label in enumerate(shown(before.classes, meanings[0])) if label == prediction]
        return before.rows_by_label(np.isin(before.predictions, codes))

    read = [(before, meanings[0]), (after, meanings[1])]
    return vocabulary.problems(
        labels,
        *(predicted(*each) for each in read),
        names=(before.source.name, after.source.name),
        declared={*shared, *(name for each in read if each[0].listed for name in known(*each))},
        from_columns=() if before.listed else known(*read[0]),
        old_classes_given=old_classes_given or before.known is not None,
        labels_of=labels_of,
    )


def _class_maps(given: Any) -> list[ClassMap]:
    several = given if isinstance(given, list | tuple) else [] if given is None else [given]
    return [class_changes.read_class_map(each) for each in several]


def _require_own_names(earlier: Sequence[Rows], shared: Sequence[str] | None) -> None:
    """Reject `classes` with a class map and indices in an earlier release, which they do not name."""
    for place, read in enumerate(earlier):
        if shared and not read.listed and any(name.isdecimal() for name in read.classes):
            first = "old_classes with the names of those before it, or " if not place else ""
            raise InputError(
                f"classes are those after the class map, and {read.source.name} has those before it; expected "
                f"{first}class_names in the file"
            )


def check_same(same: Mapping[str, str], present: set[str]) -> None:
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
