"""The gate's further modes, from rows that were read to a result: a chain, no labels, several labels a row."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from mpt_jax.compare import agreement, gate, label_sets, lineage, multilabel, order, pairs, vocabulary
from mpt_jax.compare.multilabel import Sets
from mpt_jax.compare.options import Options, Predictions
from mpt_jax.compare.pairs import Pair, Versions
from mpt_jax.compare.policy import Own
from mpt_jax.compare.rows import HINT, Rows, class_order, require_same_order
from mpt_jax.errors import InputError, listed
from mpt_jax.files.predictions import columns
from mpt_jax.files.predictions.formats import LABELS, PREDICTIONS, Source

Check = Callable[[dict[str, Any]], list[dict[str, Any]]]  # checks limits on what was measured, see `gate.checks`

WITHOUT_LABELS = ("max_churn",)
"""The limits that apply without labels."""
WITH_SEVERAL_LABELS = ("max_nfr", "max_class_nfr", "min_accuracy", "max_recall_drop", "max_churn")
"""The limits that apply with several labels a row."""

_JUDGING = ("confident", "undecided", "min_rows", "confidence", "examples")


def require_options(options: Options, own: Own, limits: Collection[str], others: Collection[str], mode: str) -> None:
    """Check that each option that was given applies in a mode.

    Args:
      options: those of a comparison.
      own: limits of single classes.
      limits: those that apply.
      others: further options that apply.
      mode: such as "without labels".

    Raises:
      InputError: an option that would have no effect.

    Examples:
      >>> require_options(Options(max_nfr=0.1), {}, WITHOUT_LABELS, (), "without labels")
      Traceback (most recent call last):
      mpt_jax.errors.InputError: max_nfr does not apply without labels; expected among the limits only max_churn
    """
    given = [each.name for each in fields(Options) if _is_given(getattr(options, each.name), each.default)]
    for name in [*given, *own]:
        if name not in (*limits, *others):
            raise InputError(f"{name} does not apply {mode}; expected among the limits only {', '.join(limits)}")


def of_chain(versions: Versions, compare_pair: Callable[[Pair], dict[str, Any]], options: Options) -> dict[str, Any]:
    """Compare each version with the next and with the last, see `lineage.result`; one pair at a time is in memory."""
    count = len(versions.rows)
    ancestors = lineage.against_ancestors(count)
    compared = {step: compare_pair(pairs.pair(versions, *step)) for step in {*lineage.steps(count), *ancestors}}
    lost = lineage.lost_from_any(
        (pairs.pair(versions, *step) for step in ancestors),
        confidence=options.confidence,
        examples=options.examples,
    )
    verdict = gate.worst_verdict([check for each in compared.values() for check in each["checks"]])
    return lineage.result([read.source.name for read in versions.rows], compared, lost, verdict)


def without_labels(old: Predictions, new: Predictions, options: Options, own: Own, check: Check) -> dict[str, Any]:
    """Measure how often two models agree, see `agreement.measure`, and check the limit on churn.

    Args:
      old: predictions as of `compare`.
      new: the same of the new model.
      options: those of `compare`.
      own: limits of single classes.
      check: checks the limits.

    Raises:
      InputError: options that need labels, names of classes that look like one class, or names in one file and indices
        in the other.
    """
    others = ("unlabelled", "classes", "same", "scores", "columns", *_JUDGING)
    require_options(options, own, WITHOUT_LABELS, others, "without labels")
    ignored = []

    def prepare(source: Source) -> Source:
        names = [name for name in source.columns if name not in LABELS]
        if len(names) < len(source.columns):
            ignored.append(source.name)
        return replace(source, columns=tuple(names))

    versions = pairs.read_versions([old, new], **options.reading(), prepare=prepare)
    pair, confidence = pairs.without_labels(versions), options.confidence
    found = agreement.measure(
        pair.old, pair.new, classes=pair.classes, ids=pair.ids, confidence=confidence, examples=options.examples
    )
    checks, per_class, differ = check(found), found["per_class"], pair.old != pair.new
    extremes = [
        check({"all_rows": agreement.rates(int(changed.sum()), len(differ), confidence)})
        for changed in (differ | pair.tied, differ & ~pair.tied)
        if pair.tied.any()
    ]
    return {
        **_judged("agreement", pair.names, checks, options),
        "labels_ignored": ignored,
        "classes": {
            "count": len(per_class),
            "only_old": _only(per_class, "rows_old", "rows_new"),
            "only_new": _only(per_class, "rows_new", "rows_old"),
        },
        "left_out": dict(pair.left_out),
        "ties": {"rows": int(pair.tied.sum()), "could_change": gate.could_change(checks, extremes)},
        **found,
    }


def with_several_labels(old: Predictions, new: Predictions, options: Options, own: Own, check: Check) -> dict[str, Any]:
    """Measure flips of rows and of labels, see `multilabel.measure`, and check limits.

    Args:
      old: predictions as of `compare`.
      new: the same of the new model.
      options: those of `compare`.
      own: limits of single classes.
      check: checks the limits.

    Raises:
      InputError: options that need one label a row, rows that do not match, or names that can hide a flip.
    """
    naming, reading = ("classes", "old_classes", "same"), ("columns", "labels", "unlabelled")
    others = ("multi_label", "allow_poor_old", *naming, *reading, *_JUDGING)
    require_options(options, own, WITH_SEVERAL_LABELS, others, "with several labels a row")
    separator, same = options.multi_label, options.same or {}
    if not isinstance(separator, str) or not separator:
        raise InputError(f"multi_label is {separator!r}; expected the separator between names, such as '|', or 'list'")
    shared, given = pairs.given_classes(options.classes, options.old_classes)
    in_files: list[tuple[str, ...] | None] = []
    seen: set[str] = set()

    def prepare(source: Source) -> Source:
        if len(in_files) < 2 and not {*PREDICTIONS} & {*source.columns}:  # the third is a file of labels
            raise InputError(
                f"{source.name} has no column of predictions; expected the names that the model gives in a column "
                "'prediction': scores do not say how many"
            )
        own = None if isinstance(given, tuple) and not in_files else source.class_names
        for what, names in (("class_names", own), ("label_names", source.label_names)):
            if shared and names:
                require_same_order(what, names, shared, source.name)
        in_files.append(source.class_names)
        return label_sets.with_texts(source, separator, shared or source.class_names, same, seen)

    versions = pairs.read_versions([old, new], **{name: getattr(options, name) for name in reading}, prepare=prepare)
    pairs.check_same(same, seen)
    rows_of = _RowsOf(versions)
    of_old, known_from = _known(given, in_files[0], shared, rows_of.old)
    declared = {*(shared or ()), *(of_old if known_from != "answers" else ()), *(in_files[1] or ())}
    problems = [*versions.problems, *_hidden(rows_of, declared, separator, known_from)]
    if problems:
        raise InputError("; ".join(problems))
    _require_known(rows_of, of_old, known_from)
    classes = _ordered({*declared, *of_old, *rows_of.labels, *rows_of.old, *rows_of.new}, of_old, shared or ())
    before, after = versions.rows
    found = multilabel.measure(
        *_codes(before, after, classes),
        classes=classes,
        num_old_classes=len(of_old),
        confidence=options.confidence,
    )
    moved = found.pop("moved")
    if not options.allow_poor_old and (doubt := multilabel.doubt_of_old(found) or order.doubt_of_old(moved, classes)):
        raise InputError(f"{before.source.name}: {doubt}")
    gate.check_groups(own, _as_measured(found))
    flipped = np.flatnonzero(found.pop("flipped"))
    shown = flipped[: options.examples]
    checks = [_of_all_rows(each) for each in check(_as_measured(found))]
    return {
        **_judged("multi-label", rows_of.names, checks, options),
        "classes": {"count": len(classes), "old": classes[: len(of_old)], "known_from": known_from},
        "new_classes": [
            {"class": row["class"], "rows": row["count"]} for row in found["per_class"] if not row["known"]
        ],
        "left_out": dict(versions.left_out),
        "ties": {"rows": 0, "could_change": []},
        **found,
        "flips": {
            "count": len(flipped),
            "examples": [
                _example(
                    id_,
                    before.classes[before.labels[row]],
                    before.classes[before.predictions[row]],
                    after.classes[after.predictions[row]],
                )
                for id_, row in zip(pairs.ids_of_rows(versions, shown), shown, strict=True)
            ],
        },
    }


class _RowsOf:
    """In how many rows each name is a label, and a prediction of each model; `names` are those of the sources."""

    def __init__(self, versions: Versions) -> None:
        before, after = versions.rows
        self.names = before.source.name, after.source.name
        self.labels = _counted(before.classes, before.labels)
        self.old = _counted(before.classes, before.predictions)
        self.new = _counted(after.classes, after.predictions)


def _judged(kind: str, names: tuple[str, str], checks: Sequence[dict[str, Any]], options: Options) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": kind,
        "old": names[0],
        "new": names[1],
        "passed": all(each["passed"] for each in checks),
        "verdict": gate.worst_verdict(checks),
        "checks": list(checks),
        "confident": options.confident,
        "confidence": options.confidence,
        "interval": "Wilson's score interval",
    }


def _codes(before: Rows, after: Rows, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, Sets]:
    """Return labels and predictions as positions in sets of positions in `classes`."""
    place = {name: code for code, name in enumerate(classes)}
    texts = {text: code for code, text in enumerate(dict.fromkeys([*before.classes, *after.classes]))}
    sets = multilabel.sets_of([[place[name] for name in label_sets.names_of(text)] for text in texts])
    codes = [np.array([texts[text] for text in read.classes], np.int32) for read in (before, after)]
    return codes[0][before.labels], codes[0][before.predictions], codes[1][after.predictions], sets


def _example(id_: str, *texts: str) -> dict[str, Any]:
    label, old, new = (list(label_sets.names_of(text)) for text in texts)
    return {"id": id_, "label": label, "old": old, "new": new, **multilabel.differences(label, old, new)}


def _as_measured(found: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured as `gate.checks` expects it; limits of all rows apply to all of them here."""
    with_label = [row for row in found["per_class"] if row["count"]]
    return {"old_classes_rows": found["all_rows"], "all_rows": found["all_rows"], "per_class": with_label}


def _of_all_rows(check: dict[str, Any]) -> dict[str, Any]:
    return check | {"where": check["where"].replace(" of old classes", "")}


def _counted(texts: Sequence[str], codes: np.ndarray) -> dict[str, int]:
    """Return in how many rows each name is."""
    counts: Counter[str] = Counter()
    for text, count in zip(texts, np.bincount(codes[codes >= 0], minlength=len(texts)).tolist(), strict=True):
        if count:
            counts.update(dict.fromkeys(label_sets.names_of(text), count))
    return dict(counts)


def _hidden(rows_of: _RowsOf, declared: set[str], separator: str, known_from: str) -> list[str]:
    """Describe what in the names can hide a flip."""
    labels, old, new = rows_of.labels, rows_of.old, rows_of.new
    together = Counter(labels) + Counter(old) + Counter(new)
    if missing := vocabulary.missing(labels, {*old, *new}, declared):
        named = listed(sorted(map(repr, missing)))
        return [
            f"{named} among the names means that there is none; expected an empty list, or --classes with all names"
        ]
    if joined := label_sets.joined(together, separator, declared):
        return joined
    kinds = [{name.isdecimal() for name in each} for each in (labels, old, new)]
    if {True} in kinds and {False} in kinds:
        return [f"{min(together)!r} is an index and {max(together)!r} a name; expected the same in both files{HINT}"]
    return vocabulary.problems(
        labels, old, new, names=rows_of.names, declared=declared, old_classes_given=known_from != "answers"
    )


def _known(
    given: int | tuple[str, ...] | None,
    in_file: tuple[str, ...] | None,
    shared: tuple[str, ...] | None,
    old: Mapping[str, int],
) -> tuple[set[str], str]:
    """Return the classes that the old model knows, and how that was determined."""
    names = shared or in_file
    if isinstance(given, int):
        if given > (most := len(names) if names else pairs.MOST_UNNAMED):
            raise InputError(f"old_classes is {given}; expected at most {most:,}, the number of classes")
        return set(names[:given] if names else map(str, range(given))), "old_classes"
    if given is not None:
        return {str(columns.class_name(name, names, "old_classes")) for name in given}, "old_classes"
    return (set(in_file), "class_names or scores") if in_file else (set(old), "answers")


def _ordered(names: set[str], known: set[str], shared: Sequence[str]) -> list[str]:
    ordered = sorted(names, key=class_order(shared))
    return [*(name for name in ordered if name in known), *(name for name in ordered if name not in known)]


def _require_known(rows_of: _RowsOf, known: set[str], known_from: str) -> None:
    name = rows_of.names[0]
    if unknown := sorted(set(rows_of.old) - known):
        raise InputError(
            f"{name} predicts {listed(list(map(repr, unknown)))}, not among the {len(known)} classes that the old "
            f"model knows (by its {known_from}); expected predictions among these, or old_classes with all of them"
        )
    if not known & set(rows_of.labels):
        raise InputError(f"no row of {name} has a label that the old model knows; expected at least one{HINT}")


def _only(per_class: Sequence[Mapping[str, Any]], present: str, absent: str) -> list[dict[str, Any]]:
    return [{"class": row["class"], "rows": row[present]} for row in per_class if row[present] and not row[absent]]


def _is_given(value: Any, default: Any) -> bool:
    if value is None or isinstance(value, str | bool | int | float):
        return value != default
    try:
        return len(value) > 0
    except TypeError:
        return True
