"""Statistics over the seeds of a table: means, paired tests against the baseline, and the choice on validation."""

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mpt_jax import metrics
from mpt_jax.report import comparison
from mpt_jax.reproduce.results import BASELINE, ENSEMBLE, RATES


def summarize(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Summarize the seeds of all runs, by scenario and method.

    Returns:
      Of each method `seeds`, the number of `diverged` ones, and of each rate `mean`, `std`, `count` and, from three
      seeds on, Student's 95 % `interval`. `paired` has the same of the differences in `accuracy` and `nfr` from
      `no_treatment` of the same seed, with the two-sided p of the paired t-test; that of `nfr` also has the `change`
      relative to the baseline and its interval. `equal` has the mean `nfr` of the method and of the `baseline` at equal
      accuracy, and the same test and change.
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


def choose(
    runs: Sequence[Mapping[str, Any]], among: Callable[[str], bool] = lambda method: True
) -> dict[str, list[str]]:
    """Choose the methods with the fewest negative flips on the validation images over all seeds, by scenario.

    Candidates are the methods `among` all that are at most `update.tolerance` less accurate than `no_treatment` on
    these images. Ties are broken by accuracy; methods that still tie are all returned.
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
        candidates = [method for method in means if method != BASELINE and among(method)]
        reaching = [method for method in candidates if means[method]["accuracy"] >= least]
        order = {method: (round(means[method]["nfr"], 9), -round(means[method]["accuracy"], 9)) for method in reaching}
        chosen[scenario] = [method for method in reaching if order[method] == min(order.values())]
    return chosen


def representative(runs: Sequence[Mapping[str, Any]], *rows: str) -> dict[str, tuple[str, bool]]:
    """Return the method that stands for some rows at every value of their numbers, by scenario.

    It is the one that `choose` finds among these rows, and then True. Otherwise it is fixed: the first of the rows that
    was trained, with the numbers of the run if such a method exists, else at the published b, else the first method.
    Scenarios without any of the rows are missing.

    Examples:
      >>> trained = [{"method": "mpt_lm"}, {"method": "mpt_kl@bias=1"}, {"method": "mpt_kl@bias=4"}]
      >>> representative([{"scenario": "", "seeds": [0], "rows": trained, "validation": {}, "tolerance": 0}], "mpt_kl")
      {'': ('mpt_kl@bias=4', False)}
    """
    chosen = choose(runs, lambda method: method.partition("@")[0] in rows)
    found: dict[str, tuple[str, bool]] = {}
    for scenario, best in chosen.items():
        trained = dict.fromkeys(row["method"] for run in runs if run["scenario"] == scenario for row in run["rows"])
        of_rows = [method for row in rows for method in trained if method.partition("@")[0] == row]
        if of_rows:
            first = of_rows[0].partition("@")[0]
            fixed = next((name for name in (first, f"{first}@bias=4") if name in trained), of_rows[0])
            found[scenario] = (best[0], True) if len(best) == 1 else (fixed, False)
    return found


def against(
    runs: Sequence[Mapping[str, Any]], rows: tuple[str, str]
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Compare two rows at equal accuracy, at every value of their numbers, by scenario, method and method.

    Each method has a ratio per seed: its flips over those of `no_treatment` at the same accuracy.

    Returns:
      The `change` of the first row's ratio relative to the second's, and its interval as in `relative_change`; `p` is
      that of the paired t-test over the seeds that both have.

    Examples:
      >>> equal = {"a@bias=0": [[1, 4], [2, 4], [3, 8]], "b": [[2, 4], [4, 4], [3, 4]]}
      >>> rows = [
      ...     {"method": method, "seed": seed, "at_equal_accuracy": found}
      ...     for method, of_seeds in equal.items()
      ...     for seed, found in enumerate(of_seeds)
      ... ]
      >>> against([{"scenario": "", "rows": rows}], ("a", "b"))[""]["a@bias=0"]["b"]["change"]
      -0.5
    """
    ratios: dict[str, dict[str, dict[int, float]]] = {}
    for run in runs:
        for row in run["rows"]:
            of_method = ratios.setdefault(run["scenario"], {}).setdefault(row["method"], {})
            mine, base = (not row.get("diverged") and row.get("at_equal_accuracy")) or (0, 0)
            if base:
                of_method[row["seed"]] = mine / base
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for scenario, methods in ratios.items():
        ours, theirs = ([method for method in methods if method.partition("@")[0] == row] for row in rows)
        for one, other in itertools.product(ours, theirs):
            pairs = [(methods[one][seed], methods[other][seed]) for seed in methods[one].keys() & methods[other].keys()]
            if pairs:
                result = {**_test([a - b for a, b in pairs]), **relative_change(pairs)}
                found.setdefault(scenario, {}).setdefault(one, {})[other] = result
    return found


def margin(method: str, run: Mapping[str, Any]) -> str:
    """Name the b that a run trained a method at.

    Examples:
      >>> run = {"validation": {"mpt_kl": {"numbers": {"bias": 0.5}}}, "protocol": {"bias": "auto"}}
      >>> margin("mpt_lm@bias=1.5", run), margin("mpt_kl", run)
      ('b = 1.5', 'b = 0.5')
      >>> margin("mpt_kl", {"validation": {}, "protocol": {"bias": "published"}})
      'published b'
    """
    if numbers := method.partition("@")[2]:
        return numbers.replace("bias=", "b = ")
    b = run["validation"].get(method, {}).get("numbers", {}).get("bias", run["protocol"]["bias"])
    return "published b" if b == "published" else f"b = {float(b):g}"


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
        result["equal"] = {"nfr": mine, "baseline": theirs, **_test([a - b for a, b in both]), **relative_change(both)}
    if paired and rows is not baseline:
        result["paired"] = {key: _test([a[key] - b[key] for a, b in paired]) for key in ("accuracy", "nfr")}
        result["paired"]["nfr"] |= relative_change([(a["nfr"], b["nfr"]) for a, b in paired])
    return result


def relative_change(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return the relative change of a mean and, from three pairs on, Fieller's 95 % interval of it.

    The interval has every change ``r - 1`` for which Student's test does not reject that the mean of ``a - r b`` over
    the pairs ``(a, b)`` is 0. It excludes 0 exactly where the paired t-test of a and b has p < 0.05.

    Returns:
      `change`, None if the mean of b is 0, and `interval_of_change`, missing where it is not bounded.

    Source: Fieller, Some Problems in Interval Estimation, 1954.
    """
    (a, b), n = np.transpose(pairs), len(pairs)
    found: dict[str, Any] = {"change": float(a.mean() / b.mean()) - 1 if b.mean() else None}
    if n > 2:
        squared_t = stats.t.ppf(0.975, n - 1) ** 2 / n
        covariance = np.cov(a, b)
        # The ends solve (mean of a - r b)^2 = t^2 / n times the variance of a - r b, a quadratic equation in r.
        aa, ab, bb = (a.mean() ** 2, a.mean() * b.mean(), b.mean() ** 2) - squared_t * covariance[[0, 0, 1], [0, 1, 1]]
        if bb > 0:
            root = max(ab**2 - aa * bb, 0.0) ** 0.5
            found["interval_of_change"] = [float((ab - root) / bb) - 1, float((ab + root) / bb) - 1]
    return found


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
