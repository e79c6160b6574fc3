"""Rows without a training of their own: made of the models of their release, by a number chosen on validation.

The number is one for all seeds, chosen on those whose models have not diverged; the others stay marked.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mpt_jax import data, metrics, posttraining
from mpt_jax.files import released_model
from mpt_jax.models import Classifier
from mpt_jax.objectives import METHODS
from mpt_jax.update import lineage, releases, selection
from mpt_jax.update.run import Run, training_rows
from mpt_jax.update.selection import Member

SHARES = tuple(i / 10 for i in range(11))  # of the old model in an interpolation: the grid of its paper
REFRESHING_BATCHES = 64  # after which former running statistics weigh 0.1 %
FISHER_IMAGES = 1024  # of the old classes; the mean over them is what counts


@dataclasses.dataclass(frozen=True)
class Made:
    """The models of a derived method, one a seed."""

    classifiers: list[Classifier]
    made_from: str
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    selection: Mapping[str, Any] | None = None


def make(run: Run, release: int, method: str) -> None:
    """Make and release a derived method for every seed."""
    made = _MAKERS[method](run, release)
    for seed, classifier in zip(run.config.seeds, made.classifiers, strict=True):
        card = released_model.read_card(run.folder(release, made.made_from, seed))
        notes = {
            **{key: card[key] for key in ("steps", "seconds", "examples_per_second")},
            "objective": {**card["objective"], **made.numbers},
            "selection": made.selection,
            "diverged": selection.diverged(classifier.params),
        }
        member = Member(method, METHODS["no_treatment"])
        releases.write(run, release, member, seed, classifier, notes, made_from=(made.made_from,))
    chosen = ", ".join(f"{name} = {value:.3g}" for name, value in made.numbers.items())
    run.progress.log(f"{method}: {chosen + ', ' if chosen else ''}made of {made.made_from}")


def _posthoc_bias(run: Run, release: int) -> Made:
    """A row's models with the constant on their new classes' logits that validation asks for, by the rule of b."""
    held_out, num_old = run.known(run.dataset.validation, release), run.num_old_classes(release)
    before = run.predict(run.read(*lineage.previous(release, "posthoc_bias")), held_out).argmax(-1)
    made_from = run.config.update.posthoc_of
    independent, logits = (run.predict(run.read(release, m), held_out) for m in (lineage.INDEPENDENT, made_from))
    models = [_one(run, release, made_from, seed) for seed in run.config.seeds]
    curves = [
        posttraining.posthoc_curve(new, old, held_out.labels, num_old_classes=num_old)
        for old, new in zip(before, logits, strict=True)
        if np.isfinite(new).all()
    ]
    if not curves:
        return Made(models, made_from, {"posthoc_bias": 0.0})
    curve = posttraining.mean_curve(curves)
    rates = selection.rates(before, independent.argmax(-1), held_out.labels, num_old)
    required = rates["accuracy"] - run.config.update.tolerance
    chosen = posttraining.choose_posthoc_bias(curve, required_accuracy=required)
    # Of the whole curve, which has as many steps as images, the card keeps the front: the rest is worse than it.
    front = [curve.starts[i] for i in metrics.pareto_front(curve.accuracy, curve.nfr)]
    tried = []
    for c in sorted({0.0, chosen, *front}):
        values = posttraining.rates_at(curve, c)
        tried.append({"numbers": {"posthoc_bias": float(c)}, "accuracy": values["accuracy"], "nfr": values["nfr"]})
    choice = {
        "validation_images": len(held_out),
        "required_accuracy": required,
        "candidates": tried,
        "chosen": [t["numbers"]["posthoc_bias"] for t in tried].index(chosen),
    }
    classifiers = [posttraining.with_new_class_bias(model, chosen, num_old) for model in models]
    return Made(classifiers, made_from, {"posthoc_bias": chosen}, choice)


def _ensemble_of(run: Run, release: int, seed: int) -> Classifier:
    """The models of an ensemble as a stack, leaves ``[models, ...]``."""
    return _one(run, release, lineage.ENSEMBLE, seed).replace(ensemble=False)


def _soup(run: Run, release: int) -> Made:
    soups = [
        _refreshed(run, release, posttraining.soup(_ensemble_of(run, release, seed)), i)
        for i, seed in enumerate(run.config.seeds)
    ]
    return Made(soups, lineage.ENSEMBLE)


def _interpolation(made_from: str, new: Callable[[Run, int, int], Classifier], by_fisher: bool) -> Callable:
    """A method that looks for the best model on the way from the fine-tuned one to the old one."""

    def make(run: Run, release: int) -> Made:
        held_out, num_old = run.known(run.dataset.validation, release), run.num_old_classes(release)
        ends = []
        for i, seed in enumerate(run.config.seeds):
            old = _one(run, release - 1, lineage.OLD, seed)
            ends.append((old, new(run, release, seed), _importance(run, old, i) if by_fisher else None))
        sound = [i for i, (_, fine_tuned, _) in enumerate(ends) if not selection.diverged(fine_tuned.params)]
        if not sound:
            return Made([fine_tuned for _, fine_tuned, _ in ends], made_from, {"share_of_old": 0.0})
        before = [run.predict(_stacked([ends[i][0]]), held_out)[0].argmax(-1) for i in sound]

        def between(share: float, i: int) -> Classifier:
            old, fine_tuned, importance = ends[i]
            mixed = posttraining.interpolate(old, fine_tuned, np.float32(share), importance=importance)
            return _refreshed(run, release, mixed, i) if 0 < share < 1 else mixed

        tried = []
        for share in SHARES:
            after = [run.predict(_stacked([between(share, i)]), held_out)[0].argmax(-1) for i in sound]
            values = selection.rates(before, after, held_out.labels, num_old)
            tried.append({"numbers": {"share_of_old": share}, **values})
        required = tried[0]["accuracy"] - run.config.update.tolerance
        best, choice = selection.select(tried, required_accuracy=required, images=len(held_out))
        classifiers = [between(SHARES[best], i) for i in range(len(ends))]
        return Made(classifiers, made_from, {"share_of_old": SHARES[best]}, choice)

    return make


def _fine_tuned(run: Run, release: int, seed: int) -> Classifier:
    return _one(run, release, "no_treatment", seed)


def _fine_tuned_soup(run: Run, release: int, seed: int) -> Classifier:
    return posttraining.soup(_ensemble_of(run, release, seed))


_MAKERS: dict[str, Callable[[Run, int], Made]] = {
    "posthoc_bias": _posthoc_bias,
    "soup": _soup,
    "bcwi": _interpolation("no_treatment", _fine_tuned, by_fisher=False),
    "bcwi_fisher": _interpolation("no_treatment", _fine_tuned, by_fisher=True),
    "bcwi_soup": _interpolation(lineage.ENSEMBLE, _fine_tuned_soup, by_fisher=False),
}


def _importance(run: Run, old: Classifier, seed_index: int) -> Any:
    """How much each weight of the old model matters to it, on images that it was trained on."""
    rows = _rows(run, lineage.Stage(0, lineage.OLD, (lineage.OLD,)), seed_index)[:FISHER_IMAGES]
    images = data.take(run.dataset.train, rows)
    return posttraining.relative_importance(posttraining.fisher(old, np.asarray(images.images), images.labels))


def _refreshed(run: Run, release: int, mixed: Classifier, seed_index: int) -> Classifier:
    """Averaged weights with the running statistics that they have on the release's own training images."""
    if not mixed.batch_stats:
        return mixed
    stage, batch_size = lineage.stages(run.config, release)[-1], run.config.optimizer.batch_size
    rows = _rows(run, stage, seed_index)[: REFRESHING_BATCHES * batch_size]
    images = np.asarray(run.dataset.train.images[rows])
    return jax.device_get(posttraining.refresh_batch_stats(mixed, images, batch_size=min(batch_size, len(images))))


def _rows(run: Run, stage: lineage.Stage, seed_index: int) -> np.ndarray:
    """The training images of a stage in a random order."""
    rows = training_rows(run, stage)
    known = np.arange(data.count(run.dataset.train, run.num_classes(stage.release)))
    return np.random.default_rng(0).permutation(known if rows is None else rows[seed_index])


def _one(run: Run, release: int, method: str, seed: int) -> Classifier:
    return released_model.read(run.folder(release, method, seed))[0]


def _stacked(classifiers: list[Classifier]) -> Classifier:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *classifiers)
