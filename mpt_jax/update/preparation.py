"""Read the data and check everything that can be checked without training.

Ranges of config values are checked in `mpt_jax.config`. What depends on the data, the models or the devices is checked
here, once.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import class_map, data, models, objectives
from mpt_jax import config as configs
from mpt_jax.class_map import ClassMap
from mpt_jax.cli.progress import Progress
from mpt_jax.config import Config, MeshConfig, ModelConfig
from mpt_jax.errors import InputError
from mpt_jax.files import released_model, sealed, storage
from mpt_jax.methods import DERIVED
from mpt_jax.models import Classifier, nnx_network, own_network, parameters
from mpt_jax.models.nnx_network import NNXNetwork
from mpt_jax.runtime import hardware, processes
from mpt_jax.runtime.provenance import provenance
from mpt_jax.training import sharding
from mpt_jax.update import (
    class_change,
    external_model,
    frozen_features,
    lineage,
    parameter_patterns,
    precomputed_logits,
    pretrained,
    releases,
    workdir,
)
from mpt_jax.update.backbones import Backbones
from mpt_jax.update.class_change import ClassChange
from mpt_jax.update.pretrained import Network, Pretrained
from mpt_jax.update.run import Run, training_rows

ADOPTABLE = (lineage.OLD, lineage.INDEPENDENT)  # teachers that a config may name instead of training them


def prepare(config: Config, folder: pathlib.Path, progress: Progress) -> Run:
    """Read and check everything that a run needs, without writing to the work directory.

    Raises:
      InputError: data, schedule, teachers, devices or work directory do not fit the config.
    """
    workdir.check(folder, configs.to_dict(config))
    mesh, cores = _devices(config)
    here = provenance(_device_facts(mesh))
    _check_resumed(folder, here, progress)
    networks = _networks(config)
    adopted = {method: _read_adopted(config, method) for method in ADOPTABLE}
    external_model.require_weights(config)
    map_ = class_change.read(config)
    for network in networks:
        pretrained.require(network)
    old_names = external_model.class_names(config, next((card["classes"] for _, card in adopted[lineage.OLD]), ()))
    dataset = _read_dataset(config, old_names, map_, progress)
    change = class_change.make(config, map_, old_names, dataset.class_names) if map_ else None
    old_classes = change.old_names if change else dataset.class_names[: config.update.schedule[0]]
    old_params, new_params = (_parameter_shapes(network, dataset, progress) for network in networks)
    _check_heads(config, networks, dataset.train.images.shape[1:])
    starts = _read_starts(config, networks, dataset, progress)
    contents = _digests(config, dataset) | _start_digests(networks, starts)
    contents |= {"class map": class_change.digest(map_)} if map_ else {}
    with processes.synchronized():
        if processes.is_first():
            workdir.check_contents(folder, contents)
    _check_old_head(config, old_params, new_params)
    trained = [*zip(networks, (old_params, new_params), strict=True)][1 if configs.gives_old_model(config) else 0 :]
    parameter_patterns.check(config, trained, dataset.train.images.shape[1:])
    for line in parameter_patterns.describe(config, trained):
        progress.log(line)
    sharding.check_batch(mesh, config.optimizer.batch_size, config.optimizer.accumulate)
    _check_steps(config, dataset)
    _check_inputs(config, dataset)
    if config.old.weights:
        of_old_model = [
            np.asarray(getattr(config.old, key) or getattr(config.dataset, key), np.float32) for key in ("mean", "std")
        ]
        adopted[lineage.OLD] = external_model.read_weights(
            config, dataset, old_classes, networks[0].module, (of_old_model[0], of_old_model[1])
        )
    run = Run(
        config=config,
        workdir=folder,
        dataset=dataset,
        normalizations=_normalizations(config, dataset, starts, adopted[lineage.OLD], change),
        mesh=mesh,
        cores=cores,
        adopted=adopted,
        contents=contents,
        identity=_identity(folder, config, contents),
        provenance=here,
        progress=progress,
        precomputed=precomputed_logits.read(config, dataset, old_classes) if config.old.predictions else None,
        starts=starts,
        class_change=change,
    )
    _check_new_classes(run)
    _check_image_counts(run)
    for release, method in enumerate(ADOPTABLE):
        for _, card in adopted[method]:
            _check_classes(run, card, run.class_names(release))
    for classifier, card in adopted[lineage.OLD]:
        _check_old_architecture(config, classifier, card, old_params)
    releases.check_adopted(run)
    releases.check_lineage(run)
    with processes.synchronized():
        if processes.is_first():
            releases.check_whole(run)
    run = dataclasses.replace(run, backbones=_backbones(run, (old_params, new_params)))
    if not run.backbones:  # features are in memory
        _check_streaming(config, dataset)
    return run


def _identity(folder: pathlib.Path, config: Config, contents: Mapping[str, str]) -> str:
    """Return `workdir.identity` of the run that is in a folder, or that will be."""

    def find() -> str:
        new = {"config": configs.to_dict(config), "contents": contents}
        return workdir.identity(workdir.read_facts(folder) if (folder / "config.json").exists() else new)

    return processes.from_first(find)


def _devices(config: Config) -> tuple[jax.sharding.Mesh, Sequence[jax.Device]]:
    """Return the mesh, and the cores of a CPU between which populations of small networks are divided.

    Cores are divided only if the user has not configured devices.
    """
    layout = {"members": config.mesh.members, "fsdp": config.mesh.fsdp}
    for key, value in layout.items():
        if value != 1 and processes.is_distributed():
            raise InputError(
                f"mesh.{key}={value} divides the devices of one process, but there are {jax.process_count()} "
                f"processes; expected mesh.{key}=1"
            )
    cores: Sequence[jax.Device] = ()
    if config.mesh == MeshConfig() and config.training.cores != 1 and not processes.is_distributed():
        cores = hardware.core_devices()[: config.training.cores or None]
    return sharding.run_mesh(cores, **layout), cores


def _check_resumed(folder: pathlib.Path, here: Mapping[str, Any], progress: Progress) -> None:
    """Check that a run resumes with the same settings of JAX and XLA, and report if it does with other versions.

    Raises:
      InputError: another setting that changes numbers, or one that differs between processes.
    """
    processes.require_same(here["settings"], "a setting of JAX or XLA that changes numbers")
    with processes.synchronized():
        if not processes.is_first() or not (folder / "config.json").exists():
            return
        workdir.check_settings(folder, here["settings"])
        others = workdir.other_versions(workdir.read_facts(folder), here["versions"])
    if others:
        found = ", ".join(f"{name} {', '.join(of)} (now {here['versions'][name]})" for name, of in others.items())
        progress.log(f"{folder} was made with other versions: {found}; numbers that are computed now may differ")


def _device_facts(mesh: jax.sharding.Mesh) -> dict[str, Any]:
    facts = hardware.facts(mesh.size)
    return facts | ({"processes": jax.process_count()} if processes.is_distributed() else {})


def _networks(config: Config) -> tuple[Network, Network]:
    """Build the networks of the first and the last release."""

    def build(section: str, network: ModelConfig, num_classes: int) -> Network:
        options = configs.network_options(network)
        with _named(f"{section}.name", network):
            module = models.build(network.name, num_classes, **options)
        return Network(section, network, options, module, num_classes)

    schedule = config.update.schedule
    old_section = "old_model" if config.old_model.name else "model"
    old = build(old_section, configs.old_model_of(config), schedule[0])
    return old, build("model", config.model, schedule[-1])


def _read_adopted(config: Config, method: str) -> list[tuple[Classifier, dict[str, Any]]]:
    """Read the released models, one per seed, that `update.old` or `update.independent` names, if any."""
    pattern = getattr(config.update, method)
    if not pattern:
        return []
    paths = [storage.path(pattern.replace("{seed}", str(seed))) for seed in config.seeds]
    read = {path: released_model.read(path) for path in dict.fromkeys(paths)}
    return [(read[path][0], {**read[path][1], "adopted_from": str(path)}) for path in paths]


def _read_dataset(config: Config, old_names: Sequence[str], map_: ClassMap | None, progress: Progress) -> data.Dataset:
    """Read the data, with the classes that the old model knows, under their names of today, before the new ones."""
    settings, known, becomes = config.dataset, list(old_names), None
    if map_:
        becomes, known = class_change.becomes(config, map_, old_names), class_map.carried_over(map_, old_names)
    order = external_model.class_order(config, known)
    if order != settings.class_order:
        progress.log(f"class order: the {len(known)} classes of the old model first, then the others")
    progress.log(f"reading {settings.name}")
    dataset = data.load(
        dataclasses.replace(settings, class_order=order), num_classes=config.update.schedule[-1], becomes=becomes
    )
    if not len(dataset.validation) and (uses := configs.uses_of_validation(config)):
        raise InputError(
            f"{uses[0]} needs validation images, but {settings.name} has no validation part beside test and "
            f"dataset.validation_per_class=0; set it above 0, or remove {uses[0]}"
        )
    for finding in dataset.findings:
        progress.log(f"{settings.name}: {finding}")
    if isinstance(dataset.train.images, data.Stream):
        progress.log(f"{settings.name}: images are streamed, not kept in memory")
    return dataset


def _read_starts(
    config: Config, networks: Sequence[Network], dataset: data.Dataset, progress: Progress
) -> list[Pretrained | None]:
    """Read the pretrained weights of the first release and of later ones."""
    shape = dataset.train.images.shape[1:]
    old, new = networks
    later = pretrained.read(new, shape)
    starts = [later if old.section == new.section else pretrained.read(old, shape), later]
    for start in dict.fromkeys(starts):
        if start:
            progress.log(start.text)
    return starts


def _start_digests(networks: Sequence[Network], starts: Sequence[Pretrained | None]) -> dict[str, str]:
    digests = {
        f"weights of {network.section}.pretrained": start.digest
        for network, start in zip(networks, starts, strict=True)
        if start
    }
    processes.require_same(digests, "the pretrained weights")
    return digests


def _digests(config: Config, dataset: data.Dataset) -> dict[str, str]:
    """Return digests of the data; of streamed images only their sizes are known.

    Raises:
      InputError: the processes of the run have read different data.
    """
    parts = {part: getattr(dataset, part) for part in ("train", "validation", "test")}
    labels = {f"{name} labels and ids": sealed.digest({"labels": s.labels, "ids": s.ids}) for name, s in parts.items()}
    processes.require_same(labels, f"the content of dataset.name={config.dataset.name}")
    return labels | {
        f"{name} images": sealed.digest(s.images.sizes() if isinstance(s.images, data.Stream) else s.images)
        for name, s in parts.items()
    }


def _check_streaming(config: Config, dataset: data.Dataset) -> None:
    """Require images in memory where they are selected on the device, or copied to the devices of other members."""
    if not isinstance(dataset.train.images, data.Stream):
        return
    for method in lineage.trained(config):
        if objectives.named(method).sampler_rate:
            raise InputError(
                f"update.methods={method} draws its own batches on the device, but images are streamed; expected "
                "dataset.source=memory, or other methods"
            )
    if config.mesh.members > 1:
        raise InputError(
            f"mesh.members={config.mesh.members} needs images in memory, but images are streamed; expected "
            "dataset.source=memory, or mesh.members=1"
        )


@contextlib.contextmanager
def _named(key: str, network: ModelConfig) -> Iterator[None]:
    """Put the key before an error about a network of the user's own, which begins with its name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{key}={error}" if own_network.is_own(network.name) else str(error)) from error


def _parameter_shapes(network: Network, dataset: data.Dataset, progress: Progress) -> Any:
    """Return the shapes of the parameters, of a network that accepts examples of this shape.

    Raises:
      InputError: a network for images with features, or the reverse, or an image size that it does not support; a
        network of the user's own that is not called as expected.
    """
    shape, module = dataset.train.images.shape[1:], network.module
    if own_network.is_own(network.config.name):
        with _named(f"{network.section}.name", network.config):
            own_network.check(network.config.name, module, network.num_classes, shape)
        if isinstance(module, NNXNetwork) and not nnx_network.takes_rngs(module.constructor):
            progress.log(
                f"{network.section}.name={network.config.name}: all seeds have the same initial weights, because the "
                "function has no argument rngs"
            )
    elif (len(shape) == 1) != (network.config.name in models.ON_FEATURES):
        kind, valid = ("images", "any model except") if len(shape) > 1 else ("features", "one of")
        raise InputError(
            f"{network.section}.name={network.config.name} does not fit {dataset.name}, whose examples are {kind} of "
            f"shape {shape}; expected {valid} {', '.join(models.ON_FEATURES)}"
        )
    return models.shapes(module, shape)[0]


def _check_heads(config: Config, networks: Sequence[Network], image_shape: tuple[int, ...]) -> None:
    """Refuse what acts on the last layer of a network of the user's own that has none, see `own_network.without_head`.

    Raises:
      InputError: naming the key.
    """
    own = [network for network in networks if own_network.is_own(network.config.name)]
    needs = _needs_of_head(config) if own else []
    for network in own:
        name = f"{network.section}.name={network.config.name}"
        if config.optimizer.layer_decay < 1 and isinstance(network.module, NNXNetwork):
            raise InputError(
                f"optimizer.layer_decay={config.optimizer.layer_decay} needs the order of the layers, which is not "
                f"known of {name}, an nnx module; expected 1"
            )
        if needs and (reason := own_network.without_head(network.module, image_shape)):
            raise InputError(
                f"{needs[0]} needs the last layer of {name}, but {reason}; remove that, or call the last layer head, "
                "with a kernel [D, K] and a bias [K]"
            )


def _needs_of_head(config: Config) -> list[str]:
    """Return the settings that act on the last layer of a network, each with its value."""
    update, optimizer, schedule = config.update, config.optimizer, config.update.schedule
    methods = [
        method
        for method in update.methods
        if objectives.is_trained(method)
        if objectives.named(method).sampler_rate or "old_head" in configs.sources_of(method)
    ]
    methods += [method for method in update.methods if method in DERIVED and DERIVED[method].needs_new_classes]
    settings = {
        "update.start=old with more classes": update.start == "old" and schedule[0] < schedule[-1],
        "update.start=old with update.class_map": update.start == "old" and update.class_map,
        "update.memory_by=herding": update.memory_by == "herding",
        **{f"{section}.pretrained": getattr(config, section).pretrained for section in ("model", "old_model")},
        f"optimizer.freeze={parameters.BACKBONE}": parameters.BACKBONE in optimizer.freeze,
        f"optimizer.head_learning_rate={optimizer.head_learning_rate}": optimizer.head_learning_rate,
        f"optimizer.layer_decay={optimizer.layer_decay}": optimizer.layer_decay < 1,
    }
    return [f"update.methods={method}" for method in methods] + [name for name, used in settings.items() if used]


def _check_old_head(config: Config, old_params: Any, new_params: Any) -> None:
    """Require as many features from the new network as the old model's head takes, if a method uses that head."""
    if "old_head" not in configs.sources(config):
        return
    old_width, new_width = (params["head"]["kernel"].shape[0] for params in (old_params, new_params))
    if old_width != new_width:
        raise InputError(
            f"update.methods has one with the old head (bct), which takes {old_width} features, but model.name="
            f"{config.model.name} has {new_width}; remove that method, or choose a network with as many"
        )


def _check_steps(config: Config, dataset: data.Dataset) -> None:
    epochs, batch_size = config.optimizer.epochs, config.optimizer.batch_size
    limit = 2**31 // data.steps_per_epoch(len(dataset.train.labels), batch_size)
    if epochs > limit:
        raise InputError(f"optimizer.epochs={epochs} takes more than 2**31 steps; expected {limit} or less")


def _check_inputs(config: Config, dataset: data.Dataset) -> None:
    """Check the settings of augmentation and normalization against the shape of the examples."""
    settings, old = config.dataset, config.old
    *sides, channels = dataset.train.images.shape[1:]
    for key in data.RANDOM if not sides else ():
        if value := getattr(settings, key):
            raise InputError(f"dataset.{key}={value} is for images, but {settings.name} has features; remove it")
    if sides and channels != 3 and any(settings.color_jitter[2:]):
        raise InputError(
            f"dataset.color_jitter={list(settings.color_jitter)} changes saturation or hue, but {settings.name} has "
            f"{channels} channel; expected 0 for both, or dataset.channels=3"
        )
    if sides and settings.crop_padding > min(sides):
        raise InputError(f"dataset.crop_padding={settings.crop_padding}; expected at most the image side, {min(sides)}")
    for section, part in (("dataset", settings), ("old", old)):
        if part.mean and len(part.mean) != channels:
            raise InputError(
                f"{section}.mean={list(part.mean)}; expected {channels} values, one per channel of {settings.name}"
            )
        if sides and max((*part.mean, *part.std, 0)) > 1:
            raise InputError(
                f"{section}.mean={list(part.mean)}, {section}.std={list(part.std)}; expected numbers up to 1, in units "
                "of pixel/255"
            )


def _normalizations(
    config: Config,
    dataset: data.Dataset,
    starts: Sequence[Pretrained | None],
    old_models: Sequence[tuple[Classifier, Mapping[str, Any]]],
    change: ClassChange | None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return mean and std of the inputs of the first release and of later ones.

    They are those of the config, else those of the training of the pretrained weights, else those of the first
    release's training images. Without pretrained weights of its own, a new model has the old one's: an update must not
    change how the inputs of a deployed model are prepared.
    """
    if config.dataset.mean:
        return [_pair(config.dataset.mean, config.dataset.std)] * 2
    old, new = (start and _own_normalization(start.classifier) for start in starts)
    if not old:
        train, num_known = dataset.train, change.num_carried if change else config.update.schedule[0]
        old = (
            _pair(config.old.mean, config.old.std)
            if config.old.mean
            else _pair(*data.statistics(train.images[: data.count(train, num_known)]))
        )
    if config.update.start != "old":
        return [old, new or old]
    before = next((_own_normalization(classifier) for classifier, _ in old_models), old) or old
    if new and not np.array_equal(new, before):
        found, expected = ([round(float(value), 4) for value in mean] for mean, _ in (before, new))
        raise InputError(
            f"update.start=old fine-tunes a model of inputs with mean {found}, but those of model.pretrained="
            f"{config.model.pretrained} have {expected}; expected dataset.mean and dataset.std for both, or "
            "update.start=random"
        )
    return [old, before]


def _own_normalization(classifier: Classifier) -> tuple[np.ndarray, np.ndarray] | None:
    return None if classifier.mean is None else _pair(classifier.mean, classifier.std)


def _pair(mean: Any, std: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(mean, np.float32), np.asarray(std, np.float32)


def _check_new_classes(run: Run) -> None:
    """Refuse what needs new classes if, with a class map, there are none; without one, the config has been checked."""
    update = run.config.update
    if run.class_change is None or run.num_old_classes(1) < run.num_classes(1):
        return
    run.progress.log("no class is new, so the margin b has no effect")
    needs = {f"update.methods={m}": m in DERIVED and DERIVED[m].needs_new_classes for m in update.methods}
    needs[f"update.memory={update.memory}"] = update.memory != "all"
    for what in (what for what, used in needs.items() if used):
        raise InputError(
            f"{what} needs new classes, but by update.class_map all {run.num_classes(1)} classes come from old ones; "
            "remove it"
        )


def _check_image_counts(run: Run) -> None:
    """Require a batch of images in every stage, and images of every class for methods that divide by their number."""
    config, batch_size, train = run.config, run.config.optimizer.batch_size, run.dataset.train
    memory = config.update.memory
    balanced = [method for method in lineage.trained(config) if objectives.named(method).balance]
    for release in run.releases:
        counts = data.class_counts(train, run.num_known(release))
        if release == 0:
            rows = training_rows(run, lineage.stages(config, 0)[0])
            if rows is not None:
                counts = np.bincount(train.labels[rows[0]])
            what = f"the training part of the {run.num_known(0)} old classes"
        else:
            old = run.num_old_classes(release)
            counts[:old] = data.kept_counts(data.parse_policy(memory), counts[:old])
            what = f"the {counts.sum()} training images that update.memory={memory} leaves to release {release}"
        if batch_size > counts.sum():
            raise InputError(
                f"optimizer.batch_size={batch_size} is larger than {what}; expected {counts.sum()} or less"
            )
        if release and balanced and not counts.all():
            raise InputError(
                f"update.methods={balanced[0]} needs training images of every class, but update.memory={memory} leaves "
                f"none of class {run.dataset.class_names[int(np.argmin(counts))]!r}; expected "
                "update.memory=per_class:K, a larger total:K, or all"
            )


def _backbones(run: Run, params: Sequence[Any]) -> Backbones | None:
    """Return the backbones of a run whose features are computed once; None: they are computed in every step.

    Args:
      params: shapes of the parameters of the networks of the first release and of the others.
    """
    config = run.config
    first = 1 if run.adopted[lineage.OLD] or run.precomputed else 0  # of the networks that the run trains
    trained = run.starts[first:]
    if None in trained or not frozen_features.applies(config, params[first:]):
        return None
    has_statistics = any(start.classifier.batch_stats for start in trained if start)
    found = frozen_features.reason_against(config, has_statistics=has_statistics) or frozen_features.find(run)
    if isinstance(found, str):
        run.progress.log(f"frozen features are computed in every step: {found}")
        return None
    return found


def _check_classes(run: Run, card: Mapping[str, Any], class_names: Sequence[str]) -> None:
    """Require that an adopted model knows exactly these classes, in their order, on images of the run's shape."""
    path = card["adopted_from"]
    expected, found = list(class_names), list(card["classes"])
    if found != expected:
        pairs = enumerate(zip(found, expected, strict=False))
        difference = next((f"class {i} is {a!r}, not {b!r}" for i, (a, b) in pairs if a != b), "")
        raise InputError(
            f"{path} has another class order than the run: "
            f"{difference or f'{len(found)} classes, not {len(expected)}'}; "
            "set dataset.class_order and update.schedule to match it"
        )
    shape = list(run.dataset.train.images.shape[1:])
    if card["image_shape"] != shape:
        raise InputError(
            f"{path} takes images of shape {card['image_shape']}, but {run.dataset.name} has {shape}; set "
            "dataset.image_size and dataset.channels to match it"
        )
    settings = run.config.dataset
    if "resizing" in card and settings.image_size and (known := data.Resizing(**card["resizing"])) != settings.resizing:
        raise InputError(
            f"{path} was evaluated on images with {_keys(known)}, but the run has {_keys(settings.resizing)}; set "
            "these keys to match it"
        )


def _keys(resizing: data.Resizing) -> str:
    return f"dataset.resize={resizing.resize} and dataset.interpolation={resizing.interpolation}"


def _check_old_architecture(config: Config, classifier: Classifier, card: Mapping[str, Any], configured: Any) -> None:
    """Require the configured network of an old model whose weights or features are used, and not only its logits."""
    uses = {
        "update.start=old": config.update.start == "old",
        "a method with the old head (bct)": "old_head" in configs.sources(config),
        "update.memory_by=herding": config.update.memory_by == "herding",
    }
    needed = next((what for what, used in uses.items() if used), "")
    shapes = [jax.tree.map(np.shape, params) for params in (classifier.params, configured)]
    if needed and shapes[0] != shapes[1]:
        network = configs.old_model_of(config)
        found = "an ensemble" if classifier.ensemble else _described(**card["architecture"])
        raise InputError(
            f"{card['adopted_from']} is {found}, but {needed} needs the network of old_model (without a name, of "
            f"model), {_described(network.name, configs.network_options(network))}; set that to match it, or "
            "give another update.old"
        )


def _described(name: str, options: Mapping[str, str]) -> str:
    return f"{name} ({', '.join(f'{key}={value}' for key, value in options.items())})"
