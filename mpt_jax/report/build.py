"""Collect a work directory into the report."""

import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from mpt_jax import checkpoint
from mpt_jax.report import markdown
from mpt_jax.workdir import read_facts, release_name

RATES = (
    *("accuracy", "accuracy_old_classes", "accuracy_new_classes", "accuracy_previous"),
    *("nfr", "relative_nfr", "pfr", "nfi", "churn", "btc", "nfr_all_classes"),
)
COSTS = ("steps", "seconds", "examples_per_second")


def write(workdir: pathlib.Path) -> dict[str, Any]:
    """Build the report and write `report.json` and `report.md`; returns it."""
    report = build(workdir)
    checkpoint.write_text(workdir / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    checkpoint.write_text(workdir / "report.md", markdown.render(report))
    return report


def build(workdir: pathlib.Path) -> dict[str, Any]:
    """The report as plain data: `schema` 1, one entry of `rows` per (release, method, seed), `summary` over seeds.

    All rates are fractions from 0 to 1 of the test images; `nfr`, `relative_nfr`, `pfr`, `nfi`, `churn` and `btc` are
    over the images of the old classes, the new model choosing among all classes.
    """
    facts = read_facts(workdir)
    config = facts["config"]
    methods = ("independent", *config["update"]["methods"])
    names = [release_name(method, seed) for method in methods for seed in config["seeds"]]
    updated = [checkpoint.read_card(workdir / "releases" / name) for name in names]
    rows = [_row(card) for card in updated]
    return {
        "schema": 1,
        "dataset": {"name": config["dataset"]["name"], "images": facts["images"]},
        "classes": {"order": updated[0]["classes"], "schedule": config["update"]["schedule"]},
        "device": facts["device"],
        "rows": rows,
        "summary": {method: _summary([r for r in rows if r["method"] == method]) for method in methods},
        "selection": {card["method"]: card["selection"] for card in updated if card.get("selection")},
        "config": config,
        "versions": facts["versions"],
        "git_revision": facts["git_revision"],
        "command": facts["command"],
    }


def _row(card: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: card[key] for key in ("method", "seed", "release", "objective")},
        **{key: card["metrics"][key] for key in RATES},
        **{key: card[key] for key in COSTS},
    }


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation (n - 1; 0 for one seed) and count of every number of a method's rows."""
    result = {}
    for key in (*RATES, *COSTS):
        values = [row[key] for row in rows if row[key] is not None]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            result[key] = {"mean": statistics.fmean(values), "std": deviation, "count": len(values)}
    return result
