"""The plan that a run prints before it starts: what is trained in how many steps, what exists, and about how long."""

import dataclasses
from collections.abc import Sequence

from mpt_jax import config as configs
from mpt_jax import data
from mpt_jax.config import Config, ModelConfig
from mpt_jax.files import checkpoint
from mpt_jax.update import lineage, selection, stage_inputs
from mpt_jax.update.lineage import Stage
from mpt_jax.update.run import Run, training_rows


@dataclasses.dataclass(frozen=True)
class Rate:
    """The time of a step, measured in this work directory on this device."""

    seconds: float  # per model of the population
    network: ModelConfig
    measured_in: str  # title of a stage


@dataclasses.dataclass(frozen=True)
class Training:
    """A stage that remains to be trained, or to be finished."""

    steps: int  # that remain
    text: str
    seconds: float | None  # None: no step of such a network was timed


def plan(run: Run) -> list[str]:
    """Return the plan, one line per stage and derived method, without writing anything.

    Times are estimated only from measured steps: those of the stage itself if it resumes, or else those of the last
    finished stage of the same network, in proportion to the number of models. The cost of teachers is not included.
    """
    lines, trainings, rates = _features(run), [], _rates(run)
    for release in run.releases:
        for stage in lineage.stages(run.config, release):
            name = title(run, stage)
            if not run.missing(release, stage.methods):
                lines.append(f"  {name}: exists")
            elif adopted := run.adopted.get(stage.name):
                paths = dict.fromkeys(card["adopted_from"] for _, card in adopted)
                lines.append(f"  {name}: adopt {', '.join(paths)}")
            elif release == 0 and run.precomputed:
                lines.append(f"  {name}: predictions from {run.config.old.predictions}")
            else:
                trainings.append(_training(run, stage, rates))
                lines.append(f"  {name}: {trainings[-1].text}")
        for method in lineage.derived(run.config) if release else ():
            name = method if len(run.releases) == 2 else f"release {release}, {method}"
            lines.append(f"  {name}: {'derive from these' if run.missing(release, [method]) else 'exists'}")
    times = [training.seconds for training in trainings]
    known = [seconds for seconds in times if seconds is not None]
    about = f", about {duration(sum(known))}" if known and len(known) == len(times) else ""
    return [f"plan: {sum(training.steps for training in trainings)} steps of training{about}", *lines]


def _features(run: Run) -> list[str]:
    """Describe the features that are computed once, and a shared cache that has them already is not opened."""
    if not run.backbones or not run.any_missing():
        return []
    count = sum(len(getattr(run.dataset, part)) for part in data.PARTS)
    return [
        f"  features: {count:,} images, {each.width:,} each by {each.network['name']}, computed once into "
        f"{run.backbones.cache}"
        for each in run.backbones.each
    ]


def title(run: Run, stage: Stage) -> str:
    """Return the name of a stage in printed lines."""
    return stage.name if len(run.releases) == 2 else f"release {stage.release}, {stage.name}"


def population(config: Config, stage: Stage) -> str:
    """Describe the models that a stage trains, such as "8 seeds x 7 objectives"."""
    members = len(selection.members_of(config, stage))
    count, unit = len(config.seeds), "seed"
    if stage.name == lineage.ENSEMBLE:
        count, unit = count * config.update.ensemble_size, "model"
    text = f"{count} {unit}{'s' * (count > 1)}"
    return text + (f" x {members} objectives" if members > 1 else "")


def total_steps(run: Run, stage: Stage) -> int:
    """Return the steps of a stage, from the number of images that it may use."""
    counts = data.class_counts(run.dataset.train, run.num_classes(stage.release))
    examples = counts.sum()
    if stage.release == 0:
        rows = training_rows(run, stage)
        examples = examples if rows is None else rows.shape[-1]
    else:
        old = run.num_old_classes(stage.release)
        policy = data.parse_policy(run.config.update.memory)
        examples = data.kept_counts(policy, counts[:old]).sum() + counts[old:].sum()
    return run.config.optimizer.epochs * data.steps_per_epoch(int(examples), run.config.optimizer.batch_size)


def duration(seconds: float) -> str:
    """Format a time to two digits.

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
    remaining = total - done
    text = f"train {population(run.config, stage)}, {remaining} steps of {run.config.optimizer.batch_size} examples"
    if (start := run.pretrained(stage.release)) and not stage_inputs.starts_from_old(run.config, stage):
        text += f", from {start.source}"
    similar = [rate for rate in rates if rate.network == _network(run, stage)]
    estimate = None
    if done:
        estimate = remaining * seconds / done
        text += f", resumed from step {done} of {total}, about {duration(estimate)}"
    elif similar:
        estimate = remaining * similar[-1].seconds * _num_models(run, stage)
        text += f", about {duration(estimate)} at the speed of {similar[-1].measured_in}"
    return Training(remaining, text, estimate)


def _rates(run: Run) -> list[Rate]:
    """Return the time of a step of each stage that was trained to its end here."""
    rates = []
    for stage in (stage for release in run.releases for stage in lineage.stages(run.config, release)):
        for folder in run.released(stage.release, stage.methods)[:1]:
            card = run.card(folder)
            here = card.get("made_with", {}).get("device") == run.provenance["device"]
            if here and "adopted_from" not in card and card["steps"]:
                seconds = card["seconds"] / card["steps"] / _num_models(run, stage)
                rates.append(Rate(seconds, _network(run, stage), title(run, stage)))
    return rates


def _num_models(run: Run, stage: Stage) -> int:
    replicas = run.config.update.ensemble_size if stage.name == lineage.ENSEMBLE else 1
    return len(run.config.seeds) * replicas * len(selection.members_of(run.config, stage))


def _network(run: Run, stage: Stage) -> ModelConfig:
    return run.config.model if stage.release else configs.old_model_of(run.config)


def _checkpoint(run: Run, stage: Stage) -> tuple[int, float]:
    """Return the step of a stage's newest checkpoint and the seconds it took to get there; zeros without one."""
    step, notes = checkpoint.newest(run.checkpoints(stage)) or (0, {"seconds": 0.0})
    return step, float(notes["seconds"])
