"""What every stage needs: the config, the data, and where the releases of the work directory lie."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import data, models
from mpt_jax.cli.progress import Progress
from mpt_jax.config import Config
from mpt_jax.errors import InputError
from mpt_jax.files import released_model
from mpt_jax.models import Classifier
from mpt_jax.runtime import processes
from mpt_jax.training import inference
from mpt_jax.update import lineage
from mpt_jax.update.external_model import Recorded


@dataclasses.dataclass(frozen=True)
class Run:
    """Read and checked before anything is written."""

    config: Config
    workdir: pathlib.Path
    dataset: data.Dataset
    mean: np.ndarray
    std: np.ndarray
    mesh: jax.sharding.Mesh
    cores: Sequence[jax.Device]  # of a CPU, for the populations that are fastest with a core for each member
    given: Mapping[str, Sequence[tuple[Classifier, dict[str, Any]]]]  # per teacher: one a seed, or none to be trained
    contents: Mapping[str, str]  # digests of the data
    provenance: Mapping[str, Any]
    progress: Progress
    on_metrics: Sequence[Callable[[Mapping[str, Any]], None]] = ()  # told every line of metrics.jsonl
    recorded: Recorded | None = None  # in the place of the old models, where these are known by their answers alone

    @property
    def releases(self) -> range:
        """Their numbers, the old one's 0 first."""
        return range(len(self.config.update.schedule))

    def num_classes(self, release: int) -> int:
        """How many classes a release knows."""
        return self.config.update.schedule[release]

    def num_old_classes(self, release: int) -> int:
        """How many classes the release before it knows; of the first release its own."""
        return self.config.update.schedule[max(release - 1, 0)]

    def known(self, split: data.Split, release: int) -> data.Split:
        """The part of a split with the classes of a release."""
        return data.take(split, np.arange(data.count(split, self.num_classes(release))))

    def folder(self, release: int, method: str, seed: int) -> pathlib.Path:
        """Where a released model lies."""
        return self.workdir / "releases" / lineage.release_name(release, method, seed)

    def predictions(self, folder: pathlib.Path) -> pathlib.Path:
        """Where a release's answers on the test images lie."""
        return self.workdir / "predictions" / f"{folder.name}.npz"

    def released(self, release: int, methods: Sequence[str]) -> list[pathlib.Path]:
        """The releases of these methods that are whole; the card is what is written last."""
        folders = [self.folder(release, method, seed) for method in methods for seed in self.config.seeds]
        return [folder for folder in folders if (folder / "card.json").is_file()]

    def all_released(self) -> list[pathlib.Path]:
        """All releases that are whole."""
        return [f for release in self.releases for f in self.released(release, lineage.made(self.config, release))]

    def missing(self, release: int, methods: Sequence[str]) -> bool:
        """Whether any of these is yet to be made."""
        expected = len(methods) * len(self.config.seeds)
        return processes.from_first(lambda: len(self.released(release, methods)) < expected)

    def read(self, release: int, method: str) -> Classifier | Recorded:
        """The released models of all seeds as one stack, leaves ``[seeds, ...]``."""
        if release == 0 and self.recorded:
            return self.recorded
        loaded = [released_model.read(self.folder(release, method, seed))[0] for seed in self.config.seeds]
        if len({classifier.module for classifier in loaded}) > 1:
            raise InputError(f"the {method} models differ in architecture between seeds; expected one architecture")
        return jax.tree.map(lambda *leaves: np.stack(leaves), *loaded)

    def predict(self, stack: Classifier | Recorded, split: data.Split, output: Any = models.logits) -> np.ndarray:
        """Logits (or features) of a stack of models: ``[members, images, ...]``."""
        if isinstance(stack, Recorded):
            answers = stack.of(split.ids)
            return np.broadcast_to(answers, (len(self.config.seeds), *answers.shape[1:]))
        batch_size = self.config.training.evaluation_batch
        return inference.predict(stack, split.images, batch_size=batch_size, mesh=self.mesh, output=output)


def training_rows(run: Run, stage: lineage.Stage) -> np.ndarray | None:
    """Which training images each seed learns from in a stage, sorted positions ``[seeds, n]``; None: all it knows.

    All images of the release's new classes, and of the old ones what the memory kept; the first release may learn from
    a part of its classes' images.
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
    """The images of the old classes that an update may use, per seed and class."""
    train, update = run.dataset.train, run.config.update
    before, method_before = lineage.previous(release, lineage.INDEPENDENT if method == lineage.ENSEMBLE else method)
    earlier = _memories(run, before, method_before) if before else [[] for _ in run.config.seeds]
    first = data.count(train, run.num_old_classes(before)) if before else 0
    rows = np.arange(first, data.count(train, run.num_classes(before)))
    features = [None for _ in run.config.seeds]
    if update.memory_by == "herding":
        features = run.predict(run.read(before, method_before), data.take(train, rows), models.features)
    policy = data.parse_policy(update.memory)
    return [
        data.remember(policy, memory, rows, train.labels[rows], seed=seed, features=seen)
        for memory, seed, seen in zip(earlier, run.config.seeds, features, strict=True)
    ]
