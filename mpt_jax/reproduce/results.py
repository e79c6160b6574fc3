"""The files of `results/`: one per table and budget, with the numbers kept of each run."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.errors import InputError
from mpt_jax.files import schema, storage

RATES = ("accuracy", "accuracy_old_classes", "accuracy_new_classes", "nfr", "nfr_all_classes")
BASELINE, ENSEMBLE = "no_treatment", "ensemble"
SCHEMA = 3


def read(path: pathlib.Path) -> dict[str, Any]:
    """Read a file of `results/`.

    Raises:
      InputError: `write` of this version has not written it.
    """
    try:
        found = schema.read(path)
        if found["schema"] != SCHEMA or not isinstance(found["runs"], list):
            raise ValueError(f"schema {found['schema']}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no result of this version ({error}); expected schema {SCHEMA}; train the table again"
        ) from error
    return found


def write(path: pathlib.Path, table: str, budget: str, command: str, runs: Sequence[Mapping[str, Any]]) -> None:
    """Write the runs of a table, all or nothing.

    The figures of margins and learning show the first run, so only that one keeps what they need.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = [*runs[:1], *map(_without_details, runs[1:])]
    values = {"schema": SCHEMA, "table": table, "budget": budget, "command": command}
    lines = ",\n".join(json.dumps(run, allow_nan=False) for run in runs)  # a line per run, for readable diffs
    storage.write_text(path, json.dumps(values)[:-1] + f', "runs": [\n{lines}\n]}}\n')


def _without_details(run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **run,
        "history": {},
        "flips": {method: {**found, "margins": None} for method, found in run["flips"].items()},
    }


def join(existing: Sequence[Mapping[str, Any]], done: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the new runs, and the existing ones that share no seed of a scenario with them, sorted by seeds.

    A table can therefore be trained seed by seed, on several machines.
    """
    made = {(run["scenario"], seed) for run in done for seed in run["seeds"]}
    others = [run for run in existing if not made & {(run["scenario"], seed) for seed in run["seeds"]}]
    return sorted([*others, *done], key=lambda run: run["seeds"])
