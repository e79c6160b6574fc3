"""Random weights of networks: initial ones, drawn in one compiled program, and NumPy's, which compile nothing."""

import functools

import jax
import numpy as np

from mpt_jax import models

init = jax.jit(models.init, static_argnums=(0, 2))


@functools.partial(jax.jit, static_argnums=(0, 2))
def init_each(module, keys, image_shape):
    """A stack of networks, one for each key."""
    return jax.vmap(lambda key: models.init(module, key, image_shape))(keys)


def drawn(module, image_shape, seed=0, count=None):
    """Return ``(params, batch_stats)`` drawn by NumPy, none of them 0, or a stack of `count` networks."""
    random = np.random.default_rng(seed)
    lead = () if count is None else (count,)

    def draw(path, leaf):
        values = random.standard_normal((*lead, *leaf.shape), np.float32)
        if path[-1].key in ("var", "scale"):
            values = 1 + 0.5 * np.tanh(values)
        elif path[-1].key == "kernel":
            values *= (leaf.size / leaf.shape[-1]) ** -0.5
        return values.astype(leaf.dtype)

    shapes = jax.eval_shape(lambda key: models.init(module, key, image_shape), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)
