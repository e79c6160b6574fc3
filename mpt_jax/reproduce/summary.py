"""Statistics over the seeds of a table: means, paired tests against the baseline, and the choice on validation."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from mpt_jax import metrics
from mpt_jax.report import comparison
from mpt_jax.reproduce.results import BASELINE, ENSEMBLE, RATES


def summarize(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Summarize the seeds of all runs, by scenario and method.

    Returns:
      Of each method `seeds`, the number of `diverged` ones, and of each rate `mean`, `std`, `count` and, from three
      seeds on, Student's 95 % `interval`. `paired` has the same of the differences in `accuracy` and `nfr` from
      `no_treatment` of the same seed, with the two-sided p of the paired t-test. `equal` has the mean `nfr` of the
      method and of the `baseline` at equal accuracy, their relative `change` and the same test.
    """
    rows: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for run in runs:
        for row in run["rows"]:
            rows.setdefault(run["scenario"], {}).setdefault(row["method"], []).append(row)
    return {
        scenario: {method: _summary(found, methods.get(BASELINE, [])) for method, found in methods.items()}
        for scenario, methods in rows.items()
    }


def sequences(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Average `metrics.sequence_metrics` over all seeds, by scenario and method; {} where there is one update only."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for run in runs:
        for method, sequence in run["sequences"].items():  # a mean over the run's seeds
            found.setdefault(run["scenario"], {}).setdefault(method, []).extend([sequence] * len(run["seeds"]))
    return {
        scenario: {method: metrics.mean_of_sequences(of_method) for method, of_method in methods.items()}
        for scenario, methods in found.items()
    }


def choose(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Choose the methods with the fewest negative flips on the validation images over all seeds, by scenario.

    Candidates are at most `update.tolerance` less accurate than `no_treatment` on these images. Ties are broken by
    accuracy; methods that still tie are all returned.
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
        result["equal"] = {"nfr": mine, "baseline": theirs, "change": change, **_test([a - b for a, b in both])}
    if paired and rows is not baseline:
        result["paired"] = {key: _test([a[key] - b[key] for a, b in paired]) for key in ("accuracy", "nfr")}
    return result


def _test(differences: Sequence[float]) -> dict[str, Any]:
    """Return the spread of the differences, and the two-sided p of Student's test that their mean is 0."""
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
