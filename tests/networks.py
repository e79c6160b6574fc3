"""The networks as parameters of a test: one of each family, and the others, which take longer, marked slow."""

import pytest

from mpt_jax.models import NETWORKS, build


def _one_of_each_family():
    families = {}
    for name in NETWORKS:
        families.setdefault(type(build(name, 2)), name)
    return [*families.values()]


FIRST = _one_of_each_family()


def slow_unless_first(*values):
    """Return the values of a parameter or of several, the name first; those of other networks are marked slow."""
    name = values[0]
    return pytest.param(*values, marks=() if name in FIRST else pytest.mark.slow)
