"""Derived methods: their models are computed from models of the same release, with a number chosen on validation.

What a method is made from, how, and by which number is in its row, `methods.DERIVED`. The number is the same for all
seeds. Seeds whose models have diverged take no part in its choice; their derived models are marked as diverged.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import data, metrics, posttraining
from mpt_jax.methods import DERIVED, Build, Number, Validation
from mpt_jax.models import Classifier, parameters
from mpt_jax.objectives import METHODS
from mpt_jax.update import class_change, lineage, releases, selection
from mpt_jax.update.run import Run, training_rows
from mpt_jax.update.selection import Member

_REFRESHING_BATCHES = 64  # after which the previous running statistics weigh 0.1 %
_FISHER_IMAGES = 1024  # of the old classes; only their mean is used


@dataclasses.dataclass(frozen=True)
class Models:
    """The `methods.Ingredients` of one seed, read from the work directory."""

    run: Run
    release: int
    method: str
    made_from: tuple[str, ...]
    seed_index: int

    @property
    def num_old_classes(self) -> int:
        return self.run.num_old_classes(self.release)

    @functools.cached_property
    def old(self) -> Classifier:
        change, old = self.run.class_change, self._read(*lineage.previous(self.release, self.method))
        if change is None:
            return old
        carried = class_change.with_carried_head(old, change)
        return carried.replace(module=self.run.module(0, change.num_carried))

    @functools.cached_property
    def parents(self) -> tuple[Classifier, ...]:
        return tuple(self._read(self.release, method).replace(ensemble=False) for method in self.made_from)

    @functools.cached_property
    def importance(self) -> Any:
        rows = self._training_rows(lineage.Stage(0, lineage.OLD, (lineage.OLD,)))[:_FISHER_IMAGES]
        images = data.take(self.run.dataset.train, rows)
        fisher = posttraining.fisher(self.old, np.asarray(images.images), images.labels)
        # Frozen weights are equal in both models, and do not count.
        trained, frozen = parameters.split(fisher, self.run.config.optimizer.freeze)
        return parameters.merge(posttraining.relative_importance(trained), frozen)

    def refresh(self, classifier: Classifier) -> Classifier:
        if not classifier.batch_stats:
            return classifier
        stage = lineage.stages(self.run.config, self.release)[-1]
        optimizer = self.run.config.optimizer
        batch_size, fixed = optimizer.batch_size, optimizer.freeze if optimizer.freeze_statistics else ()
        rows = self._training_rows(stage)[: _REFRESHING_BATCHES * batch_size]
        images = np.asarray(self.run.dataset.train.images[rows])
        batch_size = min(batch_size, len(images))
        return jax.device_get(posttraining.refresh_batch_stats(classifier, images, batch_size=batch_size, fixed=fixed))

    def _training_rows(self, stage: lineage.Stage) -> np.ndarray:
        """Return the training images of a stage in random order."""
        rows = training_rows(self.run, stage)
        known = np.arange(data.count(self.run.dataset.train, self.run.num_classes(stage.release)))
        return np.random.default_rng(0).permutation(known if rows is None else rows[self.seed_index])

    def _read(self, release: int, method: str) -> Classifier:
        seed = self.run.config.seeds[self.seed_index]
        return self.run.read_one(self.run.folder(release, method, seed))


def make(run: Run, release: int, method: str) -> None:
    """Compute and release a derived method for every seed."""
    row, made_from = DERIVED[method], lineage.made_from(run.config, method)
    models = [Models(run, release, method, made_from, i) for i in range(len(run.config.seeds))]
    if row.build is None:
        raise ValueError(f"{method} is one of the populations that are trained; expected a method with `build`")
    numbers, choice = {}, None
    if row.number:
        value, choice = _choose(run, release, row.number, row.build, models)
        numbers = {row.number.name: value}
    for seed, of_seed in zip(run.config.seeds, models, strict=True):
        classifier = row.build(of_seed, *numbers.values())
        card = run.card(run.folder(release, made_from[0], seed))
        kept = ("steps", "seconds", "examples_per_second", "pretrained")
        notes: dict[str, Any] = {
            **{key: card[key] for key in kept if key in card},
            "objective": {**card["objective"], **numbers},
            "selection": choice,
            "diverged": selection.diverged(classifier.params),
        }
        member = Member(method, METHODS["no_treatment"])
        releases.write(run, release, member, seed, classifier, notes, made_from)
    chosen = "".join(f"{name} = {value:.3g}, " for name, value in numbers.items())
    run.progress.log(f"{method}: {chosen}computed from {', '.join(made_from)}")


def _choose(
    run: Run, release: int, number: Number, build: Build, models: Sequence[Models]
) -> tuple[float, Mapping[str, Any] | None]:
    """Choose the number of a derived method; return it with the record of the choice for the card."""
    held_out, num_old = run.known(run.dataset.validation, release), run.num_old_classes(release)
    old = run.predict(run.read(*lineage.previous(release, models[0].method)), held_out).argmax(-1)
    finite = np.array([not any(selection.diverged(parent.params) for parent in one.parents) for one in models])
    if number.choose:
        logits = run.predict(run.read(release, models[0].made_from[0]), held_out)
        finite &= np.isfinite(logits).all((1, 2))
    if not finite.any():
        return next(iter(number.candidates), 0.0), None
    if not number.choose:
        chosen = list(itertools.compress(models, finite))
        return _best_candidate(run, number, build, chosen, old[finite], held_out, num_old)
    independent = run.predict(run.read(release, lineage.INDEPENDENT), held_out).argmax(-1)
    reference = selection.rates(old, independent, held_out.labels, num_old, run.allowed)["accuracy"]
    required = reference - run.config.update.tolerance
    old = metrics.as_new(old, held_out.labels[None], held_out.labels[None], run.allowed)
    return number.choose(Validation(held_out.labels, num_old, old[finite], logits[finite], required))


def _best_candidate(
    run: Run,
    number: Number,
    build: Build,
    models: Sequence[Models],
    old: np.ndarray,
    held_out: data.Split,
    num_old_classes: int,
) -> tuple[float, Mapping[str, Any]]:
    tried: list[dict[str, Any]] = []
    for value in number.candidates:
        built = (jax.tree.map(lambda leaf: leaf[None], build(one, value)) for one in models)
        new = [run.predict(classifier, held_out)[0].argmax(-1) for classifier in built]
        rates = selection.rates(old, new, held_out.labels, num_old_classes, run.allowed)
        tried.append({"numbers": {number.name: value}, **rates})
    required = tried[0]["accuracy"] - run.config.update.tolerance
    best, record = selection.select(tried, required_accuracy=required, images=len(held_out))
    return number.candidates[best], record
