"""Read the data and check everything that can be checked without training."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import config as configs
from mpt_jax import data, models, objectives
from mpt_jax.cli.progress import Progress
from mpt_jax.config import Config
from mpt_jax.errors import InputError
from mpt_jax.files import released_model, sealed, storage
from mpt_jax.models import Classifier
from mpt_jax.runtime import hardware, processes
from mpt_jax.training import sharding
from mpt_jax.update import external_model, lineage, releases, workdir
from mpt_jax.update.context import Run, training_rows

GIVEN = (lineage.OLD, lineage.INDEPENDENT)  # releases that a config may name instead of training them


def prepare(config: Config, folder: pathlib.Path, progress: Progress, cores: Sequence[jax.Device] = ()) -> Run:
    """Everything that a run needs; writes nothing to the work directory.

    Args:
      cores: those of `hardware.core_devices`, of which all that is not a population of small networks takes the first.

    Raises:
      InputError: data, schedule, teachers or work directory that do not fit the config.
    """
    workdir.check(folder, configs.to_dict(config))
    settings, update = config.dataset, config.update
    networks = [
        (section, network.name, models.build(network.name, num_classes, **releases.network_options(network)))
        for section, network, num_classes in (
            ("old_model" if config.old_model.name else "model", configs.old_model_of(config), update.schedule[0]),
            ("model", config.model, update.schedule[-1]),
        )
    ]
    given = {method: _read_given(config, method) for method in GIVEN}
    order = external_model.class_order(config, next((card["classes"] for _, card in given[lineage.OLD]), ()))
    if order != settings.class_order:
        progress.log(f"class order: first the {len(order) - 1} classes of the old model, then the others")
    external_model.require_weights(config)
    progress.log(f"reading {settings.name}")
    dataset = data.load(
        settings.name,
        data_dir=settings.data_dir or None,
        num_classes=update.schedule[-1],
        class_order=order,
        validation_per_class=settings.validation_per_class,
        train_per_class=settings.train_per_class,
        imbalance=settings.imbalance,
        image_size=settings.image_size,
        channels=settings.channels,
        test_fraction=settings.test_fraction,
        on_bad_image=settings.on_bad_image,
        source=settings.source,
        augmentation=settings.augmentation,
        workers=settings.workers,
        test_split=settings.test_split,
    )
    parts = {part: getattr(dataset, part) for part in ("train", "validation", "test")}
    contents = {
        f"{name} labels and ids": sealed.digest({"labels": s.labels, "ids": s.ids}) for name, s in parts.items()
    }
    processes.require_same(contents, f"what dataset.name={settings.name} holds")
    contents |= {
        f"{name} images": sealed.digest(s.images.sizes() if isinstance(s.images, data.Stream) else s.images)
        for name, s in parts.items()
    }
    with processes.synchronized():
        if processes.is_first():
            workdir.check_contents(folder, contents)
    streamed = isinstance(dataset.train.images, data.Stream)
    if streamed:
        progress.log(f"{settings.name}: images are streamed, not kept in memory")
    drawn = [method for method in lineage.trained(config) if objectives.named(method).sampler_rate]
    if streamed and drawn:
        raise InputError(
            f"update.methods={drawn[0]} draws its own batches, which streamed images do not allow; expected "
            "dataset.source=memory, or other methods"
        )
    if streamed and config.mesh.members > 1:
        raise InputError(
            f"mesh.members={config.mesh.members} splits students whose images are in memory; expected "
            "dataset.source=memory, or mesh.members=1"
        )
    for finding in dataset.findings:
        progress.log(f"{settings.name}: {finding}")
    shape = dataset.train.images.shape[1:]
    for section, name, _ in networks:
        if (len(shape) == 1) != (name in models.ON_FEATURES):
            kind, valid = ("images", "others than") if len(shape) > 1 else ("features", "one of")
            raise InputError(
                f"{section}.name={name} does not fit {settings.name}, whose examples are {kind} of shape {shape}; "
                f"expected {valid} {', '.join(models.ON_FEATURES)}"
            )
    weights = [  # also finds an image size that a network refuses
        jax.eval_shape(lambda module=module: models.init(module, jax.random.key(0), shape))[0]
        for _, _, module in networks
    ]
    heads = [params["head"]["kernel"].shape for params in weights]
    if "old_head" in configs.sources(config) and heads[0][0] != heads[1][0]:
        raise InputError(
            f"update.methods has one with the old head (bct), which takes {heads[0][0]} features, but model.name="
            f"{config.model.name} has {heads[1][0]}; leave that method out, or choose a network with as many"
        )
    layout = {"members": config.mesh.members, "fsdp": config.mesh.fsdp}
    for key, value in layout.items():
        if value != 1 and processes.is_distributed():
            raise InputError(f"mesh.{key}={value} is for the devices of one process; of several, expected mesh.{key}=1")
    mesh = sharding.make_mesh(cores[:1]) if cores else sharding.make_mesh(**layout)
    batch_size, num_first = config.optimizer.batch_size, data.count(dataset.train, update.schedule[0])
    sharding.check_batch(mesh, batch_size, config.optimizer.accumulate)
    epochs, limit = config.optimizer.epochs, 2**31 // data.steps_per_epoch(len(dataset.train.labels), batch_size)
    if epochs > limit:
        raise InputError(f"optimizer.epochs={epochs} takes more than 2**31 steps; expected {limit} or less")
    *sides, channels = shape
    if not sides and (settings.crop_padding or settings.flip):
        raise InputError("dataset.crop_padding and dataset.flip are for images; features take 0 and False")
    if sides and settings.crop_padding > min(sides):
        raise InputError(f"dataset.crop_padding={settings.crop_padding}; expected at most the image side, {min(sides)}")
    if settings.mean and len(settings.mean) != channels:
        raise InputError(
            f"dataset.mean={settings.mean}; expected {channels} values, one per channel of {settings.name}"
        )
    old = config.old
    if old.mean and len(old.mean) != channels:
        raise InputError(f"old.mean={old.mean}; expected {channels} values, one per channel of {settings.name}")
    for key, part in (("dataset", settings), ("old", old)):
        if sides and max((*part.mean, *part.std, 0)) > 1:
            raise InputError(
                f"{key}.mean={list(part.mean)}, {key}.std={list(part.std)}; expected numbers up to 1, in units of "
                "pixel/255"
            )
    # Of the first release's images: an update must not change how a deployed model's input is prepared.
    mean, std = (
        np.asarray(value, np.float32)
        for value in (
            (settings.mean, settings.std)
            if settings.mean
            else (old.mean, old.std)
            if old.mean
            else data.statistics(dataset.train.images[:num_first])
        )
    )
    if old.weights:
        normalization = (np.asarray(old.mean or mean, np.float32), np.asarray(old.std or std, np.float32))
        given[lineage.OLD] = external_model.read_weights(config, dataset, networks[0][2], normalization)
    recorded = external_model.read_predictions(config, dataset) if old.predictions else None
    facts = hardware.facts(mesh.size)
    if processes.is_distributed():
        facts["processes"] = jax.process_count()
    made_with = workdir.provenance(facts)
    run = Run(config, folder, dataset, mean, std, mesh, cores, given, contents, made_with, progress, recorded=recorded)
    _check_numbers_of_images(run)
    for release, method in enumerate(GIVEN):
        for _, card in given[method]:
            _check_teacher(run, card, run.num_classes(release))
    for classifier, card in given[lineage.OLD]:
        _check_network(config, classifier, card, weights[0])
    releases.check_given(run)
    releases.check_lineage(run)
    return run


def _check_numbers_of_images(run: Run) -> None:
    """Every stage must have a batch of images, and images of every class whose number of images it divides by."""
    config, batch_size, train = run.config, run.config.optimizer.batch_size, run.dataset.train
    for release in run.releases:
        if release == 0:
            counts = data.class_counts(train, run.num_classes(0))
            if config.update.old_fraction < 1:
                counts = np.bincount(train.labels[training_rows(run, lineage.stages(config, 0)[0])[0]])
            what = f"the training part of the {run.num_classes(0)} old classes"
        else:
            counts = data.class_counts(train, run.num_classes(release))
            old = run.num_old_classes(release)
            counts[:old] = data.kept_counts(data.parse_policy(config.update.memory), counts[:old])
            memory = config.update.memory
            what = f"the {counts.sum()} training images that update.memory={memory} leaves to release {release}"
        if batch_size > counts.sum():
            raise InputError(
                f"optimizer.batch_size={batch_size} is larger than {what}: expected {counts.sum()} or less"
            )
        balanced = [method for method in lineage.trained(config) if objectives.named(method).balance] if release else []
        if balanced and not counts.all():
            raise InputError(
                f"update.methods={balanced[0]} needs training images of every class, but update.memory="
                f"{config.update.memory} leaves none of class {run.dataset.class_names[int(np.argmin(counts))]!r}; "
                "expected update.memory=per_class:K, a larger total:K, or all"
            )


def _read_given(config: Config, method: str) -> list[tuple[Classifier, dict[str, Any]]]:
    """The released models, one per seed, that the config names for this teacher; empty where it is trained here."""
    pattern = getattr(config.update, method)
    if not pattern:
        return []
    paths = [storage.path(pattern.replace("{seed}", str(seed))) for seed in config.seeds]
    read = {path: released_model.read(path) for path in dict.fromkeys(paths)}
    return [(read[path][0], {**read[path][1], "adopted_from": str(path)}) for path in paths]


def _check_network(config: Config, classifier: Classifier, card: Mapping[str, Any], configured: Any) -> None:
    """An old model whose inside is used, not its answers alone, must be the one network that the config describes."""
    uses = {
        "update.start=old": config.update.start == "old",
        "a method with the old head (bct)": "old_head" in configs.sources(config),
        "update.memory_by=herding": config.update.memory_by == "herding",
    }
    needed = next((what for what, used in uses.items() if used), "")
    shapes = [jax.tree.map(np.shape, params) for params in (classifier.params, configured)]
    if needed and shapes[0] != shapes[1]:
        network = configs.old_model_of(config)
        found = "an ensemble" if classifier.ensemble else _network(**card["architecture"])
        raise InputError(
            f"{card['adopted_from']} is {found}, but {needed} takes what old_model says (without a name: model), "
            f"{_network(network.name, releases.network_options(network))}; set that to fit, or give another update.old"
        )


def _network(name: str, options: Mapping[str, str]) -> str:
    return f"{name} ({', '.join(f'{key}={value}' for key, value in options.items())})"


def _check_teacher(run: Run, card: Mapping[str, Any], num_classes: int) -> None:
    """A teacher must know exactly the run's classes, in the run's order, on images of the same shape."""
    path = card["adopted_from"]
    expected, found = list(run.dataset.class_names[:num_classes]), list(card["classes"])
    if found != expected:
        pairs = enumerate(zip(found, expected, strict=False))
        differ = next((f"class {i} is {a!r}, not {b!r}" for i, (a, b) in pairs if a != b), "")
        raise InputError(
            f"{path} has another class order than the run: "
            f"{differ or f'{len(found)} classes, not {len(expected)}'}; "
            "set dataset.class_order and update.schedule to fit"
        )
    shape = list(run.dataset.train.images.shape[1:])
    if card["image_shape"] != shape:
        raise InputError(f"{path} takes images of shape {card['image_shape']}, but {run.dataset.name} has {shape}")
