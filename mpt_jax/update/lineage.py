"""Which populations are trained for which releases, from the config and the rows of the methods alone.

Release 0 is the old model. Every later release has the independently trained model, an ensemble of such models if a
method needs one, the students, and the derived methods. A student's old model is the previous release of its own
method. So the first update trains all methods as one population, which shares its teacher, and every later update one
population per method.
"""

import dataclasses
from collections.abc import Sequence

from mpt_jax import config as configs
from mpt_jax import objectives
from mpt_jax.config import Config
from mpt_jax.methods import DERIVED
from mpt_jax.update.records import ENSEMBLE, INDEPENDENT, OLD
from mpt_jax.update.records import release_name as release_name


@dataclasses.dataclass(frozen=True)
class Stage:
    """One population: models that are trained together because they share data and teachers."""

    release: int
    name: str  # "old", "independent", "ensemble", "students", or the single method it trains
    methods: tuple[str, ...]  # the methods it releases

    @property
    def has_students(self) -> bool:
        """Whether it trains students, which no other model of their release learns from."""
        return self.name not in (OLD, INDEPENDENT, ENSEMBLE)

    def __str__(self) -> str:
        return f"r{self.release}-{self.name}"


def stages(config: Config, release: int) -> list[Stage]:
    """Return the populations of a release in the order of their training."""
    if release == 0:
        return [Stage(0, OLD, (OLD,))]
    result = [Stage(release, INDEPENDENT, (INDEPENDENT,))]
    if needs_ensemble(config):
        result.append(Stage(release, ENSEMBLE, (ENSEMBLE,)))
    together = [method for method in trained(config) if not objectives.named(method).sampler_rate]
    # Learned class rates give every student its own batches.
    alone = [method for method in trained(config) if objectives.named(method).sampler_rate]
    if release > 1:
        return result + [Stage(release, method, (method,)) for method in (*together, *alone)]
    students = [Stage(release, "students", tuple(together))] if together else []
    return result + students + [Stage(release, method, (method,)) for method in alone]


def trained(config: Config) -> list[str]:
    """Return the methods that train students: those of the config, then those that derived methods are made from."""
    parents = [parent for method in config.update.methods for parent in made_from(config, method)]
    return list(dict.fromkeys(filter(objectives.is_trained, (*config.update.methods, *parents))))


def derived(config: Config) -> list[str]:
    """Return the methods that are computed from trained models."""
    return [method for method in config.update.methods if method in DERIVED and DERIVED[method].build]


def made_from(config: Config, method: str) -> tuple[str, ...]:
    """Return the methods of its release that a derived method is computed from; none for a trained method.

    Examples:
      >>> made_from(Config(), "bcwi"), made_from(Config(), "posthoc_bias"), made_from(Config(), "mpt_kl")
      (('no_treatment',), ('independent',), ())
    """
    parents = DERIVED[method].made_from if method in DERIVED else ()
    settings = {f"update.{key}": value for key, value in vars(config.update).items()}
    return tuple(settings.get(parent, parent) for parent in parents)


def needs_ensemble(config: Config) -> bool:
    """Return whether any method learns from an ensemble or is made from one."""
    parents = [parent for method in config.update.methods for parent in made_from(config, method)]
    return ENSEMBLE in (*configs.sources(config), *parents)


def made(config: Config, release: int) -> list[str]:
    """Return the methods that a release consists of."""
    trained_here = [method for stage in stages(config, release) for method in stage.methods]
    return trained_here + (derived(config) if release else [])


def previous(release: int, method: str) -> tuple[int, str]:
    """Return the previous release of the same method, which a release is compared with: at first the old model."""
    return (release - 1, OLD if release == 1 else method)


def stream(stage: Stage, methods: Sequence[str] = (OLD, INDEPENDENT, "students", ENSEMBLE)) -> int:
    """Return the number that a stage's random numbers depend on; all students of a release share theirs.

    Examples:
      >>> stages = ((0, "old"), (1, "independent"), (1, "mpt_kl"), (2, "independent"))
      >>> [stream(Stage(release, name, ())) for release, name in stages]
      [0, 1, 2, 4]
    """
    name = stage.name if stage.name in methods else "students"
    return 3 * max(stage.release - 1, 0) + methods.index(name)
