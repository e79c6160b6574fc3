"""Collection of a work directory into a report."""

import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax import metrics
from mpt_jax.errors import InputError
from mpt_jax.files import schema, storage
from mpt_jax.report import class_changes, comparison, contents, corrected_labels, flips, markdown, page, plots
from mpt_jax.runtime import hardware
from mpt_jax.update import chain, class_change, lineage, workdir
from mpt_jax.update.class_change import ClassChange
from mpt_jax.update.workdir import read_facts

RATES = (
    *("accuracy", "accuracy_old_classes", "accuracy_new_classes", "accuracy_previous"),
    *("nfr", "relative_nfr", "pfr", "nfi", "churn", "btc", "nfr_all_classes"),
)
COSTS = ("steps", "seconds", "examples_per_second")
BASELINE = "no_treatment"
UPDATED = {"metrics": dict.fromkeys(RATES, (float, None)), "objective": {"bias": float}}
"""What the card of an update must hold for the report, beside `released_model.CARD`."""


def write(folder: pathlib.Path) -> dict[str, Any]:
    """Build the report of a work directory, write its files and return it.

    The files are `report.json`, `report.md` with `plots/`, and `report.html`.
    """
    report, thumbnails = build(folder), workdir.read_gallery(folder)
    figures = plots.draw(report, thumbnails)
    sections = contents.sections(report, figures)
    storage.write_text(folder / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    plots.write(folder / "plots", figures)
    storage.write_text(folder / "report.md", markdown.render(sections))
    storage.write_text(folder / "report.html", page.render(sections, figures, thumbnails))
    return report


def build(folder: pathlib.Path) -> dict[str, Any]:
    """Return the report as plain data.

    Rates are fractions of the test images. `nfr`, `relative_nfr`, `pfr`, `nfi`, `churn` and `btc` are over the images
    of the old classes, while the new model predicts among all classes.

    Returns:
      `schema` 1; `rows`, one for each (release, method, seed). Of the last release: `summary` over seeds, `selection`
      of numbers, `comparison` (see `comparison.compare`) and, if there are predictions, `flips` per method (see
      `flips.describe`), `class_changes` with a class map (see `class_changes.describe`) and `corrected_labels` per
      method with corrected labels (see `corrected_labels.count`; sums over seeds). `sequences`: the lineage of each
      method, if there are more than two releases. `hardware` and `git_revisions`: every machine and commit that the run
      was started or resumed with.
    """
    facts = read_facts(folder)
    config, all_cards = workdir.config_of(facts), chain.read_cards(folder, facts)
    methods, schedule = (lineage.INDEPENDENT, *config["update"]["methods"]), config["update"]["schedule"]
    cards = [card for card in map(all_cards.__getitem__, chain.releases(config)) if card["release"]]
    for card in cards:
        if fault := schema.fault(card, UPDATED):
            raise InputError(f"the card of {card['name']} in {folder}/releases is damaged: {fault}; restore it")
    predictions = chain.reader(folder, facts, all_cards)
    made_with = [facts, *(card["made_with"] for card in cards if "made_with" in card)]
    rows = [_row(card) for card in cards]
    last = [card for card in cards if card["release"] == len(schedule) - 1]
    selection = {card["method"]: card["selection"] for card in last if card.get("selection")}
    change = None
    if "class_map" in last[0]:
        change = class_change.from_cards(last[0], all_cards[lineage.release_name(0, lineage.OLD, last[0]["seed"])])
    num_old = change.num_carried if change else schedule[-2]
    former = facts.get("former_labels", {}), last[0]["classes"], change.becomes() if change else {}
    found, events, more = _flips(folder, config, methods, predictions, num_old, change, former)
    compared = comparison.compare(
        {method: [_row(card) for card in last if card["method"] == method] for method in methods},
        events,
        tolerance=config["update"]["tolerance"],
        baseline=BASELINE if BASELINE in methods else lineage.INDEPENDENT,
        reference=(lineage.INDEPENDENT,),
    )
    return {
        "schema": 1,
        "dataset": {
            "name": config["dataset"]["name"],
            "images": facts["images"],
            "findings": facts.get("findings", []),
        },
        "classes": {"order": last[0]["classes"], "schedule": schedule, "not_new": num_old},
        "device": facts["device"],
        "rows": rows,
        "summary": {method: _summary([_row(card) for card in last if card["method"] == method]) for method in methods},
        "sequences": _sequences(config, methods, predictions) if len(schedule) > 2 else {},
        "selection": selection,
        "fronts": fronts(selection),
        "comparison": compared,
        "flips": found,
        **(
            {"class_changes": class_changes.describe(change, more, last[0]["classes"], compared)}
            if change and found
            else {}
        ),
        **({"corrected_labels": {m: _sums(of["corrected"]) for m, of in more.items()}} if former[0] and found else {}),
        "config": config,
        "versions": facts["versions"],
        "other_versions": workdir.other_versions(facts, facts["versions"]),
        "git_revision": facts.get("git_revision"),
        "hardware": list(dict.fromkeys(hardware.in_words(made["device"]) for made in made_with)),
        "git_revisions": list(dict.fromkeys(made.get("git_revision") for made in made_with)),
        "command": facts["command"],
    }


def fronts(selection: Mapping[str, Any]) -> dict[str, Any]:
    """Return for each method its Pareto front on validation images and the negative flips at the baseline's accuracy.

    `nfr_at_baseline_accuracy` is interpolated at the accuracy of `no_treatment`. It is None if no candidate is as
    accurate, and the lowest rate of the front if the whole front is more accurate.
    """
    if BASELINE not in selection:
        return {}
    base = selection[BASELINE]["candidates"][selection[BASELINE]["chosen"]]
    result = {}
    for method, choice in selection.items():
        accuracy, nfr = ([tried[key] for tried in choice["candidates"]] for key in ("accuracy", "nfr"))
        front = metrics.pareto_front(accuracy, nfr)  # diverged candidates have the accuracy of chance
        result[method] = {
            "points": [{key: choice["candidates"][i][key] for key in ("numbers", "accuracy", "nfr")} for i in front],
            "baseline_accuracy": base["accuracy"],
            "nfr_at_baseline_accuracy": metrics.nfr_at_accuracy(accuracy, nfr, base["accuracy"], hold_below=True),
        }
    return result


def _flips(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    methods: Sequence[str],
    predictions: chain.Predictions,
    num_old: int,
    change: ClassChange | None,
    former: tuple[Any, Any, Any],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return `flips.describe` and `flips.events` of every method, and counts of each seed's changed classes and labels.

    One method is read at a time, as logits are large.
    """
    if not flips.has_predictions(folder, config, methods):
        return {}, {}, {}
    thumbnails = workdir.read_gallery(folder).keys()
    described, events, more = {}, {}, {}
    for method in methods:
        pairs = [flips.read(predictions, config, method, seed, change) for seed in config["seeds"]]
        described[method] = flips.describe(pairs, num_old, thumbnails)
        events[method] = flips.events(pairs, num_old)
        more[method] = {
            "classes": [flips.count_changes(pair) for pair in pairs if pair.change],
            "corrected": [corrected_labels.count(pair, *former) for pair in pairs if former[0]],
        }
    return described, events, more


def _sums(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {key: sum(of_seed[key] for of_seed in counts) for key in counts[0]}


def _sequences(config: Mapping[str, Any], methods: Sequence[str], predictions: chain.Predictions) -> dict[str, Any]:
    """Return for each method the mean over seeds of `metrics.sequence_metrics` on its lineage, old model included."""
    schedule, result = config["update"]["schedule"], {}

    def read(release: int, method: str, seed: int) -> Mapping[str, Any]:
        return predictions(lineage.release_name(release, method, seed))

    for method in methods:
        of_seeds = []
        for seed in config["seeds"]:
            releases = [read(0, lineage.OLD, seed)] + [read(r, method, seed) for r in range(1, len(schedule))]
            predicted = [release["logits"].argmax(-1) for release in releases]
            of_seeds.append(metrics.sequence_metrics(predicted, releases[0]["labels"], schedule=schedule))
        result[method] = metrics.mean_of_sequences(of_seeds)
    return result


def _row(card: Mapping[str, Any]) -> dict[str, Any]:
    diverged = {"diverged": True} if card.get("diverged") else {}
    return {
        **{key: card[key] for key in ("method", "seed", "release", "objective")},
        # The accuracy of the previous model is known even if this one diverged.
        **{key: None if diverged and key != "accuracy_previous" else card["metrics"][key] for key in RATES},
        **{key: card[key] for key in COSTS},
        **diverged,
    }


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean, standard deviation (n - 1; 0 for one seed) and count of every number of a method's rows."""
    result = {}
    for key in (*RATES, *COSTS):
        values = [row[key] for row in rows if row[key] is not None]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            result[key] = {"mean": statistics.fmean(values), "std": deviation, "count": len(values)}
    return result
