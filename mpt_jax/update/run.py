"""A prepared run: its config, data and devices, and the releases in its work directory."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from mpt_jax import config as configs
from mpt_jax import data, models
from mpt_jax.cli.progress import Progress
from mpt_jax.config import Config
from mpt_jax.errors import InputError
from mpt_jax.files import released_model
from mpt_jax.models import Classifier
from mpt_jax.runtime import processes
from mpt_jax.training import inference
from mpt_jax.update import chain, lineage
from mpt_jax.update.backbones import Backbones
from mpt_jax.update.class_change import ClassChange
from mpt_jax.update.precomputed_logits import PrecomputedLogits
from mpt_jax.update.pretrained import Pretrained


@dataclasses.dataclass(frozen=True)
class Run:
    """What every stage of a run needs; `preparation.prepare` reads and checks it."""

    config: Config
    workdir: pathlib.Path
    dataset: data.Dataset
    normalizations: Sequence[tuple[np.ndarray, np.ndarray]]  # mean and std of the inputs: release 0, later ones
    mesh: jax.sharding.Mesh
    cores: Sequence[jax.Device]  # of a CPU: populations of small networks are divided between them
    adopted: Mapping[str, Sequence[tuple[Classifier, dict[str, Any]]]]  # by teacher, one per seed; empty: trained here
    contents: Mapping[str, str]  # digests of the data
    identity: str  # see `workdir.identity`
    provenance: Mapping[str, Any]
    progress: Progress
    on_metrics: Sequence[Callable[[Mapping[str, Any]], None]] = ()  # called with every line of metrics.jsonl
    precomputed: PrecomputedLogits | None = None  # in place of the old models
    starts: Sequence[Pretrained | None] = (None, None)  # pretrained weights of release 0 and of later ones
    backbones: Backbones | None = None  # of a run whose features are computed once; then its models are heads
    class_change: ClassChange | None = None  # None: updates add classes, and all others stay
    cards: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)  # by release name, filled by `card`

    @property
    def releases(self) -> range:
        """The numbers of the releases; 0 is the old model."""
        return range(len(self.config.update.schedule))

    def normalization(self, release: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and std of the inputs of the models that a release trains, per channel."""
        return self.normalizations[min(release, 1)]

    def pretrained(self, release: int) -> Pretrained | None:
        """Return the pretrained weights that the models of a release start from, if any."""
        return self.starts[min(release, 1)]

    def num_classes(self, release: int) -> int:
        """Return how many classes a release knows: the number of its logits."""
        return self.config.update.schedule[release]

    def num_known(self, release: int) -> int:
        """Return how many classes of the data, which come first, a release knows, also as a part of another class."""
        if self.class_change and release == 0:
            return self.class_change.num_carried
        return self.num_classes(release)

    def num_old_classes(self, release: int) -> int:
        """Return how many classes the previous release knows; for the first release, its own number."""
        return self.num_known(max(release - 1, 0))

    def class_names(self, release: int) -> tuple[str, ...]:
        """Return the classes of a release in the order of its logits."""
        if self.class_change and release == 0:
            return self.class_change.old_names
        return self.dataset.class_names[: self.num_classes(release)]

    @property
    def allowed(self) -> np.ndarray | None:
        """Which classes each one of the old model stands for, see `metrics.as_new`; None: its own position."""
        return self.class_change.allowed if self.class_change else None

    def known(self, split: data.Split, release: int) -> data.Split:
        """Return the part of a split with the classes that a release knows."""
        return data.take(split, np.arange(data.count(split, self.num_known(release))))

    @property
    def test_images(self) -> np.ndarray | data.Stream:
        """The test images, or the given features, that a released model takes."""
        return self.backbones.test_images if self.backbones else self.dataset.test.images

    def module(self, release: int, num_classes: int = 0) -> nn.Module:
        """Return the network that a release trains, by default with as many classes as the release."""
        num_classes = num_classes or self.num_classes(release)
        if self.backbones:
            return self.backbones.of_release(release).module(num_classes)
        network = self.config.model if release else configs.old_model_of(self.config)
        return models.build(network.name, num_classes, **configs.network_options(network))

    def folder(self, release: int, method: str, seed: int) -> pathlib.Path:
        """Return the folder of a released model."""
        return self.workdir / "releases" / lineage.release_name(release, method, seed)

    def checkpoints(self, stage: lineage.Stage) -> pathlib.Path:
        """Return the folder of a stage's checkpoints."""
        return self.workdir / "checkpoints" / str(stage)

    def predictions(self, folder: pathlib.Path) -> pathlib.Path:
        """Return the file of a release's predictions on the test images."""
        return chain.predictions_path(self.workdir, folder.name)

    def card(self, folder: pathlib.Path) -> dict[str, Any]:
        """Return the card of a release of this run, which is read from disk only once.

        Raises:
          InputError: it is damaged, or that of another release or run.
        """
        if folder.name not in self.cards:
            self.cards[folder.name] = chain.read_card(folder, self.identity)
        return self.cards[folder.name]

    def read_predictions(self, folder: pathlib.Path) -> dict[str, np.ndarray]:
        """Read the predictions of a release.

        Raises:
          InputError: they are missing or damaged, or those of another release or of other data.
        """
        return chain.read_predictions(self.workdir, folder.name, self.card(folder), self.contents)

    def released(self, release: int, methods: Sequence[str]) -> list[pathlib.Path]:
        """Return the folders of the complete releases of these methods; a card is always written last."""
        folders = [self.folder(release, method, seed) for method in methods for seed in self.config.seeds]
        return [folder for folder in folders if (folder / "card.json").is_file()]

    def all_released(self) -> list[pathlib.Path]:
        """Return the folders of all complete releases."""
        return [
            folder for release in self.releases for folder in self.released(release, lineage.made(self.config, release))
        ]

    def missing(self, release: int, methods: Sequence[str]) -> bool:
        """Return whether any release of these methods is missing."""
        return processes.from_first(
            lambda: len(self.released(release, methods)) < len(methods) * len(self.config.seeds)
        )

    def any_missing(self) -> bool:
        """Return whether any release of the run is missing."""
        return any(self.missing(release, lineage.made(self.config, release)) for release in self.releases)

    def read(self, release: int, method: str) -> Classifier | PrecomputedLogits:
        """Read the released models of all seeds as one stack, leaves ``[seeds, ...]``.

        Raises:
          InputError: a model is damaged, or the seeds have different architectures.
        """
        if release == 0 and self.precomputed:
            return self.precomputed
        loaded = [self.read_one(self.folder(release, method, seed)) for seed in self.config.seeds]
        if len({classifier.module for classifier in loaded}) > 1:
            raise InputError(f"the {method} models differ in architecture between seeds; expected one architecture")
        return jax.tree.map(lambda *leaves: np.stack(leaves), *loaded)

    def read_one(self, folder: pathlib.Path) -> Classifier:
        """Read one released model; in a run on frozen features, its head.

        Raises:
          InputError: it is damaged, or has another backbone than the run.
        """
        if self.backbones:
            return self.backbones.read(folder, self.card(folder))
        classifier, card = released_model.read(folder)
        if card["digest"] != self.card(folder)["digest"]:
            raise InputError(f"{folder} was replaced by another release since this command began; run it again")
        return classifier

    def predict(
        self, stack: Classifier | PrecomputedLogits, split: data.Split, output: Any = models.logits
    ) -> np.ndarray:
        """Return logits (or features) of a stack of models, ``[members, images, ...]``."""
        if isinstance(stack, PrecomputedLogits):
            logits = stack.of(split.ids)
            return np.broadcast_to(logits, (len(self.config.seeds), *logits.shape[1:]))
        batch_size = self.config.training.evaluation_batch
        return inference.predict(stack, split.images, batch_size=batch_size, mesh=self.mesh, output=output)


def training_rows(run: Run, stage: lineage.Stage) -> np.ndarray | None:
    """Return which training images each seed learns from in a stage, as sorted positions ``[seeds, n]``; None: all.

    An update learns from all images of its new classes, and from the old ones that the memory keeps. The first release
    may learn from a part of its images (`update.old_fraction`).
    """
    update, release = run.config.update, stage.release
    labels = run.known(run.dataset.train, release).labels
    if release == 0:
        if update.old_fraction == 1:
            return None
        return np.stack([data.part(labels, update.old_fraction, seed=seed) for seed in run.config.seeds])
    if data.parse_policy(update.memory).kind == "all":
        return None
    new = np.arange(data.count(run.dataset.train, run.num_old_classes(release)), len(labels))
    memories = _memories(run, release, stage.methods[0])
    return np.stack([np.sort(np.concatenate([*memory, new])) for memory in memories])


def _memories(run: Run, release: int, method: str) -> list[list[np.ndarray]]:
    """Return the images of the old classes that an update may use, per seed and class."""
    train, update = run.dataset.train, run.config.update
    before, method_before = lineage.previous(release, lineage.INDEPENDENT if method == lineage.ENSEMBLE else method)
    earlier = _memories(run, before, method_before) if before else [[] for _ in run.config.seeds]
    first = data.count(train, run.num_old_classes(before)) if before else 0
    rows = np.arange(first, data.count(train, run.num_known(before)))
    features: Sequence[np.ndarray | None] | np.ndarray = [None for _ in run.config.seeds]
    if update.memory_by == "herding":
        features = run.predict(run.read(before, method_before), data.take(train, rows), models.features)
    policy = data.parse_policy(update.memory)
    return [
        data.remember(policy, memory, rows, train.labels[rows], seed=seed, features=features_of_seed)
        for memory, seed, features_of_seed in zip(earlier, run.config.seeds, features, strict=True)
    ]
