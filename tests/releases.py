"""Released models with random weights, for tests of what is done with releases."""

import jax
import numpy as np
import random_weights

from mpt_jax import models
from mpt_jax.files import released_model
from mpt_jax.models import Classifier


def release(folder, name="convnet", shape=(8, 8, 1), classes=tuple("0123456789"), seed=0, ensemble=0, **options):
    """Write one and return its classifier; its running statistics are not those of a fresh network."""
    module = models.build(name, len(classes), **options)
    keys = jax.random.split(jax.random.key(seed), max(ensemble, 1))
    params, batch_stats = jax.device_get(random_weights.init_each(module, keys, tuple(shape)))
    random = np.random.default_rng(seed)
    shift = lambda leaf: (leaf * 0.05 + random.uniform(0, 0.02, leaf.shape)).astype(leaf.dtype)  # noqa: E731
    batch_stats = jax.tree.map(shift, batch_stats)
    mean, std = (random.uniform(0.2, 0.6, (max(ensemble, 1), shape[-1])).astype(np.float32) for _ in range(2))
    if not ensemble:
        params, batch_stats, mean, std = jax.tree.map(lambda leaf: leaf[0], (params, batch_stats, mean, std))
    classifier = Classifier(module, params, batch_stats, mean=mean, std=std, ensemble=bool(ensemble))
    card = {
        **{"name": folder.name, "method": "old", "release": 0, "seed": seed, "dataset": "made up"},
        **{"image_shape": list(shape), "classes": list(classes), "objective": {}, "parents": {}, "metrics": {}},
        "architecture": {"name": name, "options": options, **({"ensemble": True} if ensemble else {})},
        **{"steps": 1, "seconds": 1.0, "examples_per_second": 1.0},
    }
    released_model.write(folder, classifier, card)
    return classifier
