"""The report as a markdown page."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

from mpt_jax.report import table


def render(report: dict[str, Any]) -> str:
    """`report.md`: the table, what its columns mean, how the margin was chosen, how it was made."""
    headings, rows = table.cells(report)
    previous = {row["seed"]: row["accuracy_previous"] for row in report["rows"]}
    parts = [
        "# Negative flips of an update",
        table.title(report).replace("\n", ", "),
        _table(headings, rows),
        f"The old model is right on {100 * sum(previous.values()) / len(previous):.2f} % of its classes' test images "
        "(mean over seeds): the ceiling of negative flips.",
        "\n".join(f"- **{heading}**: {meaning}." for heading, meaning in table.columns()),
        "\n".join(f"- `{method}`: {meaning}." for method, meaning in table.methods(report)),
        *_sequences(report),
        *_fronts(report),
        *_selection(report),
        "## Every seed",
        _table(
            [
                "method",
                "seed",
                "release",
                *(heading for _, heading, _ in table.COLUMNS),
                "on all classes",
                "churn",
                "BTC",
            ],
            [
                [row["method"], str(row["seed"]), str(row["release"])]
                + [_percent(row[key]) for key, _, _ in table.COLUMNS]
                + [_percent(row[key]) for key in ("nfr_all_classes", "churn", "btc")]
                for row in report["rows"]
            ],
        ),
        "On all classes: negative flips as a share of the whole test set. Churn: share of the old classes' images "
        "whose answer changed. BTC: share of the old model's right answers that stay right.",
        *_protocol(report),
    ]
    return "\n\n".join(parts) + "\n"


def _selection(report: dict[str, Any]) -> list[str]:
    """How numbers were chosen, for the methods where there was a choice."""
    choices = {method: choice for method, choice in report["selection"].items() if len(choice["candidates"]) > 1}
    if not choices:
        return []
    parts = ["## How the numbers were chosen", _rule(report)]
    for method, choice in choices.items():
        # A method whose every number has been tried keeps its front alone.
        rows = [
            [
                method,
                numbers(tried["numbers"]) + " (chosen)" * (i == choice["chosen"]),
                *("diverged" if tried.get("diverged") else _percent(tried[key]) for key in ("accuracy", "nfr")),
            ]
            for i, tried in enumerate(choice["candidates"])
        ]
        parts.append(_table(["method", "numbers", "validation accuracy", "validation negative flips"], rows))
    return parts


def numbers(tuned: dict[str, float]) -> str:
    """Tuned numbers as text: `b = 2, old.weight = 0.5`."""
    names = {"bias": "b", "posthoc_bias": "c", "share_of_old": "a"}
    return ", ".join(f"{names.get(name, name)} = {value:.3g}" for name, value in tuned.items()) or "as published"


def _fronts(report: dict[str, Any]) -> list[str]:
    """The negative flips of every method at one accuracy, and the fronts they are read off."""
    fronts = report["fronts"]
    if not any(len(front["points"]) > 1 for front in fronts.values()):
        return []
    base = fronts["no_treatment"]["baseline_accuracy"]
    flips = fronts["no_treatment"]["nfr_at_baseline_accuracy"]
    rows = []
    for method, front in fronts.items():
        value = front["nfr_at_baseline_accuracy"]
        change = f"{100 * (value / flips - 1):+.0f} %" if value is not None and flips else "-"
        ends = [f"{_percent(p['accuracy'])} / {_percent(p['nfr'])}" for p in (front["points"][0], front["points"][-1])]
        rows.append([method, _percent(value), change, *ends, str(len(front["points"]))])
    return [
        "## Negative flips at equal accuracy",
        f"On validation images, at the {_percent(base)} % accuracy of `no_treatment`, in a straight line between the "
        "candidates of a method that none of its others beats (its front). A dash: none of them is that accurate. A "
        "front that begins above that accuracy gives its first rate.",
        _table(
            ["method", "negative flips there", "against none", "fewest flips", "most accurate", "points of the front"],
            rows,
        ),
        "Fewest flips, most accurate: accuracy / negative flips of the ends of the front, in %.",
    ]


def _sequences(report: dict[str, Any]) -> list[str]:
    """The lineage of each method, where it has more releases than one update."""
    if not report["sequences"]:
        return []
    schedule = report["classes"]["schedule"]
    headings = ["method", *(f"{old} -> {new}" for old, new in itertools.pairwise(schedule))]

    def rows(key: str) -> list[list[str]]:
        return [
            [method, *(_percent(value) for value in lineage[key][1:])]
            for method, lineage in report["sequences"].items()
        ]

    overall = [
        [method, _percent(lineage["average_incremental_accuracy"])]
        + [_percent(lineage[key][-1]) for key in ("accuracy_of_release", "forgetting", "cumulative_nfr")]
        for method, lineage in report["sequences"].items()
    ]
    return [
        f"## The whole sequence, {len(schedule) - 1} updates",
        "Every release is compared with the release before it of the same method; means over the seeds, in %.",
        _table(
            ["method", "average incremental accuracy", "last accuracy", "forgetting", "lost from any release"], overall
        ),
        "Average incremental accuracy: mean over all releases, the first among them, of the accuracy on the classes "
        "known then. Forgetting: how far the accuracy on the classes of each release has fallen from its best, mean "
        "over the releases. Lost from any release: images that any release before had right and the last has wrong, as "
        "a share of the last but one's classes' images.",
        "### Negative flips against the release before",
        _table(headings, rows("nfr_against_previous")),
        "### Negative flips against any release before",
        _table(headings, rows("cumulative_nfr")),
        "### Accuracy on the classes known",
        _table(headings, rows("accuracy_of_release")),
    ]


def _rule(report: dict[str, Any]) -> str:
    first = next(choice for choice in report["selection"].values() if len(choice["candidates"]) > 1)
    required, tolerance = first["required_accuracy"], report["config"]["update"]["tolerance"]
    return (
        f"On {first['validation_images']} validation images cut from the training part, never on test images: the "
        f"fewest negative flips among the candidates whose accuracy is at least {_percent(required)} % "
        f"(the independent model's less the tolerance of {100 * tolerance:g} points), or else the most accurate. "
        f"One image is {100 / first['validation_images']:.2g} points, so near ties are decided by chance, and the "
        "deviations above leave that out."
    )


def _protocol(report: dict[str, Any]) -> list[str]:
    device, images, config = report["device"], report["dataset"]["images"], report["config"]
    lines = [
        f"scenario: {_scenario(config)}",
        f"classes {report['classes']['schedule']}, order `{config['dataset']['class_order']}`",
        f"images: {images['train']} train, {images['validation']} validation, {images['test']} test",
        *(f"{found['count']} {found['what']}: {found['outcome']}" for found in report["dataset"]["findings"]),
        f"model `{json.dumps(config['model'])}`",
        f"optimizer `{json.dumps(config['optimizer'])}`",
        f"device: {device['count']} x {device['kind']} ({device['platform']})",
        "versions: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        f"commit: {report['git_revision'] or 'unknown'}",
    ]
    listed = "\n".join(f"- {line}" for line in lines)
    return ["## How it was made", listed, f"```bash\n{report['command']}\n```"]


def _scenario(config: dict[str, Any]) -> str:
    """In which way the model is updated, in words."""
    update, dataset, old_model = config["update"], config["dataset"], config["old_model"]["name"]
    updates = len(update["schedule"]) - 1
    parts = [f"{updates} update{'s' * (updates > 1)}"]
    if update["old_fraction"] < 1:
        parts.append(f"old model on {100 * update['old_fraction']:g} % of the images")
    if old_model:
        parts.append(f"old network {old_model}")
    if update["start"] == "old":
        parts.append("students fine-tuned from the release before")
    if update["memory"] != "all":
        parts.append(f"memory {update['memory']}, by {update['memory_by']}")
    if dataset["imbalance"] > 1:
        parts.append(f"long tail, imbalance {dataset['imbalance']:g}")
    return ", ".join(parts)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ["---"] + ["---:"] * (len(headings) - 1)
    # A bar inside a cell would end it.
    lines = [headings, align, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
