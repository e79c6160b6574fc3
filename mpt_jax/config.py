"""From a config file (`get_config() -> ConfigDict`) and `--config.key=value` overrides to one frozen, checked `Config`.

Every key, its type and its default stand in the dataclasses below and in `mpt_jax.data.DatasetConfig`; a config file
starts from `default_config()` and changes what it needs. Nothing outside `load` reads files, and nothing reads a global
config.
"""

import ast
import collections.abc
import dataclasses
import difflib
import importlib.util
import inspect
import itertools
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mpt_jax import data, objectives
from mpt_jax.data import DatasetConfig as DatasetConfig
from mpt_jax.errors import InputError
from mpt_jax.methods import DERIVED
from mpt_jax.models import MODELS, pytorch_weights
from mpt_jax.objectives import METHODS

# source of an objective's term -> the release that plays it; "old" stands for the release before, whatever its method
TEACHERS = {"old": "old", "old_head": "old", "new": "independent", "ensemble": "ensemble"}
AUTO_BIAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0)  # what `update.bias=auto` tries

_LARGEST = sys.float_info.max  # beyond it, and for NaN, no comparison holds


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A network."""

    name: str = "convnet"
    stem: str = ""  # ResNets: "imagenet" or "cifar"; empty: the model's default
    dtype: str = "float32"  # of the computation, or "bfloat16"; parameters, head and losses stay float32


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """SGD with momentum and weight decay on every parameter; one schedule for every model of a run."""

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    epochs: int = 100
    batch_size: int = 128
    schedule: str = "cosine"  # to zero over the epochs, "constant", or "thirds": a tenth after each third of them
    schedule_unit: str = "step"  # the rate changes every "step", or every "epoch" as in the published script
    accumulate: int = 1  # micro-batches of a step, one after the other; BatchNorm sees one at a time
    skip_nonfinite: bool = False  # leave out (and count) updates whose loss or gradient is not finite


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """The update itself: which classes before and after, which methods, how their margin is chosen."""

    schedule: tuple[int, ...] = (5, 10)  # number of classes of each release: the old one, the new one, and any after
    methods: tuple[str, ...] = ("no_treatment", "pct_kl", "mpt_kl")  # rows of the table, also as `mpt_kl@bias=2`
    bias: str = "published"  # b of the methods that have one: "published", a number, or "auto": tuned on validation
    tune: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)  # number -> candidates
    tune_trials: int = 0  # random draws of the candidates' combinations; 0: all of them
    tolerance: float = 0.01  # validation accuracy a choice may cost against the independent model (bcwi*: fine-tuned)
    start: str = "random"  # weights that a student starts from: "random", or "old" to fine-tune the release before
    memory: str = "all"  # images of the old classes that the update may use: "all", "none", "per_class:K", "total:K"
    memory_by: str = "random"  # which images those are: "random", or "herding" on the features of the release before
    old_fraction: float = 1.0  # share of each class's training images that the first release is trained on
    ensemble_size: int = 8  # independent models in an ensemble
    posthoc_of: str = "independent"  # the row whose new classes `posthoc_bias` lowers: this, or a trained method
    old: str = ""  # folder of a released model to start from ("{seed}" is filled in); empty: train it
    independent: str = ""  # the same for the independently trained new model


@dataclasses.dataclass(frozen=True)
class OldConfig:
    """An old model of one's own, from elsewhere; `update.old` names one that this package released."""

    predictions: str = ""  # file of its logits on the images of every part, by id ("{seed}" is filled in)
    weights: str = ""  # file of the weights of `old_model`'s network that PyTorch saved ("{seed}" is filled in)
    classes: str | tuple = ()  # names of the classes in the order of its outputs; empty: as the file says, else the run
    mean: tuple[float, ...] = ()  # of its inputs with `weights`, per channel of pixel/255; empty: `dataset.mean`
    std: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How the work is laid on the machine; none of it changes a result by more than rounding."""

    members_at_once: int = 0  # members of a population side by side, the others after them; 0: fastest here that fits
    cores: int = 0  # of a CPU, each with members of its own where networks are small; 0: all; 1: all work on one member
    remat: bool = False  # keep no activations inside the blocks of ResNets and ViTs: less memory, a third more work
    steps_per_dispatch: int = 50  # train steps in one call of the compiled program
    checkpoint_every: int = 1000  # steps between checkpoints of the training state
    checkpoint_seconds: float = 0.0  # after about as long there is one in any case; 0: only after so many steps
    evaluation_batch: int = 1000  # images at once when predicting


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices are shared out; those left over split the batch. No result changes by more than rounding."""

    members: int = 1  # devices over which the members of a population are split: they need nothing of each other
    fsdp: int = 1  # devices over which parameters and optimiser state are split; 0: all that `members` leaves


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    seeds: tuple[int, ...] = (0,)  # one complete update (its own three models and data order) per seed
    dataset: DatasetConfig = dataclasses.field(default_factory=DatasetConfig)
    model: ModelConfig = ModelConfig()
    old_model: ModelConfig = ModelConfig(name="")  # of the first release; an empty name: as `model`
    old: OldConfig = OldConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    update: UpdateConfig = UpdateConfig()
    training: TrainingConfig = TrainingConfig()
    mesh: MeshConfig = MeshConfig()


def default_config() -> ConfigDict:
    """Every key with its default, locked so that a misspelt key in a config file is an error.

    `ConfigDict` has a method `update`, so a config file reaches that section as `config["update"]`.
    """
    return ConfigDict(dataclasses.asdict(Config()), type_safe=False).lock()  # types are checked by `load`


def load(spec: str, overrides: Sequence[str] = ()) -> Config:
    """Read `path/to/file.py[:variant]`, apply `key=value` overrides (dotted keys), check everything.

    Raises:
      InputError: no such file, a file that fails, an unknown key, a value of the wrong type or out of range.
    """
    values = read_file(spec)
    for override in overrides:
        key, _, text = override.partition("=")
        values = _override(values, key.split("."), _Text(text), key)
    config = _build(Config, values, "")
    check(config)
    return config


def split_spec(spec: str) -> tuple[pathlib.Path, str]:
    """`path/to/file.py[:variant]` as the file and the variant ("" without one); a path may itself hold colons."""
    name, colon, variant = spec.rpartition(":")
    whole = not colon or pathlib.Path(spec).is_file()
    return (pathlib.Path(spec), "") if whole else (pathlib.Path(name), variant)


def read_file(spec: str) -> dict[str, Any]:
    """Run the config file and return what its `get_config` (given the variant, if any) returns, as nested dicts."""
    path, variant = split_spec(spec)
    if not path.is_file() or path.suffix != ".py":
        known = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise InputError(f"no config file {path}; {'there are: ' + ', '.join(known) if known else 'give a .py file'}")
    try:
        module_spec = importlib.util.spec_from_file_location("mpt_jax_run_config", path)
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        get_config = getattr(module, "get_config", None)
        if get_config is None:
            raise InputError(f"config file {path} has no function get_config")
        if variant and not inspect.signature(get_config).parameters:
            raise InputError(f"config file {path} has no variants; leave out :{variant}")
        values = get_config(*([variant] if variant else []))
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the file is the user's program: what it raises is theirs to read
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"config file {spec} failed: {what}") from error
    if not isinstance(values, ConfigDict | Mapping):
        raise InputError(f"get_config of {path} gives a {type(values).__name__}; expected a ConfigDict or a dict")
    return values.to_dict() if isinstance(values, ConfigDict) else dict(values)


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain dict of JSON types: what `config.json` holds."""

    def plain(value):
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(dataclasses.asdict(config))


def check(config: Config) -> None:
    """The checks that need no data; the rest (classes, images, teachers) is checked where it is read.

    Raises:
      InputError: naming the key, what was expected and what would work.
    """

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise InputError(message)

    def choice(key: str, value: str, valid: Sequence[str]) -> None:
        require(value in valid, _unknown(f"{key}={value!r}", value, valid))

    dataset, optimizer = config.dataset, config.optimizer
    require(len(config.seeds) > 0, "seeds is empty; expected at least one integer, such as seeds=0,1,2")
    require(len(set(config.seeds)) == len(config.seeds), f"seeds={config.seeds} lists a seed twice")
    require(all(0 <= s < 2**31 for s in config.seeds), f"seeds={config.seeds}; expected integers from 0 to 2**31 - 1")
    require(dataset.imbalance >= 1, f"dataset.imbalance={dataset.imbalance}; expected 1 (as it is) or more")
    for key in ("validation_per_class", "train_per_class", "crop_padding"):
        value = getattr(dataset, key)
        require(value >= 0, f"dataset.{key}={value}; expected 0 or more")
    require(
        len(dataset.image_size) <= 2 and all(1 <= side <= 2**14 for side in dataset.image_size),
        f"dataset.image_size={list(dataset.image_size)}; expected height and width, or one side, up to 2**14",
    )
    require(dataset.channels in (0, 1, 3), f"dataset.channels={dataset.channels}; expected 1 (grey), 3 (RGB) or 0")
    require(
        0 < dataset.test_fraction < 1,
        f"dataset.test_fraction={dataset.test_fraction}; expected a number between 0 and 1",
    )
    choice("dataset.on_bad_image", dataset.on_bad_image, data.POLICIES)
    choice("dataset.source", dataset.source, data.SOURCES)
    choice("dataset.augmentation", dataset.augmentation, data.AUGMENTATIONS)
    require(0 <= dataset.workers <= 1024, f"dataset.workers={dataset.workers}; expected 0 (threads) to 1024 processes")
    if dataset.augmentation == "imagenet":
        require(
            dataset.source != "memory",
            "dataset.augmentation=imagenet crops whole images anew each time, which dataset.source=memory does not "
            "keep; expected source=stream (or auto)",
        )
        require(
            not (dataset.crop_padding or dataset.flip),
            f"dataset.augmentation=imagenet crops and flips by itself; with it dataset.crop_padding="
            f"{dataset.crop_padding} and dataset.flip={dataset.flip} must be 0 and False",
        )
        require(len(dataset.image_size) > 0, "dataset.augmentation=imagenet needs dataset.image_size, such as 224")
    require(
        len(dataset.mean) == len(dataset.std),
        f"dataset.mean has {len(dataset.mean)} values and dataset.std {len(dataset.std)}; expected one per channel",
    )
    require(all(s > 0 for s in dataset.std), f"dataset.std={dataset.std}; expected numbers above 0")
    for section, network in (("model", config.model), ("old_model", old_model_of(config))):
        choice(f"{section}.name", network.name, tuple(MODELS))
        choice(f"{section}.dtype", network.dtype, ("float32", "bfloat16"))
    require(
        config.old_model in (ModelConfig(name=""), old_model_of(config)),
        f"old_model.name is empty, but old_model has {config.old_model}; name the network, or leave out the rest",
    )
    for key in ("learning_rate", "momentum", "weight_decay"):
        value = getattr(optimizer, key)
        require(value >= 0, f"optimizer.{key}={value}; expected 0 or more")
    require(optimizer.momentum < 1, f"optimizer.momentum={optimizer.momentum}; expected less than 1")
    for key in ("epochs", "batch_size", "accumulate"):
        value = getattr(optimizer, key)
        require(value >= 1, f"optimizer.{key}={value}; expected 1 or more")
    batch, parts = optimizer.batch_size, optimizer.accumulate
    require(batch % parts == 0, f"optimizer.batch_size={batch}; expected a multiple of optimizer.accumulate={parts}")
    choice("optimizer.schedule", optimizer.schedule, ("cosine", "constant", "thirds"))
    choice("optimizer.schedule_unit", optimizer.schedule_unit, ("step", "epoch"))
    _check_old(config, require)
    _check_update(config, require, choice)
    at_once = config.training.members_at_once
    require(at_once >= 0, f"training.members_at_once={at_once}; expected 0 or more")
    require(config.training.cores >= 0, f"training.cores={config.training.cores}; expected 0 (all) or more")
    for key in ("steps_per_dispatch", "checkpoint_every", "evaluation_batch"):
        value = getattr(config.training, key)
        require(value >= 1, f"training.{key}={value}; expected 1 or more")
    seconds = config.training.checkpoint_seconds
    require(0 <= seconds <= _LARGEST, f"training.checkpoint_seconds={seconds}; expected 0 (never) or more seconds")
    for key, least in (("members", 1), ("fsdp", 0)):
        value = getattr(config.mesh, key)
        require(value >= least, f"mesh.{key}={value}; expected {least} or more")
    steps = config.training.steps_per_dispatch  # whose batches are drawn together
    require(steps <= 10_000, f"training.steps_per_dispatch={steps}; expected at most 10000")


def old_model_of(config: Config) -> ModelConfig:
    """The network of the first release."""
    return config.old_model if config.old_model.name else config.model


def old_classes(config: Config) -> tuple[str, ...]:
    """The names in `old.classes`."""
    given = config.old.classes
    names = given.split(",") if isinstance(given, str) else given
    return tuple(name for name in (str(name).strip() for name in names) if name)


def tuned(config: Config) -> dict[str, tuple[float, ...]]:
    """The numbers of the objectives that have candidates, b by `update.bias=auto` among them."""
    auto = {"bias": AUTO_BIAS} if config.update.bias == "auto" else {}
    return auto | dict(config.update.tune)


def sources(config: Config) -> tuple[str, ...]:
    """Every source of the methods that are trained, each once."""
    trained = filter(objectives.is_trained, config.update.methods)
    return tuple(dict.fromkeys(source for method in trained for source in sources_of(method)))


def sources_of(method: str) -> tuple[str, ...]:
    """The sources of one method that is trained."""
    return objectives.sources(objectives.named(method))


def _check_update(config: Config, require: Callable[[bool, str], None], choice: Callable[..., None]) -> None:
    update, old_model = config.update, old_model_of(config)
    methods, valid = update.methods, (*METHODS, *DERIVED)
    schedule, growths = update.schedule, list(itertools.pairwise(update.schedule))
    require(
        len(schedule) >= 2 and schedule[0] >= 2 and all(old <= new for old, new in growths),
        f"update.schedule={list(schedule)}; expected two or more growing numbers from 2 on, such as [50, 100]",
    )
    grows = all(old < new for old, new in growths)
    another_model = (config.old_model.name, config.old.predictions, config.old.weights)
    require(
        grows or (len(schedule) == 2 and (update.old_fraction < 1 or any(another_model))),
        f"update.schedule={list(schedule)} adds no classes; expected growing numbers, or twice the same one with "
        "update.old_fraction below 1 (more data), old_model.name (another network), old.predictions or old.weights",
    )
    require(0 < update.old_fraction <= 1, f"update.old_fraction={update.old_fraction}; expected above 0 and at most 1")
    require(len(methods) > 0, f"update.methods is empty; valid: {', '.join(valid)}")
    for method in methods:
        choice("update.methods", method.partition("@")[0] if objectives.is_trained(method) else method, valid)
        try:
            objectives.own_numbers(method)
        except ValueError as error:
            raise InputError(f"update.methods: {error}") from error
        require(
            re.fullmatch(r"[\w.-]+", method.partition("@")[0]) is not None,
            f"update.methods: {method!r} names files; expected letters, digits, '_', '-' and '.' in it",
        )
    same = [(method.partition("@")[0], *sorted(objectives.own_numbers(method).items())) for method in methods]
    require(len(set(same)) == len(methods), f"update.methods={list(methods)} lists one twice")

    choice("update.start", update.start, ("random", "old"))
    choice("update.memory_by", update.memory_by, ("random", "herding"))
    policy = data.parse_policy(update.memory)
    require(
        policy.kind == "all" or (grows and update.old_fraction == 1),
        f"update.memory={update.memory} with update.old_fraction={update.old_fraction} and update.schedule="
        f"{list(schedule)}; a limited memory is for added classes: expected update.memory=all, or old_fraction=1",
    )
    require(
        update.memory_by == "random" or policy.kind in ("per_class", "total"),
        f"update.memory_by=herding chooses among the old classes' images, but update.memory={update.memory} leaves no "
        "choice; expected update.memory=per_class:20 or total:2000",
    )
    same_network = old_model == config.model
    require(
        update.start == "random" or same_network,
        f"update.start=old continues the weights of old_model {old_model.name}, but model is {config.model.name}; "
        "expected the same network, or update.start=random",
    )
    require(update.ensemble_size >= 2, f"update.ensemble_size={update.ensemble_size}; expected 2 or more")
    for method in methods:
        if method in DERIVED and DERIVED[method].fine_tuned:
            require(
                update.start == "old" and len(schedule) == 2,
                f"update.methods={method} averages weights with the old model's, which takes update.start=old and two "
                f"releases; now they are update.start={update.start} and update.schedule={list(schedule)}",
            )
        require(
            grows or method not in DERIVED or not DERIVED[method].needs_new_classes,
            f"update.methods={method} is for added classes, and update.schedule={list(schedule)} adds none",
        )
    require(
        update.posthoc_of in (TEACHERS["new"], *filter(objectives.is_trained, methods)),
        f"update.posthoc_of={update.posthoc_of!r}; expected 'independent' or one of update.methods that is trained",
    )
    require(
        not update.independent or len(schedule) == 2,
        f"update.independent is for one update, but update.schedule={list(schedule)} has {len(schedule) - 1}; leave it "
        "out, or give two numbers",
    )

    require(0 <= update.tolerance <= 1, f"update.tolerance={update.tolerance}; expected a fraction from 0 to 1")
    bias = _parse(update.bias)
    require(
        update.bias in ("published", "auto")
        or (isinstance(bias, int | float) and not isinstance(bias, bool) and 0 <= bias <= _LARGEST),
        f"update.bias={update.bias!r}; expected 'published', 'auto' or a number from 0 on",
    )
    require(
        update.bias == "published" or "bias" not in update.tune,
        f"update.bias={update.bias} and update.tune.bias={list(update.tune.get('bias', ()))} both say what b is; "
        "leave one of them out",
    )
    require(update.tune_trials >= 0, f"update.tune_trials={update.tune_trials}; expected 0 (all) or more")
    for key, values in update.tune.items():
        try:
            objectives.check_number(key, values)
        except ValueError as error:
            raise InputError(f"update.tune.{key}: {error}") from error
        require(len(values) > 0, f"update.tune.{key} is empty; expected candidates, such as update.tune.{key}=0,1,2")
        require(len(set(values)) == len(values), f"update.tune.{key}={list(values)} lists one twice")
    choosing = [method for method in methods if method in DERIVED and DERIVED[method].number]
    wants = "update.bias=auto" if update.bias == "auto" else "update.tune" if update.tune else ""
    wants = wants or (f"update.methods={choosing[0]}" if choosing else "")
    scaled = [m for m in methods if objectives.is_trained(m) and objectives.named(m).bias_power]
    wants = wants or (f"update.methods={scaled[0]}" if scaled else "")
    require(
        not wants or config.dataset.validation_per_class > 0,
        f"{wants} looks at validation data, but dataset.validation_per_class=0; set it above 0, or do without",
    )


def _check_old(config: Config, require: Callable[[bool, str], None]) -> None:
    old, update, network = config.old, config.update, old_model_of(config)
    named = {"old.predictions": old.predictions, "old.weights": old.weights, "update.old": update.old}
    given = [key for key, value in named.items() if value]
    require(
        len(given) <= 1,
        f"{' and '.join(f'{key}={named[key]}' for key in given)} name an old model each; leave all but one of them out",
    )
    of_own = bool(old.predictions or old.weights)
    classes = old_classes(config)
    require(
        of_own or not classes,
        f"old.classes={','.join(classes)} says what the outputs of old.predictions or old.weights mean; set one of "
        "these, or leave it out",
    )
    require(len(set(classes)) == len(classes), f"old.classes={','.join(classes)} lists a class twice")
    require(
        not classes or update.schedule[:1] == (len(classes),),
        f"old.classes names {len(classes)} classes, but update.schedule={list(update.schedule)} begins with another "
        "number; expected as many",
    )
    require(
        bool(old.weights) or not (old.mean or old.std),
        f"old.mean={list(old.mean)} and old.std={list(old.std)} are for the inputs of old.weights; set that, or leave "
        "them out",
    )
    require(
        len(old.mean) == len(old.std),
        f"old.mean has {len(old.mean)} values and old.std {len(old.std)}; expected one per channel",
    )
    require(all(s > 0 for s in old.std), f"old.std={list(old.std)}; expected numbers above 0")
    if old.weights:
        same_inputs = (old.mean, old.std) == (config.dataset.mean, config.dataset.std)
        require(
            network.name in pytorch_weights.NETWORKS,
            f"old.weights={old.weights} holds the weights of {'old_model' if config.old_model.name else 'model'}.name="
            f"{network.name}; expected one of {', '.join(pytorch_weights.NETWORKS)}",
        )
        require(
            bool(old.mean or config.dataset.mean),
            f"old.weights={old.weights} takes images normalised as in its training; expected old.mean and old.std (or "
            "dataset.mean and dataset.std), per channel in units of pixel/255",
        )
        require(
            update.start == "random" or not (old.mean and config.dataset.mean) or same_inputs,
            f"update.start=old continues old.weights={old.weights} on images with dataset.mean="
            f"{list(config.dataset.mean)}, not old.mean={list(old.mean)}; expected the same, or update.start=random",
        )
    if not old.predictions:
        return
    known = f"but of the old model old.predictions={old.predictions} gives answers alone"
    for method in update.methods:
        wanted = "features" if objectives.is_trained(method) and "old_head" in sources_of(method) else ""
        wanted = "weights" if method in DERIVED and DERIVED[method].fine_tuned else wanted
        require(not wanted, f"update.methods={method} takes the old model's {wanted}, {known}; leave the method out")
    require(
        update.start == "random",
        f"update.start=old continues the old model's weights, {known}; expected update.start=random",
    )
    require(
        update.memory_by == "random",
        f"update.memory_by=herding takes the old model's features, {known}; expected update.memory_by=random",
    )
    require(
        not config.old_model.name,
        f"old_model.name={config.old_model.name} is the network of an old model with weights, {known}; leave it out",
    )


class _Text(str):
    """A value from the command line: a text where the key holds text, else a literal still to be read."""


def _override(values: dict, keys: Sequence[str], text: _Text, full_key: str) -> dict:
    """`values` with one entry replaced by what `text` says."""
    head, *rest = keys
    if not rest:
        return {**values, head: text}
    inner = values.get(head, {})
    inner = _parse(inner) if isinstance(inner, _Text) else inner  # an override before this one
    if not isinstance(inner, Mapping):
        raise InputError(f"config key {full_key!r}: {head!r} holds a value, not further keys")
    return {**values, head: _override(dict(inner), rest, text, full_key)}


def _parse(text: str) -> Any:
    """A Python literal where it is one (`3`, `[50, 100]`, `True`), else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(text.lower(), text)


def _build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    """The dataclass `cls` from a mapping; missing keys keep their defaults, unknown ones are an error."""
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise InputError(_unknown(f"config key {prefix + str(key)!r}", str(key), tuple(hints)))
    return cls(**{key: _convert(hints[key], value, prefix + key) for key, value in values.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    """`value` as the type that the key's annotation names; lists also as "a,b" text; never a silent truncation."""
    if isinstance(value, _Text):
        value = str(value) if hint is str else _parse(value)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"config key {key!r}={value!r}; expected further keys, such as {key}.NAME=VALUE")
        return _build(hint, value, key + ".")
    if typing.get_origin(hint) is collections.abc.Mapping:
        if not isinstance(value, Mapping):
            raise InputError(f"config key {key!r}={value!r}; expected further keys, such as {key}.bias=0,1,2")
        flat: dict[str, Any] = {}  # "old.weight" may come as one name, or as a section of the command line
        for name, item in value.items():
            inner = item.items() if isinstance(item, Mapping) else [("", item)]
            flat |= {f"{name}.{leaf}".removesuffix("."): v for leaf, v in inner}
        return {name: _convert(typing.get_args(hint)[1], item, f"{key}.{name}") for name, item in flat.items()}
    if isinstance(hint, types.UnionType):  # class_order: a text, or a list of classes
        items = ["..." if item is ... else item for item in (value if isinstance(value, list | tuple) else [value])]
        if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in items):
            raise InputError(f"config key {key!r}={value!r}; expected text, or a list of class names and indices")
        return tuple(items) if isinstance(value, list | tuple) else str(*items)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if isinstance(value, str):
            value = [_parse(part.strip().strip("'\"")) for part in value.strip("()[] ").split(",") if part.strip()]
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(item, v, key) for v in items)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST:
        return float(value)
    if hint is str and value is None:
        return ""
    if hint is not float and type(value) is hint:
        return value
    raise InputError(f"config key {key!r}={value!r}; expected {'a finite number' if hint is float else hint.__name__}")


def _unknown(what: str, name: str, valid: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1)
    return f"unknown {what}; {f'did you mean {close[0]!r}? ' if close else ''}valid: {', '.join(valid)}"
