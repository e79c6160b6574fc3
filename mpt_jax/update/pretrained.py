"""Pretrained weights that the networks of a run start from (`model.pretrained`), with a fresh head.

A start is a classifier whose head has no columns, so that `models.warm_start` leaves all of a fresh head's.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from mpt_jax.config import ModelConfig
from mpt_jax.errors import InputError, listed
from mpt_jax.files import released_model, weights
from mpt_jax.models import Classifier, own_names, parameters, pytorch_weights, recognition, registry, shapes

_OWN = 0.5  # share of the names by which a file is one of `mpt_jax.export`


class Network(NamedTuple):
    """A network of the config, with the config section that describes it."""

    section: str
    config: ModelConfig
    options: Mapping[str, Any]  # of `models.build`
    module: nn.Module
    num_classes: int

    @property
    def key(self) -> str:
        """The key of its pretrained weights and their value."""
        return f"{self.section}.pretrained={self.config.pretrained}"


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """What all models of a network start from.

    Attributes:
      classifier: without leading axes; its head has no columns. Its mean and std are those of its training, or None if
        they are not known.
      source: as the config gives it.
      digest: of the weights.
      text: one line on what was read.
      names: the PyTorch package whose names the file has, if any.
    """

    classifier: Classifier
    source: str
    digest: str
    text: str
    names: str = ""

    def card(self) -> dict[str, str]:
        """Return the entry of a card."""
        return {"source": self.source, "digest": self.digest, **({"names": self.names} if self.names else {})}


def require(network: Network) -> None:
    """Check, before any data are read, that the file exists and is of a known kind.

    Raises:
      InputError: no such file, or one of another kind.
    """
    if network.config.pretrained:
        _find(network)


def read(network: Network, image_shape: tuple[int, ...]) -> Pretrained | None:
    """Read the weights that a network starts from, if any.

    Args:
      network: of a release.
      image_shape: of one input of the run.

    Raises:
      InputError: a file that cannot be read, or that has another network's weights.
    """
    if not network.config.pretrained:
        return None
    path = _find(network)
    classifier, what, dialect = (_from_release if path.is_dir() else _from_file)(network, path, image_shape)
    count = sum(leaf.size for leaf in jax.tree.leaves(classifier.params))
    source = network.config.pretrained
    place = f"{source} ({path.name})" if source.startswith(weights.PACKAGE) else source
    text = f"{network.section}.pretrained: {network.config.name} from {place}{what}; {count:,} weights are used"
    return Pretrained(classifier, source, released_model.identity(classifier), text, dialect)


def _find(network: Network) -> pathlib.Path:
    try:
        return weights.find(network.config.pretrained)
    except InputError as error:
        raise InputError(f"{network.section}.pretrained: {error}") from error


def _from_release(network: Network, path: pathlib.Path, image_shape: tuple[int, ...]) -> tuple[Classifier, str, str]:
    """Read a released model of the same network."""
    if not (path / "card.json").is_file():
        found = sorted(file.name for file in path.iterdir() if file.name.endswith((*weights.SUFFIXES, *weights.INDEX)))
        expected = f"one of its files, {listed(found)}" if found else "a weight file or a folder with card.json"
        raise InputError(f"{network.key} is a folder without card.json, so no released model; expected {expected}")
    classifier, card = released_model.read(path)
    if classifier.ensemble:
        raise InputError(f"{network.key} is an ensemble; expected a single network")
    name, options = card["architecture"]["name"], card["architecture"]["options"]
    if name != network.config.name:
        raise InputError(
            f"{network.key} is {name}, but {network.section}.name={network.config.name}; expected a model of that "
            f"network, or {network.section}.name={name}"
        )
    params, fresh = (_headless(each) for each in (classifier.params, shapes(network.module, image_shape)[0]))
    if set(parameters.paths(params)) == set(parameters.paths(fresh)):
        params = pytorch_weights.resized(params, network.module, image_shape)
    if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, fresh):
        raise InputError(
            f"{network.key} is {_described(name, options)} for images of shape {card['image_shape']}, but the run has "
            f"{_described(name, network.options)} and {list(image_shape)}; expected {network.section}, "
            "dataset.image_size and dataset.channels as in its training"
        )
    start = classifier.replace(module=network.module, params=params)
    return start, f", a release; its head of {len(card['classes']):,} classes is left out", ""


def _from_file(network: Network, path: pathlib.Path, image_shape: tuple[int, ...]) -> tuple[Classifier, str, str]:
    """Read a file of PyTorch."""
    try:
        everything = weights.read(path)
    except InputError as error:
        raise InputError(f"{network.section}.pretrained: {error}") from error
    try:
        own = own_names.share(everything, network.module, image_shape)
        if own > _OWN:
            return _from_own_names(network, everything, image_shape)
        if network.config.name not in registry.WITH_WEIGHTS:
            example = next(iter(own_names.names(network.module, image_shape)))
            raise InputError(
                f"PyTorch has no names for its weights, and the file does not have its own, such as {example!r}; "
                "expected those, or a released model's folder"
            )
        state, dialect, prefix = pytorch_weights.select(everything, network.module, image_shape, network.config.strip)
        params, batch_stats = pytorch_weights.convert(state, network.module, image_shape, dialect=dialect, head=False)
    except InputError as error:
        remedy = _remedy(network, everything, image_shape)
        raise InputError(
            f"{network.key} does not fit {network.section}.name={network.config.name}: {error}{remedy}"
        ) from error
    head = [state[name] for name in pytorch_weights.head_names(network.module, dialect) if name in state]
    notes = [f"{dialect}'s names" + (f" under {prefix!r}" if prefix else "")]
    if len(state) < len(everything):
        notes.append(f"arrays beside them, which are ignored: {len(everything) - len(state):,}")
    what = f" ({'; '.join(notes)})"
    what += f"; its head of {head[0].shape[0]:,} classes is left out" if head else "; it has no head"
    statistics = np.asarray(registry.dialects(network.module)[dialect].statistics, np.float32)
    mean, std = statistics if image_shape[-1] == 3 else (None, None)
    return Classifier(network.module, params, batch_stats, mean, std), what, dialect


def _from_own_names(
    network: Network, everything: Mapping[str, np.ndarray], image_shape: tuple[int, ...]
) -> tuple[Classifier, str, str]:
    """Convert the weights of a file that names them as the network does, such as one of `mpt_jax.export`."""
    params, batch_stats, prefix = own_names.convert(
        everything, network.module, image_shape, prefix=network.config.strip
    )
    mean, std = (everything.get(f"normalization.{name}") for name in ("mean", "std"))
    if mean is None or std is None or len(mean) != image_shape[-1]:
        mean = std = None
    under = f" under {prefix!r}" if prefix else ""
    return (
        Classifier(network.module, params, batch_stats, mean, std),
        f" (its own names{under}); its head is left out",
        "",
    )


def _remedy(network: Network, state: Mapping[str, np.ndarray], image_shape: tuple[int, ...]) -> str:
    """Return what would work for weights that do not fit: another number of channels, or another network."""
    *sides, channels = image_shape
    for other in (3, 1):
        if other != channels and recognition.fits(state, network.module, (*sides, other), network.config.strip):
            return (
                f"; these weights are for images of {other} channels, and the run has {channels}: expected "
                f"dataset.channels={other}"
            )
    found = recognition.network_of(state, network.config.strip)
    if not found:
        return ""
    differs = {
        key: value for key, value in found.items() if key == "name" or value != getattr(network.module, key, None)
    }
    values = " and ".join(f"{network.section}.{key}={value}" for key, value in differs.items())
    return f"; these are weights of {found['name']}: expected {values}"


def _headless(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with a head for no classes."""
    head = {name: np.zeros((*leaf.shape[:-1], 0), leaf.dtype) for name, leaf in params["head"].items()}
    return {**params, "head": head}


def _described(name: str, options: Mapping[str, Any]) -> str:
    return f"{name} ({', '.join(f'{key}={value}' for key, value in options.items())})"
