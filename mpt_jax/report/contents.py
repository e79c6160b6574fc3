"""The contents of a report: its sections in order, as `blocks`."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpt_jax.errors import printable
from mpt_jax.report import class_changes, corrected_labels, plots, table, tradeoff, verdict
from mpt_jax.report.blocks import Command, Folded, Gallery, Plot, Points, Section, Table, Text, percent

Report = dict[str, Any]
PlotBlock = Callable[[str, str], list[Plot]]


def sections(report: Report, pictures: Mapping[str, plots.Picture]) -> list[Section]:
    """Return all sections; the first has no title."""

    def plot(name: str, caption: str) -> list[Plot]:
        return [Plot(name, pictures[name].alt, caption)] if name in pictures else []

    found = [
        Section("", [Table(["what", "value"], _subject(report), left=2)]),
        Section("Which method should I ship?", verdict.blocks(report)),
        Section("How do the methods compare?", tradeoff.blocks(report, plot)),
        Section("How do they develop over the releases?", _sequence(report, plot)),
        Section("What became of the classes?", class_changes.blocks(report, plots.focus(report))),
        Section("Which flips come from corrected labels?", corrected_labels.blocks(report)),
        Section("Which images flip?", _flips(report, plot)),
        Section("Why do they flip?", _margins(report, plot)),
        Section("How was this run made?", _protocol(report)),
    ]
    return [section for section in found if section.blocks]


def _subject(report: Report) -> list[list[str]]:
    schedule, seeds = report["classes"]["schedule"], sorted({row["seed"] for row in report["rows"]})
    return [
        ["data set", report["dataset"]["name"]],
        ["classes", " -> ".join(map(str, schedule))],
        ["test images", f"{report['dataset']['images']['test']:,}"],
        ["seeds", f"{len(seeds)}" + (" (no spread available)" if len(seeds) == 1 else "")],
        ["methods", str(len(report["summary"]))],
    ]


def _sequence(report: Report, plot: PlotBlock) -> list[Any]:
    """Return the lineage of each method, if there is more than one update."""
    if not report["sequences"]:
        return []
    schedule, lineages = report["classes"]["schedule"], report["sequences"]
    steps = ["method", *(f"{old} -> {new}" for old, new in itertools.pairwise(schedule))]

    def by_step(title: str, key: str) -> Folded:
        rows = [[m, *(percent(value) for value in of_method[key][1:])] for m, of_method in lineages.items()]
        return Folded(title, [Table(steps, rows)])

    overall = [
        [method, percent(of_method["average_incremental_accuracy"])]
        + [percent(of_method[key][-1]) for key in ("accuracy_of_release", "forgetting", "cumulative_nfr")]
        for method, of_method in lineages.items()
    ]
    meanings = {
        "average incremental accuracy": "mean over all releases, including the first, of the accuracy on the classes "
        "known at the time",
        "last accuracy": "accuracy of the last release",
        "forgetting": "drop of the accuracy on the classes of each release from its maximum, mean over the releases",
        "flips vs any release": "images that some earlier release predicts correctly and the last one does not, as a "
        "share of the images of the classes known before the last update",
    }
    return [
        Text(
            f"{len(schedule) - 1} updates. Each release is compared with the previous one of the same method; means "
            "over seeds, in %."
        ),
        Table(["method", *meanings], overall, meanings=meanings),
        Points([f"**{name}**: {meaning}." for name, meaning in meanings.items()]),
        *plot("sequence", "Accuracy (left): higher is better. Negative flips (right): lower is better."),
        by_step("Negative flips against the previous release", "nfr_against_previous"),
        by_step("Negative flips against any earlier release", "cumulative_nfr"),
        by_step("Accuracy on the classes of the release", "accuracy_of_release"),
    ]


def _flips(report: Report, plot: PlotBlock) -> list[Any]:
    if not report["flips"]:
        return []
    names, shown = report["classes"]["order"], plots.focus(report)
    rates = {method: plots.class_rates(report, method) for method in shown}
    first = report["flips"][shown[0]]
    order = sorted(range(len(rates[shown[0]])), key=lambda k: -(rates[shown[0]][k] or 0))
    seeds = len({row["seed"] for row in report["rows"]})
    per_seed = [max(1, count // seeds) if count else 0 for count in first["per_class"]["count"]]
    headings = ["class", "test images", *(f"flips, {method}" for method in shown)]
    rows = [[names[k], str(per_seed[k]), *(percent(rates[m][k]) for m in shown)] for k in order]
    num_old = report["classes"]["not_new"]
    confused = [
        [names[label], names[predicted], "new" if predicted >= num_old else "old", str(count)]
        for label, predicted, count in first["confusion"]
    ]
    total = sum(count for _, _, count in first["confusion"])
    to_new = sum(count for _, predicted, count in first["confusion"] if predicted >= num_old)
    share = f"{100 * to_new / total:.0f} % of the flips of `{shown[0]}` are predicted as new classes." if total else ""
    galleries = [
        Gallery(method, found["images"], names, drawn=bool(plot("gallery", "")))
        for method, found in report["flips"].items()
        if found["images"]
    ]
    galleries.sort(key=lambda gallery: gallery.method != shown[0])
    confusions = Table(["class", "new prediction", "kind", "flips"], confused, 3)
    return [
        Text(f"The last release; counts are sums over {seeds} seeds." if seeds > 1 else "The last release."),
        *plot("classes", f"The old classes with the most flips, at most {plots.MOST_CLASSES}."),
        Folded("All old classes", [Table(headings, rows)]),
        *([Text(share)] if share else []),
        *plot("confusion", f"Flips of `{shown[0]}`: all were correct before the update."),
        *([Folded("Confused classes", [confusions])] if confused else []),
        *_galleries(report, galleries),
    ]


def _galleries(report: Report, galleries: Sequence[Gallery]) -> list[Any]:
    if not galleries:
        return []
    text = (
        f"Images that flip with `{galleries[0].method}`, seed {report['rows'][0]['seed']}, the most confident errors "
        "first: the old model's prediction, which is correct, and the new model's, each with its softmax confidence."
    )
    others = [Folded(f"Flips of {gallery.method}", [gallery]) for gallery in galleries[1:]]
    return [Text(text), galleries[0], *([Folded("Flipped images of other methods", others)] if others else [])]


def _margins(report: Report, plot: PlotBlock) -> list[Any]:
    found = {method: of["margins"] for method, of in report["flips"].items() if of["margins"]}
    keys = ("median_before", "median_after", "median_before_of_flipped")
    rows = [
        [m, *("-" if margins[key] is None else f"{margins[key]:.2f}" for key in keys)] for m, margins in found.items()
    ]
    meanings = {
        "old model": "median margin in the old model",
        "new model": "median margin in the new model, whose new classes also compete",
        "old model, flipped images": "median margin in the old model of the images that flip",
    }
    text = (
        "The margin of an image is the logit of the true class minus the largest other logit. An image flips when its "
        "margin falls below 0. Methods differ in how much of the old model's margin they keep. Logits of two models "
        "have no common scale: compare the share below 0 and the shape, not the width."
    )
    caption = (
        "Validation images. More bias keeps more images of old classes correct and fewer of new classes. `b` is a "
        "margin in training; `c` is subtracted after training."
    )
    details = [
        Table(["method", *meanings], rows, meanings=meanings),
        Points([f"**{name}**: {meaning}, in logits." for name, meaning in meanings.items()]),
    ]
    return [
        *([Text(text)] if found else []),
        *plot("margins", f"Test images of the old classes, seed {report['rows'][0]['seed']}."),
        *([Folded("Median margins", details)] if found else []),
        *plot("bias", caption),
    ]


def _protocol(report: Report) -> list[Any]:
    images, config = report["dataset"]["images"], report["config"]
    order = printable(", ".join(report["classes"]["order"]), 4000)
    rows = [
        ["scenario", _scenario(config)],
        ["schedule", " -> ".join(map(str, report["classes"]["schedule"]))],
        ["class order", f"{config['dataset']['class_order']}: {order}"],
        ["images", f"{images['train']} train, {images['validation']} validation, {images['test']} test"],
        *(
            ["data findings", f"{found['count']} {found['what']}: {found['outcome']}"]
            for found in report["dataset"]["findings"]
        ),
        ["model", json.dumps(config["model"])],
        ["optimizer", json.dumps(config["optimizer"])],
        ["hardware", ", then ".join(report["hardware"])],
        ["versions", ", ".join(_versions(report))],
        ["commit", ", then ".join(revision or "unknown" for revision in report["git_revisions"])],
    ]
    headings = ["method", "seed", "release", *(heading for _, heading, _ in table.COLUMNS)]
    keys = [key for key, _, _ in table.COLUMNS] + ["nfr_all_classes", "churn", "btc"]
    of_seeds = [
        [row["method"], str(row["seed"]), str(row["release"]), *(percent(row[key]) for key in keys)]
        for row in report["rows"]
    ]
    return [
        Table(["what", "value"], rows, left=2),
        Command(report["command"]),
        Folded(
            "All seeds",
            [
                Table([*headings, "NFR, all classes", "churn", "BTC"], of_seeds),
                Text(
                    "NFR, all classes: negative flips as a share of all test images. Churn: share of the old classes' "
                    "images whose prediction changed. BTC (backward trust compatibility): share of the old model's "
                    "correct predictions that stay correct."
                ),
            ],
        ),
    ]


def _versions(report: Report) -> list[str]:
    """Return the version of each package at the start of the run, then those with which it was resumed."""
    later = report["other_versions"]
    return [f"{name} {', then '.join([first, *later.get(name, [])])}" for name, first in report["versions"].items()]


def _scenario(config: dict[str, Any]) -> str:
    """Return in words how the model is updated."""
    update, dataset, old_model = config["update"], config["dataset"], config["old_model"]["name"]
    updates = len(update["schedule"]) - 1
    parts = [f"{updates} update{'s' * (updates > 1)}"]
    if update["old_fraction"] < 1:
        parts.append(f"old model trained on {100 * update['old_fraction']:g} % of the images")
    if update.get("class_map"):
        parts.append("classes renamed, merged, split or retired")
    if old_model:
        parts.append(f"old network {old_model}")
    external = config.get("old", {})
    parts += [f"old model from {external[key]}" for key in ("predictions", "weights") if external.get(key)]
    if update["start"] == "old":
        parts.append("students fine-tuned from the previous release")
    if update["memory"] != "all":
        parts.append(f"memory {update['memory']}, by {update['memory_by']}")
    if dataset["imbalance"] > 1:
        parts.append(f"long tail, imbalance {dataset['imbalance']:g}")
    return ", ".join(parts)
