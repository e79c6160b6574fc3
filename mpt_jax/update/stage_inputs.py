"""What a stage trains: the recipe of its population, and the images, teachers and random keys that it learns from."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from mpt_jax import data, metrics, models, objectives, training
from mpt_jax.config import TEACHERS, Config
from mpt_jax.files import sealed
from mpt_jax.models import Classifier
from mpt_jax.update import class_change, lineage
from mpt_jax.update.lineage import Stage
from mpt_jax.update.precomputed_logits import PrecomputedLogits
from mpt_jax.update.run import Run, training_rows
from mpt_jax.update.selection import Member

_LARGEST_SCALE = 4.0  # of b for a class: margins near 0 would ask for more than training could give


@dataclasses.dataclass(frozen=True)
class Population:
    """A population before its training.

    Its leading axis holds replicas: the seeds, or all models of the seeds' ensembles, one seed after the other.
    """

    recipe: training.Recipe
    inputs: training.Inputs
    images: np.ndarray | data.Stream
    start: Classifier | None  # weights that training starts from, leaves `[replicas or 1, ...]`; None: random ones
    teacher_digests: list[str]  # of all models that it learns from or starts from

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of replicas and members."""
        return len(self.inputs.keys), self.inputs.num_objectives

    @property
    def total_steps(self) -> int:
        return self.recipe.total_steps(self.inputs.num_examples)


def assemble(run: Run, stage: Stage, members: Sequence[Member]) -> Population:
    """Collect what the members of a stage learn from."""
    config, release = run.config, stage.release
    train = run.known(run.dataset.train, release)
    before = lineage.previous(release, stage.methods[0]) if release else None
    teachers, tables = _teachers(run, release, members, before)
    fine_tuned = before is not None and starts_from_old(config, stage)
    pretrained = None if fine_tuned else run.pretrained(release)
    start = jax.tree.map(lambda leaf: leaf[None], pretrained.classifier) if pretrained else None
    if before and fine_tuned:
        previous = run.read(*before)
        assert isinstance(previous, Classifier)  # the config refuses precomputed logits here
        start = class_change.with_carried_head(previous, run.class_change) if run.class_change else previous
    keys, rows = stage_keys(np.array(config.seeds, np.uint32), lineage.stream(stage)), training_rows(run, stage)
    if stage.name == lineage.ENSEMBLE:
        size = config.update.ensemble_size
        keys, rows = ensemble_keys(keys, size), None if rows is None else np.repeat(rows, size, axis=0)
        start = _for_each_model(start, size) if start and fine_tuned else start
    scaled = any(member.objective.bias_power for member in members)
    mean, std = run.normalization(release)
    inputs = training.Inputs(
        labels=train.labels,
        mean=mean,
        std=std,
        keys=keys,
        objectives=objectives.stack([member.objective for member in members]),
        teachers=teachers,
        rows=rows if rows is None else rows.astype(np.int32),
        label_scale=label_scale(run, release, before) if before and scaled else None,
        precomputed_logits={source: logits.of(train.ids) for source, logits in tables.items()},
    )
    weights = [*teachers.values(), *([start] if start and fine_tuned else [])]
    digests = [pretrained.digest] if pretrained else []
    digests += [sealed.digest((model.params, model.batch_stats)) for model in weights]
    digests += [digest for logits in tables.values() for digest in logits.digests]
    recipe = _recipe(run, release, members, train.images.shape[1:])
    return Population(recipe, inputs, train.images, start, sorted(digests))


def starts_from_old(config: Config, stage: Stage) -> bool:
    """Return whether the models of a stage start from the previous release."""
    return stage.release > 0 and config.update.start == "old" and stage.name != lineage.INDEPENDENT


def _recipe(run: Run, release: int, members: Sequence[Member], image_shape: Sequence[int]) -> training.Recipe:
    config, optimizer, module = run.config, run.config.optimizer, run.module(release)
    if run.backbones:  # the head is all there is
        optimizer = dataclasses.replace(optimizer, freeze=())
    return training.Recipe(
        module=module,
        num_old_classes=run.num_old_classes(release),
        optimizer=optimizer,
        augmentation=config.dataset.random_changes,
        members_at_once=config.training.members_at_once or training.fastest_members_at_once(),
        steps_per_call=config.training.steps_per_dispatch,
        remat=config.training.remat,
        averaged=any(member.objective.average for member in members),
        sampled=all(member.objective.sampler_rate for member in members),
        layers=models.layer_order(module, image_shape) if config.optimizer.layer_decay < 1 else (),
        num_classes=run.num_classes(release),
        common=run.class_change.common if run.class_change else None,
    )


def _teachers(
    run: Run, release: int, members: Sequence[Member], before: tuple[int, str] | None
) -> tuple[dict[str, Classifier], dict[str, PrecomputedLogits]]:
    """Return the models that the members learn from, by source, and apart from them those with precomputed logits."""
    teachers: dict[str, Classifier] = {}
    tables: dict[str, PrecomputedLogits] = {}
    for source in sorted({source for member in members for source in objectives.sources(member.objective)}):
        model = run.read(*(before if before and TEACHERS[source] == lineage.OLD else (release, TEACHERS[source])))
        if isinstance(model, PrecomputedLogits):
            tables[source] = model
        else:
            teachers[source] = model
    return teachers, tables


def _for_each_model(start: Classifier, size: int) -> Classifier:
    """Return the weights that each of the `size` models of every seed's ensemble starts from."""

    def replicas(leaf: np.ndarray) -> np.ndarray:
        return leaf.reshape(-1, *leaf.shape[2:]) if start.ensemble else np.repeat(leaf, size, axis=0)

    return jax.tree.map(replicas, start).replace(ensemble=False)


def label_scale(run: Run, release: int, before: tuple[int, str]) -> np.ndarray:
    """Return, per seed and class, ``mean margin of the old model / its margin on the class``, ``[seeds, K]``.

    Margins are those on validation images. Values are clipped to 1/4 and 4; new classes have 1.
    """
    held_out = run.known(run.dataset.validation, release - 1)
    scale = np.ones((len(run.config.seeds), run.num_classes(release)), np.float32)
    for i, logits in enumerate(run.predict(run.read(*before), held_out)):
        own = run.class_change.in_common(logits, held_out.labels) if run.class_change else (logits, held_out.labels)
        margins = metrics.margins(*own)
        counts = np.bincount(held_out.labels)
        of_class = np.bincount(held_out.labels, weights=margins) / counts
        ratio = of_class.mean() / np.maximum(of_class, 1e-9)
        scale[i, : len(counts)] = np.clip(ratio, 1 / _LARGEST_SCALE, _LARGEST_SCALE)
    return scale


@jax.jit
def stage_keys(seeds: np.ndarray, stream: int) -> jax.Array:
    """Return a random key per seed.

    Every stage has its own initial weights and data order, so `independent` and `no_treatment` are different models.
    """
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), stream))(seeds)


def ensemble_keys(keys: jax.Array, size: int) -> jax.Array:
    """Return a random key per model of every seed's ensemble, one seed after the other."""
    return jax.vmap(lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(size)))(keys).reshape(-1)
