"""Train what is missing, stage by stage.

A stage trains one population and ends in released models, one per (method, seed). A stage whose releases all exist is
not trained again, so the same command resumes where the last one stopped.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import config as configs
from mpt_jax import metrics, models, objectives, training
from mpt_jax.config import TEACHERS, Config
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint, released_model, sealed, storage
from mpt_jax.models import Classifier
from mpt_jax.objectives import METHODS
from mpt_jax.runtime import processes
from mpt_jax.training import device_memory, loop
from mpt_jax.update import derivation, gallery, lineage, releases, selection, workdir
from mpt_jax.update.context import Run, training_rows
from mpt_jax.update.external_model import Recorded
from mpt_jax.update.lineage import Stage
from mpt_jax.update.selection import Member

_LARGEST_SCALE = 4.0  # of b for a class: margins near 0 would ask for more than any training could give


def execute(run: Run, command: str) -> bool:
    """Train, evaluate and release what is still missing; returns whether there was anything to do."""
    images = {name: len(getattr(run.dataset, name).labels) for name in ("train", "validation", "test")}
    found = [{"what": f.what, "count": len(f.names), "outcome": f.outcome} for f in run.dataset.findings]
    facts = {"config": configs.to_dict(run.config), "images": images, "findings": found, "command": command}
    facts |= {"contents": dict(run.contents), **run.provenance}
    with processes.synchronized():
        if processes.is_first():
            workdir.claim(run.workdir, facts)
    worked = releases.restore_predictions(run)
    for release in run.releases:
        for stage in lineage.stages(run.config, release):
            if run.missing(release, stage.methods):
                _make(run, stage)
                worked = True
            if processes.is_first():
                storage.remove(run.workdir / "checkpoints" / str(stage))
            releases.check_lineage(run)
        for method in lineage.derived(run.config) if release else ():
            if run.missing(release, [method]):
                derivation.make(run, release, method)
                worked = True
    gallery.write(run)
    return worked


def _make(run: Run, stage: Stage) -> None:
    """Train a population, and release of each method the member that validation chooses."""
    if run.given.get(stage.name):
        return _adopt(run, stage)
    if stage.release == 0 and run.recorded:
        return _record(run, stage, run.recorded)
    update, members = run.config.update, members_of(run.config, stage)
    classifiers, cost = _train(run, stage, members)
    choices = _choose(run, stage, members, classifiers)
    if stage.name == lineage.ENSEMBLE:  # replicas of a seed, which lie one after the other, become one model
        shape = (len(run.config.seeds), update.ensemble_size)
        classifiers = jax.tree.map(lambda leaf: leaf[:, 0].reshape(*shape, *leaf.shape[2:])[:, None], classifiers)
        classifiers = classifiers.replace(ensemble=True)
    for index, choice in choices:
        for i, seed in enumerate(run.config.seeds):
            chosen = jax.tree.map(lambda leaf: leaf[i, index], classifiers)  # noqa: B023 (used at once)
            notes = {**cost, "selection": choice, "diverged": selection.diverged(chosen.params)}
            releases.write(run, stage.release, members[index], seed, chosen, notes)


def members_of(config: Config, stage: Stage) -> list[Member]:
    """The objectives of a stage's population: of each method one, or one per combination of the numbers to choose."""
    update = config.update
    if not stage.has_students:
        return [Member(stage.methods[0], METHODS["no_treatment"])]
    bias = None if update.bias in ("published", "auto") else float(update.bias)
    return selection.candidates(stage.methods, configs.tuned(config), trials=update.tune_trials, bias=bias)


def _adopt(run: Run, stage: Stage) -> None:
    """Release the models that the config names in place of those this stage would train."""
    member = Member(stage.name, METHODS["no_treatment"])
    for seed, (classifier, card) in zip(run.config.seeds, run.given[stage.name], strict=True):
        kept = ("architecture", "dataset", "objective", "steps", "seconds", "examples_per_second", "adopted_from")
        releases.write(run, stage.release, member, seed, classifier, {key: card[key] for key in kept if key in card})
        run.progress.log(f"{stage.name}, seed {seed}: adopted from {card['adopted_from']}{_accuracy(run, stage, seed)}")


def _record(run: Run, stage: Stage, recorded: Recorded) -> None:
    """Release old models that are known by their answers alone: cards and predictions, without weights."""
    member, unknown = Member(stage.name, METHODS["no_treatment"]), {"steps": 0, "seconds": 0.0, "objective": {}}
    for i, seed in enumerate(run.config.seeds):
        one = recorded.one(i)
        identity = {"architecture": {"predictions": one.files[0]}, "digest": one.digests[0]}
        releases.write(run, stage.release, member, seed, one, {**unknown, "examples_per_second": 0.0, **identity})
        run.progress.log(
            f"{stage.name}, seed {seed}: its answers are those in {one.files[0]}{_accuracy(run, stage, seed)}"
        )


def _accuracy(run: Run, stage: Stage, seed: int) -> str:
    """How good a model from elsewhere is: by chance, where its outputs or inputs mean something else than is said."""
    accuracy = released_model.read_card(run.folder(stage.release, stage.name, seed))["metrics"]["accuracy"]
    chance, doubt = 1 / run.num_classes(stage.release), ""
    if accuracy < chance + min(chance / 2, 0.1):
        doubt = ", hardly more than by chance: are its classes in this order, and its images prepared like this?"
    return f"; right on {100 * accuracy:.1f} % of the test images of its classes{doubt}"


def _choose(
    run: Run, stage: Stage, members: Sequence[Member], classifiers: Classifier
) -> list[tuple[int, dict[str, Any] | None]]:
    """Per method the index of the member to release, and how it did on validation (None without such images)."""
    held_out = run.known(run.dataset.validation, stage.release)
    if not len(held_out) or not stage.has_students:
        return list(zip(range(len(members)), [None] * len(members), strict=True))
    num_old, num_seeds = run.num_old_classes(stage.release), len(run.config.seeds)

    def released(release: int, method: str) -> np.ndarray:
        return run.predict(run.read(release, method), held_out).argmax(-1)

    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), classifiers)
    answers = run.predict(flat, held_out).argmax(-1).reshape(num_seeds, len(members), -1)
    independent = released(stage.release, lineage.INDEPENDENT)
    before = released(*lineage.previous(stage.release, stage.methods[0]))  # the methods of a stage share it
    required = selection.rates(before, independent, held_out.labels, num_old)["accuracy"] - run.config.update.tolerance
    result = []
    for method in stage.methods:
        indices = [i for i, member in enumerate(members) if member.method == method]
        tried = [
            {
                "numbers": dict(members[i].numbers),
                **selection.rates(before, answers[:, i], held_out.labels, num_old),
                "diverged": selection.diverged(jax.tree.map(lambda leaf: leaf[:, i], classifiers.params)),  # noqa: B023
            }
            for i in indices
        ]
        best, choice = selection.select(tried, required_accuracy=required, images=len(held_out))
        result.append((indices[best], choice))
    return result


def _train(run: Run, stage: Stage, members: Sequence[Member]) -> tuple[Classifier, dict[str, Any]]:
    """Train one population; returns its classifiers, leaves ``[replicas, members, ...]``, and what it cost.

    A replica is a seed, or one model of a seed's ensemble.
    """
    config, release = run.config, stage.release
    train = run.known(run.dataset.train, release)
    before = lineage.previous(release, stage.methods[0]) if release else None
    teachers, tables = _teachers(run, release, members, before)
    rows, keys = training_rows(run, stage), _stage_keys(np.array(config.seeds, np.uint32), lineage.stream(stage))
    fine_tuned = release and config.update.start == "old" and stage.name != lineage.INDEPENDENT
    start = run.read(*before) if fine_tuned else None
    if stage.name == lineage.ENSEMBLE:
        keys, rows, start = _for_each_model(keys, rows, start, config.update.ensemble_size)
    recipe = dataclasses.replace(
        make_recipe(config, release),
        averaged=any(member.objective.average for member in members),
        sampled=all(member.objective.sampler_rate for member in members),
    )
    inputs = training.Inputs(
        images=train.images,
        labels=train.labels,
        mean=run.mean,
        std=run.std,
        keys=keys,
        objectives=objectives.stack([member.objective for member in members]),
        teachers=teachers,
        rows=rows if rows is None else rows.astype(np.int32),
        label_scale=_label_scale(run, release, before) if any(m.objective.bias_power for m in members) else None,
        tables={source: recorded.of(train.ids) for source, recorded in tables.items()},
    )
    mesh = training.mesh_of(run.mesh, run.cores, recipe.module, train.images, len(keys), len(members))
    if not config.training.members_at_once:
        recipe = training.within_memory(recipe, mesh, inputs, processes.from_first(device_memory.limit))
    total = recipe.total_steps(inputs.num_examples)

    def on_start(step: int) -> None:
        if processes.is_first():
            workdir.drop_metrics_after(run.workdir, str(stage), step)
        run.progress.start(f"{title(run, stage)}, {population(config, stage)}", step, total)

    digests = [sealed.digest((t.params, t.batch_stats)) for t in (*teachers.values(), *([start] if start else []))]
    digests += [digest for recorded in tables.values() for digest in recorded.digests]
    state, seconds = loop.fit(
        recipe,
        mesh,
        inputs,
        folder=run.workdir / "checkpoints" / str(stage),
        checkpoint_every=config.training.checkpoint_every,
        checkpoint_seconds=config.training.checkpoint_seconds,
        teachers=sorted(digests),
        on_start=on_start,
        on_values=_watch(run, stage, _names(config, stage, members)),
        start=start,
        say=run.progress.log,
    )
    run.progress.finish(f"{title(run, stage)}: {total} steps in {seconds:.1f} s")
    axes = (len(keys), len(members))
    mean, std = (np.broadcast_to(array, (*axes, *array.shape)) for array in (run.mean, run.std))
    # Taken apart on the host later, without compiling. Without an average of its own a member's is its last weights.
    params, batch_stats = jax.device_get((state.params, state.batch_stats) if state.average is None else state.average)
    classifiers = Classifier(recipe.module, params=params, batch_stats=batch_stats, mean=mean, std=std)
    rate = round(total * recipe.batch_size / seconds, 2)
    return classifiers, {"steps": total, "seconds": round(seconds, 3), "examples_per_second": rate}


def _teachers(
    run: Run, release: int, members: Sequence[Member], before: tuple[int, str] | None
) -> tuple[dict[str, Classifier], dict[str, Recorded]]:
    """The models that the members learn from by source, and those of them that are known by their answers alone."""
    sources = sorted({source for member in members for source in objectives.sources(member.objective)})
    teachers = {
        source: run.read(*(before if TEACHERS[source] == lineage.OLD else (release, TEACHERS[source])))
        for source in sources
    }
    tables = {source: teachers.pop(source) for source in sources if isinstance(teachers[source], Recorded)}
    return teachers, tables


def _for_each_model(
    keys: jax.Array, rows: np.ndarray | None, start: Classifier | None, size: int
) -> tuple[jax.Array, np.ndarray | None, Classifier | None]:
    """What every seed starts from, for the `size` models of its ensemble, which lie one after the other."""
    keys, rows = _keys_of_ensemble(keys, size), None if rows is None else np.repeat(rows, size, axis=0)
    if start is not None:
        apart = lambda leaf: leaf.reshape(-1, *leaf.shape[2:]) if start.ensemble else np.repeat(leaf, size, axis=0)  # noqa: E731
        start = jax.tree.map(apart, start).replace(ensemble=False)
    return keys, rows, start


def _names(config: Config, stage: Stage, members: Sequence[Member]) -> list[list[str]]:
    """What each replica of each member is called, in messages and in the metrics."""
    size = config.update.ensemble_size
    if stage.name == lineage.ENSEMBLE and size > 1:
        replicas = [f"seed={seed} model={i}" for seed in config.seeds for i in range(size)]
        return [[f"{member.method} {replica}" for member in members] for replica in replicas]
    return [[member.label(seed) for member in members] for seed in config.seeds]


def _watch(run: Run, stage: Stage, names: Sequence[Sequence[str]]) -> Callable[[int, Mapping[str, np.ndarray]], None]:
    """A function that is told the values ``[replicas, members]`` of a step: metrics, progress, and who diverged."""
    diverged = np.zeros(np.shape(names), bool)

    def on_values(step: int, values: Mapping[str, np.ndarray]) -> None:
        finite = np.isfinite(values["loss"])
        # A population goes on without the students that diverged, but nothing can go on without a teacher.
        if not finite.any() or (not finite.all() and not stage.has_students):
            i, j = np.argwhere(~finite)[0]
            raise InputError(
                f"{names[i][j]} of stage {stage.name} diverged by step {step}: its loss is not finite, and "
                f"{_last_checkpoint(run, stage)}; lower optimizer.learning_rate"
            )
        for i, j in np.argwhere(~finite & ~diverged):
            run.progress.log(f"{names[i][j]} diverged by step {step}: its loss is not finite; the others go on")
        diverged[:] = ~finite
        lines = [
            {
                **{"step": step, "release": stage.release, "stage": stage.name, "member": name},
                "values": {key: _rounded(value[i, j]) for key, value in values.items()},
            }
            for i, of_replica in enumerate(names)
            for j, name in enumerate(of_replica)
        ]
        if processes.is_first():
            workdir.append_metrics(run.workdir, lines)
            for tell, line in itertools.product(run.on_metrics, lines):
                tell(line)
        run.progress.advance(step, {key: float(np.mean(value[finite])) for key, value in values.items()})

    return on_values


def population(config: Config, stage: Stage) -> str:
    """How many models a stage trains, in words."""
    objectives_of_each = len(members_of(config, stage))
    replicas = len(config.seeds) * (config.update.ensemble_size if stage.name == lineage.ENSEMBLE else 1)
    text = f"{replicas} {'model' if stage.name == lineage.ENSEMBLE else 'seed'}{'s' * (replicas > 1)}"
    return text + (f" x {objectives_of_each} objectives" if objectives_of_each > 1 else "")


def make_recipe(config: Config, release: int) -> training.Recipe:
    """The static part of a release's stages."""
    network = configs.old_model_of(config) if release == 0 else config.model
    schedule = config.update.schedule
    module = models.build(network.name, schedule[release], **releases.network_options(network))
    return training.Recipe(
        module=module,
        num_old_classes=schedule[max(release - 1, 0)],
        crop_padding=config.dataset.crop_padding,
        flip=config.dataset.flip,
        members_at_once=config.training.members_at_once or training.members_at_once(),
        steps_per_call=config.training.steps_per_dispatch,
        remat=config.training.remat,
        **dataclasses.asdict(config.optimizer),
    )


def _label_scale(run: Run, release: int, before: tuple[int, str]) -> np.ndarray:
    """Per seed and class ``mean margin of the old model / its margin on the class``, on validation images; 1 if new.

    From 1/4 to 4, ``[seeds, K]``.
    """
    held_out = run.known(run.dataset.validation, release - 1)
    scale = np.ones((len(run.config.seeds), run.num_classes(release)), np.float32)
    for i, logits in enumerate(run.predict(run.read(*before), held_out)):
        margins = metrics.margins(logits, held_out.labels)
        counts = np.bincount(held_out.labels)
        of_class = np.bincount(held_out.labels, weights=margins) / counts
        ratio = of_class.mean() / np.maximum(of_class, 1e-9)
        scale[i, : len(counts)] = np.clip(ratio, 1 / _LARGEST_SCALE, _LARGEST_SCALE)
    return scale


@jax.jit
def _stage_keys(seeds: np.ndarray, stream: int) -> jax.Array:
    """Every stage has its own weights and data order, so `independent` and `no_treatment` are two different models."""
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), stream))(seeds)


def _keys_of_ensemble(keys: jax.Array, size: int) -> jax.Array:
    """A key for every model, those of a seed one after the other."""
    return jax.vmap(lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(size)))(keys).reshape(-1)


def _rounded(value: np.ndarray) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def _last_checkpoint(run: Run, stage: Stage) -> str:
    folder = run.workdir / "checkpoints" / str(stage)
    steps = checkpoint.saved_steps(folder)
    if not steps:
        return "there is no checkpoint before it"
    return f"the last good checkpoint is {checkpoint.step_folder(folder, steps[0])}"


def title(run: Run, stage: Stage) -> str:
    """What a stage is called."""
    return stage.name if len(run.releases) == 2 else f"release {stage.release}, {stage.name}"
