"""A proposal for a class map, from the names and the confusion of two files, as TOML for a person to check.

Old and new classes are linked where most rows of one are rows of the other. Where the files have labels of different
releases, these are compared, else the predictions. Each group of linked classes is then a rename, a merge or a split;
an old class without a link is retired.
"""

import difflib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mpt_jax.compare import rows, vocabulary
from mpt_jax.compare.pairs import Versions
from mpt_jax.compare.rows import Rows
from mpt_jax.errors import InputError, listed, printable

MOST = 0.5  # share of the rows of a class that links it
ALIKE = 0.75  # similarity of names that links classes without rows in common, as of `difflib`


class Evidence(NamedTuple):
    """How many rows are of an old and of a new class: ``counts[old, new]``; `kind` is "labels" or "predictions"."""

    kind: str
    counts: Mapping[tuple[str, str], int]
    old: Sequence[str]
    new: Sequence[str]


def toml(versions: Versions) -> str:
    """Return a class map as TOML, with the numbers of rows in comments.

    Raises:
      InputError: rows that do not match.
    """
    if versions.problems:
        raise InputError("; ".join(versions.problems))
    for read in versions.rows:
        rows.require_names(read)
    before, after = versions.rows
    found = evidence(before, after)
    lines = [
        f"# A proposal from the {found.kind} of {len(before.predictions):,} rows: check each line. Other classes stay.",
        "# Numbers are rows of the new class among those of the old one.",
    ]
    tables: dict[str, list[str]] = {"rename": [], "merge": [], "split": []}
    retired, notes = [], []
    for olds, news in groups(found):
        seen = "; ".join(_counted(old, news, found) for old in olds)
        if not news:
            retired += olds
            notes.append(f"retired: {seen}")
        elif not olds:
            notes.append(
                f"new: {printable(news[0])} ({sum(found.counts.get((old, news[0]), 0) for old in found.old):,} rows)"
            )
        elif len(olds) == len(news) == 1:
            if olds != news:
                tables["rename"].append(f"{_quoted(olds[0])} = {_quoted(news[0])}  # {seen}")
        elif len(news) == 1:
            tables["merge"].append(f"{_quoted(news[0])} = [{', '.join(map(_quoted, olds))}]  # {seen}")
        elif len(olds) == 1:
            tables["split"].append(f"{_quoted(olds[0])} = [{', '.join(map(_quoted, news))}]  # {seen}")
        else:
            notes.append(f"unclear, and not in this map: {seen}")
    lines += [f"# {note}" for note in notes]
    if retired:
        lines += ["", f"retire = [{', '.join(map(_quoted, retired))}]"]
    for key, entries in tables.items():
        if entries:
            lines += ["", f"[{key}]", *entries]
    return "\n".join(lines) + "\n"


def evidence(before: Rows, after: Rows) -> Evidence:
    """Return how many rows are of which classes in both files: by labels if some are of different releases."""
    labels = [{*each.labelled_classes()} for each in (before, after)]
    known = [{*(each.known or ()), *each.predicted_classes()} for each in (before, after)]
    counts = _pairs(before, after, before.labels, after.labels)
    by_labels = any(
        old != new and (old not in labels[1] | known[1] or new not in labels[0] | known[0]) for old, new in counts
    )
    if not by_labels:
        return Evidence(
            "predictions", _pairs(before, after, before.predictions, after.predictions), *map(sorted, known)
        )
    retired = known[0] & labels[1] - known[1]  # the new model does not know them, and their images keep the label
    return Evidence("labels", counts, sorted(known[0] | labels[0]), sorted(known[1] | labels[1] - retired))


def _pairs(before: Rows, after: Rows, old: np.ndarray, new: np.ndarray) -> dict[tuple[str, str], int]:
    """Return the number of rows of each pair of classes, without those where one is missing."""
    both = (old >= 0) & (new >= 0)
    pairs, counts = np.unique(old[both].astype(np.int64) * len(after.classes) + new[both], return_counts=True)
    return {
        (before.classes[key // len(after.classes)], after.classes[key % len(after.classes)]): count
        for key, count in zip(pairs.tolist(), counts.tolist(), strict=True)
    }


def groups(found: Evidence) -> list[tuple[list[str], list[str]]]:
    """Return the groups of linked old and new classes, in the order of their names."""
    group_of = {(side, name): {(side, name)} for side in range(2) for name in (found.old, found.new)[side]}
    for old, new in _links(found):
        together = group_of[0, old] | group_of[1, new]
        for each in together:
            group_of[each] = together
    distinct = {id(each): each for each in group_of.values()}.values()
    return sorted(
        (sorted(name for side, name in each if side == 0), sorted(name for side, name in each if side == 1))
        for each in distinct
    )


def _links(found: Evidence) -> Iterable[tuple[str, str]]:
    """Yield the old and new classes that belong together."""
    of_old, of_new = ({name: 0 for name in names} for names in (found.old, found.new))
    for (old, new), count in found.counts.items():
        if old in of_old and new in of_new:
            of_old[old] += count
            of_new[new] += count
    gone, fresh = sorted({*of_old} - {*of_new}), sorted({*of_new} - {*of_old})
    yield from ((name, name) for name in {*of_old} & {*of_new})
    linked = set()
    for (old, new), count in found.counts.items():
        if old not in of_old or new not in of_new or old == new:
            continue
        # Of two classes that stay nothing is said. That an old model takes a new class for one that stays is no split,
        # unless labels show it.
        is_new = new in fresh and (old in gone or found.kind == "labels")
        if (old in gone and count > MOST * of_old[old]) or (is_new and count > MOST * of_new[new]):
            linked |= {(0, old), (1, new)}
            yield old, new
    free = [name for name in fresh if (1, name) not in linked]
    for old in gone:
        if (0, old) not in linked and (alike := _alike(old, free)):
            yield old, alike


def _alike(name: str, among: Collection[str]) -> str | None:
    """Return the name that is most like another one, None if there is none."""
    spelled = {vocabulary.spelling(each): each for each in among}
    close = difflib.get_close_matches(vocabulary.spelling(name), list(spelled), n=1, cutoff=ALIKE)
    return spelled[close[0]] if close else None


def _counted(old: str, news: Sequence[str], found: Evidence) -> str:
    """Return how many rows of an old class are of the new ones, or of which it has the most."""
    counts = {new: count for (each, new), count in found.counts.items() if each == old}
    total = sum(counts.values())
    shown = news or sorted(counts, key=lambda new: (-counts[new], new))[:3]
    parts = [f"{printable(new)} {counts.get(new, 0):,}" for new in shown]
    return f"{printable(old)}: {listed(parts)} of {total:,} rows" if parts else f"{printable(old)}: no rows"


def _quoted(name: str) -> str:
    """Return a name as a string of TOML, without characters that a terminal would not show."""
    text = json.dumps(name, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
