"""The classes that two files name, checked for what would hide a flip: pure functions on names and counts.

A wrong prediction of the old model can never flip. So a class that the old model spells in its own way, or counts from
another number, would drop out of the comparison without a word.
"""

import re
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from mpt_jax.errors import counted_rows, listed

Counts = Mapping[str, int]  # rows by class

SHOWN = 5  # names in a message
MISSING = frozenset(["nan", "<na>", "nat", "null", "\\n", "#n/a"])  # as pandas, SQL and spreadsheets write it
PERHAPS_MISSING = frozenset(["none", "na", "n/a"])  # also names of classes
_NEGATIVE = re.compile(r"-\d+(\.0*)?")


def spelling(name: str) -> str:
    """Return what is left of a name without case, white space, punctuation, Unicode form and the writing of a number.

    Examples:
      >>> spelling("Hot-Dog") == spelling("hot dog"), spelling("01") == spelling("1.0")
      (True, True)
      >>> spelling("-1"), spelling("++"), spelling("C++")
      ('-1', '++', 'c')
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()
    try:
        number = float(text)
        if number.is_integer() and abs(number) < 2**53:
            return str(int(number))
    except ValueError:
        pass
    return "".join(c for c in text if unicodedata.category(c)[0] in "LNM") or text


def respelled(names: Collection[str], declared: Collection[str] = ()) -> list[tuple[str, ...]]:
    """Return the groups of names that differ only in their `spelling`; names that are all declared are classes apart.

    Examples:
      >>> respelled(["cat", "Cat", "dog"]), respelled(["c", "c++"], declared=["c", "c++"])
      ([('Cat', 'cat')], [])
    """
    groups = defaultdict(list)
    for name in sorted(set(names)):
        groups[spelling(name)].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1 and not set(group) <= set(declared)]


def reads_as_missing(name: str) -> bool:
    """Return whether a name is more often how a tool writes a missing value, or an index below 0, than a class.

    Examples:
      >>> [name for name in ["NaN", "none", "-1", "-1.0", "cat", "0"] if reads_as_missing(name)]
      ['NaN', 'none', '-1', '-1.0']
    """
    return name.strip().casefold() in {*MISSING, *PERHAPS_MISSING} or _is_negative(name)


def missing(labels: Collection[str], predicted: Collection[str], declared: Collection[str] = ()) -> set[str]:
    """Return the names among labels and predictions that mean that there is none.

    "nan" and the like are no class unless it is declared; "none", "NA" or an index below 0 are one if a model predicts
    it and it is a label. An index below 0 is also one beside another that is both: -1, 0 and 1 are sentiments.

    Examples:
      >>> sorted(missing(["cat", "-1", "nan"], ["cat", "nan"])), missing(["-1", "1"], ["-1", "1"])
      (['-1', 'nan'], set())
    """
    both = {*labels} & {*predicted}
    negative_is_class = any(map(_is_negative, {*both, *declared}))
    return {
        name
        for name in {*labels, *predicted} - {*declared}
        if name.strip().casefold() in MISSING
        or (name not in both and name.strip().casefold() in PERHAPS_MISSING)
        or (not negative_is_class and _is_negative(name))
    }


def _is_negative(name: str) -> bool:
    return _NEGATIVE.fullmatch(name.strip()) is not None


def other_spellings(names: Collection[str], known: Collection[str]) -> dict[str, str]:
    """Return the names that are not known but have the `spelling` of one that is, with that one.

    Examples:
      >>> other_spellings(["Cat", "dog", "fox"], known=["cat", "dog"])
      {'Cat': 'cat'}
    """
    by_spelling = {spelling(name): name for name in known}
    strange = [name for name in names if name not in known]
    return {name: by_spelling[spelling(name)] for name in strange if spelling(name) in by_spelling}


def never_labels(labels: Counts, predicted: Counts) -> list[str]:
    """Return the predictions that are never a label, the most frequent first."""
    return sorted(predicted.keys() - labels.keys(), key=lambda name: (-predicted[name], name))


def never_predicted(labels: Counts, predicted: Counts) -> list[str]:
    """Return the labels that are never predicted, the most frequent first."""
    return never_labels(predicted, labels)


def problems(
    labels: Counts,
    old: Counts,
    new: Counts,
    *,
    names: tuple[str, str],
    declared: Collection[str] = (),
    from_columns: Collection[str] = (),
    old_classes_given: bool = False,
    labels_of: Callable[[str], Counts] = lambda prediction: {},
) -> list[str]:
    """Describe each way in which the names of the classes can hide a flip, with what would mend it.

    Args:
      labels: rows of each label.
      old: rows of each prediction of the old model.
      new: the same for the new model.
      names: of the old and the new source.
      declared: classes that the user or the files list; two spellings that are both listed are two classes.
      from_columns: classes that only the name of a column of scores of the old model shows, which may be another thing.
      old_classes_given: whether it is known which classes the old model knows, apart from its predictions.
      labels_of: returns the rows of each label where the old model makes a prediction, if that is known.
    """
    found = []
    for group in respelled([*labels, *old, *new], declared):
        rows = {name: sum(counts.get(name, 0) for counts in (labels, old, new)) for name in group}
        *others, common = sorted(group, key=lambda name: (name in labels, rows[name], name))
        where = [
            f"{name!r} in {_places(name, labels, old, new, names)}" for name in sorted(group, key=lambda n: -rows[n])
        ]
        found.append(
            f"{' and '.join(where)} look like one class; expected one spelling: make them one with "
            f"{' '.join(_same(name, common) for name in others)}, or keep them apart with "
            "--classes and all names"
        )
    strange, missed = never_labels(labels, old), never_predicted(labels, old)
    if no_classes := [name for name in strange if name in from_columns and name not in declared]:
        found.append(
            f"{names[0]} predicts {_with_rows(no_classes, old)} by the columns of its scores, never a label; if such a "
            "column is no class, it hides flips: expected --classes or --old-classes with the names of all classes, or "
            "a file without that column"
        )
    if found or old_classes_given:
        return found
    if strange and missed:
        found.append(
            f"{names[0]} never predicts {_with_rows(missed, labels)}, and predicts {_with_rows(strange, old)}, never a "
            "label; if these are other names of the same classes, no flip of theirs can be seen: expected "
            f"{_likely(strange, missed, labels, labels_of)} for each, --classes with the names of the indices, or "
            "--old-classes with the classes that the old model knows, if the others are new"
        )
    return found


def _places(name: str, labels: Counts, old: Counts, new: Counts, names: tuple[str, str]) -> str:
    parts = [("labels", labels), (f"predictions of {names[0]}", old), (f"predictions of {names[1]}", new)]
    return ", ".join(f"{counts[name]:,} {what}" for what, counts in parts if name in counts)


def _with_rows(names: Sequence[str], counts: Counts) -> str:
    return listed([f"{name!r} ({counted_rows(counts[name])})" for name in names], most=SHOWN)


def _likely(strange: Sequence[str], missed: Sequence[str], labels: Counts, labels_of: Callable[[str], Counts]) -> str:
    """Return the option that makes two names one, with a prediction and the label of which it is for most of the rows.

    Frequencies do not tell which names belong together, and a wrong pair would hide the flips of both.
    """
    for name in strange:
        of = labels_of(name)
        most = max(missed, key=lambda label: of.get(label, 0) / labels[label])
        if 2 * of.get(most, 0) > labels[most]:
            return f"{_same(name, most)} ({of[most]:,} of {counted_rows(labels[most])})"
    return "--same OLD=LABEL"


def _same(name: str, meaning: str) -> str:
    return f"--same {shlex.quote(f'{name}={meaning}')}"
