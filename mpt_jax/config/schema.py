"""Every key of a config with its type and default, and what follows from several keys together.

The section `dataset` is `mpt_jax.data.DatasetConfig`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mpt_jax import objectives
from mpt_jax.data import DatasetConfig
from mpt_jax.models.registry import OPTIONS

TEACHERS = {"old": "old", "old_head": "old", "new": "independent", "ensemble": "ensemble"}
"""Source of a term of an objective -> the release that is this teacher; "old" is the previous release of any method."""

AUTO_BIAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0)
"""The candidates of `update.bias=auto`."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A network."""

    name: str = "convnet"  # a network of the package, or a function of a file: "path/to/net.py:build"
    stem: str = ""  # of a ResNet: "imagenet" or "cifar"; empty: the network's default
    dtype: str = "float32"  # of the computation, or "bfloat16"; parameters, head and losses stay float32
    pretrained: str = ""  # weights to start from: a file, a released model's folder, "package:NAME"; empty: random
    strip: str = ""  # prefix of the names in the file of `pretrained`, such as "net."; empty: found
    activation: str = ""  # of CLIP: "quick_gelu" (OpenAI's weights) or "gelu" (LAION's); empty: quick_gelu
    dropout: float = 0.0  # probability that training sets a feature before the head to zero
    drop_path: float = 0.0  # stochastic depth: probability of the last block, growing linearly from 0 at the first
    sha256: str = ""  # digest of the file of a network of one's own; empty: of its present text


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule, the same for every model of a run, and the parameters that it trains."""

    learning_rate: float = 0.1
    momentum: float = 0.9  # of "sgd"
    weight_decay: float = 5e-4  # of "sgd": added to the gradient before the momentum
    epochs: int = 100
    batch_size: int = 128
    schedule: str = "cosine"  # to zero at the end of training, "constant", or "thirds": a tenth after each third
    schedule_unit: str = "step"  # the rate changes every "step", or every "epoch" as in the published script
    accumulate: int = 1  # micro-batches per step, one after the other; BatchNorm sees one at a time
    skip_nonfinite: bool = False  # skip and count updates with a loss or gradient that is not finite
    name: str = "sgd"  # a key of `config.optimizers.OPTIMIZERS`
    # Arguments of its optax constructor by name. Not part of the hash, but of the comparison: a recipe stays static.
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    warmup_epochs: float = 0.0  # the rate rises linearly from 0 before the schedule, which takes the remaining steps
    clip_norm: float = 0.0  # largest global norm of the gradient of the trained parameters; 0: not clipped
    layer_decay: float = 1.0  # factor of the rate per layer, counted back from the head
    head_learning_rate: float = 0.0  # of the head; 0: `learning_rate`
    decay_exclude: tuple[str, ...] = ()  # parameters without weight decay: patterns of paths, or of their last part
    freeze: tuple[str, ...] = ()  # parameters that are not trained: patterns of paths, or "backbone"
    freeze_statistics: bool = True  # BatchNorm with frozen parameters keeps and uses its running statistics


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """The update: its classes before and after, its methods, and how their margins are chosen."""

    schedule: tuple[int, ...] = (5, 10)  # number of classes of each release: the old one, the new one, and any after
    methods: tuple[str, ...] = ("no_treatment", "pct_kl", "mpt_kl")  # methods, also with numbers: `mpt_kl@bias=2`
    bias: str = "published"  # b of the methods that have one: "published", a number, or "auto": chosen on validation
    tune: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)  # number -> candidates
    tune_trials: int = 0  # random draws from the combinations of candidates; 0: all combinations
    tolerance: float = 0.01  # validation accuracy a choice may lose against the independent model (bcwi*: fine-tuned)
    start: str = "random"  # initial weights of a student: "random", or "old" to fine-tune the previous release
    memory: str = "all"  # images of the old classes available to an update: "all", "none", "per_class:K", "total:K"
    memory_by: str = "random"  # how to select them: "random", or "herding" on the features of the previous release
    old_fraction: float = 1.0  # share of each class's training images that the first release is trained on
    ensemble_size: int = 8  # independent models in an ensemble
    posthoc_of: str = "independent"  # model whose new classes `posthoc_bias` lowers: "independent" or a trained method
    old: str = ""  # folder of a released model to start from ("{seed}" is replaced); empty: train it
    independent: str = ""  # folder of the independently trained new model ("{seed}" is replaced); empty: train it
    class_map: str | Mapping = ""  # what classes become: a .toml or .json file, or its content; empty: all stay


@dataclasses.dataclass(frozen=True)
class OldConfig:
    """An external old model, not released by this package; `update.old` names a released one."""

    predictions: str = ""  # file of its logits on the images of every part, by id ("{seed}" is replaced)
    weights: str = ""  # PyTorch weights of the network `old_model` ("{seed}" is replaced)
    strip: str = ""  # prefix of the names in `weights`, such as "net."; empty: found
    classes: str | tuple = ()  # names of the classes in the order of its outputs; empty: from the file, else the run
    mean: tuple[float, ...] = ()  # of its inputs with `weights`, per channel of pixel/255; empty: `dataset.mean`
    std: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How the work is distributed over time and cores; results change by rounding at most."""

    members_at_once: int = 0  # members of a population trained side by side; 0: the fastest number that fits here
    cores: int = 0  # CPU cores that train different members of a small network; 0: all; 1: all cores share one member
    remat: bool = False  # recompute activations inside blocks of ResNets and ViTs: less memory, a third more work
    steps_per_dispatch: int = 50  # train steps per call of the compiled program
    checkpoint_every: int = 1000  # steps between checkpoints of the training state
    checkpoint_seconds: float = 0.0  # also write a checkpoint after about this many seconds; 0: off
    evaluation_batch: int = 1000  # images per prediction step
    predict_every: int = 0  # epochs between predictions of the test images by students in training; 0: only at the end
    precompute_features: bool = True  # if nothing but the heads is trained: compute all features once
    features_dir: str = ""  # folder of these features, which runs may share; empty: `features` in the work directory


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How devices share the work; the remaining ones split the batch. Results change by rounding at most."""

    members: int = 1  # groups of devices that share the members of a population and do not communicate
    fsdp: int = 1  # devices over which parameters and optimizer state are split; 0: all that `members` leaves


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run."""

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
    """Return every key with its default, locked so that a misspelt key in a config file is an error.

    `ConfigDict` has a method `update`, so a config file writes `config["update"]` for that section.
    """
    return ConfigDict(dataclasses.asdict(Config()), type_safe=False).lock()  # `load` checks the types


def to_dict(config: Config) -> dict[str, Any]:
    """Convert a config to nested dicts of JSON types, as in `config.json`."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(dataclasses.asdict(config))


def old_model_of(config: Config) -> ModelConfig:
    """Return the network of the first release."""
    return config.old_model if config.old_model.name else config.model


def gives_old_model(config: Config) -> bool:
    """Return whether a config gives the old model, so that the run does not train it."""
    return bool(config.update.old or config.old.weights or config.old.predictions)


def network_options(network: ModelConfig) -> dict[str, Any]:
    """Return the options of `models.build` that a section of the config sets to other values than the defaults."""
    options = {name: getattr(network, name) for name in ("dtype", *OPTIONS, "sha256")}
    return {name: value for name, value in options.items() if value}


def old_classes(config: Config) -> tuple[str, ...]:
    """Return the names in `old.classes`."""
    given = config.old.classes
    names = given.split(",") if isinstance(given, str) else given
    return tuple(name for name in (str(name).strip() for name in names) if name)


def tuned(config: Config) -> dict[str, tuple[float, ...]]:
    """Return the candidates of every number to choose, b under `update.bias=auto` included."""
    auto = {"bias": AUTO_BIAS} if config.update.bias == "auto" else {}
    return auto | dict(config.update.tune)


def sources(config: Config) -> tuple[str, ...]:
    """Return the sources of all trained methods, each once."""
    trained = filter(objectives.is_trained, config.update.methods)
    return tuple(dict.fromkeys(source for method in trained for source in sources_of(method)))


def sources_of(method: str) -> tuple[str, ...]:
    """Return the sources of a trained method."""
    return objectives.sources(objectives.named(method))
