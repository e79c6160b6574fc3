"""A classifier's weights by name, as they are stored in a safetensors file."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mpt_jax.models import Classifier


def to_names(classifier: Classifier) -> dict[str, np.ndarray]:
    """Return the weights as trained, by name: ``params`` or ``batch_stats`` and the path in the network, with dots.

    ``normalization.mean`` and ``normalization.std`` are included. The arrays of an ensemble have an additional leading
    axis.

    Examples:
      >>> from mpt_jax import models
      >>> module = models.build("linear", 2)
      >>> params, batch_stats = models.init(module, jax.random.key(0), (3,))
      >>> sorted(to_names(Classifier(module, params, batch_stats, mean=np.zeros(3), std=np.ones(3))))
      ['normalization.mean', 'normalization.std', 'params.head.bias', 'params.head.kernel']
    """
    tree = {
        "params": classifier.params,
        "batch_stats": classifier.batch_stats,
        "normalization": {"mean": classifier.mean, "std": classifier.std},
    }
    return {_name(path): np.ascontiguousarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def from_names(classifier: Classifier, named: Mapping[str, np.ndarray]) -> Classifier:
    """Return the classifier with its weights replaced by those of these names."""
    tree = {"params": classifier.params, "batch_stats": classifier.batch_stats}
    weights = jax.tree_util.tree_map_with_path(lambda path, _: named[_name(path)], tree)
    return classifier.replace(**weights, mean=named["normalization.mean"], std=named["normalization.std"])


def _name(path: Any) -> str:
    return ".".join(str(key.key) for key in path)
