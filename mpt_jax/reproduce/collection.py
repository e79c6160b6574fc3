"""The numbers kept of a finished run, small enough to be committed."""

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt_jax import metrics, posttraining
from mpt_jax.files import schema
from mpt_jax.report import flips
from mpt_jax.reproduce.results import BASELINE, RATES
from mpt_jax.update import chain, lineage, snapshots, workdir

_CURVE, _HISTORY = 61, 40  # points kept


def collect(folders: Sequence[pathlib.Path], scenario: str, *, command: str) -> dict[str, Any]:
    """Read finished work directories: protocol, rates per method and seed, and the data of the plots.

    `at_equal_accuracy` of a row is its negative flip rate and that of `no_treatment` of the same seed, see `equalized`.

    Args:
      folders: parts of a run, each with other methods and the same seeds and teachers. What they share, such as the
        independent model, is read from the first.
      scenario: label of the run.
      command: that makes these folders.
    """
    reports = [schema.read(folder / "report.json") for folder in folders]
    first = reports[0]
    config, schedule = first["config"], first["config"]["update"]["schedule"]
    seeds, last, grows = config["seeds"], len(schedule) - 1, schedule[-2] < schedule[-1]
    rows: list[dict[str, Any]] = []
    predictions: dict[str, chain.Predictions] = {}  # by method
    places: dict[str, tuple[pathlib.Path, str]] = {}  # the folder and identity of the run, by method
    for folder, report in zip(folders, reports, strict=True):
        of_part = [row for row in report["rows"] if row["release"] == last and row["method"] not in predictions]
        rows += [_row(row) for row in of_part]
        facts = workdir.read_facts(folder)
        reader = chain.reader(folder, facts, chain.read_cards(folder, facts))
        predictions |= {row["method"]: reader for row in of_part}
        places |= {row["method"]: (folder, workdir.identity(facts)) for row in of_part}
    sound = [(row["method"], row["seed"]) for row in rows if grows and not row.get("diverged")]
    pairs = {of: flips.read(predictions[of[0]], config, *of) for of in sound}
    curves = {of: shift_curve(pair, schedule[-2]) for of, pair in pairs.items()}
    for row in rows:
        mine, base = (curves.get((method, row["seed"])) for method in (row["method"], BASELINE))
        if mine and base:
            row["at_equal_accuracy"] = equalized(mine, base)
    mean_curves = {}
    for method in predictions:
        if of_seeds := [curve for (name, _), curve in curves.items() if name == method]:
            mean_curves[method] = _points(posttraining.mean_curve(of_seeds))
    kept = {
        "scenario": scenario,
        "seeds": seeds,
        "command": command,
        "hardware": ", then ".join(dict.fromkeys(machine for report in reports for machine in report["hardware"])),
        "git_revisions": list(dict.fromkeys(commit for report in reports for commit in report["git_revisions"])),
        "versions": first["versions"],
        "classes": schedule,
        "protocol": _protocol(config),
        "tolerance": config["update"]["tolerance"],
        "images": first["dataset"]["images"],
        "rows": rows,
        "validation": {m: _chosen(choice) for m, choice in _merged(reports, "selection").items()},
        "curves": mean_curves,
        "flips": {
            m: {key: found[key] for key in ("per_class", "margins")} for m, found in _merged(reports, "flips").items()
        },
        "sequences": _merged(reports, "sequences"),
        **({"training": curve} if (curve := _training(places, pairs, schedule, first)) else {}),
        "history": {m: line for folder in folders for m, line in _history(folder, last, seeds[0]).items()},
    }
    return _rounded(kept)


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: row.get(key) for key in ("method", "seed", *RATES)}
    return kept | ({"diverged": True} if row.get("diverged") else {})


def _merged(reports: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """Return an entry by method of several reports, of each method from the first report that has it."""
    merged: dict[str, Any] = {}
    for method, value in (entry for report in reports for entry in report[key].items()):
        merged.setdefault(method, value)
    return merged


def _protocol(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a config that a reader needs besides classes and images."""
    model, optimizer, update = config["model"], config["optimizer"], config["update"]
    return {
        **{"model": model["name"], "stem": model["stem"], "old_model": config["old_model"]["name"]},
        **{key: optimizer[key] for key in ("epochs", "batch_size", "learning_rate", "schedule", "schedule_unit")},
        **{key: update[key] for key in ("bias", "start", "memory", "memory_by")},
    }


def _chosen(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {key: choice["candidates"][choice["chosen"]][key] for key in ("numbers", "accuracy", "nfr")}


def shift_curve(pair: flips.Pair, num_old_classes: int) -> posttraining.PosthocCurve:
    """Compute `posttraining.posthoc_curve` on the test images for every constant, including negative ones."""
    lift = float(np.ptp(pair.new.astype(np.float64))) + 1.0  # raises every new class above all old ones
    logits = pair.new.astype(np.float64)
    logits[:, num_old_classes:] += lift
    curve = posttraining.posthoc_curve(logits, pair.old.argmax(-1), pair.labels, num_old_classes=num_old_classes)
    return dataclasses.replace(curve, starts=curve.starts - lift)


def equalized(
    curve: posttraining.PosthocCurve, baseline: posttraining.PosthocCurve, below: float = 0.005
) -> list[float | None]:
    """Return the negative flip rates of two models at the same accuracy.

    That accuracy is `below` the lower of their two best ones. Each model is brought there by the constant on its new
    classes' logits that leaves it the fewest flips. Both are treated alike, so models of any accuracy can be compared.
    The constant is chosen on test images, so the result is for comparison, not for a choice of method.
    """
    accuracy = min(curve.accuracy.max(), baseline.accuracy.max()) - below
    return [metrics.nfr_at_accuracy(c.accuracy, c.nfr, accuracy, hold_below=True) for c in (curve, baseline)]


def _points(curve: posttraining.PosthocCurve) -> list[list[float]]:
    """Return ``[c, accuracy, negative flip rate]`` at some steps of a curve, evenly spread over its steps."""
    steps = np.unique(np.linspace(0, len(curve.starts) - 1, _CURVE).round().astype(int))
    return [[float(values[i]) for values in (curve.starts, curve.accuracy, curve.nfr)] for i in steps]


def _training(
    places: Mapping[str, tuple[pathlib.Path, str]],
    pairs: Mapping[tuple[str, int], flips.Pair],
    schedule: Sequence[int],
    report: Mapping[str, Any],
) -> dict[str, list[list[float | None]]]:
    """Return how the test rates of each method developed, from the snapshots of its training; {} without snapshots.

    Of each snapshot, and of the end: the epoch, accuracy, that of old and of new classes, the negative flip rate, and
    `equalized`, compared with the baseline of the same step. Means over the seeds.
    """
    last, epochs = len(schedule) - 1, report["config"]["optimizer"]["epochs"]
    total = next(row["steps"] for row in report["rows"] if row["release"] == last)
    found: dict[tuple[str, int, int], flips.Pair] = {}
    for (method, seed), end in pairs.items():
        taken = snapshots.read(places[method][0], lineage.release_name(last, method, seed), places[method][1])
        for step, new in taken.items():
            found[method, seed, step] = dataclasses.replace(end, new=new["logits"])
        if taken:
            found[method, seed, total] = end
    curves = {key: shift_curve(pair, schedule[-2]) for key, pair in found.items()}
    points: dict[tuple[str, int], list[list[float | None]]] = {}
    for (method, seed, step), pair in found.items():
        rates = metrics.class_growth_metrics(
            pair.old.argmax(-1), pair.new.argmax(-1), pair.labels, num_old_classes=schedule[-2]
        )
        base = curves.get((BASELINE, seed, step))
        equal = equalized(curves[method, seed, step], base) if base else [None, None]
        values = [rates[key] for key in ("accuracy", "accuracy_old_classes", "accuracy_new_classes", "nfr")]
        points.setdefault((method, step), []).append([*values, *equal])
    lines: dict[str, list[list[float | None]]] = {}
    for (method, step), of_seeds in sorted(points.items(), key=lambda item: item[0][1]):
        columns = zip(*of_seeds, strict=True)
        means = [None if None in values else statistics.fmean(values) for values in columns]  # type: ignore[type-var]
        lines.setdefault(method, []).append([step * epochs / total, *means])
    return lines


def _history(folder: pathlib.Path, release: int, seed: int) -> dict[str, list[list[float | None]]]:
    """Return ``[step, loss, accuracy]`` on the training batches at some steps, by method."""
    lines: dict[str, list[list[float | None]]] = {}
    for line in workdir.read_metrics(folder):
        method, *_, of_seed = line["member"].split()
        if line["release"] == release and of_seed == f"seed={seed}":
            lines.setdefault(method, []).append([line["step"], *(line["values"][key] for key in ("loss", "accuracy"))])
    chosen = {m: np.unique(np.linspace(0, len(p) - 1, _HISTORY).round().astype(int)) for m, p in lines.items()}
    return {method: [lines[method][i] for i in steps] for method, steps in chosen.items()}


def _rounded(value: Any) -> Any:
    """Round floats to five significant digits: enough for any table, and a third of the size."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
