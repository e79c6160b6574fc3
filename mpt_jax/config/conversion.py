"""Conversion of values from config files and command lines to the types in `mpt_jax.config.schema`."""

import ast
import collections.abc
import dataclasses
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.errors import InputError, unknown

LARGEST = sys.float_info.max  # the largest finite number; comparisons with it are false for NaN


_KINDS = {float: "a finite number", int: "an integer", bool: "True or False", str: "text in quotes"}


class Text(str):
    """A value from the command line: a key that holds text takes it unchanged, any other parses it as a literal."""


def override(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a copy of nested values with the value at a dotted key replaced.

    Raises:
      InputError: the key leads through a value that has no keys.

    Examples:
      >>> override({"seeds": [0]}, "optimizer.epochs", 3)
      {'seeds': [0], 'optimizer': {'epochs': 3}}
    """

    def replace(inner: Any, head: str, *rest: str) -> dict[str, Any]:
        inner = parse_literal(inner) if isinstance(inner, Text) else inner  # set by an earlier override
        if not isinstance(inner, Mapping):
            raise InputError(f"config key {key!r}: {head!r} is below {inner!r}, which is a value; expected a section")
        return {**inner, head: replace(inner.get(head, {}), *rest) if rest else value}

    if not isinstance(key, str):
        raise InputError(f"config key {key!r} is not text; expected a name such as 'optimizer.epochs'")
    return replace(values, *key.split("."))


def parse_literal(text: str) -> Any:
    """Return the Python literal in a text (`3`, `[50, 100]`, `True`, also `true`), or the text itself.

    Examples:
      >>> parse_literal("[50, 100]"), parse_literal("true"), parse_literal("mpt_kl")
      ([50, 100], True, 'mpt_kl')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(text.lower(), text)


def build(cls: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Return the dataclass `cls` filled from a mapping; missing keys keep their defaults.

    Raises:
      InputError: an unknown key, or a value of another type than the key's; its message starts the key with `prefix`.
    """
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise InputError(unknown(f"config key {prefix + str(key)!r}", str(key), tuple(hints)))
    return cls(**{key: _convert(hints[key], value, prefix + key) for key, value in values.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Convert a value to the type of its key, without rounding or truncation."""
    if isinstance(value, Text):
        is_text = hint is str or (hint == str | Mapping and not value.lstrip().startswith("{"))
        value = str(value) if is_text else parse_literal(value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, _require_keys(value, key, "NAME=VALUE"), f"{key}.")
    if typing.get_origin(hint) is collections.abc.Mapping:
        return _convert_mapping(typing.get_args(hint)[1], value, key)
    if hint is Any:
        return _convert_argument(value, key)
    if isinstance(hint, types.UnionType):
        return (_convert_file_or_tables if Mapping in typing.get_args(hint) else _convert_text_or_list)(value, key)
    if typing.get_origin(hint) is tuple:
        return tuple(_convert(typing.get_args(hint)[0], item, key) for item in _split(value))
    return _convert_scalar(hint, value, key)


def _require_keys(value: Any, key: str, example: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"config key {key!r}={value!r}; expected further keys, such as {key}.{example}")
    return value


def _convert_mapping(hint: Any, value: Any, key: str) -> dict[str, Any]:
    """Convert a mapping; a name such as old.weight may come as one key, or as two keys of an override."""
    flat: dict[str, Any] = {}
    for name, item in _require_keys(value, key, "b2=0.95" if hint is Any else "bias=0,1,2").items():
        inner = {f"{name}.{leaf}": v for leaf, v in item.items()} if isinstance(item, Mapping) else {name: item}
        flat |= inner
    return {name: _convert(hint, item, f"{key}.{name}") for name, item in flat.items()}


def _convert_argument(value: Any, key: str) -> Any:
    """Convert an argument of a library's function: a number, a text, True, False, None, or a list of these."""
    if isinstance(value, list | tuple):
        return tuple(_convert_argument(item, key) for item in value)
    finite = not isinstance(value, int | float) or abs(value) <= LARGEST
    if value is not None and not (isinstance(value, bool | int | float | str) and finite):
        raise InputError(f"config key {key!r}={value!r}; expected a finite number, text, True, False, None or a list")
    return value


def _convert_text_or_list(value: Any, key: str) -> str | tuple:
    """Convert a list of classes, or a text that `mpt_jax.data` parses."""
    is_list = isinstance(value, list | tuple)
    items = ["..." if item is ... else item for item in (value if is_list else [value])]
    if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in items):
        raise InputError(f"config key {key!r}={value!r}; expected text, or a list of class names and indices")
    return tuple(items) if is_list else str(items[0])


def _convert_file_or_tables(value: Any, key: str) -> str | dict[str, Any]:
    """Convert the path of a file, or what is in it, which another module checks."""
    if not isinstance(value, Mapping):
        return _convert_scalar(str, value, key)
    return {name: _convert_file_or_tables(v, key) if isinstance(v, Mapping) else v for name, v in value.items()}


def _split(value: Any) -> Sequence[Any]:
    """Return the items of a list, of a text such as "a,b", or a single value."""
    if isinstance(value, str):
        return [parse_literal(part.strip().strip("'\"")) for part in value.strip("()[] ").split(",") if part.strip()]
    return value if isinstance(value, list | tuple) else [value]


def _convert_scalar(hint: type, value: Any, key: str) -> Any:
    if hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST:
            return float(value)
    elif hint is str and value is None:
        return ""
    elif type(value) is hint:  # an int is no bool, and a bool no int
        return value
    raise InputError(f"config key {key!r}={value!r}; expected {_KINDS[hint]}")
