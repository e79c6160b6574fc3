"""What a report says, in its order and as data: `markdown` and `page` only give it a look.

Texts are this project's own, with `code` in backticks. What comes from a data set or a command line (names of classes,
files and data sets) stands only in cells, captions and commands, which both looks take as they are.
"""

import dataclasses
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.methods import DERIVED
from mpt_jax.report import plots, table
from mpt_jax.update import lineage

Report = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `tone` is "good", "open" or "bad" for the answer to the first question."""

    text: str
    tone: str = ""


@dataclasses.dataclass(frozen=True)
class Points:
    """A list of sentences."""

    texts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of plain text; the first `left` columns are words, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    meanings: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of a heading, in a sentence


@dataclasses.dataclass(frozen=True)
class Plot:
    """A picture by name, and a sentence on how to read it."""

    name: str
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Flipped images of a method: id, class, new answer, both confidences."""

    method: str
    images: Sequence[Mapping[str, Any]]
    classes: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Command:
    """A line for a shell."""

    text: str


@dataclasses.dataclass(frozen=True)
class Folded:
    """What only some readers want: closed at first on the page, under a heading elsewhere."""

    title: str
    blocks: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Section:
    """A question and its answer."""

    title: str
    blocks: Sequence[Any]


def sections(report: Report, pictures: Mapping[str, plots.Picture]) -> list[Section]:
    """The whole report; the first section has no question but the subject."""

    def plot(name: str, caption: str) -> list[Plot]:
        return [Plot(name, pictures[name].alt, caption)] if name in pictures else []

    found = [
        Section("", [Table(["what", "value"], _subject(report), left=2)]),
        Section("May I ship it?", _verdict(report)),
        Section("What did it cost?", _cost(report, plot)),
        Section("The whole sequence", _sequence(report, plot)),
        Section("Where are the flips?", _where(report, plot)),
        Section("Why?", _why(report, plot)),
        Section("How was it made?", _protocol(report)),
    ]
    return [section for section in found if section.blocks]


def _subject(report: Report) -> list[list[str]]:
    schedule, seeds = report["classes"]["schedule"], sorted({row["seed"] for row in report["rows"]})
    images = report["dataset"]["images"]
    return [
        ["data set", report["dataset"]["name"]],
        ["classes", " -> ".join(map(str, schedule))],
        ["test images", f"{images['test']:,}"],
        ["seeds", f"{len(seeds)}" + (" (no spread can be given)" if len(seeds) == 1 else "")],
        ["methods", str(len(report["summary"]))],
    ]


def _verdict(report: Report) -> list[Any]:
    compared, summary = report["comparison"], report["summary"]
    best, baseline = compared["best"], compared["baseline"]
    if baseline not in compared["methods"]:
        return [Text(f"No answer: `{baseline}`, which the others are compared with, diverged.", "bad")]
    tolerance = f"{100 * report['config']['update']['tolerance']:g} %"
    reason = f"Candidates: methods whose accuracy is at most {tolerance} (of all images) below that of `{baseline}`."
    if best is None:
        headline = f"No method here is shown to be a better update than `{baseline}`"
        why = f"none of the {compared['candidates']} candidates has fewer negative flips"
        if not compared["candidates"]:
            why = "each costs more accuracy than is tolerated"
        return [
            Text(f"{headline}: {why}.", "bad"),
            Points([reason, *_facts(report, baseline)]),
        ]
    if compared["answer"] == "better":
        tone, doubt = "good", "more surely than by chance."
    elif compared["interval_over"] == "seeds":
        tone, doubt = "open", "but it may be by chance."
    else:
        tone, doubt = "open", "but only three seeds or more can tell that from chance in training."
    headline = (
        f"{'Rather' if tone == 'good' else 'Perhaps rather'} `{best}` than `{baseline}`: fewer negative flips, {doubt}"
    )
    facts = _facts(report, best)
    if compared["candidates"] > 1:
        reason += (
            f" `{best}` has the fewest negative flips of {compared['candidates']}, on these very test images, which "
            "flatters it; the answer above allows for that (Bonferroni), the intervals do not."
        )
    last, seed = len(report["classes"]["schedule"]) - 1, report["rows"][0]["seed"]
    names = [lineage.release_name(*pair, seed) for pair in (lineage.previous(last, best), (last, best))]
    limit = f"{summary[best]['nfr']['mean']:.2g}"
    files = " ".join(f"predictions/{name}.npz" for name in names)
    return [
        Text(headline, tone),
        Points([*facts, reason]),
        Text("How many flips are too many is yours to say. In the work directory this holds one model to a limit:"),
        Command(f"python -m mpt_jax.compare {files} --max-nfr {limit}"),
    ]


def _facts(report: Report, method: str) -> list[str]:
    compared, summary = report["comparison"], report["summary"][method]
    baseline, found = compared["baseline"], compared["methods"][method]
    flips, right = summary["nfr"]["mean"], summary["pfr"]["mean"]
    last = [
        row for row in report["rows"] if row["method"] == method and row["release"] == report["rows"][-1]["release"]
    ]
    before = statistics.fmean(row["accuracy_previous"] for row in last)
    facts = [
        f"Of 1,000 images of the old classes {1000 * flips:.0f} that were right before come out wrong, and "
        f"{1000 * right:.0f} that were wrong come out right: {_percent(flips)} % negative flips"
        f"{_interval(found['nfr']['interval'])}.",
    ]
    if method != baseline:
        facts += [
            f"Against `{baseline}`: {_signed(found['nfr']['difference'])} points of negative flips, "
            f"{_signed(found['accuracy']['difference'])} points of accuracy."
        ]
    facts += [
        f"Accuracy: {_percent(summary['accuracy']['mean'])} % on all classes"
        f"{_interval(found['accuracy']['interval'])}; "
        f"on the old ones {_percent(summary['accuracy_old_classes']['mean'])} %, where the old model has "
        f"{_percent(before)} %."
    ]
    sure = f"{100 * compared['confidence']:g} %"
    explained = {
        "seeds": f"In brackets: {sure} intervals over seeds (Student's; of differences, paired): chance in training.",
        "images": f"In brackets: {sure} intervals over the test images (Wilson's; normal in paired differences). With "
        "fewer than three seeds chance in training cannot be told, and comes on top.",
    }
    return facts + ([explained[compared["interval_over"]]] if compared["interval_over"] else [])


def _cost(report: Report, plot: Any) -> list[Any]:
    headings, rows = table.cells(report)
    last = report["rows"][-1]["release"]
    previous = [row["accuracy_previous"] for row in report["rows"] if row["release"] == last]
    seeds = len({row["seed"] for row in report["rows"]})
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    left_out = plots.far_off(report)
    caption = "Test images; lower right is better. A point per method, bars its 95 % intervals (cut off at the frame)."
    if left_out:
        names = ", ".join(f"`{method}`" for method in left_out)
        far = f"{100 * plots.TOO_FAR:g} points"
        caption += f" Left out, as more than {far} less accurate than the baseline or diverged: {names}."
    return [
        Text(f"Rates in %, {over}." + (" Of the last release." if report["sequences"] else "")),
        Table(headings, rows, meanings=dict(table.columns())),
        Text(
            f"{'The releases before are' if report['sequences'] else 'The old model is'} right on "
            f"{100 * statistics.fmean(previous):.2f} % of the old classes' test images "
            f"(mean over {'methods and ' * bool(report['sequences'])}seeds): the ceiling of negative flips."
        ),
        *plot("tradeoff", caption),
        Folded("What the columns mean", [Points([f"**{name}**: {meaning}." for name, meaning in table.columns()])]),
        Folded("What the methods are", [Points([f"`{name}`: {meaning}." for name, meaning in table.methods(report)])]),
        *_fronts(report, plot),
        *_selection(report),
    ]


def _fronts(report: Report, plot: Any) -> list[Any]:
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
    headings = [
        "method",
        "negative flips there",
        "against none",
        "fewest flips",
        "most accurate",
        "points of the front",
    ]
    caption = (
        "Validation images; lower right is better. A line per method through those of its candidates that no other one "
        "of it beats."
    )
    if "posthoc_bias" in fronts:
        caption += (
            " `posthoc_bias`, dashed, is the trade that any new model offers for nothing: a method is worth its "
            "training where it lies below that line."
        )
    return [
        *plot("fronts", caption),
        Folded(
            "Negative flips at equal accuracy",
            [
                Text(
                    f"On validation images, at the {_percent(base)} % accuracy of `no_treatment`, in a straight line "
                    "between the candidates of a method that none of its others beats (its front). A dash: none of "
                    "them is that accurate. A front that begins above that accuracy gives its first rate."
                ),
                Table(headings, rows),
                Text("Fewest flips, most accurate: accuracy / negative flips of the ends of the front, in %."),
            ],
        ),
    ]


def _selection(report: Report) -> list[Any]:
    """How numbers were chosen, for the methods where there was a choice."""
    choices = {method: choice for method, choice in report["selection"].items() if len(choice["candidates"]) > 1}
    if not choices:
        return []
    # A method whose every number has been tried keeps its front alone.
    rows = [
        [
            method,
            numbers(tried["numbers"]) + " (chosen)" * (i == choice["chosen"]),
            *("diverged" if tried.get("diverged") else _percent(tried[key]) for key in ("accuracy", "nfr")),
        ]
        for method, choice in choices.items()
        for i, tried in enumerate(choice["candidates"])
    ]
    headings = ["method", "numbers", "validation accuracy", "validation negative flips"]
    return [Folded("How the numbers were chosen", [Text(_rule(report)), Table(headings, rows, left=2)])]


def numbers(tuned: Mapping[str, float]) -> str:
    """Tuned numbers as text: `b = 2, old.weight = 0.5`."""
    names = {"bias": "b"} | {row.number.name: row.number.symbol for row in DERIVED.values() if row.number}
    return ", ".join(f"{names.get(name, name)} = {value:.3g}" for name, value in tuned.items()) or "as published"


def _rule(report: Report) -> str:
    method, first = next(found for found in report["selection"].items() if len(found[1]["candidates"]) > 1)
    tries = method in DERIVED and DERIVED[method].number and DERIVED[method].number.candidates
    reference = "first candidate" if tries else "independent model"
    required, tolerance = first["required_accuracy"], report["config"]["update"]["tolerance"]
    return (
        f"On {first['validation_images']} validation images cut from the training part, never on test images: the "
        f"fewest negative flips among the candidates whose accuracy is at least {_percent(required)} % "
        f"(the {reference}'s less the tolerance of {100 * tolerance:g} points), or else the most accurate. "
        f"One image is {100 / first['validation_images']:.2g} points, so near ties are decided by chance, and the "
        "deviations above leave that out."
    )


def _sequence(report: Report, plot: Any) -> list[Any]:
    """The lineage of each method, where it has more releases than one update."""
    if not report["sequences"]:
        return []
    schedule, lineages = report["classes"]["schedule"], report["sequences"]
    steps = ["method", *(f"{old} -> {new}" for old, new in itertools.pairwise(schedule))]

    def by_step(title: str, key: str) -> Folded:
        rows = [[m, *(_percent(value) for value in of_method[key][1:])] for m, of_method in lineages.items()]
        return Folded(title, [Table(steps, rows)])

    overall = [
        [method, _percent(of_method["average_incremental_accuracy"])]
        + [_percent(of_method[key][-1]) for key in ("accuracy_of_release", "forgetting", "cumulative_nfr")]
        for method, of_method in lineages.items()
    ]
    meanings = {
        "average incremental accuracy": "mean over all releases, the first among them, of the accuracy on the classes "
        "known then",
        "last accuracy": "accuracy of the last release",
        "forgetting": "how far the accuracy on the classes of each release has fallen from its best, mean over the "
        "releases",
        "lost from any release": "images that any release before had right and the last has wrong, as a share of the "
        "last but one's classes' images",
    }
    return [
        Text(
            f"{len(schedule) - 1} updates, each release compared with the release before it of the same method; means "
            "over the seeds, in %."
        ),
        Table(["method", *meanings], overall, meanings=meanings),
        Points([f"**{name}**: {meaning}." for name, meaning in meanings.items()]),
        *plot("sequence", "Left higher, right lower is better. Thin grey: the other methods."),
        by_step("Negative flips against the release before", "nfr_against_previous"),
        by_step("Negative flips against any release before", "cumulative_nfr"),
        by_step("Accuracy on the classes known", "accuracy_of_release"),
    ]


def _where(report: Report, plot: Any) -> list[Any]:
    if not report["flips"]:
        return []
    names, shown = report["classes"]["order"], plots.focus(report)
    rates = {method: plots.class_rates(report, method) for method in shown}
    first = report["flips"][shown[0]]
    order = sorted(range(len(rates[shown[0]])), key=lambda k: -(rates[shown[0]][k] or 0))
    seeds = len({row["seed"] for row in report["rows"]})
    per_seed = [max(1, count // seeds) if count else 0 for count in first["per_class"]["count"]]
    headings = ["class", "test images", *(f"flips, {method}" for method in shown)]
    rows = [[names[k], str(per_seed[k]), *(_percent(rates[m][k]) for m in shown)] for k in order]
    between = [
        [names[label], names[answer], _kind(report, answer), str(count)] for label, answer, count in first["confusion"]
    ]
    total = sum(row[-1] for row in first["confusion"])
    to_new = sum(row[-1] for row in first["confusion"] if row[1] >= report["classes"]["schedule"][-2])
    words = f"{100 * to_new / total:.0f} % of the flips of `{shown[0]}` go to new classes." if total else ""
    galleries = [
        Gallery(method, found["images"], names) for method, found in report["flips"].items() if found["images"]
    ]
    galleries.sort(key=lambda gallery: gallery.method not in shown[:1])
    return [
        Text(f"The last release; counts are sums over {seeds} seeds." if seeds > 1 else "The last release."),
        *plot("classes", f"The old classes with the most flips, at most {plots.MOST_CLASSES}."),
        Folded("Every old class", [Table(headings, rows)]),
        *([Text(words)] if words else []),
        *plot("confusion", f"Flips of `{shown[0]}`: how many images of each class, all right before, now go where."),
        *(
            [
                Folded(
                    "Which class is taken for which", [Table(["class", "new answer", "which is", "flips"], between, 3)]
                )
            ]
            if between
            else []
        ),
        *_galleries(report, galleries),
    ]


def _galleries(report: Report, galleries: Sequence[Gallery]) -> list[Any]:
    if not galleries:
        return []
    seed = report["rows"][0]["seed"]
    text = (
        f"The flipped images themselves, of seed {seed}, those first whose wrong answer is the most confident: the old "
        "model's answer, which was right, above the new one's, each with its confidence (the softmax of that answer)."
    )
    others = [Folded(f"Flips of {gallery.method}", [gallery]) for gallery in galleries[1:]]
    return [Text(text), galleries[0], *([Folded("The flipped images of the other methods", others)] if others else [])]


def _kind(report: Report, answer: int) -> str:
    return "new" if answer >= report["classes"]["schedule"][-2] else "old"


def _why(report: Report, plot: Any) -> list[Any]:
    found = {method: of["margins"] for method, of in report["flips"].items() if of["margins"]}
    keys = ("median_before", "median_after", "median_before_of_flipped")
    rows = [
        [m, *("-" if margins[key] is None else f"{margins[key]:.2f}" for key in keys)] for m, margins in found.items()
    ]
    meanings = {
        "before": "median margin in the old model",
        "after": "median margin in the new model, whose new classes also compete",
        "before, of those that flip": "median margin in the old model of the images that the new one loses",
    }
    text = (
        "An image flips when its margin, the true class's logit less the best other one, falls below 0. Update methods "
        "differ in how much of the old model's margin they keep. Logits of two models have no common scale, so look at "
        "what lies left of 0 and at the shape, less at the width."
    )
    swept = (
        "Validation images. Every step of bias on the new classes buys old classes' images back at the price of new "
        "classes'; `c` is subtracted after training, `b` is a margin in training."
    )
    parts = [
        *([Text(text)] if found else []),
        *plot("margins", f"Old classes' test images of seed {report['rows'][0]['seed']}."),
        *(
            [
                Folded(
                    "Median margins",
                    [
                        Table(["method", *meanings], rows, meanings=meanings),
                        Points([f"**{name}**: {meaning}, in logits." for name, meaning in meanings.items()]),
                    ],
                )
            ]
            if found
            else []
        ),
        *plot("bias", swept),
    ]
    return parts


def _protocol(report: Report) -> list[Any]:
    images, config = report["dataset"]["images"], report["config"]
    order = plots.printable(", ".join(report["classes"]["order"]), 4000)
    rows = [
        ["scenario", _scenario(config)],
        ["schedule", " -> ".join(map(str, report["classes"]["schedule"]))],
        ["class order", f"{config['dataset']['class_order']}: {order}"],
        ["images", f"{images['train']} train, {images['validation']} validation, {images['test']} test"],
        *(
            ["found", f"{found['count']} {found['what']}: {found['outcome']}"]
            for found in report["dataset"]["findings"]
        ),
        ["model", json.dumps(config["model"])],
        ["optimizer", json.dumps(config["optimizer"])],
        ["made on", ", then ".join(report["hardware"])],
        ["versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())],
        ["commit", ", then ".join(revision or "unknown" for revision in report["git_revisions"])],
    ]
    headings = ["method", "seed", "release", *(heading for _, heading, _ in table.COLUMNS)]
    keys = [key for key, _, _ in table.COLUMNS] + ["nfr_all_classes", "churn", "btc"]
    every = [
        [row["method"], str(row["seed"]), str(row["release"]), *(_percent(row[key]) for key in keys)]
        for row in report["rows"]
    ]
    return [
        Table(["what", "value"], rows, left=2),
        Command(report["command"]),
        Folded(
            "Every seed",
            [
                Table([*headings, "on all classes", "churn", "BTC"], every),
                Text(
                    "On all classes: negative flips as a share of the whole test set. Churn: share of the old classes' "
                    "images whose answer changed. BTC: share of the old model's right answers that stay right."
                ),
            ],
        ),
    ]


def _scenario(config: dict[str, Any]) -> str:
    """In which way the model is updated, in words."""
    update, dataset, old_model = config["update"], config["dataset"], config["old_model"]["name"]
    updates = len(update["schedule"]) - 1
    parts = [f"{updates} update{'s' * (updates > 1)}"]
    if update["old_fraction"] < 1:
        parts.append(f"old model on {100 * update['old_fraction']:g} % of the images")
    if old_model:
        parts.append(f"old network {old_model}")
    of_own = config.get("old", {})
    parts += [f"old model by {of_own[key]}" for key in ("predictions", "weights") if of_own.get(key)]
    if update["start"] == "old":
        parts.append("students fine-tuned from the release before")
    if update["memory"] != "all":
        parts.append(f"memory {update['memory']}, by {update['memory_by']}")
    if dataset["imbalance"] > 1:
        parts.append(f"long tail, imbalance {dataset['imbalance']:g}")
    return ", ".join(parts)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _interval(ends: Sequence[float] | None) -> str:
    return f" [{100 * ends[0]:.2f}, {100 * ends[1]:.2f}]" if ends else ""


def _signed(difference: Mapping[str, Any]) -> str:
    ends = difference["interval"]
    return f"{100 * difference['mean']:+.2f}" + (f" [{100 * ends[0]:+.2f}, {100 * ends[1]:+.2f}]" if ends else "")
