"""One model's rows: fingerprints of the ids, labels and predictions as integers, and which rows are unusable."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mpt_jax.compare import align, factors
from mpt_jax.compare.factors import Factor
from mpt_jax.errors import InputError, counted_rows, listed
from mpt_jax.files.predictions import columns
from mpt_jax.files.predictions.formats import IDS, LABELS, PREDICTIONS, SCORE, Column, Source

NAMED = 5  # examples in an error
HINT = "; if one file has names and the other indices, give classes: the names in the order of the indices"
_WITHOUT = ("no prediction", "NaN, infinite or missing scores")


@dataclass(frozen=True)
class Rows:
    """Rows in the order of a source; labels and predictions are positions in `classes`, -1 if missing.

    `known` are the classes that the model knows according to the file, None if the file does not list them; `listed`
    tells whether they come from a list, and not from the names of columns. `unnamed` tells whether nothing says what
    the positions of the scores mean, so that a class is called by its position. `tied` are the rows with several
    largest scores, none without scores. `problems` counts and names the rows without an id or a prediction, one
    sentence for each kind. `factors` are further columns by name, and `weights` float64 ``[n]``, NaN if missing.
    `top` are the classes of the k largest scores, ``[n, k]``, and `confidences` the largest scores, ``[n]``, if wanted.
    """

    source: Source
    order: Source
    keys: align.Keys
    labels: np.ndarray
    predictions: np.ndarray
    classes: tuple[str, ...]
    known: tuple[str, ...] | None
    listed: bool
    tied: np.ndarray
    problems: tuple[str, ...]
    ids_complete: bool
    factors: Mapping[str, Factor] = field(default_factory=dict)
    weights: np.ndarray | None = None
    top: np.ndarray | None = None
    confidences: np.ndarray | None = None
    unnamed: bool = False

    def labelled_classes(self) -> tuple[str, ...]:
        """Return the classes that are some row's label."""
        return _present(self.labels, self.classes)

    def predicted_classes(self) -> tuple[str, ...]:
        """Return the classes that are some row's prediction."""
        return _present(self.predictions, self.classes)

    def rows_by_label(self, rows: np.ndarray | None = None) -> dict[str, int]:
        """Return the number of rows of each label, among all rows or those of a mask ``[n]``."""
        return _counted(self.labels if rows is None else self.labels[rows], self.classes)

    def rows_by_prediction(self, rows: np.ndarray | None = None) -> dict[str, int]:
        """Return the number of rows of each prediction, among all rows or those of a mask ``[n]``."""
        return _counted(self.predictions if rows is None else self.predictions[rows], self.classes)


def renamed(read: Rows, same: Mapping[str, str]) -> Rows:
    """Return the rows with some classes renamed; classes of one name become one."""
    if not same:
        return read
    names = [same.get(name, name) for name in read.classes]
    classes = tuple(dict.fromkeys(names))
    place = {name: code for code, name in enumerate(classes)}
    codes = np.array([*(place[name] for name in names), -1], np.int32)
    known = None if read.known is None else tuple(dict.fromkeys(same.get(name, name) for name in read.known))
    return replace(_recoded(read, codes), classes=classes, known=known)


def _recoded(read: Rows, codes: np.ndarray) -> Rows:
    """Return the rows with other numbers of the classes, of which the last is for -1."""
    top = None if read.top is None else codes[read.top]
    return replace(read, labels=codes[read.labels], predictions=codes[read.predictions], top=top)


def reordered(read: Rows, places: np.ndarray, order: Source) -> Rows:
    """Return the rows at some places in the order of a source, without the fingerprints, which no one needs then.

    A place below 0 has neither further columns nor a weight.
    """
    none = np.zeros(0, np.uint64)
    return replace(
        read,
        order=order,
        keys=(none, none),
        labels=read.labels[places],
        predictions=read.predictions[places],
        tied=read.tied[places] if read.tied.size else read.tied,
        factors={column: factors.at(factor, places) for column, factor in read.factors.items()},
        weights=None if read.weights is None else np.where(places < 0, np.nan, read.weights[places]),
        top=None if read.top is None else read.top[places],
        confidences=None if read.confidences is None else read.confidences[places],
    )


def without(read: Rows, names: Collection[str]) -> Rows:
    """Return the rows with labels and predictions of these names missing."""
    if not {*names} & {*read.classes}:
        return read
    classes = tuple(name for name in read.classes if name not in names)
    place = {name: code for code, name in enumerate(classes)}
    codes = np.array([*(place.get(name, -1) for name in read.classes), -1], np.int32)
    return replace(_recoded(read, codes), classes=classes)


def read(
    source: Source,
    shared: tuple[str, ...] | None,
    own: tuple[str, ...] | None,
    scores: str | None = None,
    *,
    needs_label: bool = True,
    needs_prediction: bool = True,
    extra: Sequence[str] = (),
    weight: str | None = None,
    top_k: int = 0,
    confidences: bool = False,
) -> Rows:
    """Read one model's rows in a single pass.

    Of equal scores the class that comes first in `class_order` is the prediction, whatever the order of the columns.

    Args:
      source: where the predictions are.
      shared: what an index means for both models, by default what the source says, else the index is the class.
      own: the classes that this model knows, by name or index; what an index means in its predictions.
      scores: prefix of the columns of scores, or the column that holds them all; None: the only ones.
      needs_label: whether there must be a column of labels; without one all labels are missing.
      needs_prediction: whether predictions are read; otherwise they are missing.
      extra: further columns that are read if the source has them.
      weight: the column of weights, if the source has it.
      top_k: how many classes with the largest scores are kept.
      confidences: whether the largest scores are kept.

    Raises:
      InputError: columns or classes that are missing, ambiguous or contradictory.
    """
    own_are_indices = own is not None and all(name.isdecimal() for name in own)
    if own is None and shared and source.class_names:
        require_same_order("class_names", source.class_names, shared, source.name)
    if shared and source.label_names:
        require_same_order("label_names", source.label_names, shared, source.name)
    own = own or source.class_names
    names = shared if shared and (not own or shared[: len(own)] == own) else own
    id_ = columns.one_of(source, IDS, ", or --columns id=NAME")
    label = None
    if needs_label or any(column in LABELS for column in source.columns):
        label = columns.one_of(source, LABELS, ", --columns label=NAME, or --labels FILE")
    predicted = columns.prediction_columns(source, scores) if needs_prediction else []
    has_scores = bool(predicted) and predicted[0] not in PREDICTIONS
    if (top_k or confidences) and needs_prediction and not has_scores:
        raise InputError(
            f"{source.name} has the column {predicted[0]!r} and no scores are chosen; expected scores for "
            f"{'top_k' if top_k else 'threshold'}, --scores PREFIX if they are beside predictions"
        )
    scored = [match[1] for column in source.columns if (match := SCORE.fullmatch(column))]
    listed_classes = own is not None
    if own is None and scored and not has_scores:  # scores next to predictions still show what the model knows
        own = tuple(str(columns.class_name(name, names, source.name)) for name in scored)
    code_of: dict[str, int] = {}

    index_names = shared if own_are_indices else names

    def code(value: Any) -> int:
        name = columns.class_name(value, index_names, source.name)
        return -1 if name is None else code_of_class(name)

    def code_of_label(value: Any) -> int:
        name = columns.class_name(value, source.label_names or index_names, source.name)
        return -1 if name is None else code_of_class(name)

    def code_of_class(name: str) -> int:
        return code_of.setdefault(name, len(code_of))

    keys, labels, predictions, tied = [], [], [], [np.zeros(0, bool)]
    top, highest = [], []
    unusable: dict[str, tuple[int, list[str]]] = {}
    start, known, unnamed = 0, own, False
    first_named: Sequence[str] | None = None
    code_of_score = order = np.zeros(0, np.int32)
    extra = [column for column in dict.fromkeys(extra) if column in source.columns]
    weight = weight if weight in source.columns else None
    values_of: dict[str, dict[str, int]] = {column: {} for column in extra}
    codes_of: dict[str, list[np.ndarray]] = {column: [] for column in extra}
    weights = []
    needed = [id_, *([label] if label else []), *predicted, *extra, *([weight] if weight else [])]
    for batch in source.batches(list(dict.fromkeys(needed))):
        ids = columns.texts(batch[id_], id_, source.name)
        keys.append(fingerprints(ids))
        none = np.full(len(ids), -1, np.int32)
        labels.append(_codes(batch[label], code_of_label, label, source.name) if label else none)
        if has_scores:
            values, named = columns.scores(batch, predicted, source.name)
            if not start:
                first_named = named
                found = columns.classes_of_scores(values.shape[1], named, names, own, source.name)
                key = class_order(shared or ())
                order = np.array(sorted(range(len(found)), key=lambda i: key(found[i])), np.int32)
                unnamed = named is None and not names
                known, code_of_score = known or found, np.array([code_of_class(name) for name in found], np.int32)
            if values.shape[1] != len(code_of_score):
                raise InputError(
                    f"{source.name} has {len(code_of_score)} scores in its first row and {values.shape[1]} after row "
                    f"{start:,}; expected one per class in each row"
                )
            if named and first_named and named != first_named:  # fields of objects, in another order in this part
                if set(named) != set(first_named):
                    raise InputError(
                        f"{source.name} has scores of {listed(sorted(map(repr, named)))} after row {start:,}, and of "
                        f"{listed(sorted(map(repr, first_named)))} before; expected the same classes in each row"
                    )
                values = values[:, [named.index(name) for name in first_named]]
            values = values[:, order]
            if top_k:
                largest = np.argsort(-values, axis=-1, kind="stable")[:, :top_k]
                top.append(code_of_score[order[largest]])
            if confidences:
                highest.append(values.max(-1).astype(np.float64))
            predictions.append(code_of_score[order[values.argmax(-1)]])
            tied.append((values == values.max(-1, keepdims=True)).sum(-1) > 1)
            without_prediction = ~np.isfinite(values).all(-1)
        else:
            predictions.append(_codes(batch[predicted[0]], code, predicted[0], source.name) if predicted else none)
            without_prediction = (predictions[-1] < 0) & needs_prediction
        for column, codes in codes_of.items():
            codes.append(factors.encode(batch[column], values_of[column], column, source.name))
        if weight:
            weights.append(factors.numbers(batch[weight], weight, source.name))
        no_id = pc.fill_null(pc.binary_length(ids), 0).to_numpy(zero_copy_only=False) == 0
        masks = {"no id": no_id, _WITHOUT[has_scores]: without_prediction}
        for what, places in ((what, np.flatnonzero(mask)) for what, mask in masks.items() if mask.any()):
            count, examples = unusable.get(what, (0, []))
            few = places[: NAMED - len(examples)].tolist()
            more = [f"row {start + row + 1}" if no_id[row] else repr(ids[row].as_py()) for row in few]
            unusable[what] = count + places.size, examples + more
        start += len(ids)
    if not start:
        raise InputError(f"{source.name} has no rows; expected at least one")
    problems = tuple(
        f"{counted_rows(count)} of {source.name} with {what}: {listed(examples, count)}"
        for what, (count, examples) in unusable.items()
    )
    first, second = (np.concatenate(part) for part in zip(*keys, strict=True))
    result = Rows(
        source=source,
        order=source,
        keys=(first, second),
        labels=np.concatenate(labels),
        predictions=np.concatenate(predictions),
        classes=tuple(code_of),
        known=known,
        listed=listed_classes,
        tied=np.concatenate(tied),
        problems=problems,
        ids_complete="no id" not in unusable,
        factors={column: Factor(np.concatenate(codes), tuple(values_of[column])) for column, codes in codes_of.items()},
        weights=np.concatenate(weights) if weight else None,
        top=np.concatenate(top) if top_k and needs_prediction else None,
        confidences=np.concatenate(highest) if confidences and needs_prediction else None,
        unnamed=unnamed,
    )
    _require_same_kind(result)
    return result


def class_order(shared: Sequence[str]) -> Callable[[str], tuple[int, int, str]]:
    """Return a sort key: classes as given, then indices by size, then names by letter."""
    place = {name: i for i, name in enumerate(shared)}

    def key(name: str) -> tuple[int, int, str]:
        if name in place:
            return 0, place[name], name
        return (1, int(name), name) if name.isdecimal() and len(name) <= columns.DIGITS else (2, 0, name)

    return key


def require_names(read: Rows, option: str = "classes") -> None:
    """Reject scores whose positions have no names, which mean other classes before a class map than after it.

    Args:
      option: which one gives the names.
    """
    if read.unnamed:
        raise InputError(
            f"{read.source.name} has scores without names of the classes, and their order changes with a class map; "
            "expected class_names in the file, as python -m mpt_jax.predict writes them"
            + f", or {option} with the names in the order of the scores"
            * bool(option)
        )


def named(read: Rows, rows: np.ndarray, what: str) -> str:
    """Count some rows, by their places ``[m]``, and name the first by their ids."""
    first = rows[:NAMED]
    ids = [repr(id_) if id_ else f"row {row + 1}" for id_, row in zip(ids_of(read.order, first), first, strict=True)]
    return f"{counted_rows(rows.size)} of {read.source.name} with {what}: " + listed(ids, rows.size)


def ids_of(source: Source, rows: np.ndarray) -> list[str]:
    """Return the ids of some rows, in another pass over the column of ids."""
    order, found, start = np.argsort(rows), [], 0
    needed, id_ = rows[order], columns.one_of(source, IDS)
    for batch in source.batches([id_]):
        ids = columns.texts(batch[id_], id_, source.name)
        first, last = np.searchsorted(needed, [start, start + len(ids)])
        found += ids.take(pa.array(needed[first:last] - start)).to_pylist()
        start += len(ids)
        if last == len(needed):
            break
    places = np.empty(len(rows), np.intp)
    places[order] = np.arange(len(rows))
    return [found[place] for place in places]


def require_same_order(what: str, own: tuple[str, ...], shared: tuple[str, ...], name: str) -> None:
    """Reject `classes` that contradict the names of classes in a file."""
    for index, (stored, given) in enumerate(zip_longest(own, shared[: len(own)])):
        if stored != given:
            raise InputError(
                f"{name}: index {index} is {stored!r} by its {what}, and {given or 'nothing'!r} by classes; "
                "expected the same order, or old_classes without classes: they apply to the old model's file alone"
            )


def _require_same_kind(rows: Rows) -> None:
    """Reject names on one side and indices on the other, which would look like a model that is always wrong."""
    kinds = [set(rows.labelled_classes()), set(rows.predicted_classes())]
    if any(
        all(c.isdecimal() for c in one) and not any(c.isdecimal() for c in other)
        for one, other in (kinds, kinds[::-1])
        if one and other
    ):
        label, prediction = (repr(min(classes)) for classes in kinds)
        raise InputError(
            f"{rows.source.name} has the label {label} and the prediction {prediction}; "
            f"expected either names or indices in both{HINT}"
        )


def _present(codes: np.ndarray, classes: tuple[str, ...]) -> tuple[str, ...]:
    seen = np.zeros(len(classes) + 1, bool)
    seen[codes] = True  # the last place is for -1
    return tuple(name for name, is_seen in zip(classes, seen, strict=False) if is_seen)


def _counted(codes: np.ndarray, classes: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(codes[codes >= 0], minlength=len(classes))
    return {name: int(count) for name, count in zip(classes, counts, strict=True) if count}


def fingerprints(ids: pa.Array) -> align.Keys:
    """Return the fingerprints of texts, see `align.fingerprints`."""
    _, offsets, data = ids.buffers()
    offsets = np.frombuffer(offsets, np.int64)[ids.offset : ids.offset + len(ids) + 1]
    return align.fingerprints(np.frombuffer(data or b"", np.uint8), offsets)


def _codes(values: Column, code: Callable[[Any], int], column: str, name: str) -> np.ndarray:
    """Return the code of each value; each distinct value is looked up once."""
    try:
        values = columns.as_arrow(values)
        if pa.types.is_nested(values.type):
            raise InputError(
                f"{name}: column {column!r} holds lists; expected a name or an index in each row, or --multi-label if "
                "a row has several labels"
            )
        encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        codes = [code(value) for value in encoded.dictionary.to_pylist()]
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        raise InputError(f"{name}: column {column!r}: {error}; expected names or indices") from error
    places = encoded.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)
    return np.array([*codes, -1], np.int32)[places]
