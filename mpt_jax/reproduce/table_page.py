"""The page of one table: its command, protocol, rows, figures and text."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.reproduce import cells, plots
from mpt_jax.reproduce.results import BASELINE, RATES
from mpt_jax.reproduce.summary import against, choose, sequences, summarize
from mpt_jax.reproduce.tables import TABLES

_HEADINGS = (
    *("method", "seeds", "all classes", "old classes", "new classes", "negative flips"),
    *("flips, paired", "p", "accuracy, paired", "flips at equal accuracy (baseline's)", "change", "p"),
)
_CAPTIONS = {
    "tradeoff": "Accuracy against negative flips on the test images; lower right is better. Dashed: `no_treatment` "
    "with a constant subtracted from its new classes' logits, a curve per run. "
    f"Rows more than {plots.MOST_LOST:g} points less accurate than `no_treatment` are not shown.",
    "sequence": "Accuracy on the classes known, and negative flips since the previous release, at every release. "
    "Thin grey: `independent`.",
    "bias": "The effect of b. Bars: standard deviations over the seeds.",
    "margins": "Margins of the old classes' test images before the update (grey) and after it, first seed. Dotted: "
    "medians.",
    "learning": "Learning curves, first seed. Rows at several b share a colour.",
    "epochs": "Test images while the models train, first run. Rows at several b share a colour.",
    "classes": "Negative flips per old class, mean over the runs.",
}


def title(found: Mapping[str, Any]) -> str:
    """Return the title of a table, with its budget if the other one has other runs."""
    table = TABLES[found["table"]]
    return table.title + (f" ({found['budget']} budget)" if table.plans["cpu"] != table.plans["gpu"] else "")


def render(found: Mapping[str, Any], figures: Mapping[str, str], text: str) -> str:
    """Render one table with its protocol and text.

    Args:
      found: a file of results.
      figures: the figures of `plots.FIGURES` that have been drawn, as links from the page.
      text: what the numbers show, in Markdown.
    """
    runs = found["runs"]
    first = runs[0]
    versions = [", ".join(f"{package} {run['versions'][package]}" for package in ("jax", "flax")) for run in runs]
    made_on = dict.fromkeys(f"{run['hardware']}; {of_run}" for run, of_run in zip(runs, versions, strict=True))
    commits = list(dict.fromkeys(_commit(revision) for run in runs for revision in run["git_revisions"]))
    classes = dict.fromkeys(" -> ".join(map(str, run["classes"])) for run in runs)
    parts = [
        f"# {title(found)}",
        TABLES[found["table"]].question + " [How to read the tables](reading.md).",
        f"    {found['command']}",
        f"{' and '.join(made_on)}; commit{'s' * (len(commits) > 1)} {', '.join(commits)}. "
        f"Classes {', '.join(classes)}; {first['images']['train']} training, "
        f"{first['images']['validation']} validation and {first['images']['test']} test images.",
        text,
    ]
    chosen, lineages = choose(runs), sequences(runs)
    versus = TABLES[found["table"]].versus
    compared = against(runs, versus) if versus else {}
    for scenario, methods in summarize(runs).items():
        of_scenario = next(run["protocol"] for run in runs if run["scenario"] == scenario)
        held_out = any(run["validation"] for run in runs if run["scenario"] == scenario)
        verdict = _verdict(methods, chosen[scenario]) if held_out else "There are no validation images to choose with."
        parts += [
            f"## {scenario[:1].upper() + scenario[1:] or 'Numbers'}",
            protocol(of_scenario),
            rows(methods),
            verdict,
        ]
        if versus and scenario in compared:
            parts.append(comparison(compared[scenario], versus))
        if scenario in lineages:
            schedule = next(run["classes"] for run in runs if run["scenario"] == scenario)
            parts.append(updates(lineages[scenario], schedule))
    parts += ["## Figures"] * bool(figures)
    for figure, link in figures.items():
        alt = _CAPTIONS[figure].partition(". ")[0].rstrip(".")
        parts.append(f"![{alt}]({link})\n\n*{_CAPTIONS[figure]}*")
    return "\n\n".join(part for part in parts if part) + "\n"


def protocol(run: Mapping[str, Any]) -> str:
    """Describe the protocol of a run in a sentence."""
    networks = [f"`{name}`" for name in (run["old_model"], run["model"]) if name]
    stem = f" ({run['stem']} stem)" if run["stem"] else ""
    start = "the previous release" if run["start"] == "old" else "random weights"
    bias = "the published b" if run["bias"] == "published" else f"b = {run['bias']}"
    memory = "" if run["memory"] == "all" else f"; old images kept: {run['memory']}, by {run['memory_by']}"
    epochs = f"{run['epochs']} epoch{'s' * (run['epochs'] != 1)}"
    return (
        f"{' -> '.join(networks)}{stem}, {epochs}, batches of {run['batch_size']}, learning rate "
        f"{run['learning_rate']:g} ({run['schedule']}, by {run['schedule_unit']}); students start from {start}; {bias} "
        f"unless the row gives one{memory}."
    )


def _commit(revision: str | None) -> str:
    """Shorten a commit to ten digits, and keep the mark of uncommitted changes.

    Examples:
      >>> _commit("0123456789abcdef-dirty"), _commit(None)
      ('0123456789-dirty', 'unknown')
    """
    commit, dash, changed = (revision or "unknown").partition("-")
    return commit[:10] + dash + changed


def rows(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Render the Markdown table of one scenario."""
    lines = []
    for method, found in methods.items():
        seeds = str(found["seeds"]) + (f" ({found['diverged']} diverged)" if found["diverged"] else "")
        rates = [cells.spread(found.get(key)) for key in RATES if key != "nfr_all_classes"]
        flips, accuracy = (found.get("paired", {}).get(key) for key in ("nfr", "accuracy"))
        paired = [cells.difference(flips), cells.p(flips), cells.difference(accuracy)]
        equal = found.get("equal")
        both = f"{100 * equal['nfr']:.1f}, {100 * equal['baseline']:.1f}" if equal else "-"
        lines.append(
            [f"`{method}`", seeds, *rates, *paired, cells.solid(both), cells.estimated_change(equal), cells.p(equal)]
        )
    return cells.table(_HEADINGS, lines)


def comparison(methods: Mapping[str, Mapping[str, Mapping[str, Any]]], rows: tuple[str, str]) -> str:
    """Render a Markdown table of the methods of one row against those of another, below an explanation.

    Args:
      methods: the comparisons of `summary.against`.
      rows: the two rows.
    """
    theirs = list(dict.fromkeys(other for found in methods.values() for other in found))
    lines = [
        [
            f"`{one}`",
            *(f"{cells.estimated_change(found.get(other))}, p {cells.p(found.get(other))}" for other in theirs),
        ]
        for one, found in methods.items()
    ]
    return (
        f"`{rows[0]}` against `{rows[1]}`: change of the negative flips at equal accuracy, both relative to "
        f"`no_treatment` at their accuracy.\n\n{cells.table(['', *(f'`{other}`' for other in theirs)], lines)}"
    )


def updates(methods: Mapping[str, Mapping[str, Any]], schedule: Sequence[int]) -> str:
    """Render a Markdown table of a sequence of updates, below an explanation of its columns."""
    steps = [f"{old} -> {new}" for old, new in itertools.pairwise(schedule)]
    headings = ["method", *steps, "lost from any release", "forgetting", "mean accuracy"]
    lines = []
    for method, found in methods.items():
        last = (found["cumulative_nfr"][-1], found["forgetting"][-1], found["average_incremental_accuracy"])
        lines.append([f"`{method}`", *(f"{100 * value:.1f}" for value in (*found["nfr_against_previous"][1:], *last))])
    return (
        "The table above is of the last update. For every update:\n\n"
        f"- *{steps[0]}* and so on: negative flips against the previous release of the same method.\n"
        "- *Lost from any release*: images that some release had right and the last one has wrong, as a share of the "
        "images of the classes known before the last update.\n"
        "- *Forgetting*: drop of the accuracy on the classes of a release from its best value, in points.\n"
        "- *Mean accuracy*: over all releases, on the classes known at the time."
        f"\n\n{cells.table(headings, lines)}"
    )


def as_trained(methods: Mapping[str, Any], method: str) -> tuple[str, str] | None:
    """Return the change of negative flips in % and of accuracy in points against `no_treatment`, on test images."""
    row, base = (methods.get(name, {}) for name in (method, BASELINE))
    if "nfr" not in row or "nfr" not in base:  # no such row, or every seed diverged
        return None
    change = row["nfr"]["mean"] / base["nfr"]["mean"] - 1 if base["nfr"]["mean"] else 0.0
    return f"{100 * change:+.0f} %", f"{100 * (row['accuracy']['mean'] - base['accuracy']['mean']):+.1f}"


def _verdict(methods: Mapping[str, Mapping[str, Any]], best: Sequence[str]) -> str:
    if "nfr" not in methods.get(BASELINE, {}):
        return ""
    if len(best) > 1:
        return f"Chosen on validation: none, because {len(best)} rows tie there."
    chosen = next(iter(best), "")
    against = as_trained(methods, chosen)
    if against is None:
        return (
            "Chosen on validation: none, because no row is within `update.tolerance` of the accuracy of `no_treatment`."
        )
    change, accuracy = against
    return (
        f"Chosen on validation: `{chosen}`, with {change} negative flips and {accuracy} points of accuracy on the test "
        "images."
    )
