"""Weights under the paths of a network's parameters, with dots or slashes."""

import numpy as np
import pytest
from random_weights import drawn

from mpt_jax.errors import InputError
from mpt_jax.export import named_weights
from mpt_jax.models import Classifier, build, own_names

SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def classifier():
    module = build("convnet", 3)
    params, batch_stats = drawn(module, SHAPE)
    return Classifier(module, params, batch_stats, np.zeros(3), np.ones(3))


def slashes(name):
    return "net/" + name.removeprefix("params.").removeprefix("batch_stats.").replace(".", "/")


@pytest.mark.parametrize("rename", [str, slashes])
def test_exported_weights_are_read_without_their_head(classifier, rename):
    named = {rename(name): array for name, array in named_weights.to_names(classifier).items()}
    params, batch_stats, prefix = own_names.convert(named, build("convnet", 5), SHAPE)
    assert prefix == ("net." if rename is slashes else "")
    assert {name: leaf.shape for name, leaf in params["head"].items()} == {"kernel": (512, 0), "bias": (0,)}
    for found, expected in ((params, classifier.params), (batch_stats, classifier.batch_stats)):
        assert found.keys() == expected.keys()
        for layer in found.keys() - {"head"}:
            for leaf, array in found[layer].items():
                np.testing.assert_array_equal(array, expected[layer][leaf])
    assert own_names.share(named, build("convnet", 5), SHAPE) == 1
    assert own_names.share({"conv1.weight": np.ones(3)}, build("convnet", 5), SHAPE) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params.conv1.kernel": None}, "names are missing: 'conv1.kernel'"),
        ({"params.more.bias": np.ones(2)}, "names are unknown: 'more.bias'"),
        ({"params.conv1.kernel": np.ones(2)}, r"names are of the wrong shape: 'conv1.kernel' \[2\] instead of \[3, 3,"),
        ({"params.norm1.bias": np.full(16, np.nan)}, "names are not finite: 'norm1.bias'"),
    ],
)
def test_names_that_do_not_fit_are_listed(classifier, change, message):
    named = named_weights.to_names(classifier) | change
    with pytest.raises(InputError, match=message):
        own_names.convert({k: v for k, v in named.items() if v is not None}, build("convnet", 3), SHAPE)
