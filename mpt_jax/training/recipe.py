"""The static settings of a training stage: together with the shapes of its arrays they fix the compiled program."""

import dataclasses
import sys

from flax import linen as nn

from mpt_jax import data
from mpt_jax.config import OptimizerConfig
from mpt_jax.objectives import CommonClasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The network, the optimizer and how a population is trained.

    Attributes:
      module: the network of every member.
      num_old_classes: classes from this position on are new; all of them in a first release.
      optimizer: the section of the config.
      augmentation: how training images change at random.
      members_at_once: members that run side by side on a device (`vmap`); the others follow.
      steps_per_call: most train steps in one call of the program.
      remat: whether the blocks of the network are recomputed in the backward pass.
      averaged: whether any objective has an `average`.
      sampled: whether all objectives have a `sampler_rate`.
      layers: of `models.layer_order`, for `layer_decay`.
      num_classes: number of logits; 0: the attribute `num_classes` of the network.
      common: the classes in common with an old model that knows other ones, see `objectives.per_example_loss`.
    """

    module: nn.Module
    num_old_classes: int
    optimizer: OptimizerConfig
    augmentation: data.Augmentation = dataclasses.field(default_factory=data.Augmentation)
    members_at_once: int = sys.maxsize
    steps_per_call: int = 50
    remat: bool = False
    averaged: bool = False
    sampled: bool = False
    layers: tuple[str, ...] = ()
    num_classes: int = 0
    common: CommonClasses | None = None

    def __post_init__(self) -> None:
        if not self.num_classes:
            object.__setattr__(self, "num_classes", self.module.num_classes)

    @property
    def batch_size(self) -> int:
        """Images per step of a member."""
        return self.optimizer.batch_size

    @property
    def micro_batch_size(self) -> int | None:
        """Images per micro-batch of a step; None: the full batch."""
        return self.batch_size // self.optimizer.accumulate if self.optimizer.accumulate > 1 else None

    @property
    def fixed(self) -> tuple[str, ...]:
        """Patterns of the parameters with which BatchNorm keeps its running statistics, see `models.train_forward`."""
        return self.optimizer.freeze if self.optimizer.freeze_statistics else ()

    def steps_per_epoch(self, num_examples: int) -> int:
        """Return ``ceil(N / batch_size)``."""
        return data.steps_per_epoch(num_examples, self.batch_size)

    def total_steps(self, num_examples: int) -> int:
        """Return the steps of the stage: ``epochs * ceil(N / batch_size)``."""
        return self.optimizer.epochs * self.steps_per_epoch(num_examples)
