"""Config files: found by name or path, run, and read with the overrides of the command line."""

import dataclasses
import inspect
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from mpt_jax.config import shipped
from mpt_jax.config.checks import check
from mpt_jax.config.conversion import Text, build, override
from mpt_jax.config.schema import Config
from mpt_jax.errors import InputError, unknown
from mpt_jax.models import own_network
from mpt_jax.runtime import user_program

Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | ConfigDict | Config


def load(source: Source, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Read a config, apply overrides and check everything.

    Args:
      source: `NAME[:VARIANT]` of a shipped config, such as "digits", `PATH.py[:VARIANT]`, or the values themselves.
      overrides: dotted keys with their values, or texts such as "optimizer.epochs=3".

    Raises:
      InputError: no such file, a file that fails, an unknown key, a value of the wrong type or out of range.

    Examples:
      >>> load({"seeds": [4]}, {"optimizer.epochs": 3}) == load({"seeds": [4]}, ["optimizer.epochs=3"])
      True
    """
    values = _values(source)
    for key, value in _pairs(overrides):
        values = override(values, key, value)
    config = build(Config, values)
    check(config)
    return _with_digests(config)


def _with_digests(config: Config) -> Config:
    """Return the config with the digests of the files of networks, so that a run continues with the same ones."""
    sections = {}
    for name in ("model", "old_model"):
        network = getattr(config, name)
        if own_network.is_own(network.name) and not network.sha256:
            try:
                sections[name] = dataclasses.replace(network, sha256=own_network.digest(network.name))
            except InputError as error:
                raise InputError(f"{name}.name={error}") from error
    return dataclasses.replace(config, **sections)


def _pairs(overrides: Any) -> Iterator[tuple[str, Any]]:
    example = "{'optimizer.epochs': 3} or ['optimizer.epochs=3']"
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise InputError(f"overrides={overrides!r}; expected keys with values, such as {example}")
    if isinstance(overrides, Mapping):
        yield from overrides.items()
        return
    for assignment in overrides:
        if not isinstance(assignment, str) or "=" not in assignment:
            raise InputError(f"override {assignment!r}; expected KEY=VALUE, such as optimizer.epochs=3")
        key, _, text = assignment.partition("=")
        yield key, Text(text)


def _values(source: Source) -> dict[str, Any]:
    if isinstance(source, str | os.PathLike):
        return read_file(os.fspath(source))
    if isinstance(source, Config):
        return dataclasses.asdict(source)
    if isinstance(source, ConfigDict):
        return source.to_dict()
    if not isinstance(source, Mapping):
        raise InputError(f"config={source!r}; expected a name such as 'digits', the path of a .py file, or a dict")
    return dict(source)


def run_name(spec: str) -> str:
    """Return the name of a config's default work directory: its file and variant.

    Examples:
      >>> run_name("configs/cifar100.py:smoke"), run_name("cifar100:smoke"), run_name("digits")
      ('cifar100-smoke', 'cifar100-smoke', 'digits')
    """
    path, variant = find_file(spec)
    return "-".join(filter(None, (path.stem, variant)))


def find_file(spec: str) -> tuple[pathlib.Path, str]:
    """Return the file and the variant ("" for none) that a spec names; a path may contain colons.

    Raises:
      InputError: there is no such file.
    """
    name, colon, variant = spec.rpartition(":")
    if not colon or pathlib.Path(spec).is_file():
        name, variant = spec, ""
    path = pathlib.Path(name)
    if path.suffix != ".py" and path.name == name:
        return _find_shipped(name), variant
    if path.suffix != ".py" or not path.is_file():
        found = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        here = f"found {', '.join(found)}" if found else "expected a .py file"
        raise InputError(f"no config file {path}; {here}; shipped configs, by name: {', '.join(shipped_names())}")
    return path, variant


def shipped_names() -> list[str]:
    """Return the names of the configs that the package ships."""
    return sorted(path.stem for path in _shipped_folder().glob("*.py") if path.stem not in ("__init__", "common"))


def read_file(spec: str) -> dict[str, Any]:
    """Run a config file and return the result of its `get_config`, which gets the variant, as nested dicts.

    Raises:
      InputError: no such file, a file that fails, no such variant.
    """
    path, variant = find_file(spec)
    with user_program.reported(path, f"config file {spec}"):
        get_config = getattr(user_program.load(path), "get_config", None)
        if get_config is None:
            raise InputError(f"config file {path} has no function get_config")
        if variant and not inspect.signature(get_config).parameters:
            raise InputError(f"config file {path} has no variants; remove :{variant}")
        values = get_config(*([variant] if variant else []))
    if not isinstance(values, ConfigDict | Mapping):
        raise InputError(f"get_config of {path} returned {type(values).__name__}; expected a ConfigDict or a dict")
    return _values(values)


def _shipped_folder() -> pathlib.Path:
    return pathlib.Path(next(iter(shipped.__path__)))


def _find_shipped(name: str) -> pathlib.Path:
    if name not in (names := shipped_names()):
        raise InputError(f"{unknown(f'config {name!r}', name, names)}, or the path of a .py file")
    return _shipped_folder() / f"{name}.py"
