"""What is measured: a network and a population of students, on random data in the sizes of a real experiment."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mpt_jax import data, models, objectives, training
from mpt_jax.config import OptimizerConfig
from mpt_jax.models import Classifier
from mpt_jax.objectives import Objective
from mpt_jax.training import TrainState


@dataclasses.dataclass(frozen=True)
class Job:
    """Sizes of the training data and the augmentation, as in the model's experiment in `configs/`."""

    image_shape: tuple[int, int, int]
    num_classes: Mapping[str, int]  # of the old release and of the new one
    num_images: int
    batch: int
    augmentation: data.Augmentation


DIGITS = Job((8, 8, 1), {"old": 5, "new": 10}, num_images=320, batch=48, augmentation=data.Augmentation())
CIFAR100 = Job(
    (32, 32, 3),
    {"old": 50, "new": 100},
    num_images=50_000,
    batch=128,
    augmentation=data.Augmentation(crop_padding=4, flip=True),
)


@dataclasses.dataclass(frozen=True)
class Setup:
    """The options shared by all measurements; 0 and empty text stand for the default."""

    model: str = "resnet18"
    stem: str = ""
    batch: int = 0
    dtype: str = "float32"
    steps: int = 0  # per timed call
    rounds: int = 3
    members_at_once: int = 0
    peak_tflops: float = 0.0
    image_size: int = 0  # of a side
    images: int = 0  # on the device
    accumulate: int = 1
    remat: bool = False
    fsdp: int = 1
    optimizer: str = "sgd"

    @property
    def job(self) -> Job:
        job = DIGITS if self.model == "convnet" else CIFAR100
        shape = (self.image_size, self.image_size, job.image_shape[2]) if self.image_size else job.image_shape
        num_images = self.images or job.num_images
        return dataclasses.replace(job, batch=self.batch or job.batch, image_shape=shape, num_images=num_images)

    def network(self, source: str = "new") -> nn.Module:
        options = {"stem": self.stem} if self.stem else {}
        return models.build(self.model, self.job.num_classes[source], dtype=self.dtype, **options)

    def recipe(self) -> training.Recipe:
        job, module = self.job, self.network()
        return training.Recipe(
            module=module,
            num_old_classes=job.num_classes["old"],
            optimizer=OptimizerConfig(
                name=self.optimizer,
                learning_rate=1e-3,
                epochs=1,
                batch_size=job.batch,
                schedule="constant",
                accumulate=self.accumulate,
            ),
            augmentation=job.augmentation,
            members_at_once=self.members_at_once or training.fastest_members_at_once(),
            remat=self.remat,
        )


def examples(job: Job, mesh: Mesh, data_dir: str = "") -> tuple[jax.Array, jax.Array]:
    """Return images and labels on the device: CIFAR-100 if its data folder is given, else random ones."""
    if data_dir:
        train = data.load(data.DatasetConfig("cifar100", data_dir), num_classes=job.num_classes["new"]).train
        images, labels = train.images, train.labels
    else:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (job.num_images, *job.image_shape), np.uint8)
        labels = np.sort(random.integers(0, job.num_classes["new"], job.num_images).astype(np.int32))
    return jax.device_put((images, labels), NamedSharding(mesh, P()))


def make_inputs(setup: Setup, rows: Sequence[Objective], labels: Any) -> training.Inputs:
    """Build the arguments of the train steps: one seed, and a random teacher for each source that the rows name."""
    shape, key = setup.job.image_shape, jax.random.key(0)
    middle = np.full(shape[-1], 0.5, np.float32)
    teachers = {}
    for source in dict.fromkeys(source for row in rows for source in objectives.sources(row)):
        module = setup.network(source)
        weights = _random_weights(*jax.eval_shape(functools.partial(models.init, module, key, shape)))
        teacher = training.freeze(Classifier(module, *weights, middle, middle), middle, middle)
        teachers[source] = jax.tree.map(lambda leaf: leaf[None], teacher)
    return training.Inputs(labels, middle, middle, jnp.stack([key]), objectives.stack(rows), teachers)


def make_state(
    recipe: training.Recipe, inputs: training.Inputs, image_shape: Sequence[int], students: int
) -> TrainState:
    """Build what `training.init_state` returns without compiling it; all students get the same random weights."""
    rest = (1, image_shape, len(inputs.labels))
    shapes = jax.eval_shape(lambda keys: training.init_state(recipe, keys, *rest), inputs.keys)
    opt_state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.opt_state)
    one = TrainState(*_random_weights(shapes.params, shapes.batch_stats), opt_state)
    return jax.tree.map(lambda leaf: np.broadcast_to(leaf, (1, students, *leaf.shape[2:])), one)


def _random_weights(params: Any, batch_stats: Any) -> tuple[Any, Any]:
    """Return arrays of these shapes: random parameters, and statistics of ones."""
    random = np.random.default_rng(0)
    return (
        jax.tree.map(lambda leaf: (0.05 * random.standard_normal(leaf.shape)).astype(leaf.dtype), params),
        jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), batch_stats),
    )
