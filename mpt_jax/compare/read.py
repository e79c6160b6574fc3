"""Two models' predictions on the same examples, checked and aligned by id: a file is read once, row by row.

A second pass, over the ids alone, happens only where rows are to be named.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mpt_jax.compare import align, formats
from mpt_jax.compare.formats import ANSWERS, IDS, LABELS, SCORE, SCORES, Column, Source
from mpt_jax.errors import InputError

NAMED = 5  # of the rows that are wrong
DIGITS = 20  # of a class's index; a longer number is a name, and of 4,300 digits Python would make no number
UNNAMED = 2**20  # classes that may be given as a number alone
HINT = "; where one file has names and another indices, say with classes what the indices mean"
_WITHOUT = ("no prediction", "NaN or missing scores")

Given = str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Predictions:
    """One model's rows: fingerprints of the ids, and labels and answers as positions in `classes` (-1: none)."""

    source: Source
    keys: align.Keys
    labels: np.ndarray
    answers: np.ndarray
    classes: tuple[str, ...]
    known: tuple[str, ...] | None
    problems: tuple[str, ...]
    ids_complete: bool


@dataclass(frozen=True)
class Pair:
    """Labels and both models' answers, integers ``[n]``, in the old file's order; `classes`: the known ones first."""

    labels: np.ndarray
    old: np.ndarray
    new: np.ndarray
    classes: tuple[str, ...]
    num_old_classes: int
    known_from: str
    names: tuple[str, str]
    ids: Callable[[np.ndarray], list[str]]


def read_pair(
    old: Given, new: Given, *, classes: Sequence[str] | None = None, old_classes: int | Sequence[str] | None = None
) -> Pair:
    """Read both, align them by id and put the classes that the old model knows first.

    Args:
      old: a file, or arrays by column name.
      new: likewise.
      classes: what an index means, in both; by default what the file says, else the index is the class.
      old_classes: those that the old model knows: the first so many, or their names, which are then also what an index
        means in `old`, or their indices. By default its `class_names` or score columns, else every class that it ever
        answers.

    Raises:
      InputError: anything that makes the comparison wrong, with how many rows and which.
    """
    if isinstance(old_classes, np.integer):
        old_classes = int(old_classes)
    if isinstance(old_classes, int) and old_classes < 1:
        raise InputError(f"old_classes is {old_classes}; expected the number of classes that the old model knows")
    shared, own = _names(classes), None if isinstance(old_classes, int) else _names(old_classes)
    name_old, name_new = (
        f"the {age} arrays" if isinstance(given, Mapping) else str(given) for age, given in (("old", old), ("new", new))
    )
    before = predictions(formats.open_source(old, name_old), shared, own)
    after = predictions(formats.open_source(new, name_new), shared, None)
    problems = [*before.problems, *after.problems]
    new_of_old = None
    if before.ids_complete and after.ids_complete:
        found = align.match(before.keys, after.keys)
        new_of_old = found.new_of_old
        for read, rows, what in (
            (before, found.repeated_old, "more than once"),
            (after, found.repeated_new, "more than once"),
            (before, found.only_old, f"but not in {name_new}"),
            (after, found.only_new, f"but not in {name_old}"),
        ):
            if rows.size:
                named = [repr(text) for text in ids_of(read.source, rows[:NAMED])]
                is_in = "id is" if rows.size == 1 else "ids are"
                problems.append(f"{rows.size:,} {is_in} in {read.source.name} {what}: {_listed(named, rows.size)}")
    if new_of_old is not None:
        problems += _disagreeing(before, after, new_of_old)
    problems += [*_misspelt(before), *_misspelt(after)]
    if problems:
        raise InputError("; ".join(problems))
    if isinstance(old_classes, int):
        counts = [len(named) for named in (shared, before.known) if named]
        if old_classes > (most := min(counts, default=UNNAMED)):
            source = "the number of classes, class_names or scores" if counts else "or their names"
            raise InputError(f"old_classes is {old_classes}; expected at most {most}, {source}")
        names = shared or before.known or tuple(map(str, range(old_classes)))
        known, known_from = names[:old_classes], "old_classes"
    elif before.known is not None:
        known, known_from = before.known, "old_classes" if own else "class_names or scores"
    else:
        known, known_from = _present(before.answers, before.classes), "answers"
    return _merge(before, after, new_of_old, shared or (), set(known), known_from)


def _merge(
    before: Predictions,
    after: Predictions,
    new_of_old: np.ndarray,
    shared: tuple[str, ...],
    known: set[str],
    known_from: str,
) -> Pair:
    """Both in one order of the classes: those that the old model knows, then the others."""
    source = before.source
    if beyond := set(_present(before.answers, before.classes)) - known:
        raise InputError(
            f"{source.name} answers {_listed(sorted(map(repr, beyond)))}, not among the {len(known)} classes that the "
            f"old model is said to know (by its {known_from}: {_listed(sorted(map(repr, known)))}); expected no other "
            "answers, or old_classes with the names of all that it knows"
        )
    classes = sorted({*shared, *known, *before.classes, *after.classes}, key=_order(shared))
    classes = [*(c for c in classes if c in known), *(c for c in classes if c not in known)]
    number = {name: place for place, name in enumerate(classes)}

    def numbers(read: Predictions, codes: np.ndarray) -> np.ndarray:
        return np.array([number[name] for name in read.classes], np.int32)[codes]

    labels = numbers(before, before.labels)
    if not np.any(labels < len(known)):
        raise InputError(
            f"no row of {source.name} has a label that the old model knows (by its {known_from}): "
            f"{_listed(list(map(repr, classes[: len(known)])))}; expected at least one{HINT}"
        )
    old, new = numbers(before, before.answers), numbers(after, after.answers)[new_of_old]
    files = (source.name, after.source.name)
    return Pair(labels, old, new, tuple(classes), len(known), known_from, files, lambda rows: ids_of(source, rows))


def _disagreeing(before: Predictions, after: Predictions, new_of_old: np.ndarray) -> list[str]:
    number = {name: place for place, name in enumerate(before.classes)}
    labels = np.array([*(number.get(name, len(number)) for name in after.classes), -1], np.int32)[after.labels]
    differ = (before.labels != labels[new_of_old]) & (before.labels >= 0) & (labels[new_of_old] >= 0)
    rows = np.flatnonzero(differ)
    if not rows.size:
        return []
    named = [
        f"{text!r} is {before.classes[before.labels[row]]!r} and {after.classes[after.labels[new_of_old[row]]]!r}"
        for text, row in zip(ids_of(before.source, rows[:NAMED]), rows[:NAMED], strict=True)
    ]
    disagree = "label disagrees" if rows.size == 1 else "labels disagree"
    names = f"{before.source.name} and {after.source.name}"
    return [f"{rows.size:,} {disagree} between {names}: {_listed(named, rows.size)}{HINT}"]


def _check_order(source: Source, shared: tuple[str, ...]) -> None:
    """Refuse `classes` that contradict what a file says of itself."""
    for index, (name, given) in enumerate(zip_longest(source.class_names, shared[: len(source.class_names)])):
        if name != given:
            raise InputError(
                f"{source.name}: index {index} is {name!r} by its class_names, and {given or 'nothing'!r} by classes; "
                "expected one order, or no classes: old_classes alone say what indices mean in the old model's file"
            )


def _misspelt(read: Predictions) -> list[str]:
    """Answers that are no label, where a label that is no answer differs in case, spaces or a ".0" alone."""
    answered, labelled = (set(_present(codes, read.classes)) for codes in (read.answers, read.labels))
    label_of = {_spelling(name): name for name in sorted(labelled - answered)}
    pairs = [(name, label_of[_spelling(name)]) for name in sorted(answered - labelled) if _spelling(name) in label_of]
    return [
        f"{read.source.name} answers {name!r} where the label is {label!r}; expected one spelling"
        for name, label in pairs[:NAMED]
    ]


def _spelling(name: str) -> str:
    return " ".join(name.casefold().split()).removesuffix(".0")


def predictions(source: Source, shared: tuple[str, ...] | None, own: tuple[str, ...] | None) -> Predictions:
    """One model's rows, with what is wrong with them."""
    are_indices = own is not None and all(name.isdecimal() for name in own)
    if own is None and shared and source.class_names:
        _check_order(source, shared)
    own = own or source.class_names
    names = shared if shared and (not own or shared[: len(own)] == own) else own
    id_, label, answer = _one_of(source, IDS), _one_of(source, LABELS), _answer_columns(source)
    is_scores = answer[0] not in ANSWERS
    scored = [match[1] for column in source.columns if (match := SCORE.fullmatch(column))]
    if own is None and scored and not is_scores:  # beside the answers they still say what the model knows
        own = tuple(str(_class_name(name, names, source.name)) for name in scored)
    code_of: dict[str, int] = {}

    def code(value: Any) -> int:
        name = _class_name(value, shared if are_indices else names, source.name)
        return -1 if name is None else number(name)

    def number(name: str) -> int:
        return code_of.setdefault(name, len(code_of))

    keys, labels, answers = [], [], []
    bad: dict[str, tuple[int, list[str]]] = {}
    start, known = 0, own
    code_of_score = np.zeros(0, np.int32)
    for batch in source.batches([id_, label, *answer]):
        ids = _texts(batch[id_], id_, source.name)
        keys.append(_fingerprints(ids))
        labels.append(_codes(batch[label], code, label, source.name))
        if is_scores:
            values, called = _scores(batch, answer, source.name)
            if not start:
                found = _classes_of_scores(values.shape[1], called, names, own, source.name)
                known, code_of_score = known or found, np.array([number(name) for name in found], np.int32)
            if values.shape[1] != len(code_of_score):
                raise InputError(
                    f"{source.name} has {len(code_of_score)} scores in its first row and {values.shape[1]} after row "
                    f"{start:,}; expected one per class in each row"
                )
            answers.append(code_of_score[values.argmax(-1)])
            without_answer = np.isnan(values).any(-1)
        else:
            answers.append(_codes(batch[answer[0]], code, answer[0], source.name))
            without_answer = answers[-1] < 0
        no_id = pc.fill_null(pc.binary_length(ids), 0).to_numpy(zero_copy_only=False) == 0
        wrong = {"no id": no_id, "no label": labels[-1] < 0, _WITHOUT[is_scores]: without_answer}
        for what, rows in ((what, np.flatnonzero(mask)) for what, mask in wrong.items() if mask.any()):
            count, named = bad.get(what, (0, []))
            few = rows[: NAMED - len(named)].tolist()
            more = [f"row {start + row + 1}" if no_id[row] else repr(ids[row].as_py()) for row in few]
            bad[what] = count + rows.size, named + more
        start += len(ids)
    if not start:
        raise InputError(f"{source.name} has no rows; expected at least one")
    problems = tuple(
        f"{count:,} {'row' if count == 1 else 'rows'} of {source.name} with {what}: {_listed(named, count)}"
        for what, (count, named) in bad.items()
    )
    label_codes, answer_codes, classes = np.concatenate(labels), np.concatenate(answers), tuple(code_of)
    _check_kinds(label_codes, answer_codes, classes, source.name)
    first, second = (np.concatenate(part) for part in zip(*keys, strict=True))
    return Predictions(source, (first, second), label_codes, answer_codes, classes, known, problems, "no id" not in bad)


def scores(source: Source) -> Iterator[tuple[list[str | None], np.ndarray, tuple[str, ...] | None]]:
    """Piece by piece the ids as text, the scores ``[n, K]``, and the classes' names where the file gives them.

    Raises:
      InputError: no scores, or not the same number of them in every row.
    """
    id_, columns = _one_of(source, IDS), score_columns(source)
    width = None
    for batch in source.batches([id_, *columns]):
        values, called = _scores(batch, columns, source.name)
        width = width or values.shape[1]
        if values.shape[1] != width:
            raise InputError(
                f"{source.name} has rows with {width} and with {values.shape[1]} scores; expected one per class in each"
            )
        names = _classes_of_scores(width, called, source.class_names, None, source.name)
        ids = _texts(batch[id_], id_, source.name).to_pylist()
        yield ids, values, names if called or source.class_names else None


def score_columns(source: Source) -> list[str]:
    """The column of scores, or the columns of one per class.

    Raises:
      InputError: there are none, or it is not clear which.
    """
    found = [c for c in source.columns if c in SCORES] or [c for c in source.columns if SCORE.fullmatch(c)]
    kinds = {column.split("_")[0] for column in found}
    if len(kinds) != 1:
        raise InputError(
            f"{source.name} has the columns {_listed(list(map(repr, source.columns)), most=8)}; expected one of "
            "'logits', 'scores' and 'probabilities' with a number per class, or a column per class such as 'logit_cat'"
        )
    return found


def ids_of(source: Source, rows: np.ndarray) -> list[str]:
    """The ids of some rows, in a pass over the file's ids."""
    order, found, start = np.argsort(rows), [], 0
    wanted, id_ = rows[order], _one_of(source, IDS)
    for batch in source.batches([id_]):
        ids = _texts(batch[id_], id_, source.name)
        first, last = np.searchsorted(wanted, [start, start + len(ids)])
        found += ids.take(pa.array(wanted[first:last] - start)).to_pylist()
        start += len(ids)
        if last == len(wanted):
            break
    places = np.empty(len(rows), np.intp)
    places[order] = np.arange(len(rows))
    return [found[place] for place in places]


def _check_kinds(labels: np.ndarray, answers: np.ndarray, classes: tuple[str, ...], name: str) -> None:
    """Refuse names on one side and indices on the other, which would look like a model that is always wrong."""
    said = [set(_present(codes, classes)) for codes in (labels, answers)]
    if any(
        all(c.isdecimal() for c in one) and not any(c.isdecimal() for c in other)
        for one, other in (said, said[::-1])
        if one and other
    ):
        examples = [repr(min(some)) for some in said]
        raise InputError(
            f"{name} has the label {examples[0]} and the answer {examples[1]}; expected names or indices{HINT}"
        )


def _present(codes: np.ndarray, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that occur."""
    seen = np.zeros(len(classes) + 1, bool)
    seen[codes] = True  # the last place is for -1
    return tuple(name for name, is_seen in zip(classes, seen, strict=False) if is_seen)


def _class_name(value: Any, names: tuple[str, ...] | None, source: str) -> str | None:
    """The class that a label, an answer or a column of scores means; None where there is none."""
    if value is None or value in ("", b"") or value != value:
        return None
    if isinstance(value, float) and not value.is_integer():
        raise InputError(f"{source} has the class {value}; expected a name or an index")
    if isinstance(value, bytes):
        value = value.decode()
    is_index = isinstance(value, int | float)
    text = str(int(value) if isinstance(value, float) else value)
    # where the names are numbers themselves, a text is a name: also of a class that this model does not know
    if not names or not (is_index or (text.isdecimal() and text not in names and not all(map(str.isdecimal, names)))):
        return text
    if len(text) > DIGITS or not 0 <= int(value) < len(names):
        expected = f"there are {len(names)} class names, so expected an index up to {len(names) - 1}"
        raise InputError(f"{source} has the class {text[:50]}; {expected}")
    return names[int(value)]


def _answer_columns(source: Source) -> list[str]:
    """The column of answers, else that of scores, else those of scores."""
    answers, scores = ([c for c in source.columns if c in names] for names in (ANSWERS, SCORES))
    found = answers or scores
    if len(found) > 1 or not (found := found or [c for c in source.columns if SCORE.fullmatch(c)]):
        raise InputError(
            f"{source.name} has the columns {_listed(list(map(repr, source.columns)), most=8)}; expected one "
            "'prediction', or one of 'scores', 'logits' and 'probabilities' with a number per class, or a column per "
            "class such as 'score_cat'"
        )
    return found


def _scores(batch: Mapping[str, Column], columns: Sequence[str], name: str) -> tuple[np.ndarray, list[str] | None]:
    """Numbers, ``[n, K]``, and what the columns are called if they are."""
    values = batch[columns[0]]
    try:
        if SCORE.fullmatch(columns[0]):
            called = [SCORE.fullmatch(column)[1] for column in columns]
            per_class = np.stack([_floats(batch[column]) for column in columns], -1)
            if per_class.ndim != 2:
                raise ValueError(f"shape {per_class.shape[:-1]}")
            return per_class, called
        if isinstance(values, np.ndarray):
            if values.ndim != 2:
                raise ValueError(f"shape {values.shape}")
            return values if values.dtype.kind == "f" else values.astype(np.float64), None
        if pa.types.is_struct(values.type):
            called = [field.name for field in values.type]
            return np.stack([_floats(field) for field in values.flatten()], -1), called
        return _matrix(values), None
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(
            f"{name}: {', '.join(columns[:3])}: {error}; expected a number per class in each row"
        ) from error


def _matrix(lists: pa.Array) -> np.ndarray:
    """Lists as rows; one that is missing or has another length than the first becomes NaN."""
    width = next((len(row) for row in lists if row.is_valid and len(row)), 1)
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    values = np.full((len(lists), width), np.nan)
    if other := set(lengths.tolist()) - {0, width}:
        raise ValueError(f"rows with {width} and with {min(other)} scores")
    values[lengths == width] = _floats(lists.flatten()).reshape(-1, width)
    return values


def _floats(values: Column) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values.astype(np.float64)
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _classes_of_scores(
    count: int, called: list[str] | None, names: tuple[str, ...] | None, own: tuple[str, ...] | None, source: str
) -> tuple[str, ...]:
    if count < 2:
        raise InputError(f"{source} has scores of {count} class; expected at least two, or a 'prediction'")
    if called is None and ((own and len(own) != count) or (names and len(names) < count)):
        raise InputError(
            f"{source} has scores of {count} classes, but {len(own or names)} class names; expected as many"
        )
    classes = tuple(str(_class_name(value, names, source)) for value in called or range(count))
    if len(set(classes)) != len(classes):
        raise InputError(f"{source} has two columns of scores for one class; expected one per class")
    return classes


def _texts(ids: Column, column: str, name: str) -> pa.Array:
    """Ids as text, so that 7 is "7" whatever the format."""
    try:
        ids = _arrow(ids)
        if pa.types.is_dictionary(ids.type):
            ids = ids.dictionary_decode()
        if pa.types.is_floating(ids.type):
            ids = ids.cast(pa.int64())
        ids = ids.cast(pa.large_string())
        ids.validate(full=True)  # that it is UTF-8, which of a text nobody has asked yet
        return ids
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{name}: column {column!r}: {error}; expected whole numbers or text") from error


def _fingerprints(ids: pa.Array) -> align.Keys:
    _, offsets, data = ids.buffers()
    offsets = np.frombuffer(offsets, np.int64)[ids.offset : ids.offset + len(ids) + 1]
    return align.fingerprints(np.frombuffer(data or b"", np.uint8), offsets)


def _codes(values: Column, code: Callable[[Any], int], column: str, name: str) -> np.ndarray:
    try:
        values = _arrow(values)
        encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        codes = [code(value) for value in encoded.dictionary.to_pylist()]
    except (pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{name}: column {column!r}: {error}; expected names or indices") from error
    places = encoded.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)
    return np.array([*codes, -1], np.int32)[places]


def _arrow(values: Column) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if values.ndim != 1:
        raise pa.ArrowInvalid(f"shape {values.shape}")
    return pa.array(values.tolist() if values.dtype.kind in "US" else values)  # a NumPy text would end at its first \0


def _one_of(source: Source, names: Sequence[str]) -> str:
    found = [column for column in source.columns if column in names]
    if len(found) != 1:
        columns = _listed(list(map(repr, source.columns)), most=8)
        raise InputError(f"{source.name} has the columns {columns}; expected one called {names[0]!r}")
    return found[0]


def _order(shared: Sequence[str]) -> Callable[[str], tuple[int, int, str]]:
    """Classes as given, then indices by size, then names by letter."""
    place = {name: i for i, name in enumerate(shared)}

    def key(name: str) -> tuple[int, int, str]:
        if name in place:
            return 0, place[name], name
        return (1, int(name), name) if name.isdecimal() and len(name) <= DIGITS else (2, 0, name)

    return key


def _listed(named: Sequence[str], count: int | None = None, most: int = NAMED) -> str:
    count = len(named) if count is None else count
    return ", ".join(named[:most]) + (", ..." if count > min(len(named), most) else "")


def _names(given: Sequence[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = tuple(map(str, given))
    twice = formats.repeated(names)
    if twice or not names:
        raise InputError(
            f"{f'class {twice[0]!r} is given twice' if twice else 'no class is given'}; expected each once"
        )
    return names
