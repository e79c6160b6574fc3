"""The first section of a report: which method to ship, and how certain that is."""

import statistics
from typing import Any

from mpt_jax.report.blocks import Command, Points, Table, Text, interval, percent, points
from mpt_jax.update import lineage

_INTERVALS = {
    "seeds": "over seeds (Student's t, paired for differences): they reflect chance in training",
    "images": "over test images (Wilson's; normal and paired for differences). With fewer than three seeds, chance in "
    "training is unknown and not included",
}


def blocks(report: dict[str, Any]) -> list[Any]:
    """Return the headline, the numbers behind it, and the command that checks a limit."""
    compared, summary = report["comparison"], report["summary"]
    best, baseline = compared["best"], compared["baseline"]
    if baseline not in compared["methods"]:
        return [Text(f"No recommendation: `{baseline}`, the baseline of the comparison, diverged.", "bad")]
    tolerance = points(report["config"]["update"]["tolerance"])
    candidates = f"Candidates are methods that are at most {tolerance} less accurate than `{baseline}` on all classes."
    numbers, notes = _numbers(report, best or baseline)
    if best is None:
        return [Text(_no_method(compared), "bad"), numbers, Points([*notes, candidates])]
    if compared["candidates"] > 1:
        candidates += (
            f" `{best}` has the fewest negative flips of {compared['candidates']} on these test images, which favours "
            "it: the headline accounts for that (Bonferroni), the intervals do not."
        )
    last, seed = len(report["classes"]["schedule"]) - 1, report["rows"][0]["seed"]
    names = [lineage.release_name(r, method, seed) for r, method in (lineage.previous(last, best), (last, best))]
    files = " ".join(f"predictions/{name}.npz" for name in names)
    has_map = bool(report["config"]["update"].get("class_map"))
    changed = f" --class-map releases/{names[1]}/card.json" * has_map
    return [
        _headline(report),
        numbers,
        Points([*notes, candidates]),
        Text("To check one model against a limit of your choice, run in the work directory:"),
        Command(f"python -m mpt_jax.compare {files}{changed} --max-nfr {summary[best]['nfr']['mean']:.2g}"),
    ]


def _no_method(compared: dict[str, Any]) -> str:
    headline = f"No method improves on `{compared['baseline']}`"
    if not compared["candidates"]:
        return f"{headline}: each loses more accuracy than the tolerance allows."
    return f"{headline}: none of {compared['candidates']} candidates has fewer negative flips."


def _headline(report: dict[str, Any]) -> Text:
    compared, summary = report["comparison"], report["summary"]
    best, baseline = compared["best"], compared["baseline"]
    fewer = 1 - summary[best]["nfr"]["mean"] / summary[baseline]["nfr"]["mean"]
    gain = f"{100 * fewer:.0f} % fewer negative flips than `{baseline}`"
    seeds = len({row["seed"] for row in report["rows"]})
    if compared["answer"] == "better":
        return Text(f"Ship `{best}`: {gain} (significant over {seeds} seeds)", "good")
    if compared["interval_over"] == "seeds":
        return Text(f"`{best}` may be better: {gain} (not significant over {seeds} seeds)", "open")
    return Text(f"`{best}` may be better: {gain} (significance needs at least three seeds)", "open")


def _numbers(report: dict[str, Any], method: str) -> tuple[Table, list[str]]:
    """Return a table of the method and the baseline, and notes on it."""
    compared, summary = report["comparison"], report["summary"]
    methods = list(dict.fromkeys([method, compared["baseline"]]))
    rows = []
    for key, name in (
        ("nfr", "negative flips"),
        ("pfr", "positive flips"),
        ("accuracy", "accuracy, all classes"),
        ("accuracy_old_classes", "accuracy, old classes"),
    ):
        ends = [compared["methods"][m].get(key, {}).get("interval") for m in methods]
        row = [name, *(percent(summary[m][key]["mean"]) + interval(end) for m, end in zip(methods, ends, strict=True))]
        if len(methods) > 1:
            difference = summary[method][key]["mean"] - summary[compared["baseline"]][key]["mean"]
            end = compared["methods"][method].get(key, {}).get("difference", {}).get("interval")
            row.append(f"{100 * difference:+.2f}{interval(end, sign='+')}")
        rows.append(row)
    last = report["rows"][-1]["release"]
    before = [r["accuracy_previous"] for r in report["rows"] if r["method"] == method and r["release"] == last]
    notes = [
        "Rates in %. Flips and the accuracy on old classes are shares of the old classes' test images, of which the "
        f"old model predicts {percent(statistics.fmean(before))} % correctly.",
    ]
    if compared["interval_over"]:
        level = f"{100 * compared['confidence']:g} %"
        notes.append(f"In brackets: {level} intervals {_INTERVALS[compared['interval_over']]}.")
    return Table(["", *methods, *["difference"] * (len(methods) > 1)], rows), notes
