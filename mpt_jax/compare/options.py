"""Every option of a comparison: one table for the command, for `compare` in Python and for a policy file."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

from mpt_jax.errors import InputError, unknown

# How the command reads a value.
RATE, COUNT, FLAG, TEXT, NAMES, OLD_CLASSES = "rate", "count", "flag", "text", "names", "old classes"
SAME, COLUMNS, FILE, CHOICE, SEVERAL, MAPS = "same", "columns", "file", "choice", "several", "maps"

Predictions = Any  # a path, a table or arrays by name, see `formats.open_source`


def option(default: Any, kind: str, text: str, metavar: str = "", choices: Sequence[str] = ()) -> Any:
    """Return a field that is an option of the command, with its help."""
    return field(default=default, metadata={"kind": kind, "help": text, "metavar": metavar, "choices": choices})


RATIOS = ("max_relative_nfr",)  # not fractions
OF_SLICES = ("max_slice_nfr", "max_slice_accuracy_drop")
# Limits that need another option.
NEEDED = {"max_top_k_nfr": "top_k", "max_accepted_nfr": "threshold", "max_old_taxonomy_nfr": "class_map"}
MINIMA = ("min_accuracy", "min_macro_f1")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on the new model, as fractions; None means no limit.

    Attributes:
      max_nfr: negative flips as a share of the rows whose label the old model knows.
      max_relative_nfr: `max_nfr` divided by the rate of two models with unrelated errors.
      max_class_nfr: negative flips as a share of the rows of each class.
      min_accuracy: accuracy of the new model on all rows.
      max_accuracy_drop: accuracy of the old model minus that of the new one, on the rows of the old model's classes.
      max_recall_drop: the same within each of these classes.
      max_churn: rows whose prediction changed, as a share of all rows.
      min_macro_f1: mean F1 of the new model over the classes with rows, on all rows.
      max_macro_f1_drop: mean F1 of the old model minus that of the new one, over its classes and on their rows.
      max_top_k_nfr: `max_nfr` with an answer that is right if the label is among the `top_k` largest scores.
      max_accepted_nfr: rows that the old model accepts and has right, and the new one accepts and has wrong, as a share
        of the rows of old classes that the old model accepts: those with a largest score of at least `threshold`.
      max_old_taxonomy_nfr: `max_nfr` with a new answer that is right if it is any part of the split class that the
        label is a part of.
      max_slice_nfr: `max_nfr` within each slice.
      max_slice_accuracy_drop: `max_accuracy_drop` within each slice.
      confident: compare the limits with the confidence bound instead of the point estimate, so that too few rows fail.
    """

    max_nfr: float | None = option(None, RATE, "limit on negative flips / rows of the old model's classes", "RATE")
    max_relative_nfr: float | None = option(
        None, RATE, "limit on the negative flip rate / that of two models with unrelated errors", "RATIO"
    )
    max_class_nfr: float | None = option(None, RATE, "limit on negative flips / rows of each class", "RATE")
    min_accuracy: float | None = option(None, RATE, "lowest allowed accuracy of the new model on all rows", "RATE")
    max_accuracy_drop: float | None = option(None, RATE, "limit on lost accuracy on the old model's classes", "RATE")
    max_recall_drop: float | None = option(None, RATE, "limit on lost accuracy within each of these classes", "RATE")
    max_churn: float | None = option(None, RATE, "limit on changed predictions / all rows", "RATE")
    min_macro_f1: float | None = option(None, RATE, "lowest allowed mean F1 of all classes of the new model", "RATE")
    max_macro_f1_drop: float | None = option(None, RATE, "limit on lost mean F1 of the old model's classes", "RATE")
    max_top_k_nfr: float | None = option(
        None, RATE, "limit on rows whose label left the --top-k largest scores / rows of old classes", "RATE"
    )
    max_accepted_nfr: float | None = option(
        None, RATE, "limit on rows accepted at --threshold that were right and are wrong / rows OLD accepts", "RATE"
    )
    max_old_taxonomy_nfr: float | None = option(
        None, RATE, "limit on negative flips with --class-map if any part of a split class counts as right", "RATE"
    )
    max_slice_nfr: float | None = option(None, RATE, "limit on negative flips / rows of each slice", "RATE")
    max_slice_accuracy_drop: float | None = option(None, RATE, "limit on lost accuracy within each slice", "RATE")
    confident: bool = option(
        False,
        FLAG,
        "compare limits with the confidence bound instead of the point estimate: too few rows fail",
    )

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            check_limit(name, value)

    def given(self) -> dict[str, float]:
        """Return the limits that are set."""
        values = {name: getattr(self, name) for name in LIMIT_NAMES}
        return {name: value for name, value in values.items() if value is not None}


LIMIT_NAMES = tuple(each.name for each in dataclasses.fields(Limits) if each.name != "confident")


def check_limit(name: str, value: object) -> None:
    """Check one limit.

    Raises:
      InputError: it is no fraction; a limit of 1 limits nothing, and is more often 1 % written as a percentage.
    """
    most, inclusive = (math.inf if name in RATIOS else 1), name in MINIMA
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not (0 <= number < most or (inclusive and number == most)):
        expected = f"a fraction {'up to' if inclusive else 'below'} 1" if most == 1 else "a ratio"
        raise InputError(f"{name} is {value!r}; expected {expected}, such as 0.01 for 1 %")


@dataclass(frozen=True, kw_only=True)
class Options(Limits):
    """What a comparison is told. The names are those of the command, with underscores in place of hyphens.

    Attributes:
      undecided: whether a limit that is exceeded, but by too few rows to be sure, is a "pass" or a "fail".
      min_rows: classes and slices with fewer rows are not held against limits, but for those with a limit of their own.
      confidence: of the intervals, between 0 and 1.
      classes: class names in the order of the indices; by default an index is its own name.
      old_classes: the classes that the old model knows: their number, their names (which are then also what an index
        means in its file) or their indices. By default its `class_names` or score columns, else every class that it
        predicts.
      same: names that mean another name's class, in all files.
      scores: prefix of the columns of scores, or the column that holds them all, where there are several kinds.
      allow_poor_old: compare also with an old model that is close to chance, or far below the new one on its own
        classes, which is more often a sign of labels in another order.
      columns: names of the columns in all files by their usual name, such as ``{"id": "uid", "label": "y_true"}``.
      labels: labels by id, a file or table with `id` and `label`, where the models' files have none. Labels that
        those have must agree.
      unlabelled: "skip" leaves out the rows without a label and counts them: empty, null, NaN, or an index below 0.
        "only": there are no labels, and agreement is measured, see `modes.without_labels`.
      top_k: how many of the largest scores may have the label, for `max_top_k_nfr`; 0: not measured.
      threshold: largest score from which an answer is accepted, for `max_accepted_nfr`; in the units of the scores.
      slices: further columns, each in at least one of the files, whose values define slices of the rows.
      metadata: a further file or table with an id and columns for `slices` and `weight`.
      weight: column that tells how much each row counts in the rates, such as traffic or severity: 0 or more. Rows and
        flips are still counted as they are; intervals and tests take the effective number of rows.
      must_pass: ids, or a file of them, of examples of which none may flip negatively.
      class_map: how classes of the old model became those of the new one, renamed, merged, split or retired: a TOML or
        JSON file or a mapping, see `class_map.ClassMap`; in a chain a list with one for each step.
      label_changes: corrected labels, a file or table with `id`, `old_label` and `new_label`. They count in place of
        those in the files, and the flips that they explain are told apart.
      multi_label: each row has several labels, and flips are of labels in rows, see `modes.with_several_labels`: the
        separator between names in cells of text, or "list" where there are lists alone.
      examples: how many flipped examples to list, the first in the order of `old`.
    """

    undecided: str = option(
        "fail",
        CHOICE,
        "a limit that is exceeded on too few rows to be sure fails, status 1 (default), or passes",
        "",
        ("fail", "pass"),
    )
    min_rows: int = option(0, COUNT, "classes and slices with fewer rows are not held against limits (default: 0)", "N")
    confidence: float = option(0.95, RATE, "level of the intervals (default: 0.95)", "P")
    classes: Sequence[str] | None = option(
        None, NAMES, "class names in the order of the indices: a,b,c, or a file with one name per line", "NAMES"
    )
    old_classes: int | Sequence[str] | None = option(
        None,
        OLD_CLASSES,
        "classes that the old model knows: the first N, or names like --classes, which then also name its indices "
        "(default: class_names or scores in OLD, else every class that it predicts)",
        "N|NAMES",
    )
    same: Mapping[str, str] | None = option(
        None,
        SAME,
        "the first name means the class of the second, in all files; may be given several times",
        "NAME=NAME",
    )
    scores: str | None = option(
        None,
        TEXT,
        "prefix of the columns of scores (score, logit, probability), or the column with all of them",
        "PREFIX",
    )
    allow_poor_old: bool = option(
        False, FLAG, "compare with an old model that is close to chance or far below the new one on its own classes"
    )
    columns: Mapping[str, str] | None = option(
        None, COLUMNS, "names of columns in all files, such as id=uid,label=y_true,prediction=y_pred", "USUAL=NAME,..."
    )
    labels: Predictions | None = option(
        None, FILE, "labels by id (columns id and label), where OLD and NEW have none", "FILE"
    )
    unlabelled: str | None = option(
        None,
        CHOICE,
        "skip: leave out and count the rows without a label (empty, null, NaN, or an index below 0); without a value "
        "or only: there are no labels",
        "",
        ("skip", "only"),
    )
    top_k: int = option(0, COUNT, "also count an answer as right if the label is among the K largest scores", "K")
    threshold: float | None = option(
        None, RATE, "also compare the rows with a largest score of at least this, which a system acts on", "SCORE"
    )
    slices: Sequence[str] = option(
        (),
        SEVERAL,
        "a further column, in any of the files; each of its values is reported and held against limits of slices; may "
        "be given several times, which also searches for weak combinations",
        "COLUMN",
    )
    metadata: Predictions | None = option(
        None, FILE, "a further file with an id and columns for --slice and --weight", "FILE"
    )
    weight: str | None = option(
        None, TEXT, "column that tells how much each row counts, such as traffic or severity: 0 or more", "COLUMN"
    )
    must_pass: Any = option(
        None,
        FILE,
        "ids of examples of which none may flip negatively, one per line, or a table with a column id",
        "FILE",
    )
    class_map: Any = option(
        None,
        MAPS,
        "how OLD's classes became NEW's, renamed, merged, split or retired: a TOML or JSON file; with more versions "
        "once for each step",
        "FILE",
    )
    label_changes: Predictions | None = option(
        None,
        FILE,
        "corrected labels (columns id, old_label, new_label): they count, and flips that they explain are told apart",
        "FILE",
    )
    multi_label: str | None = option(
        None,
        TEXT,
        "each row has several labels: lists of names, or text with this separator between names, such as '|'; list: "
        "there are lists alone",
        "SEPARATOR",
    )
    examples: int = option(1000, COUNT, "how many flipped examples to list in --json and --html (default: 1000)", "N")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (kind, choices) in _KINDS.items():
            value = getattr(self, name)
            if kind == CHOICE and value is not None and value not in choices:
                raise InputError(f"{name} is {value!r}; expected {' or '.join(choices)}")
            if kind == COUNT and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0):
                raise InputError(f"{name} is {value!r}; expected 0 or more")
            is_valid, expected = _EXPECTED.get(kind, (lambda value: True, ""))
            if value is not None and not is_valid(value):
                raise InputError(f"{name} is {value!r}; expected {expected}")
        for limit, needed in NEEDED.items():
            if getattr(self, limit) is not None and not getattr(self, needed):
                raise InputError(f"{limit} is given without {needed}; expected --{needed.replace('_', '-')}, too")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"threshold is {self.threshold}; expected a score, such as 0.9")
        if not self.slices and any(getattr(self, name) is not None for name in OF_SLICES):
            raise InputError("a limit on slices is given without slices; expected the columns that define them")
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence is {self.confidence}; expected a number between 0 and 1, such as 0.95")

    def reading(self) -> dict[str, Any]:
        """Return what `pairs.read_versions` takes."""
        names = ("classes", "old_classes", "same", "scores", "columns", "labels", "unlabelled")
        further = ("metadata", "weight", "must_pass", "class_map", "label_changes")
        return {name: getattr(self, name) for name in (*names, *further)} | {
            **{"extra": self.slices, "top_k": self.top_k, "confidences": self.threshold is not None}
        }


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_texts(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)


def _is_texts_by_text(value: object) -> bool:
    return isinstance(value, Mapping) and _is_texts([*value.keys(), *value.values()])


_EXPECTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    RATE: (_is_number, "a number, such as 0.95"),
    FLAG: (lambda value: isinstance(value, bool), "true or false"),
    TEXT: (lambda value: isinstance(value, str), "text"),
    SAME: (_is_texts_by_text, "names by name, such as {'car': 'automobile'}"),
    COLUMNS: (_is_texts_by_text, "names by usual name, such as {'id': 'uid'}"),
    SEVERAL: (_is_texts, "a list of names"),
}
"""What a value of a kind must be."""

_KINDS = {
    each.name: (each.metadata["kind"], each.metadata["choices"])
    for each in dataclasses.fields(Options)
    if "kind" in each.metadata
}
FILES = tuple(name for name, (kind, _) in _KINDS.items() if kind == FILE)
"""Options that are a file or a table in memory."""


def from_mapping(given: Mapping[str, Any]) -> Options:
    """Return options by name.

    Raises:
      InputError: no such option, with the nearest names.
    """
    names = [each.name for each in dataclasses.fields(Options)]
    for name in given:
        if name not in names:
            raise InputError(unknown(f"option {name!r}", name, names))
    return Options(**given)


def is_path(given: Any) -> bool:
    """Return whether a file is given, and not a table."""
    return isinstance(given, str | os.PathLike)
