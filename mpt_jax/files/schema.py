"""JSON documents, and what they must hold.

What a document must hold is written as a Python value:

    str, int, float, bool, None   text, an integer, a finite number, true or false, null
    dict, list                    any object, any list
    [item]                        a list of such items
    (one, other)                  one of these
    {"key": of, "other?": of}     an object with this key, and perhaps the other one; further keys are allowed
    {...: of}                     an object with such values under all keys that are not named

A check of our own, because the base installation has no JSON Schema library, the four documents of a work directory
need no more than this, and a message can have the form of all others: the key, its value, and what was expected.
"""

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from mpt_jax.errors import InputError
from mpt_jax.files import storage
from mpt_jax.runtime import regular_file

_NAMES: dict[Any, str] = {
    **{str: "text", int: "an integer", float: "a finite number", bool: "true or false", None: "null"},
    **{dict: "an object", list: "a list"},
}
_SHOWN = 80  # characters of a value in a message


def read(path: pathlib.Path, expected: Any = dict) -> Any:
    """Read a JSON document.

    Raises:
      InputError: it is missing, unreadable, too large, no JSON, or holds something else than `expected`.
    """
    try:
        value = json.loads(storage.read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is missing or unreadable ({regular_file.reason(error)})") from error
    if found := fault(value, expected):
        raise InputError(f"{path} is damaged: {found}")
    return value


def fault(value: Any, expected: Any) -> str:
    """Return the first thing in a JSON value that is not as expected, in words; "" if there is none.

    Examples:
      >>> card = {"seed": int, "metrics": {...: (float, None)}, "classes": [str], "note?": str}
      >>> fault({"seed": 0, "metrics": {"nfr": None, "churn": 0.5}, "classes": ["a"], "more": []}, card)
      ''
      >>> fault({"seed": "0", "metrics": {}, "classes": []}, card)
      "seed is '0'; expected an integer"
      >>> fault({"seed": 0, "metrics": {"nfr": True}, "classes": []}, card)
      'metrics.nfr is True; expected a finite number or null'
    """
    return next(_faults(value, expected, ""), "")


def _faults(value: Any, expected: Any, key: str) -> Iterator[str]:
    if isinstance(expected, tuple):
        found = [next(_faults(value, each, key), None) for each in expected]
        if None not in found:
            # What is wrong inside of an object says more than that the object is none of these.
            inner = [text for each, text in zip(expected, found, strict=True) if text and type(each) is type(value)]
            yield inner[0] if inner else _differs(value, expected, key)
    elif isinstance(expected, list):
        if not isinstance(value, list):
            yield _differs(value, list, key)
            return
        for number, item in enumerate(value):
            if not _is_scalar(item, expected[0]):  # most lists are long and of scalars
                yield from _faults(item, expected[0], f"{key}[{number}]")
    elif isinstance(expected, dict):
        if not isinstance(value, dict):
            yield _differs(value, dict, key)
            return
        yield from _faults_of_object(value, expected, key)
    elif not _is_scalar(value, expected):
        yield _differs(value, expected, key)


def _faults_of_object(value: dict[str, Any], expected: dict[Any, Any], key: str) -> Iterator[str]:
    named = {name.removesuffix("?") for name in expected if name is not ...}
    for name, each in expected.items():
        if name is ...:
            continue
        place = f"{key}.{name.removesuffix('?')}".removeprefix(".")
        if name.removesuffix("?") in value:
            yield from _faults(value[name.removesuffix("?")], each, place)
        elif not name.endswith("?"):
            yield f"it has no {place}"
    for name in [name for name in value if name not in named] if ... in expected else ():
        yield from _faults(value[name], expected[...], f"{key}.{name}".removeprefix("."))


def _is_scalar(value: Any, expected: Any) -> bool:
    if value is None or isinstance(value, bool):  # a bool is an int for Python
        return expected is (None if value is None else bool)
    if expected is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(expected, type) and isinstance(value, expected)


def _differs(value: Any, expected: Any, key: str) -> str:
    shown = repr(value)
    names = [_name(each) for each in (expected if isinstance(expected, tuple) else (expected,))]
    return (
        f"{key or 'it'} is {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '...'}; expected {' or '.join(names)}"
    )


def _name(expected: Any) -> str:
    return _NAMES[type(expected) if isinstance(expected, dict | list) else expected]
