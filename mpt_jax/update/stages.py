"""Train the stages that are missing, one after the other.

A stage trains one population and ends in released models, one per method and seed. A stage whose releases all exist is
skipped, so the same command resumes where the last one stopped.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import config as configs
from mpt_jax import objectives, training
from mpt_jax.files import storage
from mpt_jax.models import Classifier
from mpt_jax.objectives import METHODS
from mpt_jax.runtime import processes
from mpt_jax.training import device_memory, loop
from mpt_jax.update import (
    derivation,
    frozen_features,
    gallery,
    lineage,
    planning,
    releases,
    selection,
    snapshots,
    stage_inputs,
    stage_metrics,
    workdir,
)
from mpt_jax.update.lineage import Stage
from mpt_jax.update.precomputed_logits import PrecomputedLogits
from mpt_jax.update.run import Run
from mpt_jax.update.selection import Member


def execute(run: Run, command: str) -> bool:
    """Train, evaluate and release what is missing; return whether anything was.

    Args:
      command: how to start the run again, as `config.json` records it.
    """
    with processes.synchronized():
        if processes.is_first():
            workdir.claim(run.workdir, _facts(run, command))
    if run.backbones and (run.any_missing() or releases.lost_predictions(run)):
        run = frozen_features.compute(run)
    releases.log_unnamed(run)
    worked = releases.restore_predictions(run)
    for release in run.releases:
        for stage in lineage.stages(run.config, release):
            if run.missing(release, stage.methods):
                make(run, stage)
                worked = True
            if processes.is_first():
                storage.remove(run.checkpoints(stage))
            releases.check_lineage(run)
        for method in lineage.derived(run.config) if release else ():
            if run.missing(release, [method]):
                derivation.make(run, release, method)
                worked = True
    gallery.write(run)
    return worked


def _facts(run: Run, command: str) -> dict[str, Any]:
    """Return the content of `config.json`."""
    found = [{"what": f.what, "count": len(f.names), "outcome": f.outcome} for f in run.dataset.findings]
    return {
        "config": configs.to_dict(run.config),
        "images": {name: len(getattr(run.dataset, name).labels) for name in ("train", "validation", "test")},
        "findings": found,
        "command": command,
        "contents": dict(run.contents),
        **({"former_labels": dict(run.dataset.corrected)} if run.config.dataset.label_changes else {}),
        **({"class_map": run.class_change.record()} if run.class_change else {}),
        **run.provenance,
    }


def make(run: Run, stage: Stage) -> None:
    """Release the models of a stage: adopted ones, precomputed logits, or a population that is trained now."""
    if run.adopted.get(stage.name):
        _adopt(run, stage)
    elif stage.release == 0 and run.precomputed:
        _release_precomputed(run, stage, run.precomputed)
    else:
        _release_trained(run, stage)


def _adopt(run: Run, stage: Stage) -> None:
    """Release the models that the config names for a teacher."""
    member = Member(stage.name, METHODS["no_treatment"])
    for seed, (classifier, card) in zip(run.config.seeds, run.adopted[stage.name], strict=True):
        kept = (
            *("architecture", "dataset", "objective", "pretrained", "adopted_from"),
            *("steps", "seconds", "examples_per_second"),
        )
        releases.write(run, stage.release, member, seed, classifier, {key: card[key] for key in kept if key in card})
        run.progress.log(f"{stage.name}, seed {seed}: adopted from {card['adopted_from']}{_accuracy(run, stage, seed)}")


def _release_precomputed(run: Run, stage: Stage, precomputed: PrecomputedLogits) -> None:
    """Release old models of which only logits are known: cards and predictions, without weights."""
    member, unknown = Member(stage.name, METHODS["no_treatment"]), {"steps": 0, "seconds": 0.0, "objective": {}}
    for i, seed in enumerate(run.config.seeds):
        one = precomputed.one(i)
        identity = {"architecture": {"predictions": one.files[0]}, "digest": one.digests[0]}
        releases.write(run, stage.release, member, seed, one, {**unknown, "examples_per_second": 0.0, **identity})
        run.progress.log(f"{stage.name}, seed {seed}: predictions from {one.files[0]}{_accuracy(run, stage, seed)}")


def _accuracy(run: Run, stage: Stage, seed: int) -> str:
    """Describe the accuracy of an external model, with a warning if it is close to chance."""
    accuracy = run.card(run.folder(stage.release, stage.name, seed))["metrics"]["accuracy"]
    chance, warning = 1 / run.num_classes(stage.release), ""
    if accuracy < chance + min(chance / 2, 0.1):
        warning = ", close to chance: check the order of its classes and how its images are prepared"
    return f"; accuracy {100 * accuracy:.1f} % on the test images of its classes{warning}"


def _release_trained(run: Run, stage: Stage) -> None:
    """Train a population, and release for each method the member that was chosen on validation images."""
    members = selection.members_of(run.config, stage)
    classifiers, cost = _train(run, stage, members)
    start = None if stage_inputs.starts_from_old(run.config, stage) else run.pretrained(stage.release)
    origin = {"pretrained": start.card()} if start else {}
    choices = _choose(run, stage, members, classifiers)
    if stage.name == lineage.ENSEMBLE:  # the consecutive replicas of a seed become one model
        shape = (len(run.config.seeds), run.config.update.ensemble_size)
        classifiers = jax.tree.map(lambda leaf: leaf[:, 0].reshape(*shape, *leaf.shape[2:])[:, None], classifiers)
        classifiers = classifiers.replace(ensemble=True)
    for index, choice in choices:
        for i, seed in enumerate(run.config.seeds):
            chosen = jax.tree.map(lambda leaf: leaf[i, index], classifiers)  # noqa: B023 (used at once)
            notes = {**cost, **origin, "selection": choice, "diverged": selection.diverged(chosen.params)}
            releases.write(run, stage.release, members[index], seed, chosen, notes)


def _train(run: Run, stage: Stage, members: Sequence[Member]) -> tuple[Classifier, dict[str, Any]]:
    """Train a population; return its classifiers, leaves ``[replicas, members, ...]``, and its cost."""
    config, population = run.config, stage_inputs.assemble(run, stage, members)
    recipe, inputs, images, shape = population.recipe, population.inputs, population.images, population.shape
    mesh = training.choose_mesh(run.mesh, run.cores, recipe.module, images, *shape)
    if not config.training.members_at_once:
        recipe = training.limit_members(recipe, mesh, inputs, images, processes.from_first(device_memory.limit))
    total, title = population.total_steps, planning.title(run, stage)

    def on_start(step: int) -> None:
        if processes.is_first():
            workdir.drop_metrics_after(run.workdir, str(stage), step)
        run.progress.start(f"{title}, {planning.population(config, stage)}", step, total)

    mean, std = (np.broadcast_to(array, (*shape, *array.shape)) for array in run.normalization(stage.release))

    def trained(state: training.TrainState) -> Classifier:
        # A member without an average has its last weights in it.
        weights = (state.params, state.batch_stats) if state.average is None else state.average
        params, batch_stats = jax.device_get(weights)  # on the host, members are taken apart without compiling
        return Classifier(recipe.module, params=params, batch_stats=batch_stats, mean=mean, std=std)

    snapshot = snapshots.recorder(run, stage, members)
    epochs = config.training.predict_every if stage.has_students else 0
    state, seconds = loop.fit(
        recipe,
        mesh,
        inputs,
        images,
        folder=run.checkpoints(stage),
        checkpoint_every=config.training.checkpoint_every,
        checkpoint_seconds=config.training.checkpoint_seconds,
        teacher_digests=population.teacher_digests,
        on_start=on_start,
        on_values=stage_metrics.recorder(run, stage, members),
        start=population.start,
        log=run.progress.log,
        of=_described(run, stage, members),
        snapshot_every=epochs * (total // config.optimizer.epochs),
        on_snapshot=lambda step, state: snapshot(step, trained(state)),
    )
    run.progress.finish(f"{title}: {total} steps in {seconds:.1f} s")
    rate = round(total * recipe.batch_size / seconds, 2)
    return trained(state), {"steps": total, "seconds": round(seconds, 3), "examples_per_second": rate}


def _described(run: Run, stage: Stage, members: Sequence[Member]) -> dict[str, str]:
    """Return what the checkpoints of a stage belong to: the run, the stage, and the objectives of its population."""
    described = [[member.method, objectives.describe(member.objective)] for member in members]
    population = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return {"run": run.identity, "stage": str(stage), "population": population}


def _choose(
    run: Run, stage: Stage, members: Sequence[Member], classifiers: Classifier
) -> list[tuple[int, dict[str, Any] | None]]:
    """Return for each method the index of the member to release, and its record of the choice on validation images.

    The record is None without validation images.
    """
    held_out = run.known(run.dataset.validation, stage.release)
    if not len(held_out) or not stage.has_students:
        return list(zip(range(len(members)), [None] * len(members), strict=True))
    num_old, num_seeds = run.num_old_classes(stage.release), len(run.config.seeds)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), classifiers)
    predicted = run.predict(flat, held_out).argmax(-1).reshape(num_seeds, len(members), -1)
    # All methods of a stage have the same previous release.
    before, independent = (
        run.predict(run.read(*release), held_out).argmax(-1)
        for release in (lineage.previous(stage.release, stage.methods[0]), (stage.release, lineage.INDEPENDENT))
    )
    counted = held_out.labels, num_old, run.allowed
    required = selection.rates(before, independent, *counted)["accuracy"] - run.config.update.tolerance
    result: list[tuple[int, dict[str, Any] | None]] = []
    for method in stage.methods:
        indices = [i for i, member in enumerate(members) if member.method == method]
        tried = [
            {
                "numbers": dict(members[i].numbers),
                **selection.rates(before, predicted[:, i], *counted),
                "diverged": selection.diverged(jax.tree.map(lambda leaf: leaf[:, i], classifiers.params)),  # noqa: B023
            }
            for i in indices
        ]
        best, choice = selection.select(tried, required_accuracy=required, images=len(held_out))
        result.append((indices[best], choice))
    return result
