"""What a run records of itself in `config.json`, and the names of its releases.

Imports no JAX, so that `mpt_jax.verify --quick` starts at once.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from mpt_jax.errors import InputError
from mpt_jax.files import sealed
from mpt_jax.runtime.provenance import PROVENANCE

OLD, INDEPENDENT, ENSEMBLE = "old", "independent", "ensemble"
FACTS = {
    "config": {"seeds": [int], "update": {"schedule": [int], "methods": [str]}},
    **{"images": {"train": int, "validation": int, "test": int}, "command": str, **PROVENANCE},
    **{"findings?": [{"what": str, "count": int, "outcome": str}], "contents?": {...: str}},
    **{"sessions?": [{"started": str, "command": str, **PROVENANCE}], "former_labels?": {...: str}},
}
"""What `config.json` must hold. Other keys of the config may be newer than the run, see `workdir.config_of`."""
# Config values that may change between sessions: they do not change the result.
_FREE_SECTIONS = ("training.", "mesh.")
_FREE_KEYS = ("dataset.data_dir", "dataset.workers")


def release_name(release: int, method: str, seed: int) -> str:
    """Return the name of a release: its number, method and seed.

    Examples:
      >>> release_name(1, "mpt_kl", 0)
      'r1-mpt_kl-seed0'
    """
    return f"r{release}-{method}-seed{seed}"


def read_facts(workdir: pathlib.Path) -> dict[str, Any]:
    """Read `config.json`; `workdir.read_facts` also checks the values of the config.

    Raises:
      InputError: it is missing or damaged.
    """
    try:
        return sealed.read_sealed(workdir / "config.json", FACTS)
    except InputError as error:
        raise InputError(f"{error}; restore it from a copy, or give another --workdir") from error


def identity(facts: Mapping[str, Any]) -> str:
    """Return the digest of what the results of a run depend on: its data, and the config values that may not change.

    Args:
      facts: of `config.json`.
    """
    config = fixed(facts["config"])
    text = json.dumps({"config": config, "contents": facts.get("contents", {})}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config that may not change between sessions, by dotted key.

    Examples:
      >>> fixed({"seeds": [0], "training": {"cores": 1}, "dataset": {"name": "digits", "workers": 2}})
      {'seeds': [0], 'dataset.name': 'digits'}
    """
    values = _flatten(config)
    return {k: value for k, value in values.items() if not k.startswith(_FREE_SECTIONS) and k not in _FREE_KEYS}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
