"""Checks of the patterns of parameters in a config, and of its rates per layer, against the networks of a run."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mpt_jax import models
from mpt_jax.config import Config
from mpt_jax.errors import InputError, listed
from mpt_jax.models import parameters
from mpt_jax.update.pretrained import Network

_OF_ANY_NETWORK = ("bias", "scale")  # a network without norms has no scales, but the same config may serve both


def check(config: Config, networks: Sequence[tuple[Network, Any]], image_shape: Sequence[int]) -> None:
    """Check that patterns match parameters, that heads are trained, and that the order of the layers is known.

    Args:
      networks: that the run trains, each with the shapes of its parameters.
      image_shape: of one input.

    Raises:
      InputError: naming the key and the nearest parameters.
    """
    settings, every = config.optimizer, [path for _, params in networks for path in parameters.paths(params)]
    for pattern in settings.freeze:
        if not any(parameters.is_frozen([pattern], path) for path in every):
            raise InputError(_unmatched(f"optimizer.freeze={pattern}", pattern, networks))
    for pattern in settings.decay_exclude:
        if pattern not in _OF_ANY_NETWORK and not any(parameters.matches([pattern], path) for path in every):
            raise InputError(_unmatched(f"optimizer.decay_exclude={pattern}", pattern, networks))
    frozen = f"optimizer.freeze={','.join(settings.freeze)}"
    for network, params in networks:
        of_network = f"{network.section}.name={network.config.name}"
        paths = parameters.paths(params)
        if all(parameters.is_frozen(settings.freeze, path) for path in paths):
            raise InputError(
                f"{frozen} leaves nothing to train in {of_network}; expected fewer patterns, such as "
                f"{parameters.BACKBONE}"
            )
        if parameters.is_frozen(settings.freeze, f"{parameters.HEAD}/kernel"):
            raise InputError(
                f"{frozen} freezes the head of {of_network}, whose columns of new classes are random; expected "
                f"patterns of other layers, such as {parameters.BACKBONE}"
            )
        order = models.layer_order(network.module, image_shape) if settings.layer_decay < 1 else ()
        missing = [name for name, inner in params.items() if isinstance(inner, Mapping) and name not in order]
        if settings.layer_decay < 1 and missing:  # flax sees no calls of the layers of an NNX module
            raise InputError(
                f"optimizer.layer_decay={settings.layer_decay} needs the order in which layers are called, which is "
                f"not known of {listed(missing)} in {of_network}; expected 1, or layers that are flax.linen modules"
            )


def describe(config: Config, networks: Sequence[tuple[Network, Any]]) -> list[str]:
    """Return a line per network on how many of its parameters are trained, if any are frozen."""
    if not config.optimizer.freeze:
        return []
    lines = []
    for network, params in networks:
        trained, _ = parameters.split(params, config.optimizer.freeze)
        counts = [sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for tree in (trained, params)]
        lines.append(
            f"optimizer.freeze={','.join(config.optimizer.freeze)}: {counts[0]:,} of {counts[1]:,} parameters of "
            f"{network.section}.name={network.config.name} are trained"
        )
    return list(dict.fromkeys(lines))


def _unmatched(given: str, pattern: str, networks: Sequence[tuple[Network, Any]]) -> str:
    """Return the message for a pattern that matches nothing, with the nearest names."""
    of_networks = " and ".join(dict.fromkeys(f"{n.section}.name={n.config.name}" for n, _ in networks))
    paths = [path for _, params in networks for path in parameters.paths(params)]
    names = dict.fromkeys("/".join(path.split("/")[:end]) for path in paths for end in range(1, path.count("/") + 2))
    nearest = difflib.get_close_matches(pattern.strip("*/"), names, n=3, cutoff=0.4)
    layers = dict.fromkeys(path.split("/")[0] for path in paths)
    return (
        f"{given} matches no parameter of {of_networks}; {f'nearest: {listed(nearest)}; ' if nearest else ''}its "
        f"layers: {listed([*layers], most=30)}"
    )
