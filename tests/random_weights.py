"""Random weights of networks, drawn in one compiled program: one operation at a time takes twice as long."""

import functools

import jax

from mpt_jax import models

init = jax.jit(models.init, static_argnums=(0, 2))


@functools.partial(jax.jit, static_argnums=(0, 2))
def init_each(module, keys, image_shape):
    """A stack of networks, one for each key."""
    return jax.vmap(lambda key: models.init(module, key, image_shape))(keys)
