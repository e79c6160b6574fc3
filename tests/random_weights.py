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


def timm_vit(num_classes, side, *, patch, width, depth, channels=3, seed=0):
    """Return random weights of a vision transformer under timm's names, with PyTorch's layout."""
    shapes = {
        **{"cls_token": (1, 1, width), "pos_embed": (1, 1 + (side // patch) ** 2, width)},
        **{"patch_embed.proj.weight": (width, channels, patch, patch), "patch_embed.proj.bias": (width,)},
        **{"norm.weight": (width,), "norm.bias": (width,)},
        **{"head.weight": (num_classes, width), "head.bias": (num_classes,)},
    }
    for block in (f"blocks.{number}" for number in range(depth)):
        shapes |= {f"{block}.{name}.{leaf}": (width,) for name in ("norm1", "norm2") for leaf in ("weight", "bias")}
        linears = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
        for name, (outputs, inputs) in linears.items():
            shapes |= {
                f"{block}.{name}.weight": (outputs * width, inputs * width),
                f"{block}.{name}.bias": (outputs * width,),
            }
    rng = np.random.default_rng(seed)
    return {name: 0.1 * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


TIMM_VIT_TINY = {"patch": 4, "width": 128, "depth": 6}  # `timm_vit` of the network vit_tiny
