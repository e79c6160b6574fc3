"""`REPRODUCIBILITY.md`: tables and figures from `results/*.json`, with the texts of `results/*.md`."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.errors import InputError
from mpt_jax.files import storage
from mpt_jax.reproduce import plots, readme_figure, results
from mpt_jax.reproduce.results import BASELINE
from mpt_jax.reproduce.summary import choose, sequences, summarize
from mpt_jax.reproduce.tables import BUDGETS, TABLES
from mpt_jax.runtime import regular_file

_HEADINGS = (
    *("method", "seeds", "all classes", "old classes", "new classes", "negative flips"),
    *("flips, paired", "p", "accuracy, paired", "flips at equal accuracy (baseline's)", "change", "p"),
)
# The columns of the overview: a method, and its b where it has one.
_COMPARED = (
    *(("pct_kl", None), ("mpt_kl", 0.0), ("mpt_kl", 1.0), ("mpt_kl", 4.0), ("mpt_lm", 1.0)),
    ("balanced_softmax", None),
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


def write(folder: pathlib.Path, page: pathlib.Path) -> int:
    """Draw the figures of all tables in a folder of results and write the page; return the number of tables.

    Figures of tables that no longer exist are removed.

    Raises:
      InputError: the folder has no table.
    """
    found = {path.stem: results.read(path) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise InputError(f"--results {folder} has no table; expected a folder with files such as digits-cpu.json")
    figures = {
        folder / "plots" / f"{name}-{figure}.png": picture
        for name, table in found.items()
        for figure, picture in plots.draw(table["runs"]).items()
    }
    if picture := readme_figure.draw(found):
        figures[folder / "plots" / readme_figure.FILE] = picture
    (folder / "plots").mkdir(exist_ok=True)
    for path in (folder / "plots").glob("*.png"):
        if path not in figures and path.stem.rpartition("-")[2] in plots.FIGURES:
            path.unlink()
    for path, picture in figures.items():
        storage.write_bytes(path, picture)
    storage.write_text(page, render(folder))
    return len(found)


def render(folder: pathlib.Path) -> str:
    """Render the page from everything in a folder of results."""
    names = [f"{name}-{budget}.json" for name in TABLES for budget in BUDGETS]
    found = [results.read(folder / name) for name in names if (folder / name).exists()]
    parts = [_text(folder / "introduction.md"), overview(found), _text(folder / "judgement.md")]
    parts += [section(table, folder) for table in found]
    parts += [_text(folder / f"{name}.md") for name in ("earlier", "speed", "beyond", "survival")]
    return "\n\n".join(part for part in parts if part) + "\n"


def overview(tables: Sequence[Mapping[str, Any]]) -> str:
    """Render one row per table and scenario: what the methods gain at equal accuracy, and which one was chosen."""
    columns = [f"`{method}`" + ("" if b is None else f", b = {b:g}") for method, b in _COMPARED]
    headings = ["table", "seeds", "accuracy", "flips", "`independent`", *columns, "chosen on validation, as trained"]
    lines = [f"| {' | '.join(headings)} |", "|---|" + "---:|" * (len(headings) - 1)]
    for table in tables:
        chosen = choose(table["runs"])
        for scenario, methods in summarize(table["runs"]).items():
            protocol = next(run["protocol"] for run in table["runs"] if run["scenario"] == scenario)
            base = methods.get(BASELINE, {})
            # If the students start from the old model, `independent` is not the same training: it starts from scratch.
            same = methods.get("independent") if protocol["start"] == "random" else None
            compared = [same, *(_with_bias(methods, method, b, protocol["bias"]) for method, b in _COMPARED)]
            name = f"`{table['table']}`" + f" ({table['budget']})" * (table["budget"] != "cpu")
            cells = [name + f", {scenario}" * bool(scenario), str(base.get("seeds", "-"))]
            cells += [f"{100 * base[key]['mean']:.1f}" if key in base else "-" for key in ("accuracy", "nfr")]
            cells += [_change(found) for found in compared]
            best = chosen[scenario][0] if len(chosen[scenario]) == 1 else ""
            against = _as_trained(methods, best)
            cells.append(f"`{best}`: {', '.join(against)}" if against else "-")
            lines.append(f"| {' | '.join(cells)} |")
    return (
        "## All tables at a glance\n\n"
        "- *Accuracy* and *flips* are those of the baseline, `no_treatment`.\n"
        "- The columns of methods show the change of negative flips at equal accuracy. **Bold**: p < 0.05, not "
        "corrected for the number of comparisons. With one seed there is no p.\n"
        "- `independent` is the training of `no_treatment` with other random numbers: its change is chance.\n"
        "- *Chosen on validation, as trained*: negative flips and points of accuracy against `no_treatment`, without a "
        "correction to equal accuracy. `-`: the validation images do not single out one row.\n\n" + "\n".join(lines)
    )


def _with_bias(methods: Mapping[str, Any], method: str, b: float | None, usual: str) -> Mapping[str, Any] | None:
    """Return the row of a method at this b: the row that names it, or the plain one if the run's own b is the same."""
    if b is not None and f"{method}@bias={b:g}" in methods:
        return methods[f"{method}@bias={b:g}"]
    return methods.get(method) if b is None or usual == f"{b:g}" else None


def _change(found: Mapping[str, Any] | None) -> str:
    equal = (found or {}).get("equal") or {}
    if equal.get("change") is None:
        return "-"
    text = f"{100 * equal['change']:+.0f} %"
    return f"**{text}**" if equal.get("p", 1.0) < 0.05 else text


def _as_trained(methods: Mapping[str, Any], method: str) -> tuple[str, str] | None:
    """Return the change of negative flips in % and of accuracy in points against `no_treatment`, on test images."""
    row, base = (methods.get(name, {}) for name in (method, BASELINE))
    if "nfr" not in row or "nfr" not in base:  # no such row, or every seed diverged
        return None
    change = row["nfr"]["mean"] / base["nfr"]["mean"] - 1 if base["nfr"]["mean"] else 0.0
    return f"{100 * change:+.0f} %", f"{100 * (row['accuracy']['mean'] - base['accuracy']['mean']):+.1f}"


def section(found: Mapping[str, Any], folder: pathlib.Path) -> str:
    """Render one table with its protocol, figures and text."""
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
    chosen, lineages = choose(runs), sequences(runs)
    for scenario, methods in summarize(runs).items():
        of_scenario = next(run["protocol"] for run in runs if run["scenario"] == scenario)
        parts += [*([f"**{scenario}**"] if scenario else []), protocol(of_scenario)]
        held_out = any(run["validation"] for run in runs if run["scenario"] == scenario)
        verdict = _verdict(methods, chosen[scenario]) if held_out else "There are no validation images to choose with."
        parts += [rows(methods), verdict]
        if scenario in lineages:
            schedule = next(run["classes"] for run in runs if run["scenario"] == scenario)
            parts.append(updates(lineages[scenario], schedule))
    for figure in plots.FIGURES:
        path = pathlib.Path("plots") / f"{name}-{budget}-{figure}.png"
        if (folder / path).exists():
            alt = _CAPTIONS[figure].partition(". ")[0].rstrip(".")
            parts.append(f"![{alt}]({folder.name}/{path})\n\n*{_CAPTIONS[figure]}*")
    parts.append(_text(folder / f"{name}-{budget}.md"))
    return "\n\n".join(part for part in parts if part)


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
    lines = [f"| {' | '.join(_HEADINGS)} |", "|---|" + "---:|" * (len(_HEADINGS) - 1)]
    for method, found in methods.items():
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


def updates(methods: Mapping[str, Mapping[str, Any]], schedule: Sequence[int]) -> str:
    """Render a Markdown table of a sequence of updates, below an explanation of its columns."""
    steps = [f"{old} -> {new}" for old, new in itertools.pairwise(schedule)]
    headings = ["method", *steps, "lost from any release", "forgetting", "mean accuracy"]
    lines = [f"| {' | '.join(headings)} |", "|---|" + "---:|" * (len(headings) - 1)]
    for method, found in methods.items():
        last = (found["cumulative_nfr"][-1], found["forgetting"][-1], found["average_incremental_accuracy"])
        cells = [f"{100 * value:.1f}" for value in (*found["nfr_against_previous"][1:], *last)]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    table = "\n".join(lines)
    return (
        "The table above is of the last update. For every update:\n\n"
        f"- *{steps[0]}* and so on: negative flips against the previous release of the same method.\n"
        "- *Lost from any release*: images that some release had right and the last one has wrong, as a share of the "
        "images of the classes known before the last update.\n"
        "- *Forgetting*: drop of the accuracy on the classes of a release from its best value, in points.\n"
        "- *Mean accuracy*: over all releases, on the classes known at the time."
        f"\n\n{table}"
    )


def _verdict(methods: Mapping[str, Mapping[str, Any]], best: Sequence[str]) -> str:
    if "nfr" not in methods.get(BASELINE, {}):
        return ""
    if len(best) > 1:
        return f"Chosen on validation: none, because {len(best)} rows tie there."
    chosen = next(iter(best), "")
    against = _as_trained(methods, chosen)
    if against is None:
        return (
            "Chosen on validation: none, because no row is within `update.tolerance` of the accuracy of `no_treatment`."
        )
    change, accuracy = against
    return (
        f"Chosen on validation: `{chosen}`, with {change} negative flips and {accuracy} points of accuracy on the test "
        "images."
    )


def _text(path: pathlib.Path) -> str:
    return regular_file.read_text(path).strip() if path.exists() else ""


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
