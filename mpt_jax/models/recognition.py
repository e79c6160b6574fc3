"""Which of the networks the weights of a file belong to, for messages about files that do not fit."""

from collections.abc import Mapping

import numpy as np
from flax import linen as nn

from mpt_jax.errors import InputError
from mpt_jax.models import pytorch_weights, registry
from mpt_jax.models.resnet import STEMS

_IMAGES = (224, 224, 3)
_SHARE = 0.3  # of a network's names that a file of its family has at least


def network_of(state: Mapping[str, np.ndarray], prefix: str = "") -> dict[str, str]:
    """Return the network whose weights these are, as config values: its `name`, and its `stem` if it has one.

    Args:
      state: the arrays of a file by name.
      prefix: of their names; empty: to be found.

    Returns:
      An empty mapping if there is no such network.
    """
    families: dict[type, list[str]] = {}
    for name in registry.WITH_WEIGHTS:
        families.setdefault(type(registry.build(name, 2)), []).append(name)
    for names in families.values():
        first = registry.build(names[0], 2)
        try:
            found = pytorch_weights.select(state, first, _IMAGES, prefix)
        except InputError:
            continue
        known = pytorch_weights.names(first, _IMAGES, found.dialect)
        if len(found.state.keys() & set(known)) > _SHARE * len(known):
            for name in names:
                for options in _variants(name):
                    if fits(found.state, registry.build(name, 2, **options), _IMAGES):
                        return {"name": name, **options}
    return {}


def _variants(name: str) -> list[dict[str, str]]:
    return [{"stem": stem} for stem in STEMS] if "stem" in registry.options_of(name) else [{}]


def fits(state: Mapping[str, np.ndarray], module: nn.Module, image_shape: tuple[int, ...], prefix: str = "") -> bool:
    """Return whether these are the weights of a network, apart from its head."""
    try:
        found = pytorch_weights.select(state, module, image_shape, prefix)
        pytorch_weights.convert(found.state, module, image_shape, dialect=found.dialect, head=False)
    except InputError:
        return False
    return True
