"""The table of methods: its columns and rows, what each means, and its look on a terminal."""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mpt_jax import methods as registry
from mpt_jax import objectives
from mpt_jax.errors import printable

# (key of the summary, heading, what it means)
COLUMNS = (
    ("accuracy", "accuracy", "share of all test images that the new model predicts correctly"),
    ("accuracy_old_classes", "old classes", "accuracy on the test images of the classes that the old model knew"),
    ("accuracy_new_classes", "new classes", "accuracy on the test images of the added classes"),
    (
        "nfr",
        "negative flips",
        "share of the old classes' test images that the old model predicts correctly and the new one wrongly",
    ),
    (
        "pfr",
        "positive flips",
        "share of the old classes' test images that the old model predicts wrongly and the new one correctly",
    ),
)
CHANGE = ("flips vs none", "negative flips compared with no_treatment: fewer is better")
MARGIN = ("b", "margin: bias on the new classes' logits in training (chosen on validation images if several are tried)")
INDEPENDENT = "the new teacher: trained on all classes, independently of the old model"
_ROOM_FOR_NAMES = 13  # of 80 columns, beside five with deviations


def cells(report: dict[str, Any], *, spread: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of text, a row per method; rates in percent as mean and standard deviation over seeds.

    Without `spread`, only the negative flips have a deviation.
    """
    headings = ["method", *(heading for _, heading, _ in COLUMNS), CHANGE[0], MARGIN[0]]
    baseline = report["summary"].get("no_treatment", {}).get("nfr", {}).get("mean")
    rows = []
    for method, summary in report["summary"].items():
        of_method = [row for row in report["rows"] if row["method"] == method]
        objective = of_method[-1]["objective"]  # of the last release
        bias = objective.get("posthoc_bias", objective["bias"])
        rates = [_rate(summary.get(key), spread or key == "nfr") for key, _, _ in COLUMNS]
        if any(row.get("diverged") for row in of_method):
            change = "diverged"
        elif baseline and method != "no_treatment":
            change = f"{100 * (summary['nfr']['mean'] / baseline - 1):+.0f} %"
        else:
            change = "-"
        rows.append([method, *rates, change, f"{bias:.3g}"])
    return headings, rows


def columns() -> list[tuple[str, str]]:
    """Return the heading and meaning of every column but the first."""
    return [*((heading, meaning) for _, heading, meaning in COLUMNS), CHANGE, MARGIN]


def methods(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the name and meaning of every row."""
    return [(method, _meaning(method)) for method in report["summary"]]


def _meaning(method: str) -> str:
    if objectives.is_trained(method):
        return registry.describe(objectives.named(method))
    if method in registry.DERIVED:
        return registry.describe(registry.DERIVED[method])
    # A config may have added a row that this program does not know when it writes the report again.
    return INDEPENDENT if method == "independent" else "added by the config of the run"


def title(report: dict[str, Any]) -> str:
    """Return what was updated, and over how many seeds."""
    schedule = " -> ".join(map(str, report["classes"]["schedule"]))
    seeds = len({row["seed"] for row in report["rows"]})
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    images = report["dataset"]["images"]["test"]
    return f"{printable(report['dataset']['name'])}, {schedule} classes, {images} test images, rates in %\n{over}"


def terminal(report: dict[str, Any]) -> Table:
    """Return the table for a terminal of 80 columns, without the positive flips, which `report.md` has."""
    # Long names leave no space for every deviation.
    headings, rows = cells(report, spread=max(map(len, report["summary"])) <= _ROOM_FOR_NAMES)
    shown = [i for i, heading in enumerate(headings) if heading != "positive flips"]
    table = Table(title=Text(title(report)), title_justify="left", title_style="bold")
    table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
    for i in shown:
        table.add_column(headings[i].replace(" ", "\n", 1), justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(row[i])) for i in shown))
    return table


def legend(report: dict[str, Any]) -> Table:
    """Return what the rows and columns of `terminal` mean."""
    table = Table.grid(padding=(0, 2))
    shown = [column for column in columns() if column[0] != "positive flips"]
    for name, meaning in [*shown, ("", ""), *methods(report)]:
        table.add_row(Text(printable(name)), Text(printable(meaning)))
    return table


def _rate(value: dict[str, float] | None, spread: bool = True) -> str:
    if value is None:
        return "-"
    deviation = f" ± {100 * value['std']:.1f}" if spread and value["count"] > 1 else ""
    return f"{100 * value['mean']:.1f}{deviation}"
