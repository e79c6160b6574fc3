"""Weights by name lose nothing."""

import chex
import jax
import numpy as np
import pytest
from releases import release

from mpt_jax.export import named_weights


@pytest.mark.parametrize("options", [{}, {"ensemble": 2}])
def test_weights_are_restored_from_their_names(options, tmp_path):
    classifier = release(tmp_path / "release", "convnet", (8, 8, 1), ("a", "b"), **options)
    named = named_weights.to_names(classifier)
    expected = {"params.head.kernel", "params.conv1.kernel", "batch_stats.norm1.var", "normalization.mean"}
    assert expected <= named.keys() and all(array.flags.c_contiguous for array in named.values())
    np.testing.assert_array_equal(named["params.head.kernel"], classifier.params["head"]["kernel"])
    blank = jax.tree.map(np.zeros_like, classifier)
    chex.assert_trees_all_equal(named_weights.from_names(blank, named), classifier)
