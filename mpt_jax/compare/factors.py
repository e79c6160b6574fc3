"""Further columns of the rows: categories as codes, which define slices, and weights.

Values become text as they are written; a number of a binary file is written as Python does. Each distinct value of a
batch is looked up once, so that the cost does not depend on how long the texts are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mpt_jax.errors import InputError
from mpt_jax.files.predictions import columns
from mpt_jax.files.predictions.formats import Column

MISSING = "(missing)"
MOST_VALUES = 10_000  # of a column; slices need rows


class Factor(NamedTuple):
    """A column of categories: row `i` has the value ``names[codes[i]]``, integers ``[n]``, -1 if it is missing."""

    codes: np.ndarray
    names: tuple[str, ...]


def encode(values: Column, code_of: dict[str, int], column: str, source: str) -> np.ndarray:
    """Return the code of each value of a batch, -1 where it is missing; values that are new get the next codes.

    Args:
      values: of any type that has a text; null, NaN and empty text are missing.
      code_of: codes of the values so far, which this extends.
      column: its name, for errors.
      source: name of the source, for errors.

    Raises:
      InputError: lists or objects, text that is not UTF-8, or more than `MOST_VALUES` values.

    Examples:
      >>> codes = {}
      >>> encode(pa.array(["night", None, "day", "night"]), codes, "time", "it").tolist(), codes
      ([0, -1, 1, 0], {'night': 0, 'day': 1})
    """
    try:
        values = columns.as_arrow(values)
        if pa.types.is_dictionary(values.type):  # which may list values that no row has
            values = values.dictionary_decode()
        encoded = values.dictionary_encode()
        texts = _texts(encoded.dictionary)
    except (pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{source}: column {column!r}: {error}; expected text, numbers, dates or booleans") from error
    for text in texts:
        if text:
            code_of.setdefault(text, len(code_of))
    if len(code_of) > MOST_VALUES:
        raise InputError(
            f"{source}: column {column!r} has more than {MOST_VALUES:,} values, such as {next(iter(code_of))!r}; "
            "expected a few, each with many rows: put numbers, times or ids into groups first"
        )
    codes = np.array([*(code_of[text] if text else -1 for text in texts), -1], np.int32)
    return codes[encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)]


def numbers(values: Column, column: str, source: str) -> np.ndarray:
    """Return a batch of weights as float64, NaN where there is none.

    Raises:
      InputError: text that is no number.
    """
    try:
        values = columns.as_arrow(values)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            values = pc.utf8_trim_whitespace(values)
            values = pc.if_else(pc.equal(values, ""), None, values)
        return values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{source}: column {column!r}: {error}; expected a number in each row") from error


def at(factor: Factor, places: np.ndarray) -> Factor:
    """Return the values of the rows at some places; a place below 0 has none."""
    return Factor(np.where(places < 0, np.int32(-1), factor.codes[places]), factor.names)


def merged(factors: Sequence[Factor]) -> tuple[Factor, np.ndarray]:
    """Return the values that any of several columns of the same rows has, and the rows where two of them differ.

    Examples:
      >>> one, two = Factor(np.array([0, -1, 0]), ("a",)), Factor(np.array([1, 0, 0]), ("b", "a"))
      >>> both, differ = merged([one, two])
      >>> [both.names[code] for code in both.codes], differ.tolist()
      (['a', 'b', 'a'], [2])
    """
    names = tuple(dict.fromkeys(name for factor in factors for name in factor.names))
    place = {name: code for code, name in enumerate(names)}
    codes, differ = np.full(len(factors[0].codes), -1, np.int32), np.zeros(len(factors[0].codes), bool)
    for factor in factors:
        own = np.array([*(place[name] for name in factor.names), -1], np.int32)[factor.codes]
        differ |= (codes >= 0) & (own >= 0) & (codes != own)
        codes = np.where(codes < 0, own, codes)
    return Factor(codes, names), np.flatnonzero(differ)


def complete(factor: Factor) -> Factor:
    """Return the column with `MISSING` as the value of the rows without one.

    Examples:
      >>> complete(Factor(np.array([0, -1]), ("a",)))
      Factor(codes=array([0, 1]), names=('a', '(missing)'))
    """
    if not np.any(factor.codes < 0):
        return factor
    names = tuple(dict.fromkeys([*factor.names, MISSING]))
    return Factor(np.where(factor.codes < 0, factor.codes.dtype.type(names.index(MISSING)), factor.codes), names)


def _texts(values: pa.Array) -> list[str | None]:
    """Return the text of each value, None for null and NaN."""
    kind = values.type
    if pa.types.is_floating(kind):
        found = values.to_numpy(zero_copy_only=False)  # its text has no more digits than the type
        return [None if number != number else str(number + 0) for number in found]  # not "-0.0"
    if pa.types.is_boolean(kind):
        return [None if value is None else str(value) for value in values.to_pylist()]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [None if value is None else value.decode() for value in values.to_pylist()]
    texts = values.cast(pa.large_string())
    texts.validate(full=True)  # checks that it is UTF-8
    return texts.to_pylist()
