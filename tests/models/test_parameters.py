"""Patterns on the paths of parameters, and the parts that they split a network into."""

import jax
import numpy as np
import pytest

from mpt_jax import models
from mpt_jax.models import parameters

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def params():
    return models.init(models.build("convnet", 4), jax.random.key(0), SHAPE)[0]


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        ([], set()),
        (["backbone"], {"conv1", "conv2", "conv3", "norm1", "norm2", "norm3"}),
        (["conv*"], {"conv1", "conv2", "conv3"}),
        (["conv1", "norm1"], {"conv1", "norm1"}),
        (["head"], {"head"}),
        (["*"], {"conv1", "conv2", "conv3", "norm1", "norm2", "norm3", "head"}),
    ],
)
def test_patterns_name_whole_modules(params, patterns, frozen):
    found = {path.split("/")[0] for path in parameters.paths(params) if parameters.is_frozen(patterns, path)}
    assert found == frozen


def test_a_pattern_may_name_single_parameters(params):
    found = [path for path in parameters.paths(params) if parameters.is_frozen(["*/bias"], path)]
    assert found == ["head/bias", "norm1/bias", "norm2/bias", "norm3/bias"]
    assert not parameters.is_frozen(["CONV1"], "conv1/kernel")
    assert not parameters.is_frozen(["kernel"], "conv1/kernel")  # not a leading part


@pytest.mark.parametrize("patterns", [[], ["backbone"], ["*/scale"], ["*"]])
def test_a_split_has_every_parameter_once(params, patterns):
    trained, frozen = parameters.split(params, patterns)
    assert len(jax.tree.leaves(trained)) + len(jax.tree.leaves(frozen)) == len(jax.tree.leaves(params))
    assert all(parameters.is_frozen(patterns, path) for path in parameters.paths(frozen))
    jax.tree.map(np.testing.assert_array_equal, parameters.merge(trained, frozen), params)
