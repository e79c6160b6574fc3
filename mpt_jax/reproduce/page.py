"""`REPRODUCIBILITY.md`: the tables from `results/*.json`, and beside them what `results/*.md` says in words."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.reproduce import results
from mpt_jax.reproduce.plots import FIGURES
from mpt_jax.reproduce.tables import BUDGETS, TABLES

_HEADINGS = (
    *("method", "seeds", "all classes", "old", "new", "negative flips", "flips, paired", "p", "accuracy, paired"),
    *("flips at equal accuracy, none's", "change", "p"),
)
# What is compared across the tables: a method, and its b where it has one.
_COMPARED = (
    *(("pct_kl", None), ("mpt_kl", 0.0), ("mpt_kl", 1.0), ("mpt_kl", 4.0), ("mpt_lm", 1.0)),
    ("balanced_softmax", None),
)
_CAPTIONS = {
    "tradeoff": "Accuracy against negative flips on the test images; lower right is better. Dashed: `no_treatment` "
    "with a constant taken off its new classes' logits, a curve per run. Rows more than 6 points "
    "less accurate are left out.",
    "sequence": "Accuracy on the classes known, and negative flips since the release before, at every release; thin "
    "grey: `independent`.",
    "bias": "What b does; bars are standard deviations over the seeds.",
    "margins": "Margins of the old classes' test images before the update (grey) and after it, first seed; dotted: "
    "medians.",
    "learning": "Learning curves, first seed; rows at several b share a colour.",
    "classes": "Negative flips per old class, mean over the runs.",
}


def render(folder: pathlib.Path) -> str:
    """The page, from everything in `results/`; the same files give the same text."""
    names = [f"{name}-{budget}.json" for name in TABLES for budget in BUDGETS]
    found = [results.read(folder / name) for name in names if (folder / name).exists()]
    parts = [_text(folder / "introduction.md"), overview(found), *(section(table, folder) for table in found)]
    parts += [_text(folder / f"{name}.md") for name in ("judgement", "earlier", "speed", "beyond", "survival")]
    return "\n\n".join(part for part in parts if part) + "\n"


def overview(tables: Sequence[Mapping[str, Any]]) -> str:
    """A line for each scenario of each table: what the methods are worth beyond a constant, and what was chosen."""
    columns = [f"`{method}`" + ("" if b is None else f", b = {b:g}") for method, b in _COMPARED]
    headings = ["table", "seeds", "accuracy", "flips", "the same again", *columns, "chosen, as trained"]
    lines = [f"| {' | '.join(headings)} |", "|---|" + "---:|" * (len(headings) - 1)]
    for table in tables:
        chosen = results.choose(table["runs"])
        for scenario, summary in results.summarize(table["runs"]).items():
            protocol = next(run["protocol"] for run in table["runs"] if run["scenario"] == scenario)
            base = summary.get(results.BASELINE, {})
            # Where the students start from the old model `independent`, which does not, is another training.
            same = summary.get("independent") if protocol["start"] == "random" else None
            compared = [same, *(_with_bias(summary, method, b, protocol["bias"]) for method, b in _COMPARED)]
            name = f"`{table['table']}`" + f" ({table['budget']})" * (table["budget"] != "cpu")
            cells = [name + f", {scenario}" * bool(scenario), str(base.get("seeds", "-"))]
            cells += [f"{100 * base[key]['mean']:.1f}" if key in base else "-" for key in ("accuracy", "nfr")]
            cells += [_change(found) for found in compared]
            best = chosen[scenario][0] if len(chosen[scenario]) == 1 else ""
            against = _as_trained(summary, best)
            cells.append(f"`{best}`: {', '.join(against)}" if against else "-")
            lines.append(f"| {' | '.join(cells)} |")
    return (
        "## In one table\n\n"
        "*Accuracy* and *flips* are those of `no_treatment`. Of the methods: the change of negative flips at equal "
        "accuracy, so beyond what a post-hoc bias gives for nothing; **bold** where p < 0.05 (not corrected for their "
        "number; with one seed there is none). *The same again* is `independent`, the training of `no_treatment` with "
        "other random numbers: the scale of chance. *Chosen, as trained*: the row chosen on validation images, where "
        "they tell one, with its flips and its points of accuracy against `no_treatment`.\n\n" + "\n".join(lines)
    )


def _with_bias(summary: Mapping[str, Any], method: str, b: float | None, usual: str) -> Mapping[str, Any] | None:
    """The row of a method at some b: the one that names it, or the plain one where the run's own b is that."""
    if b is not None and f"{method}@bias={b:g}" in summary:
        return summary[f"{method}@bias={b:g}"]
    return summary.get(method) if b is None or usual == f"{b:g}" else None


def _change(found: Mapping[str, Any] | None) -> str:
    equal = (found or {}).get("equal") or {}
    if equal.get("change") is None:
        return "-"
    text = f"{100 * equal['change']:+.0f} %"
    return f"**{text}**" if equal.get("p", 1.0) < 0.05 else text


def _as_trained(summary: Mapping[str, Any], method: str) -> tuple[str, str] | None:
    """On the test images its negative flips against those of `no_treatment`, in per cent, and points of accuracy."""
    row, base = (summary.get(name, {}) for name in (method, results.BASELINE))
    if "nfr" not in row or "nfr" not in base:  # every seed diverged, or there is no such row
        return None
    change = row["nfr"]["mean"] / base["nfr"]["mean"] - 1 if base["nfr"]["mean"] else 0.0
    return f"{100 * change:+.0f} %", f"{100 * (row['accuracy']['mean'] - base['accuracy']['mean']):+.1f}"


def section(found: Mapping[str, Any], folder: pathlib.Path) -> str:
    """One table with its protocol, figures and words."""
    name, budget, runs = found["table"], found["budget"], found["runs"]
    table = TABLES[name]
    first = runs[0]
    versions = [", ".join(f"{package} {run['versions'][package]}" for package in ("jax", "flax")) for run in runs]
    made_on = dict.fromkeys(f"{run['hardware']}; {of_run}" for run, of_run in zip(runs, versions, strict=True))
    commits = list(dict.fromkeys(_commit(revision) for run in runs for revision in run["git_revisions"]))
    classes = dict.fromkeys(" -> ".join(map(str, run["classes"])) for run in runs)
    parts = [
        f"## {table.title}" + (f" ({budget} budget)" if table.plans["cpu"] != table.plans["gpu"] else ""),
        table.question,
        f"    {found['command']}",
        f"{' and '.join(made_on)}; commit{'s' * (len(commits) > 1)} {', '.join(commits)}. "
        f"Classes {', '.join(classes)}; {first['images']['train']} training, "
        f"{first['images']['validation']} validation and {first['images']['test']} test images.",
    ]
    chosen, sequences = results.choose(runs), results.lineages(runs)
    for scenario, summary in results.summarize(runs).items():
        of_scenario = next(run["protocol"] for run in runs if run["scenario"] == scenario)
        parts += [*([f"**{scenario}**"] if scenario else []), protocol(of_scenario)]
        held_out = any(run["validation"] for run in runs if run["scenario"] == scenario)
        parts += [
            rows(summary),
            _verdict(summary, chosen[scenario]) if held_out else "No images are held out to choose by.",
        ]
        if scenario in sequences:
            schedule = next(run["classes"] for run in runs if run["scenario"] == scenario)
            parts.append(lineages(sequences[scenario], schedule))
    for figure in FIGURES:
        path = pathlib.Path("plots") / f"{name}-{budget}-{figure}.png"
        if (folder / path).exists():
            parts.append(f"![{_CAPTIONS[figure]}]({folder.name}/{path})\n\n*{_CAPTIONS[figure]}*")
    parts.append(_text(folder / f"{name}-{budget}.md"))
    return "\n\n".join(part for part in parts if part)


def protocol(run: Mapping[str, Any]) -> str:
    """`results.protocol` as a sentence."""
    networks = [f"`{name}`" for name in (run["old_model"], run["model"]) if name]
    stem = f" ({run['stem']} stem)" if run["stem"] else ""
    start = "from the release before" if run["start"] == "old" else "from random weights"
    bias = "the published b" if run["bias"] == "published" else f"b = {run['bias']}"
    memory = "" if run["memory"] == "all" else f"; old images kept: {run['memory']}, by {run['memory_by']}"
    return (
        f"{' -> '.join(networks)}{stem}, {run['epochs']} epochs of batches of {run['batch_size']}, learning rate "
        f"{run['learning_rate']:g} ({run['schedule']}, by {run['schedule_unit']}); students start {start}; {bias} "
        f"where a row names none{memory}."
    )


def _commit(revision: str | None) -> str:
    """Ten digits of it, and whether the checkout had uncommitted changes.

    Examples:
      >>> _commit("0123456789abcdef-dirty"), _commit(None)
      ('0123456789-dirty', 'unknown')
    """
    commit, dash, changed = (revision or "unknown").partition("-")
    return commit[:10] + dash + changed


def rows(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """The markdown table of one scenario."""
    lines = [f"| {' | '.join(_HEADINGS)} |", "|---|" + "---:|" * (len(_HEADINGS) - 1)]
    for method, found in summary.items():
        cells = [f"`{method}`", str(found["seeds"])]
        if found["diverged"]:
            cells[1] += f" ({found['diverged']} diverged)"
        for key in ("accuracy", "accuracy_old_classes", "accuracy_new_classes", "nfr"):
            cells.append(_spread(found.get(key)))
        paired = found.get("paired", {})
        cells += [_difference(paired.get("nfr")), _p(paired.get("nfr")), _difference(paired.get("accuracy"))]
        cells += _equal(found.get("equal"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def lineages(sequences: Mapping[str, Mapping[str, Any]], schedule: Sequence[int]) -> str:
    """What becomes of several updates, as a markdown table under a sentence that says what it shows."""
    updates = [f"{old} -> {new}" for old, new in itertools.pairwise(schedule)]
    headings = ["method", *updates, "lost from any release", "forgetting", "mean accuracy"]
    lines = [f"| {' | '.join(headings)} |", "|---|" + "---:|" * (len(headings) - 1)]
    for method, found in sequences.items():
        last = (found["cumulative_nfr"][-1], found["forgetting"][-1], found["average_incremental_accuracy"])
        cells = [f"{100 * value:.1f}" for value in (*found["nfr_against_previous"][1:], *last)]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    table = "\n".join(lines)
    return (
        "The rows above are of the last update. Of every update the negative flips against the release before of the "
        "same method; *lost from any release*: images that some release had right and the last has wrong, as a share "
        "of those of the classes known before it; *forgetting*: points that the accuracy on the classes of a release "
        "has fallen from its best; *mean accuracy*: over all releases, on the classes known then."
        f"\n\n{table}"
    )


def _verdict(summary: Mapping[str, Mapping[str, Any]], best: Sequence[str]) -> str:
    if "nfr" not in summary.get(results.BASELINE, {}):
        return ""
    if len(best) > 1:
        return f"The validation images do not tell {len(best)} rows apart, so nothing is chosen by them."
    chosen = next(iter(best), "")
    against = _as_trained(summary, chosen)
    if against is None:
        return "On the validation images no row comes within `update.tolerance` of the accuracy of `no_treatment`."
    change, accuracy = against
    return (
        f"Chosen on the validation images (the fewest flips among the rows that are there at most `update.tolerance` "
        f"less accurate than `no_treatment`): `{chosen}`, with {change} negative flips at {accuracy} "
        "points of accuracy on the test images."
    )


def _text(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _spread(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{100 * found['mean']:.1f}" + (f" ± {100 * found['std']:.1f}" if found["std"] else "")


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    ends = found.get("interval")
    return f"{100 * found['mean']:+.1f}" + (f" [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]" if ends else "")


def _equal(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["-", "-", "-"]
    change = "-" if found["change"] is None else f"{100 * found['change']:+.0f} %"
    return [f"{100 * found['nfr']:.1f}, {100 * found['baseline']:.1f}", change, _p(found)]


def _p(found: Mapping[str, Any] | None) -> str:
    if found is None or "p" not in found:
        return "-"
    return "< 0.001" if found["p"] < 0.001 else f"{found['p']:.3f}"
