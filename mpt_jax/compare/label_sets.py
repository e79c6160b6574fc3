"""Several labels a row: lists of names, and cells of text that hold them, become one text a row and back.

The text of a set is a JSON list of its names in order, so that equal sets are equal texts, which are then read, matched
by id and compared like names of classes.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mpt_jax.errors import InputError, listed
from mpt_jax.files.predictions import columns
from mpt_jax.files.predictions.formats import LABELS, PREDICTIONS, Batches, Column, Source

LISTS = "list"  # in place of a separator: there is none
_BETWEEN = "\x1f"  # the separator of units in ASCII, which no name has
_USUAL = (",", ";", "|", "/", "\t")
_NO_COMMA = re.compile(r"""['"]\s+['"]""")  # NumPy's text of an array, which Python would read as one long name


def as_text(names: Collection[str]) -> str:
    """Return the text of a set of names.

    Examples:
      >>> as_text(["dog", "cat"]), names_of('["cat", "dog"]')
      ('["cat", "dog"]', ('cat', 'dog'))
    """
    return json.dumps(sorted(names), ensure_ascii=False)


def names_of(text: str) -> tuple[str, ...]:
    """Return the names of a text of `as_text`."""
    return tuple(json.loads(text))


def with_texts(
    source: Source,
    separator: str,
    index_names: tuple[str, ...] | None = None,
    same: Mapping[str, str] = MappingProxyType({}),
    seen: set[str] | None = None,
) -> Source:
    """Return the source with labels and predictions as texts of sets; null stays missing, an empty list is a set.

    Args:
      source: labels and predictions are lists of names or indices, or text: names between separators, a JSON list, or
        a list as Python writes it.
      separator: between the names in a cell of text; `LISTS` if there is none.
      index_names: what an index means, None if an index is a class; `label_names` of the source for labels.
      same: names that mean another name's class.
      seen: takes the names of the batches that are read, as they are before `same`.

    Raises:
      InputError: when batches are read: cells that are none of this, or that repeat a name.
    """

    means = {**dict.fromkeys(LABELS, source.label_names or index_names), **dict.fromkeys(PREDICTIONS, index_names)}

    def batches(names: Sequence[str]) -> Batches:
        for batch in source.batches(names):
            yield {
                name: _texts(values, name, source.name, separator, means[name], same, seen) if name in means else values
                for name, values in batch.items()
            }

    return replace(source, batches=batches, class_names=None, label_names=None)


def joined(rows: Mapping[str, int], separator: str, declared: Collection[str] = ()) -> list[str]:
    """Describe names that look like several, joined by another separator than the one that was given.

    Args:
      rows: rows of each name.
      separator: as of `with_texts`.
      declared: names that the user lists.

    Examples:
      >>> joined({"cat": 3, "cat;dog": 1}, "|")
      ["'cat;dog' looks like several names between ';'; expected --multi-label ';', or --classes with all names"]
    """
    found = []
    for other in (each for each in (*_USUAL, " ") if each != separator):
        # Names such as "traffic light" are usual: between spaces each part has to be a name of its own.
        is_joined = all if other == " " else any
        parts = {name: [part.strip() for part in name.split(other)] for name in rows if other in name}
        of_parts = Counter(part for each in parts.values() for part in set(each) if part)
        suspects = [
            name
            for name, each in parts.items()
            if name not in declared
            and is_joined(part in rows or (other != " " and of_parts[part] > 1) for part in each if part)
        ]
        if suspects:
            looks = "looks" if len(suspects) == 1 else "look"
            found.append(
                f"{listed(sorted(map(repr, suspects)))} {looks} like several names between {other!r}; expected "
                f"--multi-label {other!r}, or --classes with all names"
            )
    return found


def _texts(
    values: Column,
    column: str,
    name: str,
    separator: str,
    index_names: tuple[str, ...] | None,
    same: Mapping[str, str],
    seen: set[str] | None,
) -> pa.Array:
    try:
        cells = _cells(values)
        are_lists = _is_list(cells.type)
        if are_lists:
            cells = _joined(cells, name, index_names)

        def parse(cell: Any) -> list[str] | None:
            if are_lists:
                return _split(cell)
            given = _parsed(cell, separator, column, name)
            return None if given is None else [_class(each, column, name, index_names) for each in given]

        encoded = cells if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
        found = [parse(cell) for cell in encoded.dictionary.to_pylist()]
        if seen is not None:
            seen.update(each for names in found for each in names or ())
        texts = [_text(names, column, name, same) for names in found]
        return pa.DictionaryArray.from_arrays(encoded.indices.cast(pa.int32()), pa.array(texts, pa.string()))
    except (pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{name}: column {column!r}: {error}; expected lists of names or indices") from error


def _cells(values: Column) -> pa.Array:
    """Return cells as an Arrow array: of lists, or of text or numbers."""
    if isinstance(values, np.ndarray) and values.ndim > 1:
        if values.ndim > 2:
            raise pa.ArrowInvalid(f"shape {list(values.shape)}")
        return pa.array(values.tolist())
    if isinstance(values, np.ndarray) and values.dtype == object:
        whole = [each.tolist() if isinstance(each, np.ndarray) else each for each in values]
        return pa.array([list(each) if isinstance(each, set | frozenset) else each for each in whole])
    return columns.as_arrow(values)


def _is_list(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    )


def _joined(lists: pa.Array, name: str, index_names: tuple[str, ...] | None) -> pa.Array:
    """Return the names of each list between separators of units; each different name is looked up once."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    flat = pc.list_flatten(lists)
    if flat.null_count:
        raise pa.ArrowInvalid("a list holds a missing name")
    encoded = flat if pa.types.is_dictionary(flat.type) else flat.dictionary_encode()
    found = [_class(each, "", name, index_names) for each in encoded.dictionary.to_pylist()]
    if between := next((each for each in found if _BETWEEN in each), None):
        raise InputError(f"{name}: a list has the name {between!r}; expected names without the character U+001F")
    names = pa.array(found, pa.string())
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    texts = pc.binary_join(pa.ListArray.from_arrays(offsets, names.take(encoded.indices)), _BETWEEN)
    # A list that begins with a separator is not empty.
    texts = pc.if_else(pa.array(lengths > 0), pc.binary_join_element_wise("", texts, _BETWEEN), texts)
    return pc.if_else(lists.is_valid(), texts, pa.scalar(None, pa.string()))


def _split(text: str | None) -> list[str] | None:
    return None if text is None else text.split(_BETWEEN)[1:]


def _parsed(cell: Any, separator: str, column: str, name: str) -> list[Any] | None:
    """Return the values in a cell of text; a number is a list of one, and an empty text an empty list."""
    if cell is None or cell != cell:
        return None
    if isinstance(cell, bytes):
        cell = cell.decode()
    if not isinstance(cell, str):
        return [cell]
    text = cell.strip()
    if text.startswith("[") and text.endswith("]"):
        try:
            return list(json.loads(text))
        except (ValueError, RecursionError):
            pass
        if _NO_COMMA.search(text) or not isinstance(found := _python_list(text), list):
            raise InputError(
                f"{name}: column {column!r} has the cell {cell[:50]!r}; expected a JSON list such as "
                '["cat", "dog"], or names without brackets'
            )
        return found
    if text == "set()":  # Python's text of an empty set
        return []
    if text.startswith(("(", "{")) and isinstance(found := _python_list(text), tuple | set):
        return list(found)
    if text.startswith("{") and text.endswith("}"):
        raise InputError(
            f"{name}: column {column!r} has the cell {cell[:50]!r}; expected a JSON list such as "
            '["cat", "dog"], or names without braces'
        )
    if separator == LISTS:
        if text:
            raise InputError(
                f"{name}: column {column!r} has the cell {cell[:50]!r}, not a list; expected a JSON list, or "
                "--multi-label with the separator between the names, such as --multi-label '|'"
            )
        return []
    return [part for each in text.split(separator) if (part := each.strip())]


def _python_list(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _class(value: Any, column: str, name: str, index_names: tuple[str, ...] | None) -> str:
    found = columns.class_name(value, index_names, name) if isinstance(value, str | bytes | int | float) else None
    if found is None or isinstance(value, bool):
        place = f"column {column!r}" if column else "a list"
        raise InputError(f"{name}: {place} has the name {value!r}; expected names or indices in each list")
    return found


def _text(names: Sequence[str] | None, column: str, name: str, same: Mapping[str, str]) -> str | None:
    if names is None:
        return None
    if len(set(names)) < len(names):
        twice = next(each for each in names if names.count(each) > 1)
        raise InputError(
            f"{name}: column {column!r} has {twice!r} twice in {listed(list(map(repr, names)))}; expected each name "
            "once in a row (not a zero or a one for each class)"
        )
    return as_text({same.get(each, each) for each in names})
