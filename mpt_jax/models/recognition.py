"""Which of the networks the weights of a file belong to, for messages about files that do not fit."""

from collections.abc import Mapping

import numpy as np
from flax import linen as nn

from mpt_jax.errors import InputError
from mpt_jax.models import build, pytorch_weights, weight_names

_IMAGES = (224, 224, 3)
_SHARE = 0.3  # of a network's names that a file of its family has at least


def network_of(state: Mapping[str, np.ndarray], prefix: str = "") -> str:
    """Return the name of the network whose weights these are, or "" if there is none.

    Args:
      state: the arrays of a file by name.
      prefix: of their names; empty: to be found.
    """
    families: dict[type, list[str]] = {}
    for name in pytorch_weights.NETWORKS:
        families.setdefault(type(build(name, 2)), []).append(name)
    for first, *others in families.values():
        known = pytorch_weights.names(build(first, 2), _IMAGES)
        try:
            found, _ = weight_names.select(state, known, prefix)
        except InputError:
            continue
        if len(found.keys() & set(known)) > _SHARE * len(known):
            for name in (first, *others):
                if fits(found, build(name, 2), _IMAGES):
                    return name
    return ""


def fits(state: Mapping[str, np.ndarray], module: nn.Module, image_shape: tuple[int, ...], prefix: str = "") -> bool:
    """Return whether these are the weights of a network, apart from its head."""
    try:
        found, _ = weight_names.select(state, pytorch_weights.names(module, image_shape), prefix)
        pytorch_weights.convert(found, module, image_shape, head=False)
    except InputError:
        return False
    return True
