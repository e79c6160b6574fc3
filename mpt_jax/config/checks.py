"""The rules for a config that need no data: ranges, choices, and keys that exclude or require each other.

`mpt_jax.update` checks the rest (classes, images, teachers) when it has read the data.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpt_jax import data, objectives
from mpt_jax.config import optimizers
from mpt_jax.config.conversion import LARGEST, parse_literal
from mpt_jax.config.schema import (
    TEACHERS,
    Config,
    ModelConfig,
    gives_old_model,
    old_classes,
    old_model_of,
    sources_of,
)
from mpt_jax.errors import InputError, unknown
from mpt_jax.methods import DERIVED, Derived
from mpt_jax.models import NETWORKS, own_network, registry
from mpt_jax.objectives import METHODS

MOST_MODELS = 1000  # seeds of a run, or models of an ensemble: each is trained
MOST_TRIALS, MOST_COMBINATIONS = 10_000, 10**6  # of candidates: to train, and to draw these from

Range = tuple[Callable[[Any], bool], str]  # a predicate, and what it accepts in words


def check(config: Config) -> None:
    """Check every rule that needs no data.

    Raises:
      InputError: naming the key, its value, what was expected and what would work.
    """
    for key, choices in CHOICES.items():
        value = _value(config, key)
        own = f", or {own_network.EXAMPLE}" if key.endswith("model.name") else ""
        if value not in choices and not (own and own_network.is_own(value)):
            raise InputError(unknown(f"{key}={value!r}", value, choices) + own)
    for key, (accepts, expected) in RANGES.items():
        value = _value(config, key)
        _require(accepts(value), f"{key}={_shown(value)}; expected {expected}")
    for section in (
        *(
            _check_seeds,
            _check_dataset,
            _check_optimizer,
            _check_freeze,
            _check_old_model,
            _check_old,
            _check_pretrained,
        ),
        _check_update,
    ):
        section(config)


def _at_least(least: int, meaning: str = "") -> Range:
    return lambda value: value >= least, f"{least}{meaning} or more"


_RATE: Range = (lambda rate: 0 <= rate < 1, "a probability of at least 0 and less than 1")

CHOICES: Mapping[str, Sequence[str]] = {
    "dataset.on_bad_image": data.POLICIES,
    "dataset.follow_links": data.LINKS,
    "dataset.source": data.SOURCES,
    "dataset.augmentation": data.AUGMENTATIONS,
    "dataset.interpolation": ("", *data.INTERPOLATIONS),
    "model.name": tuple(NETWORKS),
    "model.dtype": ("float32", "bfloat16"),
    "old_model.name": ("", *NETWORKS),
    "old_model.dtype": ("float32", "bfloat16"),
    "optimizer.schedule": ("cosine", "constant", "thirds"),
    "optimizer.schedule_unit": ("step", "epoch"),
    "update.start": ("random", "old"),
    "update.memory_by": ("random", "herding"),
}
"""The valid texts of a key."""

RANGES: Mapping[str, Range] = {
    "seeds": (lambda seeds: seeds and all(0 <= s < 2**31 for s in seeds), "integers from 0 to 2**31 - 1, as in 0,1,2"),
    "dataset.imbalance": _at_least(1, " (no long tail)"),
    "dataset.validation_per_class": _at_least(0),
    "dataset.train_per_class": _at_least(0, " (all)"),
    "dataset.crop_padding": _at_least(0),
    "dataset.random_resized_crop": (
        lambda area: not area or (len(area) == 2 and 0 < area[0] <= area[1] <= 1),
        "the smallest and the largest share of the image in a crop, such as 0.08,1, or nothing",
    ),
    "dataset.rand_augment": (
        lambda given: not given or (len(given) == 2 and given[0] in range(1, 15) and 0 <= given[1] <= 30),
        "1 to 14 operations and a magnitude from 0 to 30, such as 2,9, or nothing",
    ),
    "dataset.color_jitter": (
        lambda given: not given or (len(given) == 4 and min(given) >= 0 and given[3] <= 0.5),
        "brightness, contrast, saturation and hue (up to 0.5), such as 0.4,0.4,0.4,0.1, or nothing",
    ),
    "dataset.random_erasing": (lambda probability: 0 <= probability <= 1, "a probability from 0 to 1"),
    "dataset.image_size": (
        lambda sides: len(sides) <= 2 and all(1 <= side <= 2**14 for side in sides),
        "height and width, or one side, from 1 to 2**14 pixels",
    ),
    "dataset.resize": (lambda side: 0 <= side <= 2**14, "pixels up to 2**14, or 0 (just covers dataset.image_size)"),
    "dataset.channels": (lambda channels: channels in (0, 1, 3), "1 (grey), 3 (RGB) or 0 (as stored)"),
    "dataset.test_fraction": (lambda fraction: 0 < fraction < 1, "a number between 0 and 1"),
    "dataset.workers": (lambda workers: 0 <= workers <= 1024, "0 (threads) to 1024 processes"),
    "dataset.std": (lambda std: all(s > 0 for s in std), "numbers above 0"),
    "old.std": (lambda std: all(s > 0 for s in std), "numbers above 0"),
    **{f"{section}.{key}": _RATE for section in ("model", "old_model") for key in ("dropout", "drop_path")},
    "optimizer.learning_rate": _at_least(0),
    "optimizer.momentum": (lambda momentum: 0 <= momentum < 1, "at least 0 and less than 1"),
    "optimizer.weight_decay": _at_least(0),
    "optimizer.epochs": _at_least(1),
    "optimizer.batch_size": _at_least(1),
    "optimizer.accumulate": _at_least(1),
    "optimizer.warmup_epochs": _at_least(0),
    "optimizer.clip_norm": _at_least(0, " (not clipped)"),
    "optimizer.layer_decay": (lambda factor: 0 < factor <= 1, "a factor above 0 and at most 1"),
    "optimizer.head_learning_rate": _at_least(0, " (as optimizer.learning_rate)"),
    "optimizer.decay_exclude": (all, "patterns of parameter paths, such as bias,scale"),
    "optimizer.freeze": (all, "patterns of parameter paths, such as backbone or stage1*"),
    "update.old_fraction": (lambda fraction: 0 < fraction <= 1, "a fraction above 0 and at most 1"),
    "update.ensemble_size": (lambda size: 2 <= size <= MOST_MODELS, f"2 or more, at most {MOST_MODELS}"),
    "update.tolerance": (lambda tolerance: 0 <= tolerance <= 1, "a fraction from 0 to 1"),
    "update.tune_trials": _at_least(0, " (all)"),
    "training.members_at_once": _at_least(0, " (automatic)"),
    "training.cores": _at_least(0, " (all)"),
    # The batches of a call are drawn together.
    "training.steps_per_dispatch": (lambda steps: 1 <= steps <= 10_000, "a number from 1 to 10000"),
    "training.checkpoint_every": _at_least(1),
    "training.checkpoint_seconds": _at_least(0, " (off)"),
    "training.evaluation_batch": _at_least(1),
    "training.predict_every": _at_least(0, " (off)"),
    "mesh.members": _at_least(1),
    "mesh.fsdp": _at_least(0, " (all)"),
}
"""The valid values of a key."""


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _shown(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise InputError(message)


def _require_each_once(key: str, values: Sequence[Any], what: str) -> None:
    _require(
        len(set(values)) == len(values),
        f"{key}={','.join(map(str, values))} lists {what} twice; expected each once",
    )


def _check_seeds(config: Config) -> None:
    count = len(config.seeds)
    _require(count <= MOST_MODELS, f"seeds lists {count:,}, each a complete update; expected at most {MOST_MODELS}")
    _require_each_once("seeds", config.seeds, "a seed")


def _check_normalization(config: Config, section: str) -> None:
    mean, std = _value(config, f"{section}.mean"), _value(config, f"{section}.std")
    _require(
        len(mean) == len(std),
        f"{section}.mean has {len(mean)} values and {section}.std {len(std)}; expected one per channel",
    )


def _check_dataset(config: Config) -> None:
    dataset = config.dataset
    _check_normalization(config, "dataset")
    _require(
        dataset.labels == "label" or not (dataset.is_listed or dataset.name.endswith((".npz", ".py"))),
        f"dataset.labels={dataset.labels} is a feature of a TFDS data set, but dataset.name={dataset.name}; remove it",
    )
    _require(
        not (dataset.crop_padding and dataset.random_resized_crop),
        f"dataset.crop_padding={dataset.crop_padding} and dataset.random_resized_crop="
        f"{list(dataset.random_resized_crop)} are both random crops; remove one of them",
    )
    for key in ("resize", "interpolation"):
        value = getattr(dataset, key)
        _require(
            not value or dataset.image_size,
            f"dataset.{key}={value}, but dataset.image_size is empty; expected a size such as 224",
        )
    _require(
        not dataset.resize or dataset.resize >= min(dataset.image_size),
        f"dataset.resize={dataset.resize} is less than dataset.image_size={_shown(dataset.image_size)}, which is "
        "cropped from it; expected at least that, such as 256 for 224",
    )
    if dataset.augmentation != "imagenet":
        return
    _require(
        dataset.source != "memory",
        "dataset.augmentation=imagenet crops the original image each time, which dataset.source=memory does not keep; "
        "expected dataset.source=stream (or auto)",
    )
    for key in ("crop_padding", "flip", "random_resized_crop"):
        _require(
            not getattr(dataset, key),
            f"dataset.augmentation=imagenet has its own crops and flips, but dataset.{key}="
            f"{_shown(getattr(dataset, key))}; remove one of them",
        )
    _require(
        len(dataset.image_size) > 0,
        "dataset.augmentation=imagenet, but dataset.image_size is empty; expected a size such as 224",
    )


def _check_optimizer(config: Config) -> None:
    settings = config.optimizer
    _require(
        settings.batch_size % settings.accumulate == 0,
        f"optimizer.batch_size={settings.batch_size}; expected a multiple of optimizer.accumulate="
        f"{settings.accumulate}",
    )
    optimizers.check(settings)
    _require(
        settings.warmup_epochs < settings.epochs,
        f"optimizer.warmup_epochs={settings.warmup_epochs}; expected less than optimizer.epochs={settings.epochs}",
    )
    _require(
        settings.learning_rate > 0 or not settings.head_learning_rate,
        f"optimizer.head_learning_rate={settings.head_learning_rate}, but optimizer.learning_rate=0; expected a rate "
        "above 0, or optimizer.freeze=backbone to train the head alone",
    )


def _check_freeze(config: Config) -> None:
    """Refuse to freeze random weights; a network of one's own may load its weights itself."""
    update, old_model = config.update, old_model_of(config)
    section = "old_model" if config.old_model.name else "model"
    starts = [
        ("the old model", gives_old_model(config), old_model, f"{section}.pretrained or update.old"),
        ("the independent model", update.independent, config.model, "model.pretrained or update.independent"),
        ("the students", update.start == "old", config.model, "model.pretrained or update.start=old"),
    ]
    for which, given, network, expected in starts:
        _require(
            not config.optimizer.freeze or given or network.pretrained or own_network.is_own(network.name),
            f"optimizer.freeze={','.join(config.optimizer.freeze)} would freeze random weights of {which}; expected "
            f"{expected}",
        )


def _check_old_model(config: Config) -> None:
    _require(
        config.old_model.name or config.old_model == ModelConfig(name=""),
        f"old_model.name is empty, but old_model has {config.old_model}; set old_model.name, or remove the other keys",
    )


def _check_old(config: Config) -> None:
    """Check the external old model of the section `old`."""
    old = config.old
    _check_one_old_model(config)
    _check_old_classes(config)
    _require(
        old.weights or not (old.mean or old.std),
        f"old.mean={list(old.mean)} and old.std={list(old.std)} apply to the inputs of old.weights, which is empty; "
        "set old.weights, or remove them",
    )
    _check_normalization(config, "old")
    if old.weights:
        _check_old_weights(config)
    if old.predictions:
        _check_old_predictions(config)


def _check_one_old_model(config: Config) -> None:
    old_models = {key: _value(config, key) for key in ("old.predictions", "old.weights", "update.old")}
    given = [f"{key}={value}" for key, value in old_models.items() if value]
    _require(len(given) <= 1, f"{' and '.join(given)} each name an old model; expected only one of them")


def _check_old_classes(config: Config) -> None:
    classes, schedule = old_classes(config), config.update.schedule
    if not classes:
        return
    _require(
        config.old.predictions or config.old.weights,
        f"old.classes={','.join(classes)} names the outputs of old.predictions or old.weights, and both are empty; set "
        "one of them, or remove old.classes",
    )
    _require_each_once("old.classes", classes, "a class")
    _require(
        schedule[:1] == (len(classes),),
        f"old.classes names {len(classes)} classes, but update.schedule={list(schedule)}; expected a schedule that "
        f"starts with {len(classes)}",
    )


def _check_old_weights(config: Config) -> None:
    old, dataset = config.old, config.dataset
    section, network = "old_model" if config.old_model.name else "model", old_model_of(config).name
    _require(
        network in registry.WITH_WEIGHTS,
        f"old.weights={old.weights} and {section}.name={network}: weights are read for "
        f"{', '.join(registry.WITH_WEIGHTS)}; expected one of these",
    )
    _require(
        old.mean or dataset.mean,
        f"old.weights={old.weights} needs images normalised as in its training; expected old.mean and old.std (or "
        "dataset.mean and dataset.std), per channel in units of pixel/255",
    )
    both_given = old.mean and dataset.mean
    _require(
        config.update.start == "random" or not both_given or (old.mean, old.std) == (dataset.mean, dataset.std),
        f"update.start=old fine-tunes old.weights={old.weights} on images with dataset.mean={list(dataset.mean)}, but "
        f"old.mean={list(old.mean)}; expected equal mean and std, or update.start=random",
    )


def _check_old_predictions(config: Config) -> None:
    """Reject what needs more of the old model than its predictions."""
    old, update = config.old, config.update
    only = f"but old.predictions={old.predictions} gives only the old model's predictions"
    for method in update.methods:
        needed = "features" if objectives.is_trained(method) and "old_head" in sources_of(method) else ""
        needed = "weights" if method in _fine_tuned(config) else needed
        _require(not needed, f"update.methods={method} needs the old model's {needed}, {only}; remove the method")
    _require(
        update.start == "random",
        f"update.start=old needs the old model's weights, {only}; expected update.start=random",
    )
    _require(
        update.memory_by == "random",
        f"update.memory_by=herding needs the old model's features, {only}; expected update.memory_by=random",
    )
    _require(
        not config.old_model.name,
        f"old_model.name={config.old_model.name} needs the old model's weights, {only}; remove old_model.name",
    )


def _check_pretrained(config: Config) -> None:
    """Reject pretrained weights that no model of the run would start from, and prefixes of no file."""
    update, old = config.update, config.old
    for section in ("model", "old_model"):
        strip, source = _value(config, f"{section}.strip"), _value(config, f"{section}.pretrained")
        _require(
            source or not strip,
            f"{section}.strip={strip} is a prefix in the file of {section}.pretrained, which is empty; set that, or "
            f"remove {section}.strip",
        )
    _require(
        old.weights or not old.strip,
        f"old.strip={old.strip} is a prefix in the file of old.weights, which is empty; set that, or remove old.strip",
    )
    given = {"update.old": update.old, "old.weights": old.weights, "old.predictions": old.predictions}
    for key in (key for key, value in given.items() if value):
        _require(
            not config.old_model.pretrained,
            f"old_model.pretrained={config.old_model.pretrained} is where the training of the old model starts, but "
            f"{key}={given[key]} gives that model; remove one of them",
        )
        _require(
            not (config.model.pretrained and update.independent and update.start == "old"),
            f"model.pretrained={config.model.pretrained}, but no model starts from it: {key}={given[key]} and "
            f"update.independent={update.independent} are given, and with update.start=old the others start from the "
            "old model; remove model.pretrained, or set update.start=random",
        )


def _check_update(config: Config) -> None:
    for part in (
        _check_schedule,
        _check_methods,
        _check_memory,
        _check_start,
        _check_posthoc,
        _check_bias,
        _check_tune,
        _check_validation,
    ):
        part(config)


def _adds_classes(config: Config) -> bool:
    """Return whether every update adds classes; with a class map, which only `mpt_jax.update` can apply, it may."""
    if config.update.class_map:
        return True
    return all(before < after for before, after in itertools.pairwise(config.update.schedule))


def _derived(config: Config) -> dict[str, Derived]:
    return {method: DERIVED[method] for method in config.update.methods if method in DERIVED}


def _fine_tuned(config: Config) -> list[str]:
    return [method for method, row in _derived(config).items() if row.fine_tuned]


def _check_class_map(config: Config) -> None:
    update, schedule = config.update, config.update.schedule
    shown = f"update.class_map={update.class_map}" if isinstance(update.class_map, str) else "update.class_map"
    _require(
        gives_old_model(config),
        f"{shown} changes the classes of a given old model, but update.old, old.weights and old.predictions are empty; "
        "expected one of them, such as update.old=RUN/releases/r0-old-seed{seed}",
    )
    _require(
        len(schedule) == 2 and min(schedule) >= 2,
        f"update.schedule={list(schedule)} with {shown}; expected two numbers of at least 2, of the classes before and "
        "after: update in one run after the other, each with its own map",
    )


def _check_schedule(config: Config) -> None:
    update, schedule = config.update, config.update.schedule
    if update.class_map:
        _check_class_map(config)
        return
    _require(
        len(schedule) >= 2 and schedule[0] >= 2 and list(schedule) == sorted(schedule),
        f"update.schedule={list(schedule)}; expected two or more growing numbers of at least 2, such as [50, 100]",
    )
    another_change = update.old_fraction < 1 or config.old_model.name or config.old.predictions or config.old.weights
    _require(
        _adds_classes(config) or (len(schedule) == 2 and another_change),
        f"update.schedule={list(schedule)} adds no classes; expected growing numbers, or the same number twice with "
        "update.old_fraction below 1 (more data), old_model.name (another network), old.predictions or old.weights",
    )
    _require(
        not update.independent or len(schedule) == 2,
        f"update.independent={update.independent} is one new model, but update.schedule={list(schedule)} has "
        f"{len(schedule) - 1}; remove it, or use a schedule of two numbers",
    )


def _check_methods(config: Config) -> None:
    methods, valid = config.update.methods, (*METHODS, *DERIVED)
    _require(methods, f"update.methods is empty; valid: {', '.join(valid)}")
    for method in methods:
        row, at, _ = method.partition("@")
        _require(
            not at or row not in DERIVED,
            f"update.methods={method}: {row} is a derived method, whose name takes no numbers; expected {row}",
        )
        if row not in valid:
            raise InputError(unknown(f"update.methods={row!r}", row, valid))
        _prefix_errors("update.methods", objectives.own_numbers, method)
        _require(
            re.fullmatch(r"[\w.-]+", row) is not None,
            f"update.methods: {method!r} is part of file names; expected letters, digits, '_', '-' and '.'",
        )
    same = {(method.partition("@")[0], *sorted(objectives.own_numbers(method).items())) for method in methods}
    _require(len(same) == len(methods), f"update.methods={','.join(methods)} lists a method twice; expected each once")


def _prefix_errors(key: str, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function; an error of another module, which knows no config keys, gets the key in front."""
    try:
        function(*arguments)
    except ValueError as error:
        raise InputError(f"{key}: {error}") from error


def _check_memory(config: Config) -> None:
    update = config.update
    policy = data.parse_policy(update.memory)
    _require(
        policy.kind == "all" or (_adds_classes(config) and update.old_fraction == 1),
        f"update.memory={update.memory} limits the images of old classes when classes are added, but "
        f"update.old_fraction={update.old_fraction} and update.schedule={list(update.schedule)}; expected "
        "update.memory=all, or added classes with update.old_fraction=1",
    )
    _require(
        update.memory_by == "random" or policy.kind in ("per_class", "total"),
        f"update.memory_by=herding selects images of the old classes, but update.memory={update.memory} leaves nothing "
        "to select; expected update.memory=per_class:20 or total:2000",
    )


def _check_start(config: Config) -> None:
    update, old_model = config.update, old_model_of(config)
    # The networks may differ in the weights that the old and the independent model start from.
    same = dataclasses.replace(old_model, pretrained=config.model.pretrained, strip=config.model.strip) == config.model
    _require(
        update.start == "random" or same,
        f"update.start=old fine-tunes old_model {old_model.name}, but model is {config.model.name}; expected the same "
        "network, or update.start=random",
    )
    for method in _fine_tuned(config):
        _require(
            update.start == "old" and len(update.schedule) == 2,
            f"update.methods={method} averages weights with the old model's, but update.start={update.start} and "
            f"update.schedule={list(update.schedule)}; expected update.start=old and two releases",
        )


def _check_posthoc(config: Config) -> None:
    update = config.update
    for method, row in _derived(config).items():
        _require(
            _adds_classes(config) or not row.needs_new_classes,
            f"update.methods={method} acts on added classes, but update.schedule={list(update.schedule)} adds none; "
            "remove the method",
        )
    _require(
        update.posthoc_of in (TEACHERS["new"], *filter(objectives.is_trained, update.methods)),
        f"update.posthoc_of={update.posthoc_of!r}; expected 'independent' or a trained method of update.methods",
    )


def _check_bias(config: Config) -> None:
    bias, tune = config.update.bias, config.update.tune
    number = parse_literal(bias)
    is_number = isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= LARGEST
    _require(
        bias in ("published", "auto") or is_number,
        f"update.bias={bias!r}; expected 'published', 'auto' or a number of at least 0",
    )
    _require(
        bias == "published" or "bias" not in tune,
        f"update.bias={bias} and update.tune.bias={list(tune.get('bias', ()))} both determine b; remove one of them",
    )


def _check_tune(config: Config) -> None:
    for name, candidates in config.update.tune.items():
        key = f"update.tune.{name}"
        _prefix_errors(key, objectives.check_number, name, candidates)
        _require(candidates, f"{key} is empty; expected candidates, such as {key}=0,1,2")
        _require_each_once(key, candidates, "a candidate")
    combinations = math.prod(map(len, config.update.tune.values()))
    _require(
        combinations <= MOST_COMBINATIONS,
        f"update.tune has {combinations:,} combinations of candidates; expected at most {MOST_COMBINATIONS:,}",
    )
    trials = min(combinations, config.update.tune_trials or combinations)
    _require(
        trials <= MOST_TRIALS,
        f"update.tune and update.tune_trials={config.update.tune_trials} train {trials:,} models of a method; expected "
        f"at most {MOST_TRIALS:,}",
    )


def uses_of_validation(config: Config) -> list[str]:
    """Return the keys, with their values, that need validation images."""
    update = config.update
    uses = {
        "update.bias=auto": update.bias == "auto",
        "update.tune": update.tune,
        **{f"update.methods={method}": row.number for method, row in _derived(config).items()},
        **{
            f"update.methods={method}": objectives.named(method).bias_power
            for method in filter(objectives.is_trained, update.methods)
        },
    }
    return [what for what, used in uses.items() if used]


def _check_validation(config: Config) -> None:
    """Require validation images if the config asks for anything that is computed on them.

    Folders and tables may have a validation part, so that `mpt_jax.update.preparation` checks them.
    """
    for what in [] if config.dataset.is_listed else uses_of_validation(config):
        _require(
            config.dataset.validation_per_class > 0,
            f"{what} needs validation images, but dataset.validation_per_class=0; set it above 0, or remove {what}",
        )
