"""Which populations make which releases, from the config alone.

Release 0 is the old model. Every later release has the independently trained model, an ensemble of such where a method
wants one, the students, and what is made of these without training. A student's old model is the release before it of
its own method; so the first update trains all methods as one population, which shares its teacher, and every later one
a population per method.
"""

import dataclasses
from collections.abc import Sequence

from mpt_jax import config as configs
from mpt_jax import objectives, posttraining
from mpt_jax.config import Config

OLD, INDEPENDENT, ENSEMBLE = "old", "independent", "ensemble"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One population: models that are trained together, because they share their data and teachers."""

    release: int
    name: str  # "old", "independent", "ensemble", "students", or the one method it trains
    methods: tuple[str, ...]  # what it releases

    @property
    def has_students(self) -> bool:
        """Whether it trains what others do not learn from within their release."""
        return self.name not in (OLD, INDEPENDENT, ENSEMBLE)

    def __str__(self) -> str:
        return f"r{self.release}-{self.name}"


def stages(config: Config, release: int) -> list[Stage]:
    """The populations of a release, in the order of their training."""
    if release == 0:
        return [Stage(0, OLD, (OLD,))]
    result = [Stage(release, INDEPENDENT, (INDEPENDENT,))]
    if needs_ensemble(config):
        result.append(Stage(release, ENSEMBLE, (ENSEMBLE,)))
    together = [method for method in trained(config) if not objectives.named(method).sampler_rate]
    # Learned class rates give every student batches of its own.
    alone = [method for method in trained(config) if objectives.named(method).sampler_rate]
    if release > 1:
        return result + [Stage(release, method, (method,)) for method in (*together, *alone)]
    students = [Stage(release, "students", tuple(together))] if together else []
    return result + students + [Stage(release, method, (method,)) for method in alone]


def trained(config: Config) -> list[str]:
    """The methods that train students: those named, and what others are made of."""
    named = list(filter(objectives.is_trained, config.update.methods))
    interpolated = {"bcwi", "bcwi_fisher"} & set(config.update.methods)
    return named + (["no_treatment"] if interpolated and "no_treatment" not in named else [])


def derived(config: Config) -> list[str]:
    """The methods that are made of models that are there already, but for the ensemble, which is a population."""
    return [method for method in config.update.methods if method in posttraining.METHODS and method != ENSEMBLE]


def needs_ensemble(config: Config) -> bool:
    """Whether any method learns from an ensemble, or is made of one."""
    return ENSEMBLE in configs.sources(config) or bool({*posttraining.OF_ENSEMBLE} & {*config.update.methods})


def made(config: Config, release: int) -> list[str]:
    """The methods that a release consists of."""
    trained_here = [method for stage in stages(config, release) for method in stage.methods]
    return trained_here + (derived(config) if release else [])


def previous(release: int, method: str) -> tuple[int, str]:
    """The release before this one of the same method, which it is compared with: at first the old model."""
    return (release - 1, OLD if release == 1 else method)


def release_name(release: int, method: str, seed: int) -> str:
    """`r0-old-seed0`, `r1-mpt_kl-seed0`: number of the release, method, seed.

    Examples:
      >>> release_name(1, "mpt_kl", 0)
      'r1-mpt_kl-seed0'
    """
    return f"r{release}-{method}-seed{seed}"


def stream(stage: Stage, methods: Sequence[str] = (OLD, INDEPENDENT, "students", ENSEMBLE)) -> int:
    """The number that a stage's random numbers are drawn by: the students of a release all share theirs.

    Examples:
      >>> stages = ((0, "old"), (1, "independent"), (1, "mpt_kl"), (2, "independent"))
      >>> [stream(Stage(release, name, ())) for release, name in stages]
      [0, 1, 2, 4]
    """
    name = stage.name if stage.name in methods else "students"
    return 3 * max(stage.release - 1, 0) + methods.index(name)
