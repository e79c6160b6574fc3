"""The columns of a prediction file: which ones hold ids, predictions and scores, as text and as matrices."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mpt_jax.errors import InputError, listed
from mpt_jax.files.predictions.formats import IDS, PREDICTIONS, PREFIXES, SCORE, SCORES, Column, Source

_WHOLE = re.compile(r"-?[0-9]+\.0*")
DIGITS = 20  # of a class's index; a longer number is a name, and Python converts no text of 4,300 digits


def read_scores(source: Source) -> Iterator[tuple[list[str | None], np.ndarray, tuple[str, ...] | None]]:
    """Yield batches of ids as text, scores ``[n, K]``, and the names of the classes if the file has them.

    Raises:
      InputError: no scores, or a different number of them in some rows.
    """
    id_, columns = one_of(source, IDS), score_columns(source)
    width = None
    for batch in source.batches([id_, *columns]):
        values, named = scores(batch, columns, source.name)
        width = width or values.shape[1]
        if values.shape[1] != width:
            raise InputError(
                f"{source.name} has rows with {width} and with {values.shape[1]} scores; expected one per class in each"
            )
        names = classes_of_scores(width, named, source.class_names, None, source.name)
        ids = texts(batch[id_], id_, source.name).to_pylist()
        yield ids, values, names if named or source.class_names else None


def one_of(source: Source, names: Sequence[str], hint: str = "") -> str:
    """Return the only column with one of these names.

    Args:
      hint: what else would work, for the error.

    Raises:
      InputError: there is no such column, or there are several.
    """
    found = [column for column in source.columns if column in names]
    if len(found) != 1:
        raise InputError(f"{source.name} has the columns {_columns(source)}; expected one called {names[0]!r}{hint}")
    return found[0]


def score_columns(source: Source) -> list[str]:
    """Return the column of scores, or the columns with one class each.

    Raises:
      InputError: there are no scores, or scores of several kinds.
    """
    found = [c for c in source.columns if c in SCORES] or [c for c in source.columns if SCORE.fullmatch(c)]
    kinds = {column.split("_")[0] for column in found}
    if len(kinds) != 1:
        raise InputError(
            f"{source.name} has the columns {_columns(source)}; expected one of 'logits', 'scores' and "
            "'probabilities' with a number per class, or a column per class such as 'logit_cat'"
        )
    return found


def prediction_columns(source: Source, scores: str | None = None) -> list[str]:
    """Return the column of predictions if there is one, else the column or columns of scores.

    Args:
      scores: prefix of the columns of scores, such as "logit", or the column that holds them all; None: the only ones.
        A source without scores has a prediction all the same.

    Raises:
      InputError: there are none, or several columns of one kind.
    """
    has_scores = any(c in SCORES or SCORE.fullmatch(c) for c in source.columns)
    if scores and (has_scores or scores not in (*SCORES, *PREFIXES)):
        found = [c for c in source.columns if c == scores] or [c for c in source.columns if c.startswith(f"{scores}_")]
        if not found or scores not in (*SCORES, *PREFIXES):
            raise InputError(
                f"scores is {scores!r} and {source.name} has the columns {_columns(source)}; expected one of "
                f"{', '.join((*SCORES, *PREFIXES))} that it has"
            )
        return found
    predicted, together = ([c for c in source.columns if c in names] for names in (PREDICTIONS, SCORES))
    found = predicted or together
    if len(found) > 1 or not (found := found or [c for c in source.columns if SCORE.fullmatch(c)]):
        raise InputError(
            f"{source.name} has the columns {_columns(source)}; expected one 'prediction', or one of 'scores', "
            "'logits' and 'probabilities' with a number per class, or a column per class such as 'score_cat'"
        )
    kinds = sorted({column.partition("_")[0] for column in found})
    if len(kinds) > 1:
        raise InputError(
            f"{source.name} has scores that begin with {' and with '.join(map(repr, kinds))}: {_columns(source)}; "
            f"expected one kind, or --scores {kinds[0]} to choose it"
        )
    return found


def scores(batch: Mapping[str, Column], columns: Sequence[str], name: str) -> tuple[np.ndarray, list[str] | None]:
    """Return the scores ``[n, K]`` of a batch, and the classes that its columns or fields name, if any.

    Args:
      columns: as of `score_columns`.
      name: of the source, for errors.

    Raises:
      InputError: values that are not numbers, or not one per class.
    """
    values = batch[columns[0]]
    try:
        if named := [match[1] for column in columns if (match := SCORE.fullmatch(column))]:
            per_class = np.stack([_floats(batch[column]) for column in columns], -1)
            if per_class.ndim != 2:
                raise ValueError(f"shape {per_class.shape[:-1]}")
            return per_class, named
        if isinstance(values, np.ndarray):
            if values.ndim != 2:
                raise ValueError(f"shape {values.shape}")
            return values if values.dtype.kind == "f" else _floats(values), None
        if pa.types.is_struct(values.type):
            named = [field.name for field in values.type]
            return np.stack([_floats(field) for field in values.flatten()], -1), named
        return _matrix(values), None
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(
            f"{name}: {', '.join(columns[:3])}: {error}; expected a number per class in each row"
        ) from error


def classes_of_scores(
    count: int,
    named: Sequence[str] | None,
    names: tuple[str, ...] | None,
    own: tuple[str, ...] | None,
    source: str,
) -> tuple[str, ...]:
    """Return the class of each of `count` scores.

    Args:
      named: what the columns of scores are called, None if they have no names.
      names: what an index means, None if an index is a class.
      own: the classes that the model knows, in the order of its scores.
      source: name of the source, for errors.

    Raises:
      InputError: a different number of names, a repeated class, or fewer than two.
    """
    if count < 2:
        raise InputError(f"{source} has scores of {count} class; expected at least two, or a 'prediction'")
    if named is None and ((own and len(own) != count) or (names and len(names) < count)):
        raise InputError(
            f"{source} has scores of {count} classes, but {len(own or names or ())} class names; expected equal numbers"
        )
    classes = tuple(str(class_name(value, names, source)) for value in named or range(count))
    if len(set(classes)) != len(classes):
        raise InputError(f"{source} has two columns of scores for one class; expected one per class")
    return classes


def class_name(value: Any, names: tuple[str, ...] | None, source: str) -> str | None:
    """Return the class that a label, a prediction or a column of scores means; None for a missing value.

    Args:
      value: a name or an index.
      names: what an index means, None if an index is a class.
      source: name of the source, for errors.

    Raises:
      InputError: a fraction, or an index beyond the names.
    """
    if value is None or value in ("", b"") or value != value:
        return None
    if isinstance(value, float) and not value.is_integer():
        raise InputError(f"{source} has the class {value}; expected a name or an index")
    if isinstance(value, float) and abs(value) >= 2**53:  # classes that differ may have been rounded to one
        raise InputError(f"{source} has the class {value}, which has lost digits; expected whole numbers or text")
    if isinstance(value, bytes):
        value = value.decode()
    is_index = isinstance(value, int | float) and not isinstance(value, bool)  # True is text in every format
    text = str(int(value) if isinstance(value, float) else value)
    if _WHOLE.fullmatch(text) and text not in (names or ()):
        text = text.partition(".")[0]  # tools write indices as 1.0 once one is missing
    # If the names are numbers themselves, a text is a name, also of a class that this model does not know.
    if not names or not (is_index or (text.isdecimal() and text not in names and not all(map(str.isdecimal, names)))):
        return text
    if is_index and value < 0:
        return text  # often a missing label
    if len(text) > DIGITS or not 0 <= int(text) < len(names):
        expected = (
            f"there are {len(names)} class names, so expected an index up to {len(names) - 1}, or names in place of "
            "indices where labels and predictions count the classes differently"
        )
        raise InputError(f"{source} has the class {text[:50]}; {expected}")
    return names[int(text)]


def texts(ids: Column, column: str, name: str) -> pa.Array:
    """Return ids as text, so that 7 is "7" in every format.

    Raises:
      InputError: fractions, lists, or text that is not UTF-8.
    """
    try:
        ids = as_arrow(ids)
        if pa.types.is_dictionary(ids.type):
            ids = ids.dictionary_decode()
        if pa.types.is_floating(ids.type):
            if (pc.max(pc.abs(ids)).as_py() or 0) >= 2**53:
                raise ValueError("numbers from 2**53 on, which have lost digits")
            ids = ids.cast(pa.int64())
        ids = ids.cast(pa.large_string())
        if pc.any(pc.ends_with(ids, ".0")).as_py():  # whole numbers, as pandas writes them beside a missing one
            ids = pc.replace_substring_regex(ids, r"^(-?[0-9]+)\.0$", r"\1")
        ids.validate(full=True)  # checks that it is UTF-8, which a cast from text to text does not
        return ids
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"{name}: column {column!r}: {error}; expected whole numbers or text") from error


def as_arrow(values: Column) -> pa.Array:
    """Return a column ``[n]`` as an Arrow array.

    Raises:
      pa.ArrowInvalid: the column has more axes.
    """
    if isinstance(values, pa.Array):
        return _plain(values)
    if values.ndim != 1:
        raise pa.ArrowInvalid(f"shape {values.shape}")
    return pa.array(values.tolist() if values.dtype.kind in "US" else values)  # a NumPy text would end at its first \0


def _plain(values: pa.Array) -> pa.Array:
    """Return an Arrow array in one of the types that every function of Arrow takes."""
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return _plain(values.storage)
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(values))
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(values.indices, _plain(values.dictionary))
    for is_kind, plain in ((pa.types.is_string_view, pa.large_string()), (pa.types.is_binary_view, pa.large_binary())):
        if is_kind(kind):
            return values.cast(plain)
    if pa.types.is_float16(kind):
        return values.cast(pa.float32())
    if pa.types.is_decimal(kind):
        if kind.scale <= 0:
            with contextlib.suppress(pa.ArrowInvalid):  # too large
                return values.cast(pa.int64())
        # The same text for a value in every batch, whatever else is in it.
        return pc.replace_substring_regex(values.cast(pa.string()), r"\.0+$", "")
    return values


def _matrix(lists: pa.Array) -> np.ndarray:
    """Return lists as rows; a missing list becomes NaN."""
    width = next((len(row) for row in lists if row.is_valid and len(row)), 1)
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    values = np.full((len(lists), width), np.nan)
    if other := set(lengths.tolist()) - {0, width}:
        raise ValueError(f"rows with {width} and with {min(other)} scores")
    values[lengths == width] = _floats(lists.flatten()).reshape(-1, width)
    return values


def _floats(values: Column) -> np.ndarray:
    """Return numbers as float64.

    Raises:
      ValueError: dates, complex numbers, or integers that float64 cannot tell apart.
    """
    if isinstance(values, pa.Array):
        return values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if values.dtype.kind in "cmMV":
        raise ValueError(f"values of type {values.dtype}")
    if values.dtype.kind in "iu" and values.size and not -(2**53) <= values.min() <= values.max() <= 2**53:
        raise ValueError("integers beyond 2**53, of which several are one as a float")
    return values.astype(np.float64)


def _columns(source: Source) -> str:
    return listed(list(map(repr, source.columns)), most=8)
