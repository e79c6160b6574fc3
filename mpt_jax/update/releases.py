"""Releases on disk: the model, its card, and its answers on the test images."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import config as configs
from mpt_jax import metrics, objectives
from mpt_jax.config import TEACHERS, ModelConfig
from mpt_jax.errors import InputError
from mpt_jax.files import released_model, storage
from mpt_jax.models import Classifier
from mpt_jax.runtime import processes
from mpt_jax.update import lineage, workdir
from mpt_jax.update.context import Run
from mpt_jax.update.external_model import Recorded
from mpt_jax.update.selection import Member


def write(
    run: Run,
    release: int,
    member: Member,
    seed: int,
    classifier: Classifier | Recorded,
    notes: Mapping[str, Any],
    made_from: Sequence[str] = (),
) -> None:
    """Predict the test images, measure flips against the release before, write the predictions and then the release.

    Args:
      notes: what else the card holds: the costs, the choice of numbers.
      made_from: methods of this release that it is made of, besides the teachers that its objective names.
    """
    folder = run.folder(release, member.method, seed)
    if processes.from_first((folder / "card.json").is_file):
        return
    if processes.is_first():
        storage.remove(folder)
    logits = write_predictions(run, folder, classifier)
    test = run.known(run.dataset.test, release)
    answers = logits[: len(test)].argmax(-1)
    parents = []
    if release == 0:
        values = {"accuracy": float(np.mean(answers == test.labels))}
    else:
        before = run.folder(*lineage.previous(release, member.method), seed)
        old = workdir.read_predictions(run.predictions(before))["logits"][: len(test)].argmax(-1)
        values = metrics.class_growth_metrics(old, answers, test.labels, num_old_classes=run.num_old_classes(release))
        taught = {TEACHERS[source] for source in objectives.sources(member.objective)} - {lineage.OLD}
        parents = [before, *(run.folder(release, method, seed) for method in sorted({*taught, *made_from}))]
    network = configs.old_model_of(run.config) if release == 0 else run.config.model
    recorded = isinstance(classifier, Recorded)
    ensemble = {"ensemble": True} if not recorded and classifier.ensemble else {}
    card = {
        "name": folder.name,
        "release": release,
        "method": member.method,
        "seed": seed,
        "architecture": {"name": network.name, "options": network_options(network), **ensemble},
        "objective": objectives.describe(member.objective),
        "image_shape": list(test.images.shape[1:]),
        "classes": list(run.dataset.class_names[: run.num_classes(release)]),
        "dataset": run.dataset.name,
        "scenario": scenario(run),
        "made_with": run.provenance,
        "parents": {parent.name: released_model.read_card(parent)["digest"] for parent in parents},
        **notes,
        "metrics": values,
    }
    released_model.write(folder, None if recorded else classifier, card)


def write_predictions(run: Run, folder: pathlib.Path, classifier: Classifier | Recorded) -> np.ndarray:
    """Write a classifier's logits on the test images beside its release, and return them."""
    test = run.dataset.test
    alone = classifier if isinstance(classifier, Recorded) else jax.tree.map(lambda leaf: leaf[None], classifier)
    logits = run.predict(alone, test)[0]
    if processes.is_first():
        workdir.write_predictions(run.predictions(folder), labels=test.labels, logits=logits, ids=test.ids)
    return logits


def restore_predictions(run: Run) -> bool:
    """Predict the test images again for releases whose predictions are lost or damaged; whether there were any."""
    lost = processes.from_first(
        lambda: [str(folder) for folder in run.all_released() if not workdir.has_predictions(run.predictions(folder))]
    )
    old = run.released(0, [lineage.OLD]) if run.recorded else []
    for folder in map(storage.path, lost):
        seed = released_model.read_card(folder)["seed"]
        known = run.recorded.one(run.config.seeds.index(seed)) if folder in old else released_model.read(folder)[0]
        write_predictions(run, folder, known)
    return bool(lost)


def check_lineage(run: Run) -> None:
    """Every release must have been made from the very teachers that are here now."""
    for folder in run.all_released():
        for name, digest in released_model.read_card(folder)["parents"].items():
            parent = folder.with_name(name)
            if (parent / "card.json").is_file() and released_model.read_card(parent)["digest"] != digest:
                raise InputError(
                    f"{folder} was made with another {name} than the one that is there now; put that one back, or "
                    f"remove {run.workdir}/releases/r{released_model.read_card(folder)['release']}-* to train them anew"
                )


def check_given(run: Run) -> None:
    """Models from elsewhere must still be those that were released here."""

    def check(folder: pathlib.Path, digest: Callable[[], str], source: str, what: str) -> None:
        if (folder / "card.json").is_file() and released_model.read_card(folder)["digest"] != digest():
            raise InputError(
                f"{source} holds other {what} than {folder} was made with; put that back, or give another --workdir"
            )

    for release, (method, models) in enumerate(run.given.items()):
        for seed, (classifier, card) in zip(run.config.seeds if models else (), models, strict=True):
            identity = functools.partial(released_model.identity, classifier)
            check(run.folder(release, method, seed), identity, card["adopted_from"], "weights")
    for i, seed in enumerate(run.config.seeds if run.recorded else ()):
        one = run.recorded.one(i)
        check(run.folder(0, lineage.OLD, seed), lambda one=one: one.digests[0], one.files[0], "answers")


def network_options(network: ModelConfig) -> dict[str, str]:
    """The options of `models.build` that a config's section names."""
    options = {"dtype": network.dtype, "stem": network.stem}
    return {name: value for name, value in options.items() if value}


def scenario(run: Run) -> dict[str, Any]:
    """In which way the model is updated: what every card of the run holds."""
    update, dataset = run.config.update, run.config.dataset
    return {
        "schedule": list(update.schedule),
        "start": update.start,
        **{key: getattr(update, key) for key in ("memory", "memory_by", "old_fraction")},
        **{key: getattr(dataset, key) for key in ("imbalance", "train_per_class")},
    }
