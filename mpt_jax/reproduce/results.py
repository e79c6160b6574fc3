"""What is kept of a run, small enough to be committed, and what several runs add up to."""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mpt_jax import metrics, posttraining
from mpt_jax.errors import InputError
from mpt_jax.files import storage
from mpt_jax.report import comparison, flips
from mpt_jax.update import workdir

RATES = ("accuracy", "accuracy_old_classes", "accuracy_new_classes", "nfr", "nfr_all_classes")
BASELINE, ENSEMBLE = "no_treatment", "ensemble"
SCHEMA = 3
_CURVE, _HISTORY = 61, 40  # points kept


def collect(folder: pathlib.Path, scenario: str, *, command: str) -> dict[str, Any]:
    """Of a finished work directory: protocol, rates per method and seed, and what the plots are made of.

    `at_equal_accuracy` of a row is its negative flip rate and that of `no_treatment` of the same seed, both brought to
    one accuracy by a constant on their new classes' logits, see `equalized`.
    """
    report = json.loads((folder / "report.json").read_text())
    config = report["config"]
    schedule, seeds, last = config["update"]["schedule"], config["seeds"], len(config["update"]["schedule"]) - 1
    grows = schedule[-2] < schedule[-1]
    rows = [
        {key: row.get(key) for key in ("method", "seed", *RATES)} | ({"diverged": True} if row.get("diverged") else {})
        for row in report["rows"]
        if row["release"] == last
    ]
    curves = {
        (row["method"], row["seed"]): shift_curve(flips.read(folder, config, row["method"], row["seed"]), schedule[-2])
        for row in rows
        if grows and not row.get("diverged")
    }
    for row in rows:
        mine, base = (curves.get((method, row["seed"])) for method in (row["method"], BASELINE))
        if mine and base:
            row["at_equal_accuracy"] = equalized(mine, base)
    mean_curves = {}
    for method in report["summary"]:
        if of_seeds := [curve for (name, _), curve in curves.items() if name == method]:
            mean_curves[method] = _points(posttraining.mean_curve(of_seeds))
    kept = {
        "scenario": scenario,
        "seeds": seeds,
        "command": command,
        "hardware": ", then ".join(report["hardware"]),
        **{key: report[key] for key in ("git_revisions", "versions")},
        "classes": schedule,
        "protocol": protocol(config),
        "tolerance": config["update"]["tolerance"],
        "images": report["dataset"]["images"],
        "rows": rows,
        "validation": {m: _chosen(choice) for m, choice in report["selection"].items()},
        "curves": mean_curves,
        "flips": {m: {key: found[key] for key in ("per_class", "margins")} for m, found in report["flips"].items()},
        "sequences": report["sequences"],
        "history": _history(folder, last, seeds[0]),
    }
    return _rounded(kept)


def protocol(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader must know of a run's config beside its classes and images."""
    model, optimizer, update = config["model"], config["optimizer"], config["update"]
    return {
        **{"model": model["name"], "stem": model["stem"], "old_model": config["old_model"]["name"]},
        **{key: optimizer[key] for key in ("epochs", "batch_size", "learning_rate", "schedule", "schedule_unit")},
        **{key: update[key] for key in ("bias", "start", "memory", "memory_by")},
    }


def _chosen(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {key: choice["candidates"][choice["chosen"]][key] for key in ("numbers", "accuracy", "nfr")}


def shift_curve(pair: flips.Pair, num_old_classes: int) -> posttraining.PosthocCurve:
    """`posttraining.posthoc_curve` on the test images for every constant, those below 0 among them."""
    lift = float(np.ptp(pair.new.astype(np.float64))) + 1.0  # with so much more every answer is a new class
    logits = pair.new.astype(np.float64)
    logits[:, num_old_classes:] += lift
    curve = posttraining.posthoc_curve(logits, pair.old.argmax(-1), pair.labels, num_old_classes=num_old_classes)
    return dataclasses.replace(curve, starts=curve.starts - lift)


def equalized(
    curve: posttraining.PosthocCurve, baseline: posttraining.PosthocCurve, below: float = 0.005
) -> list[float]:
    """The negative flip rates of two models at one accuracy: just `below` the best that the lesser of them can have.

    Each is brought there by the constant that leaves it the fewest flips, so the two are treated alike, and a model is
    compared whatever its accuracy. Read off test images: it compares, and does not choose.
    """
    accuracy = min(curve.accuracy.max(), baseline.accuracy.max()) - below
    return [metrics.nfr_at_accuracy(c.accuracy, c.nfr, accuracy, hold_below=True) for c in (curve, baseline)]


def _points(curve: posttraining.PosthocCurve) -> list[list[float]]:
    """``[c, accuracy, negative flip rate]`` at some steps of a curve, as many where it changes fast as where slowly."""
    steps = np.unique(np.linspace(0, len(curve.starts) - 1, _CURVE).round().astype(int))
    return [[float(values[i]) for values in (curve.starts, curve.accuracy, curve.nfr)] for i in steps]


def _history(folder: pathlib.Path, release: int, seed: int) -> dict[str, list[list[float | None]]]:
    """Per method ``[step, loss, accuracy]`` on the training batches, at some steps."""
    lines: dict[str, list[list[float | None]]] = {}
    for line in workdir.read_metrics(folder):
        method, *_, of_seed = line["member"].split()
        if line["release"] == release and of_seed == f"seed={seed}":
            lines.setdefault(method, []).append([line["step"], *(line["values"][key] for key in ("loss", "accuracy"))])
    chosen = {m: np.unique(np.linspace(0, len(p) - 1, _HISTORY).round().astype(int)) for m, p in lines.items()}
    return {method: [lines[method][i] for i in steps] for method, steps in chosen.items()}


def summarize(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Scenario -> method -> what its seeds, of whichever runs, add up to.

    Returns:
      Of each method `seeds`, how many `diverged`, and of each rate `mean`, `std`, `count` and, from three on, Student's
      95 % `interval`; of `accuracy` and `nfr` the same of the `paired` differences from `no_treatment` of the same
      seed, with the two-sided p of the paired t-test; and of `at_equal_accuracy` both means (`equal`), their relative
      `change` and the same test.
    """
    rows: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for run in runs:
        for row in run["rows"]:
            rows.setdefault(run["scenario"], {}).setdefault(row["method"], []).append(row)
    return {
        scenario: {method: _summary(found, methods.get(BASELINE, [])) for method, found in methods.items()}
        for scenario, methods in rows.items()
    }


def lineages(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Scenario -> method -> the mean over all seeds of `metrics.sequence_metrics`, where there are several updates."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for run in runs:
        for method, sequence in run["sequences"].items():  # a mean over the run's seeds
            found.setdefault(run["scenario"], {}).setdefault(method, []).extend([sequence] * len(run["seeds"]))
    return {
        scenario: {method: metrics.mean_of_sequences(sequences) for method, sequences in methods.items()}
        for scenario, methods in found.items()
    }


def choose(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Per scenario the methods with the fewest negative flips on the validation images, over all seeds.

    Of those whose validation accuracy is at least that of `no_treatment` less `update.tolerance`; of several with as
    few flips the most accurate. More than one where they cannot be told apart.
    """
    chosen: dict[str, list[str]] = {}
    for scenario in dict.fromkeys(run["scenario"] for run in runs):
        found = [run["validation"] for run in runs if run["scenario"] == scenario for _ in run["seeds"]]  # their means
        means = {
            method: {key: statistics.fmean(of[method][key] for of in found) for key in ("accuracy", "nfr")}
            for method in found[0]
            if all(method in of for of in found) and method != ENSEMBLE
        }
        tolerance = next(run["tolerance"] for run in runs if run["scenario"] == scenario)
        least = means[BASELINE]["accuracy"] - tolerance if BASELINE in means else 2.0
        reaching = [method for method, mean in means.items() if mean["accuracy"] >= least and method != BASELINE]
        order = {method: (round(means[method]["nfr"], 9), -round(means[method]["accuracy"], 9)) for method in reaching}
        chosen[scenario] = [method for method in reaching if order[method] == min(order.values())]
    return chosen


def _summary(rows: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sound = [row for row in rows if not row.get("diverged")]
    base = {row["seed"]: row for row in baseline if not row.get("diverged")}
    result: dict[str, Any] = {"seeds": len(rows), "diverged": len(rows) - len(sound)}
    for key in RATES:
        values = [row[key] for row in sound if row.get(key) is not None]
        if values:
            result[key] = _spread(values)
    paired = [(row, base[row["seed"]]) for row in sound if row["seed"] in base]
    both = [row["at_equal_accuracy"] for row in sound if row.get("at_equal_accuracy")]
    if both and rows is not baseline:
        mine, theirs = (statistics.fmean(values) for values in zip(*both, strict=True))
        change = mine / theirs - 1 if theirs else None
        result["equal"] = {"nfr": mine, "baseline": theirs, "change": change, **_tested([a - b for a, b in both])}
    if paired and rows is not baseline:
        result["paired"] = {key: _tested([a[key] - b[key] for a, b in paired]) for key in ("accuracy", "nfr")}
    return result


def _tested(differences: Sequence[float]) -> dict[str, Any]:
    """Their spread, and the two-sided p of Student's test that their mean is 0."""
    result = _spread(differences)
    if result["std"]:
        t = result["mean"] / result["std"] * len(differences) ** 0.5
        result["p"] = 2 * float(stats.t.sf(abs(t), len(differences) - 1))
    return result


def _spread(values: Sequence[float]) -> dict[str, Any]:
    several = len(values) > 1
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if several else 0.0,
        "count": len(values),
        **({"interval": comparison.student(values)} if len(values) > 2 else {}),
    }


def read(path: pathlib.Path) -> dict[str, Any]:
    """A file of `results/`.

    Raises:
      InputError: it is not what `write` wrote.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema"] != SCHEMA or not isinstance(found["runs"], list):
            raise ValueError(f"schema {found['schema']}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no result of this version ({error}); make it again") from error
    return found


def join(standing: Sequence[Mapping[str, Any]], done: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The runs that are done, and of those that stand the ones that share no seed of a scenario with them, by seeds.

    So a table can be made seed by seed, in several places.
    """
    made = {(run["scenario"], seed) for run in done for seed in run["seeds"]}
    others = [run for run in standing if not made & {(run["scenario"], seed) for seed in run["seeds"]}]
    return sorted([*others, *done], key=lambda run: run["seeds"])


def write(path: pathlib.Path, table: str, budget: str, command: str, runs: Sequence[Mapping[str, Any]]) -> None:
    """The runs of a table, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"schema": SCHEMA, "table": table, "budget": budget, "command": command}
    lines = ",\n".join(json.dumps(run, allow_nan=False) for run in runs)  # a line per run, for readable differences
    storage.write_text(path, json.dumps(values)[:-1] + f', "runs": [\n{lines}\n]}}\n')


def _rounded(value: Any) -> Any:
    """Floats to five significant digits, enough for any table and a third of the size."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
