"""What a run will do, said before it begins: what is trained in how many steps, what is there, about how long."""

import dataclasses
from collections.abc import Sequence

from mpt_jax import config as configs
from mpt_jax import data
from mpt_jax.config import ModelConfig
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint, released_model
from mpt_jax.update import lineage, stages
from mpt_jax.update.context import Run, training_rows
from mpt_jax.update.lineage import Stage


@dataclasses.dataclass(frozen=True)
class Rate:
    """Seconds that a step takes, measured in this work directory on this device."""

    seconds: float  # for each model of the population
    network: ModelConfig
    of: str  # the stage that was timed


@dataclasses.dataclass(frozen=True)
class Training:
    """A stage that is yet to be trained, or to its end."""

    steps: int  # that are left
    text: str
    seconds: float | None  # None: no step like these was timed


def plan(run: Run) -> list[str]:
    """What there is to do, a line per stage and method; nothing is written.

    Times are given only where steps were timed: of a stage that goes on its own, of another one those of the last
    finished stage of the same network, in proportion to its models. Their teachers are not counted.
    """
    lines, trained, rates = [], [], _measured(run)
    for release in run.releases:
        for stage in lineage.stages(run.config, release):
            name = stages.title(run, stage)
            if not run.missing(release, stage.methods):
                lines.append(f"  {name}: there already")
            elif given := run.given.get(stage.name):
                paths = dict.fromkeys(card["adopted_from"] for _, card in given)
                lines.append(f"  {name}: adopted from {', '.join(paths)}")
            elif release == 0 and run.recorded:
                lines.append(f"  {name}: its answers from {run.config.old.predictions}")
            else:
                trained.append(_training(run, stage, rates))
                lines.append(f"  {name}: {trained[-1].text}")
        for method in lineage.derived(run.config) if release else ():
            name = method if len(run.releases) == 2 else f"release {release}, {method}"
            lines.append(f"  {name}: {'made of these' if run.missing(release, [method]) else 'there already'}")
    times = [training.seconds for training in trained]
    about = f", about {duration(sum(times))}" if times and None not in times else ""
    return [f"plan: {sum(training.steps for training in trained)} steps of training{about}", *lines]


def total_steps(run: Run, stage: Stage) -> int:
    """Steps of a whole stage, from the number of images that its memory leaves it."""
    counts = data.class_counts(run.dataset.train, run.num_classes(stage.release))
    examples = counts.sum()
    if stage.release == 0 and run.config.update.old_fraction < 1:
        examples = training_rows(run, stage).shape[-1]
    if stage.release:
        old = run.num_old_classes(stage.release)
        policy = data.parse_policy(run.config.update.memory)
        examples = data.kept_counts(policy, counts[:old]).sum() + counts[old:].sum()
    return run.config.optimizer.epochs * data.steps_per_epoch(int(examples), run.config.optimizer.batch_size)


def duration(seconds: float) -> str:
    """A time in words, to two digits.

    Examples:
      >>> duration(9.6), duration(100), duration(9000)
      ('10 s', '1.7 min', '2.5 h')
    """
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    value, unit = (seconds / 60, "min") if seconds < 3600 else (seconds / 3600, "h")
    return f"{value:.{1 if value < 10 else 0}f} {unit}"


def _training(run: Run, stage: Stage, rates: Sequence[Rate]) -> Training:
    total = total_steps(run, stage)
    done, seconds = _checkpoint(run, stage)
    left = total - done
    text = f"train {stages.population(run.config, stage)}, {left} steps of {run.config.optimizer.batch_size} examples"
    like = [rate for rate in rates if rate.network == _network(run, stage)]
    estimate = None
    if done:
        estimate = left * seconds / done
        text += f", going on from step {done} of {total}, about {duration(estimate)}"
    elif like:
        estimate = left * like[-1].seconds * _models(run, stage)
        text += f", about {duration(estimate)} at the rate of {like[-1].of}"
    return Training(left, text, estimate)


def _measured(run: Run) -> list[Rate]:
    """Of each stage that was trained here to its end."""
    rates = []
    for stage in (stage for release in run.releases for stage in lineage.stages(run.config, release)):
        cards = [released_model.read_card(folder) for folder in run.released(stage.release, stage.methods)[:1]]
        for card in cards:
            here = card.get("made_with", {}).get("device") == run.provenance["device"]
            if here and "adopted_from" not in card and card["steps"]:
                seconds = card["seconds"] / card["steps"] / _models(run, stage)
                rates.append(Rate(seconds, _network(run, stage), stages.title(run, stage)))
    return rates


def _models(run: Run, stage: Stage) -> int:
    replicas = run.config.update.ensemble_size if stage.name == lineage.ENSEMBLE else 1
    return len(run.config.seeds) * replicas * len(stages.members_of(run.config, stage))


def _network(run: Run, stage: Stage) -> ModelConfig:
    return run.config.model if stage.release else configs.old_model_of(run.config)


def _checkpoint(run: Run, stage: Stage) -> tuple[int, float]:
    """The step that a stage was last saved at, and the seconds it took to get there; 0 where nothing is saved."""
    folder = run.workdir / "checkpoints" / str(stage)
    for step in checkpoint.saved_steps(folder):
        try:
            return step, float(checkpoint.read_notes(folder, step)["seconds"])
        except InputError:  # an older one may be whole: said when it is restored
            continue
    return 0, 0.0
