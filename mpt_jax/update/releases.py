"""Releases on disk: a model, its card, and its predictions on the test images."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import config as configs
from mpt_jax import metrics, objectives
from mpt_jax.config import TEACHERS
from mpt_jax.errors import InputError
from mpt_jax.files import released_model, sealed, storage
from mpt_jax.files.predictions import released
from mpt_jax.models import Classifier
from mpt_jax.runtime import processes
from mpt_jax.update import chain, lineage
from mpt_jax.update.precomputed_logits import PrecomputedLogits
from mpt_jax.update.run import Run
from mpt_jax.update.selection import Member

_SHOWN = 5  # lines about predictions that are computed again


def write(
    run: Run,
    release: int,
    member: Member,
    seed: int,
    classifier: Classifier | PrecomputedLogits,
    notes: Mapping[str, Any],
    made_from: Sequence[str] = (),
) -> None:
    """Predict the test images, count flips against the previous release, and write the predictions, then the release.

    Does nothing if the release exists.

    Args:
      notes: further entries of the card: costs, the choice of numbers.
      made_from: methods of this release that a derived method uses, besides the teachers that its objective names.
    """
    folder = run.folder(release, member.method, seed)
    if processes.from_first((folder / "card.json").is_file):
        return
    if processes.is_first():
        storage.remove(folder)
    network = configs.old_model_of(run.config) if release == 0 else run.config.model
    weights, backbone = None if isinstance(classifier, PrecomputedLogits) else classifier, None
    if weights is not None and run.backbones:
        weights, backbone = run.backbones.whole(weights)
    digest = notes["digest"] if weights is None else released_model.identity(weights)
    logits = write_predictions(run, folder, classifier, digest, run.class_names(release))
    test = run.known(run.dataset.test, release)
    predicted = logits[: len(test)].argmax(-1)
    parents: list[pathlib.Path] = []
    if release == 0:
        right = metrics.as_new(predicted, test.labels, test.labels, run.allowed) == test.labels
        values: Mapping[str, float | None] = {"accuracy": float(np.mean(right))}
    else:
        before = run.folder(*lineage.previous(release, member.method), seed)
        old = run.read_predictions(before)["logits"][: len(test)].argmax(-1)
        num_old = run.num_old_classes(release)
        values = metrics.class_growth_metrics(old, predicted, test.labels, num_old_classes=num_old, allowed=run.allowed)
        teachers = {TEACHERS[source] for source in objectives.sources(member.objective)} - {lineage.OLD}
        parents = [before, *(run.folder(release, method, seed) for method in sorted({*teachers, *made_from}))]
    ensemble = {"ensemble": True} if weights is not None and weights.ensemble else {}
    card = {
        "name": folder.name,
        "run": run.identity,
        "release": release,
        "method": member.method,
        "seed": seed,
        "architecture": {"name": network.name, "options": configs.network_options(network), **ensemble},
        "objective": objectives.describe(member.objective),
        "image_shape": list(run.test_images.shape[1:]),
        **({"resizing": run.config.dataset.resizing._asdict()} if run.config.dataset.image_size else {}),
        "classes": list(run.class_names(release)),
        **({"class_map": run.class_change.record()} if release and run.class_change else {}),
        "dataset": run.dataset.name,
        "scenario": scenario(run),
        "made_with": run.provenance,
        "parents": {parent.name: run.card(parent)["digest"] for parent in parents},
        **notes,
        "digest": digest,
        "metrics": values,
    }
    released_model.write(folder, weights, card, backbone)
    run.cards.pop(folder.name, None)  # of a release that was there before and is lost


def write_predictions(
    run: Run, folder: pathlib.Path, classifier: Classifier | PrecomputedLogits, digest: str, classes: Sequence[str]
) -> np.ndarray:
    """Write a model's logits on the test images to the predictions of a release, and return them.

    Args:
      digest: of its weights, as in the card of the release.
      classes: of its logits.
    """
    test = run.dataset.test
    alone = classifier
    if isinstance(classifier, Classifier):
        alone = jax.tree.map(lambda leaf: leaf[None], classifier)
    logits = run.predict(alone, test)[0]
    if processes.is_first():
        released.write(
            run.predictions(folder),
            labels=test.labels,
            logits=logits,
            ids=test.ids,
            about=chain.about(folder.name, digest, run.contents),
            class_names=classes,
            label_names=run.dataset.class_names,
        )
    return logits


def restore_predictions(run: Run) -> bool:
    """Write predictions again that are lost, damaged or of another release; return whether there were any."""
    lost, old = lost_predictions(run), run.released(0, [lineage.OLD])
    for reason in [*lost.values()][:_SHOWN]:
        run.progress.log(reason.replace(sealed.AGAIN, "computed again"))
    if more := len(lost) - _SHOWN if len(lost) > _SHOWN else 0:
        run.progress.log(f"{more} more files of predictions are computed again")
    for folder in lost:
        model: Classifier | PrecomputedLogits
        if run.precomputed and folder in old:
            model = run.precomputed.one(run.config.seeds.index(run.card(folder)["seed"]))
        else:
            model = run.read_one(folder)
        card = run.card(folder)
        write_predictions(run, folder, model, card["digest"], card["classes"])
    return bool(lost)


def lost_predictions(run: Run) -> dict[pathlib.Path, str]:
    """Return the folders of the releases whose predictions are lost, damaged or others, each with the reason."""

    def find() -> dict[str, str]:
        reasons = {}
        for folder in run.all_released():
            try:
                run.read_predictions(folder)
            except InputError as error:
                reasons[str(folder)] = str(error)
        return reasons

    return {storage.path(folder): reason for folder, reason in processes.from_first(find).items()}


def log_unnamed(run: Run) -> None:
    """Report how many releases are of a version whose files did not name where they belong."""
    if count := sum("run" not in run.card(folder) for folder in run.all_released()):
        run.progress.log(
            f"{count} releases were made before cards named their run, and predictions their release: only their names "
            "and digests are checked"
        )


def check_whole(run: Run) -> None:
    """Check that the files of every release are there in their size, and that none was changed after it was released.

    Their digests are checked when a model is read.

    Raises:
      InputError: a file is missing or damaged.
    """
    for folder in run.all_released():
        released_model.check(folder, run.card(folder))


def check_lineage(run: Run) -> None:
    """Check that every release was made with the teachers that are in the work directory now.

    Raises:
      InputError: a teacher was replaced or trained again with another result.
    """
    cards = {folder.name: run.card(folder) for folder in run.all_released()}
    for name, card in cards.items():
        for fault in chain.broken_links(name, cards, complete=False):
            raise InputError(
                f"{run.workdir}/releases/{name} {fault}; restore that one, or remove {run.workdir}/releases/"
                f"r{card['release']}-* to train them again"
            )


def check_adopted(run: Run) -> None:
    """Check that external models are still those that were released in this work directory.

    Raises:
      InputError: a file holds another model than before.
    """

    def check(folder: pathlib.Path, model: Classifier | PrecomputedLogits, source: str, what: str) -> None:
        if not (folder / "card.json").is_file():
            return
        digest = model.digests[0] if isinstance(model, PrecomputedLogits) else released_model.identity(model)
        if run.card(folder)["digest"] != digest:
            raise InputError(
                f"{source} holds other {what} than {folder} was made with; restore them, or give another --workdir"
            )

    for release, (method, models) in enumerate(run.adopted.items()):
        for seed, (classifier, card) in zip(run.config.seeds if models else (), models, strict=True):
            check(run.folder(release, method, seed), classifier, card["adopted_from"], "weights")
    if run.precomputed:
        for i, seed in enumerate(run.config.seeds):
            one = run.precomputed.one(i)
            check(run.folder(0, lineage.OLD, seed), one, one.files[0], "predictions")


def scenario(run: Run) -> dict[str, Any]:
    """Return how the model is updated; every card of the run records it."""
    update, dataset = run.config.update, run.config.dataset
    return {
        "schedule": list(update.schedule),
        "start": update.start,
        **{key: getattr(update, key) for key in ("memory", "memory_by", "old_fraction")},
        **{key: getattr(dataset, key) for key in ("imbalance", "train_per_class")},
    }
