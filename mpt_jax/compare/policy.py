"""A policy file: what a team holds every release against, in TOML, kept in its repository.

The keys are the options of the command, with hyphens or underscores; paths start from the folder of the file. Classes
and slices may have limits of their own::

    max-nfr = 0.01
    max-class-nfr = 0.05
    confident = true

    [class.stop_sign]
    max-nfr = 0.0

    [slice.country]           # every value of the column; without limits it is reported
    max-nfr = 0.02

    [slice.country.Iceland]   # one value
    max-accuracy-drop = 0.05
"""

import pathlib
import re
import tomllib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mpt_jax.compare import options
from mpt_jax.compare.options import Options
from mpt_jax.errors import InputError, unknown
from mpt_jax.runtime import regular_file

Own = Mapping[str, Mapping[str, float]]  # limit -> class, column, or column=value -> its own limit

OF_CLASSES = MappingProxyType({"max_nfr": "max_class_nfr", "max_accuracy_drop": "max_recall_drop"})
OF_SLICES = MappingProxyType({"max_nfr": "max_slice_nfr", "max_accuracy_drop": "max_slice_accuracy_drop"})
"""What a limit of a class or a slice is called among the options."""


def read(policy: Any, given: Mapping[str, Any]) -> tuple[Options, Own]:
    """Return the options of a policy and those that override them, and the limits of single classes.

    Args:
      policy: a TOML file, a mapping as such a file has, or None.
      given: further options by name.

    Raises:
      InputError: a file that cannot be read, or options that are not valid.

    Examples:
      >>> found, own = read({"max-nfr": 0.1, "class": {"cat": {"max-nfr": 0}}}, {"max_nfr": 0.2})
      >>> found.max_nfr, own
      (0.2, {'max_class_nfr': {'cat': 0}})
    """
    name, folder, table = _table(policy)
    own: dict[str, dict[str, float]] = {}
    try:
        for group, limits in _tables(table.pop("class", {}), "class"):
            _add(own, OF_CLASSES, "class", group, limits)
        divided = _tables(table.pop("slice", {}), "slice")
        for column, limits in divided:
            values = {name: each for name, each in limits.items() if isinstance(each, Mapping)}
            _add(own, OF_SLICES, "slice", column, {name: limits[name] for name in limits.keys() - values.keys()})
            for value, each in values.items():
                _add(own, OF_SLICES, "slice", f"{column}={value}", each)
        chosen = _underscored(table)
        for file in options.FILES:
            if isinstance(chosen.get(file), str):
                chosen[file] = str(folder / chosen[file])
        maps = chosen.get("class_map")
        if isinstance(maps, str | list):
            several = [maps] if isinstance(maps, str) else maps
            chosen["class_map"] = [str(folder / each) if isinstance(each, str) else each for each in several]
        chosen |= given
        if divided:
            columns = [column for column, _ in divided]
            chosen["slices"] = [*dict.fromkeys([*chosen.get("slices", []), *columns])]
        found = options.from_mapping(chosen)
        if policy is not None and not (found.given() or own or found.must_pass is not None):
            raise InputError("it has no limits, so that every model would pass; expected max-nfr or another limit")
        if found.confident and not (found.given() or own):
            raise InputError("confident applies to limits, but none is given; expected max_nfr or another limit")
    except InputError as error:
        raise InputError(f"{name}: {error}" if name else str(error)) from error
    return found, own


def _add(
    own: dict[str, dict[str, float]], names: Mapping[str, str], what: str, group: str, limits: Mapping[str, Any]
) -> None:
    """Add the limits of one class or slice."""
    for limit, value in _underscored(limits).items():
        if limit not in names:
            raise InputError(unknown(f"limit {limit!r} of {what} {group!r}", limit, list(names)))
        options.check_limit(limit, value)
        own.setdefault(names[limit], {})[group] = value


def _table(policy: Any) -> tuple[str, pathlib.Path, dict[str, Any]]:
    """Return the name of a policy for messages, the folder that its paths start from, and its keys."""
    if policy is None:
        return "", pathlib.Path(), {}
    if isinstance(policy, Mapping):
        return "the policy", pathlib.Path(), dict(policy)
    path = pathlib.Path(policy)
    text = ""
    try:
        text = regular_file.read_text(path, "utf-8-sig")
        return str(path), path.parent, tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        expected = "options in TOML, such as max-nfr = 0.01"
        if key := re.search(r"^\s*(slice|class)\s*=", text, re.MULTILINE):
            expected = f"[{key[1]}.NAME] for each {key[1]} in place of {key[0].strip()}"
        raise InputError(f"{path}: {error}; expected {expected}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no such file; expected a policy in TOML") from error
    except OSError as error:
        raise InputError(f"{path} is {regular_file.reason(error)}; expected a policy in TOML") from error


def _tables(given: Any, what: str) -> list[tuple[str, Mapping[str, Any]]]:
    if not isinstance(given, Mapping) or not all(isinstance(limits, Mapping) for limits in given.values()):
        example = "cat" if what == "class" else "country"
        raise InputError(
            f"{what} is {given!r}; expected a table for each, such as [{what}.{example}], which may have limits of its "
            "own"
        )
    return list(given.items())


def _underscored(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in given.items()}
