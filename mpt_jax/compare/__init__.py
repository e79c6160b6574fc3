"""The release gate for any two models, as a command, in Python and in pytest; JAX is not imported.

`pairs` reads both models' predictions (`rows` those of one model) and aligns them by id (`align`), with what else is
known of the rows (`extras`). `gate` counts flips and checks limits, also within `slices`. `modes` compares a chain of
versions (`lineage`), models without labels (`agreement`) and those with several labels a row (`multilabel`). `text` and
`report` put results into words, and `show` renders them for a terminal, a page and CI.
"""

import sys
import types
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mpt_jax import metrics
from mpt_jax.compare import changes, gate, modes, order, pairs, record, scores, suggestion
from mpt_jax.compare import policy as policies
from mpt_jax.compare import slices as slices_
from mpt_jax.compare.options import Options, Predictions, from_mapping
from mpt_jax.compare.policy import Own
from mpt_jax.errors import InputError, unknown


def compare(old: Predictions, new: Predictions, *, policy: Any = None, **given: Any) -> dict[str, Any]:
    """Compare two models' predictions on the same examples, matched by id, and check limits on the flips.

    Args:
      old: the deployed model's predictions: a file (npz, csv, tsv, parquet, jsonl) or arrays by name. Columns: `id`,
        `label`, and `prediction`, or `scores` (also `logits`, `probabilities`; the first of the largest is the
        prediction), or a column per class such as `score_cat`. The plurals `ids`, `labels`, `predictions` work too.
      new: the same for the model that is to replace it.
      policy: a TOML file of options, or a mapping as such a file has; see `policy`.
      given: further options by name, which override those of the policy; see `options.Options`.

    Returns:
      What `--json` writes: `old_classes_rows`, `all_rows` and `per_class` of `gate.measure`, `classes`, `new_classes`
      with their rows, `left_out` (rows by reason), `ties`, `flips`, `checks` of `gate.checks`, the worst `verdict`, and
      whether all of them `passed`; with a class map `class_map` and `old_taxonomy`, and with corrected labels
      `label_changes`, see `changes`; for the record `inputs` with the SHA-256 of files, `options` and `versions`. The
      schema is `docs/gate.schema.json`.

    Raises:
      InputError: unusable files, names of classes that can hide a flip, or options that are not valid.

    Examples:
      >>> old = {"id": [1, 2, 3], "label": ["cat", "dog", "owl"], "prediction": ["cat", "dog", "dog"]}
      >>> new = {"id": [3, 2, 1], "label": ["owl", "dog", "cat"], "prediction": ["owl", "owl", "cat"]}
      >>> result = compare(old, new, max_nfr=0.1)
      >>> result["passed"], result["old_classes_rows"]["nfr"], result["all_rows"]["negative_flips"]
      (False, 0.5, 1)
      >>> result["flips"]["examples"]
      [{'id': '2', 'label': 'dog', 'old': 'dog', 'new': 'owl'}]
    """
    options, own = policies.read(policy, given)
    if options.unlabelled == "only":
        result = modes.without_labels(old, new, options, own, _check(options, own))
    elif options.multi_label is not None:
        result = modes.with_several_labels(old, new, options, own, _check(options, own))
    else:
        result = _result(pairs.read(old, new, **options.reading()), options, own)
    arguments = {"old": old, "new": new, "policy": policy, **vars(options)}
    rows = result["all_rows"]["count"] + _read_but_left_out(result.get("left_out", {}))
    return result | _record(arguments, own, record.inputs(arguments, rows))


def chain(versions: Sequence[Predictions], *, policy: Any = None, **given: Any) -> dict[str, Any]:
    """Compare each of several versions with the next and with the last, with the same limits; each file is read once.

    Args:
      versions: predictions as of `compare`, the oldest model's first.
      policy: as of `compare`.
      given: as of `compare`; `old_classes` are what the first version knows. A later one knows what its own file lists,
        else what it predicts.

    Returns:
      What `--json` writes: the names of the `models`, the results of `compare` for each of the `steps` and
      `against_ancestors` (each earlier version with the last); `lost_from_any`, see `lineage.lost_from_any`; the worst
      `verdict`, and whether all comparisons `passed`.

    Raises:
      InputError: as in `compare`.

    Examples:
      >>> first = {"id": [1, 2, 3], "label": ["cat", "dog", "dog"], "prediction": ["cat", "dog", "cat"]}
      >>> second, third = first | {"prediction": ["cat", "cat", "dog"]}, first | {"prediction": ["dog", "cat", "dog"]}
      >>> result = chain([first, second, third])
      >>> [step["flips"]["count"] for step in result["steps"]], result["lost_from_any"]["count"]
      ([1, 1], 2)
    """
    options, own = policies.read(policy, given)
    if options.unlabelled == "only" or options.multi_label is not None:
        raise InputError("a chain has more than two files; expected two without labels or with several labels a row")
    read = pairs.read_versions(versions, **options.reading())
    result = modes.of_chain(read, lambda pair: _result(pair, options, own), options)
    arguments, rows = {"policy": policy, **vars(options)}, len(read.rows[0].labels) + _read_but_left_out(read.left_out)
    return result | _record(arguments, own, [*record.models(versions, rows), *record.inputs(arguments, rows)])


def suggest_class_map(old: Predictions, new: Predictions, **given: Any) -> str:
    """Propose a class map from the names of two files and from which classes their rows are of, for a person to check.

    Args:
      old: as of `compare`; labels are not needed, but show more than predictions if each file has those of its release.
      new: as of `compare`.
      given: options of `compare` that say how files are read: `columns`, `scores`, `same`, `classes`, `old_classes`.

    Returns:
      TOML for `class_map`, with the numbers of rows in comments.

    Raises:
      InputError: as in `compare`, or another option.

    Examples:
      >>> old = {"id": [1, 2, 3, 4], "prediction": ["car", "tabby", "siamese", "owl"]}
      >>> new = {"id": [1, 2, 3, 4], "prediction": ["automobile", "cat", "cat", "owl"]}
      >>> print(suggest_class_map(old, new), end="")
      # A proposal from the predictions of 4 rows: check each line. Other classes stay.
      # Numbers are rows of the new class among those of the old one.
      <BLANKLINE>
      [rename]
      "car" = "automobile"  # car: automobile 1 of 1 rows
      <BLANKLINE>
      [merge]
      "cat" = ["siamese", "tabby"]  # siamese: cat 1 of 1 rows; tabby: cat 1 of 1 rows
    """
    valid = ("columns", "scores", "same", "classes", "old_classes")
    for name in given:
        if name not in valid:
            raise InputError(unknown(f"option {name!r} with suggest_class_map", name, valid))
    chosen = from_mapping(given)
    reading = {name: getattr(chosen, name) for name in valid}
    return suggestion.toml(pairs.read_versions([old, new], unlabelled="only", **reading))


def _read_but_left_out(left_out: Mapping[str, int]) -> int:
    """Return how many rows of each model were read and are not compared."""
    return sum(left_out.get(reason, 0) for reason in (pairs.UNLABELLED, pairs.RETIRED))


def _record(arguments: Mapping[str, Any], own: Own, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what makes a result evidence that stands alone."""
    options = record.options({**arguments, **({"own": own} if own else {})})
    return {"inputs": inputs, "options": options, "versions": record.versions()}


def _check(options: Options, own: Own) -> modes.Check:
    """Return a function that checks the limits on what was measured."""
    return partial(
        gate.checks,
        limits=options,
        confidence=options.confidence,
        min_rows=options.min_rows,
        undecided=options.undecided,
        own=own,
    )


def _result(pair: pairs.Pair, options: Options, own: Own) -> dict[str, Any]:
    """Return what is known about two models' predictions."""
    names, retired = pair.classes, pair.mapped.retired_codes if pair.mapped else 0

    def measure(old: np.ndarray, new: np.ndarray) -> dict[str, Any]:
        found = gate.measure(
            old,
            new,
            pair.labels,
            classes=names,
            num_old_classes=pair.num_old_classes,
            confidence=options.confidence,
            weights=pair.extras.weights,
        )
        found |= scores.measure(pair, old, new, options)
        if pair.mapped:
            found["old_taxonomy"] = changes.old_taxonomy(pair, old, new, confidence=options.confidence)
        return found | _measure_extras(pair, slices_.kinds(old, new, pair.labels), options.confidence)

    measured = measure(pair.old, pair.new)
    gate.check_groups(own, measured)
    if not options.allow_poor_old:
        doubt = gate.doubt_of_old(measured, pair.num_old_classes)
        if doubt := doubt or order.doubt_of_old(order.moved(pair.old, pair.labels, len(names)), names):
            raise InputError(f"{pair.names[0]}: {doubt}")
    flipped = np.flatnonzero(metrics.is_negative_flip(pair.old, pair.new, pair.labels))
    check = _check(options, own)
    checks = check(measured)
    extremes = [check(measure(*each)) for each in _without_ties(pair)] if pair.tied.any() else []
    return {
        "schema": 1,
        "old": pair.names[0],
        "new": pair.names[1],
        "passed": all(check["passed"] for check in checks),
        "verdict": gate.worst_verdict(checks),
        "checks": checks,
        "confident": options.confident,
        "confidence": options.confidence,
        "interval": gate.INTERVAL,
        "classes": {
            "count": len(names) - retired,
            "old": list(names[: pair.num_old_classes]),
            "known_from": pair.known_from,
        },
        "new_classes": [
            {"class": row["class"], "rows": row["count"]} for row in measured["per_class"] if not row["known"]
        ],
        "never_labels": _never_labels(pair),
        "left_out": dict(pair.left_out),
        **_weightless(pair),
        **_without_metadata(pair),
        "ties": {
            "rows": int(pair.tied.sum()),
            "could_change": gate.could_change(checks, extremes),
        },
        **measured,
        **_extras(pair, measured, options),
        "flips": {"count": len(flipped), "examples": _examples(pair, flipped[: options.examples])},
    }


def _never_labels(pair: pairs.Pair) -> dict[str, list[dict[str, Any]]]:
    """Return the predictions of each model that are no row's label, the most frequent first; not retired classes.

    `new_wrong` are their rows where the new model is wrong, too.
    """
    count = len(pair.classes)
    labelled = np.bincount(pair.labels, minlength=count) > 0
    in_order = np.arange(count)
    given: dict[str, tuple[np.ndarray, Sequence[str], np.ndarray, np.ndarray]] = {
        age: (codes, pair.classes, ~labelled, in_order) for age, codes in (("old", pair.old), ("new", pair.new))
    }
    if pair.mapped:
        for age, answers in (("old", pair.mapped.old), ("new", pair.mapped.new)):
            never = np.asarray(answers.allowed.any(1) & ~(answers.allowed & labelled).any(1))
            given[age] = answers.codes, answers.names, never, answers.first
    found = {}
    for age, (codes, names, never, in_order) in given.items():
        predicted = np.bincount(codes, minlength=len(names))
        places = np.flatnonzero((predicted > 0) & never)
        places = places[np.lexsort((in_order[places], -predicted[places]))]
        new_wrong = np.bincount(codes[pair.new != pair.labels], minlength=len(names))
        found[age] = [
            {"class": names[code], "rows": int(predicted[code]), "new_wrong": int(new_wrong[code])}
            for code in places.tolist()
        ]
    return found


def _weightless(pair: pairs.Pair) -> dict[str, Any]:
    """Return the rows of weight 0 and their flips, which no rate has."""
    if pair.extras.weights is None or pair.extras.weights.all():
        return {}
    found = pair.extras.weights == 0
    flips = metrics.is_negative_flip(pair.old[found], pair.new[found], pair.labels[found])
    return {"weightless": {"rows": int(found.sum()), "negative_flips": int(flips.sum())}}


def _without_metadata(pair: pairs.Pair) -> dict[str, Any]:
    """Return how many rows the metadata lack."""
    lacking = pair.extras.without_metadata
    return {} if lacking is None or not lacking.any() else {"without_metadata": int(lacking.sum())}


def _examples(pair: pairs.Pair, rows: np.ndarray) -> list[dict[str, str]]:
    """Return id, label and predictions of some rows."""
    labels = [pair.classes[code] for code in pair.labels[rows].tolist()]
    shown = zip(pair.ids(rows), labels, *changes.as_given(pair, rows), strict=True)
    return [dict(zip(("id", "label", "old", "new"), row, strict=True)) for row in shown]


def _measure_extras(pair: pairs.Pair, kinds: np.ndarray, confidence: float) -> dict[str, Any]:
    """Return what limits on slices and on examples that must pass are held against."""
    extras = pair.extras
    found: dict[str, Any] = {}
    if extras.factors:
        known = pair.labels < pair.num_old_classes
        found["slices"] = slices_.measure(extras.factors, kinds, known, weights=extras.weights, confidence=confidence)
    if extras.must_pass is not None:
        counts = np.bincount(kinds[extras.must_pass], minlength=len(slices_.KINDS)).tolist()
        found["must_pass"] = {"rows": len(extras.must_pass), **dict(zip(slices_.KINDS, counts, strict=True))}
    return found


def _extras(pair: pairs.Pair, measured: dict[str, Any], options: Options) -> dict[str, Any]:
    """Return what classes and labels changed, weak combinations of slices, and the examples that must pass and flip."""
    extras = pair.extras
    found: dict[str, Any] = {}
    if pair.mapped:
        found["class_map"] = changes.of_map(pair, confidence=options.confidence)
    if pair.corrected:
        found["label_changes"] = changes.of_corrections(pair, examples=options.examples)
    if extras.second_half is not None:
        found["combinations"] = slices_.combinations(
            extras.factors,
            slices_.kinds(pair.old, pair.new, pair.labels),
            pair.labels < pair.num_old_classes,
            extras.second_half,
            weights=extras.weights,
            fewest_rows=options.min_rows or slices_.FEWEST_ROWS,
        )
    if extras.must_pass is not None:
        is_flip = metrics.is_negative_flip(pair.old, pair.new, pair.labels)[extras.must_pass]
        flips = _examples(pair, extras.must_pass[is_flip][: options.examples])
        found["must_pass"] = measured["must_pass"] | {"flips": flips}
    return found


def _without_ties(pair: pairs.Pair) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return both models' predictions if all tied rows are negative flips, where possible, and if none is."""
    tied, labels = pair.tied, pair.labels
    flips = tied & (labels < pair.num_old_classes)
    another = (labels + 1) % len(pair.classes)
    most = np.where(flips, labels, pair.old), np.where(flips, another, pair.new)
    return [most, (pair.old, np.where(tied, labels, pair.new))]


def assert_no_regression(old: Predictions, new: Predictions, **limits: Any) -> dict[str, Any]:
    """Assert, in a test, that the new model stays within limits; the message has the rates and examples.

    Args:
      old: as in `compare`.
      new: as in `compare`.
      limits: at least one of `max_nfr`, `max_relative_nfr`, `max_class_nfr`, `min_accuracy`, and any other option of
        `compare`.

    Returns:
      What `compare` returns.

    Raises:
      AssertionError: a check failed.
      InputError: as in `compare`, or no limit.

    Examples:
      >>> old = {"id": [1, 2], "label": [0, 1], "prediction": [0, 1]}
      >>> assert_no_regression(old, old | {"prediction": [0, 0]}, max_nfr=0.1)
      Traceback (most recent call last):
      AssertionError: max_nfr: 50.00 % [9.45, 90.55] on 2 rows of old classes exceeds the limit of 10 %
      1 negative flip, such as id '2' (label '1', old '1', new '0')
      max_nfr: chance may explain that; 107 more rows would decide
    """
    from mpt_jax.compare import report

    result = compare(old, new, **limits)
    if not result["checks"]:
        raise InputError("no limit is given, so nothing can fail; expected max_nfr or another limit")
    if not result["passed"]:
        raise AssertionError(next(line.details for line in report.of(result).lines if not line.passed))
    return result


class _CallableModule(types.ModuleType):
    """The type of this package, so that `mpt_jax.compare(old, new)` calls `compare`."""

    def __call__(self, old: Predictions, new: Predictions, **options: Any) -> dict[str, Any]:
        return compare(old, new, **options)


sys.modules[__name__].__class__ = _CallableModule
