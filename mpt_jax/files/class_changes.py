"""Readers of what changed between two releases: the map of their classes, and corrected labels of single images."""

import json
import os
import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mpt_jax import class_map
from mpt_jax.class_map import ClassMap
from mpt_jax.errors import InputError, listed
from mpt_jax.files import sealed, storage
from mpt_jax.files.predictions import columns, formats
from mpt_jax.files.predictions.formats import IDS
from mpt_jax.runtime import regular_file

CARD = "card.json"  # of a release, see `released_model`
FORMER, CORRECTED = ("old_label", "old"), ("new_label", "new")
"""Names of the columns of a file of corrected labels, beside the id."""


class LabelChanges(NamedTuple):
    """Images whose label was corrected: each id once, with the label before and the one since then."""

    name: str
    ids: Sequence[str]
    former: Sequence[str]
    corrected: Sequence[str]


def read_class_map(given: Any, where: str = "class_map") -> ClassMap:
    """Return the class map in a TOML or JSON file, or that of a mapping.

    Args:
      given: a path, also in a bucket, or what `class_map.parse` takes. The file may be the `card.json` of a release
        that was trained with a map.
      where: what errors call a mapping.

    Raises:
      InputError: a file that cannot be read, or no class map.

    Examples:
      >>> read_class_map({"rename": {"car": "automobile"}}).rename
      {'car': 'automobile'}
    """
    if not isinstance(given, str | os.PathLike):
        return class_map.parse(given, where)
    path = storage.path(str(given))
    if path.name == CARD:
        card = sealed.read_sealed(path)
        if not card.get("class_map"):
            raise InputError(f"{path} has no class map; expected the card of a release that was trained with one")
        return class_map.parse({key: value for key, value in card["class_map"].items() if key != "digest"}, str(path))
    suffix = pathlib.PurePath(path.name).suffix.lower()
    if suffix not in _PARSERS:
        raise InputError(f"{path}: expected a class map in a file that ends in {' or '.join(_PARSERS)}")
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}; expected a class map in TOML or JSON") from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a class map in TOML or JSON") from error
    except OSError as error:
        raise InputError(f"{path} is {regular_file.reason(error)}; expected a class map in TOML or JSON") from error
    try:
        parsed = _PARSERS[suffix](text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}; expected a class map such as {class_map.EXAMPLE}") from error
    return class_map.parse(parsed, str(path))


def read_label_changes(given: Any, where: str = "label_changes") -> LabelChanges:
    """Return the corrected labels in a file or table with the columns `id`, `old_label` and `new_label`.

    Args:
      given: a file or table as of `formats.open_source`; the labels may also be called `old` and `new`.
      where: what errors call a table.

    Raises:
      InputError: a file that cannot be read, a missing id or label, an id that occurs twice, or no change.

    Examples:
      >>> read_label_changes({"id": [7], "old_label": ["cat"], "new_label": ["dog"]})
      LabelChanges(name='label_changes', ids=['7'], former=['cat'], corrected=['dog'])
    """
    name = str(given) if isinstance(given, str | os.PathLike) else where
    source = formats.open_source(given, name)
    used = [
        columns.one_of(source, names, "; expected the columns id, old_label and new_label")
        for names in (IDS, FORMER, CORRECTED)
    ]
    found: tuple[list[str], ...] = ([], [], [])
    for batch in source.batches(used):
        for values, column in zip(found, used, strict=True):
            values += columns.texts(batch[column], column, source.name).to_pylist()
    for column, values in zip(used, found, strict=True):
        if empty := [place for place, value in enumerate(values, 1) if not value]:
            raise InputError(
                f"{name} has no {column} in row {listed(list(map(str, empty)))}; expected an id, the label before and "
                "the corrected one in each row"
            )
    ids, former, corrected = found
    if not ids:
        raise InputError(f"{name} has no rows; expected one for each corrected label")
    if twice := formats.repeated(ids):
        raise InputError(f"{name} has the id {twice[0]!r} twice; expected each once")
    same = [id_ for id_, before, after in zip(*found, strict=True) if before == after]
    if same:
        raise InputError(f"{name}: the labels of {listed(list(map(repr, same)))} are equal; expected a changed label")
    return LabelChanges(name, ids, former, corrected)


def _json(text: str) -> Any:
    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        if twice := formats.repeated([name for name, _ in pairs]):
            raise ValueError(f"{twice[0]!r} is given twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=once)


_PARSERS: Mapping[str, Any] = {".toml": tomllib.loads, ".json": _json}
