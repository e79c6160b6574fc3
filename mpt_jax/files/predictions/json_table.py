"""Tables in one JSON document, in the ways that people and pandas write them: as rows or as columns."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.errors import InputError, listed

_EXPECTED = 'expected an array of objects, [{"id": ..., ...}, ...], or an object of columns, {"id": [...], ...}'


def read(text: str | bytes, name: str, ids: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of a document.

    Args:
      text: the document.
      name: of the file, for errors.
      ids: names of the column of ids, by which objects of columns and objects of rows are told apart.

    Raises:
      InputError: another structure, or a key that occurs twice in an object.
      json.JSONDecodeError: the text is not JSON.
    """
    return columns(json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, name)), name, ids)


def columns(value: Any, name: str, ids: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of a parsed document: rows, or the orientations of pandas.

    Examples:
      >>> columns([{"id": 1, "label": "cat"}, {"id": 2}], "it", ["id"])
      {'id': [1, 2], 'label': ['cat', None]}
      >>> columns({"columns": ["id"], "index": [0], "data": [[1]]}, "it", ["id"])
      {'id': [1]}
      >>> columns({"id": {"0": 1, "1": 2}}, "it", ["id"])
      {'id': [1, 2]}
    """
    if isinstance(value, list):
        return _of_rows(value, name)
    if not isinstance(value, dict) or not value:
        raise InputError(f"{name} is {json.dumps(value)[:30]}; {_EXPECTED}")
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        heads, rows = list(map(str, value["columns"])), value["data"]
        if not all(isinstance(row, list) and len(row) == len(heads) for row in rows):
            raise InputError(f"{name} has rows without one value for each of its {len(heads)} columns; {_EXPECTED}")
        return (
            dict(zip(heads, map(list, zip(*rows, strict=True)), strict=True)) if rows else {head: [] for head in heads}
        )
    tables = [each for each in value.values() if isinstance(each, list) and each and isinstance(each[0], dict)]
    if len(tables) == 1 and not {*value} & {*ids}:
        return _of_rows(tables[0], name)
    kinds = {type(each) for each in value.values()}
    if kinds == {list}:
        return value
    if kinds == {dict}:
        return _of_objects(value, name, ids)
    if not kinds & {list, dict}:
        return _of_rows([value], name)
    raise InputError(f"{name} is an object with {listed(list(map(repr, value)))}; {_EXPECTED}")


def _of_rows(rows: Sequence[Any], name: str) -> dict[str, list[Any]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{name}: row {number} is {json.dumps(row, default=str)[:30]}; {_EXPECTED}")
    if not rows:
        raise InputError(f"{name} has no rows; {_EXPECTED}")
    return {column: [row.get(column) for row in rows] for column in dict.fromkeys(key for row in rows for key in row)}


def _of_objects(value: Mapping[str, dict[str, Any]], name: str, ids: Sequence[str]) -> dict[str, list[Any]]:
    """Read columns as objects by row, or rows as objects by anything if they have an id."""
    if not {*value} & {*ids}:
        rows = list(value.values())
        if any(key in row for row in rows for key in ids):
            return _of_rows(rows, name)
        raise InputError(f"{name} is an object of objects by {listed(list(map(repr, value)), most=3)}; {_EXPECTED}")
    places = list(next(iter(value.values())))
    for column, cells in value.items():
        if {*cells} != {*places}:
            raise InputError(f"{name}: the column {column!r} has other rows than the first one; {_EXPECTED}")
    return {column: [cells[place] for place in places] for column, cells in value.items()}


def _unique(pairs: Sequence[tuple[str, Any]], name: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"{name} has the key {twice!r} twice in one object; expected unique names")
    return found
