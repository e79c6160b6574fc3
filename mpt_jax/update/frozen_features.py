"""Runs on frozen features: the features of all images are computed once, and heads are trained on them.

This is done if everything but the head is frozen and every model of the run has one of two backbones. Features are kept
in a cache under the digests of the network and of each image, see `files.feature_cache`. `find` computes nothing and
writes nothing.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mpt_jax import config as configs
from mpt_jax import data, models
from mpt_jax.config import Config, ModelConfig
from mpt_jax.data import sequence
from mpt_jax.files import feature_cache, released_model, storage
from mpt_jax.files.feature_cache import FeatureCache
from mpt_jax.models import Classifier, own_network, parameters
from mpt_jax.runtime import processes
from mpt_jax.training import inference
from mpt_jax.update import backbones, lineage
from mpt_jax.update.backbones import Backbone, Backbones
from mpt_jax.update.pretrained import Pretrained
from mpt_jax.update.run import Run

FORMAT = 1  # of what is cached: to be increased when the same facts give other features
BATCH_BYTES = 2**23  # of the images of a batch on a device; their activations take up to about 40 times as much
CHUNK_ROWS, CHUNK_SECONDS = 4096, 20.0  # after which computed features are written


def applies(config: Config, params: Sequence[Any]) -> bool:
    """Return whether nothing but heads is trained, and features are to be computed once.

    Args:
      params: shapes of the parameters of each network that the run trains.
    """

    def only_head(params: Any) -> bool:
        names = parameters.paths(params)
        frozen = {name for name in names if parameters.is_frozen(config.optimizer.freeze, name)}
        head = {name for name in names if name.startswith(f"{parameters.HEAD}/")}
        return bool(head) and frozen == {*names} - head

    return config.training.precompute_features and all(map(only_head, params))


def reason_against(config: Config, *, has_statistics: bool) -> str | None:
    """Return why frozen features must be computed in each step nevertheless; None: they need not.

    Args:
      has_statistics: whether a network has BatchNorm.
    """
    settings, networks = config.dataset, {"model": config.model, "old_model": config.old_model}
    random = {
        "dataset.augmentation": settings.augmentation == "imagenet" and settings.augmentation,
        **{f"dataset.{key}": getattr(settings, key) for key in data.RANDOM},
        **{f"{name}.{key}": getattr(one, key) for name, one in networks.items() for key in ("dropout", "drop_path")},
    }
    for key, value in random.items():
        if value:
            return f"{key}={value} changes them at random"
    for name, one in networks.items():
        if own_network.is_own(one.name):
            return f"{name}.name={one.name} is a network of your own, which may have dropout"
    if has_statistics and not config.optimizer.freeze_statistics:
        return "optimizer.freeze_statistics=False changes them in training"
    return "there are several processes" if processes.is_distributed() else None


def find(run: Run) -> Backbones | str:
    """Return the backbones of a run on frozen features, or why it has too many.

    Raises:
      InputError: the cache has features of another network.
    """
    config, adopted, shape = run.config, run.adopted, run.dataset.train.images.shape[1:]
    old_network, new_network = _network(configs.old_model_of(config)), _network(config.model)
    for method in (lineage.OLD, lineage.INDEPENDENT):
        if any(classifier.ensemble for classifier, _ in adopted[method]):
            return f"update.{method} is an ensemble"
    old_start, new_start = (_start(run, release) for release in (0, 1))
    assert new_start is not None  # checked by the caller
    new = _backbone(new_network, new_start, shape)
    for classifier, card in adopted[lineage.INDEPENDENT]:
        if backbones.facts_of(card["architecture"], classifier) != new.facts:
            return f"{card['adopted_from']} has another backbone than model.pretrained"
    given = [(card.get("architecture", old_network), classifier) for classifier, card in adopted[lineage.OLD]]
    if not (given or run.precomputed) and old_start is not None:
        given = [(old_network, old_start)]
    olds = [_backbone(*each, shape) for each in given]
    if any(one.facts != olds[0].facts for one in olds):
        return "the old models of the seeds have different backbones"
    old = olds[0] if olds else None
    if old is not None and old.facts == new.facts:
        old = new
    elif old is not None:
        if config.update.start == "old":
            return "update.start=old fine-tunes an old model with another backbone"
        old = dataclasses.replace(old, columns=(new.width, new.width + old.width))
    chosen = config.training.features_dir
    cache = storage.path(chosen) if chosen else run.workdir / "features"
    found = Backbones(old, new, cache, run.dataset.test.images)
    for backbone in found.each:
        feature_cache.check(cache, _facts(run, backbone))
    return found


def compute(run: Run) -> Run:
    """Compute the features that the cache does not have, and return the run on features.

    Its images are the features of all its backbones side by side, its normalization does nothing, and its adopted
    models are heads.

    Raises:
      InputError: an image cannot be read.
      OSError: the disk is full.
    """
    found = run.backbones
    assert found is not None
    splits = {part: getattr(run.dataset, part) for part in data.PARTS}
    images = {part: sequence.digests(split.images) for part, split in splits.items()}
    features = {part: np.empty((len(split), found.width), np.float32) for part, split in splits.items()}
    on_disk = {}
    for backbone in found.each:
        cache = _fill(run, backbone, found.cache, images)
        for part, out in features.items():
            cache.read(images[part], out[:, slice(*backbone.columns)])
        weights = (backbone.classifier.params, backbone.classifier.batch_stats)
        folder = released_model.write_backbone(run.workdir / "backbone", *weights)
        on_disk[backbone.columns] = dataclasses.replace(backbone, folder=folder)
    old = None if found.old is None else on_disk[found.old.columns]
    found = dataclasses.replace(found, old=old, new=on_disk[found.new.columns])
    on_features = {part: dataclasses.replace(split, images=features[part]) for part, split in splits.items()}
    return dataclasses.replace(
        run,
        dataset=dataclasses.replace(run.dataset, **on_features),
        normalizations=[(np.zeros(found.width, np.float32), np.ones(found.width, np.float32))] * 2,
        starts=[start and _without_backbone(found, release, start) for release, start in enumerate(run.starts)],
        adopted={method: [_adopted_head(run, found, *one) for one in models] for method, models in run.adopted.items()},
        backbones=found,
    )


def _network(network: ModelConfig) -> dict[str, Any]:
    return {"name": network.name, "options": configs.network_options(network)}


def _backbone(network: Mapping[str, Any], classifier: Classifier, image_shape: Sequence[int]) -> Backbone:
    """Return the backbone of a classifier, with the first columns."""
    frozen = backbones.without_head(classifier)
    one = jax.ShapeDtypeStruct((1, *image_shape), np.uint8)
    width = jax.eval_shape(models.features, frozen, one).shape[-1]
    return Backbone(backbones.facts_of(network, classifier), frozen, (0, width))


def _start(run: Run, release: int) -> Classifier | None:
    """Return the pretrained weights of a release, with the normalization of its models."""
    start = run.pretrained(release)
    if start is None:
        return None
    mean, std = run.normalization(release)
    return start.classifier.replace(mean=mean, std=std)


def _without_backbone(found: Backbones, release: int, start: Pretrained) -> Pretrained:
    """Return the pretrained weights of a head: none, because it is fresh."""
    head = found.on_features(found.of_release(release), start.classifier.params[parameters.HEAD])
    return dataclasses.replace(start, classifier=head)


def _adopted_head(
    run: Run, found: Backbones, classifier: Classifier, card: dict[str, Any]
) -> tuple[Classifier, dict[str, Any]]:
    head = found.head(classifier, card.get("architecture", _network(configs.old_model_of(run.config))))
    assert head is not None  # `find` has compared them
    return head, card


def _fill(run: Run, backbone: Backbone, folder: pathlib.Path, images: Mapping[str, Sequence[bytes]]) -> FeatureCache:
    """Compute the features of the images that the cache does not have, and return it."""
    shape = run.dataset.train.images.shape[1:]
    cache = feature_cache.open_cache(folder, _facts(run, backbone), backbone.width, run.progress.log)
    every = {image for part in images.values() for image in part}
    done = len(every & cache.row_of.keys())
    name, begun, title = backbone.network["name"], time.perf_counter(), "features"
    title = f"features of {len(every):,} images by {name}"
    if done == len(every):
        run.progress.log(f"{title}: exist")
        return cache
    size = max(1, min(run.config.training.evaluation_batch, BATCH_BYTES // math.prod(shape))) * run.mesh.size
    run.progress.start(title, done, len(every), "image")
    for part, digests in images.items():
        rows = np.array(cache.missing(digests), np.int64)
        for keys, features in _chunks(run, backbone, getattr(run.dataset, part).images, rows, digests, size):
            cache.add(keys, features)
            done += len(keys)
            run.progress.advance(done, {})
    run.progress.finish(f"{title}: computed in {time.perf_counter() - begun:.1f} s")
    return cache


def _facts(run: Run, backbone: Backbone) -> dict[str, Any]:
    """Return what the features of an image depend on."""
    some = run.dataset.train.images
    inputs: dict[str, Any] = {"image_shape": list(some.shape[1:]), "dtype": str(some.dtype)}
    if isinstance(some, data.Stream):  # its images have the digests of files, which can be decoded in several ways
        inputs |= {"decoded_as": some.augmentation, "as_stored": some.as_stored}
        inputs |= {} if some.resizing == data.COVER else {"resizing": some.resizing._asdict()}
    return {**backbone.facts, "inputs": inputs, "platform": jax.default_backend(), "format": FORMAT}


def _chunks(
    run: Run,
    backbone: Backbone,
    images: np.ndarray | data.Stream,
    rows: np.ndarray,
    digests: Sequence[bytes],
    size: int,
) -> Iterator[tuple[list[bytes], np.ndarray]]:
    """Yield digests and features of some rows, as soon as there are many or some time has passed."""
    batches = zip(range(0, len(rows), size), sequence.batches(images, size, rows), strict=True)
    tagged = (([digests[row] for row in rows[start : start + size]], batch) for start, batch in batches)
    outputs = inference.stream(backbone.classifier, tagged, models.features, batch_size=size, mesh=run.mesh)
    keys: list[bytes] = []
    waiting: list[np.ndarray] = []
    since = time.monotonic()
    for of_batch, features in outputs:
        keys += of_batch
        waiting.append(features)
        if len(keys) >= CHUNK_ROWS or time.monotonic() - since > CHUNK_SECONDS:
            yield keys, np.concatenate(waiting)
            keys, waiting, since = [], [], time.monotonic()
    if keys:
        yield keys, np.concatenate(waiting)
