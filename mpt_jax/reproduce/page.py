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
    parts = [_text(folder / "introduction.md")]
    for name in TABLES:
        for budget in BUDGETS:
            path = folder / f"{name}-{budget}.json"
            if path.exists():
                parts.append(section(results.read(path), folder))
    parts += [_text(folder / f"{name}.md") for name in ("judgement", "earlier", "speed", "beyond", "survival")]
    return "\n\n".join(part for part in parts if part) + "\n"


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
    base = summary.get(results.BASELINE, {}).get("nfr")
    if base is None:
        return ""
    if len(best) > 1:
        return f"The validation images do not tell {len(best)} rows apart, so nothing is chosen by them."
    chosen = next(iter(best), None)
    if chosen is None or "nfr" not in summary.get(chosen, {}):
        return "On the validation images no row comes within `update.tolerance` of the accuracy of `no_treatment`."
    change = 100 * (summary[chosen]["nfr"]["mean"] / base["mean"] - 1) if base["mean"] else 0.0
    accuracy = 100 * (summary[chosen]["accuracy"]["mean"] - summary[results.BASELINE]["accuracy"]["mean"])
    return (
        f"Chosen on the validation images (the fewest flips among the rows that are there at most `update.tolerance` "
        f"less accurate than `no_treatment`): `{chosen}`, with {change:+.0f} % negative flips at {accuracy:+.1f} "
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
