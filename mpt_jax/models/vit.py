"""Vision transformers with class token and learned positions, identical to timm's ``vit_small_patch16_224``.

Source: An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, Dosovitskiy et al., 2021; the small
size is from Training data-efficient image transformers & distillation through attention, Touvron et al., 2021.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mpt_jax.errors import InputError
from mpt_jax.models.layers import Linear, at_least_float32


class ViT(nn.Module):
    """Patches, class token and positions through pre-norm encoder blocks; a linear head on the normalised class token.

    The class token has its own position. All linear layers have biases, those of queries, keys and values included.
    GELU is exact, LayerNorm has epsilon 1e-6, and there is no dropout and no hidden layer before the head. The image
    size at initialisation fixes the position embeddings. Initialisation follows the paper's code: Glorot uniform in the
    blocks, positions normal with standard deviation 0.02, biases and class token zero. The head is as in all networks.

    ========  =====  =====  ======  =====  ===============  =======  ==========  =============
    name      patch  width  blocks  heads  images           classes  parameters  multiply-adds
    ========  =====  =====  ======  =====  ===============  =======  ==========  =============
    vit_s16      16    384      12      6  224x224x3           1000  22,050,664   4.60 billion
    vit_tiny      4    128       6      4  32x32x3              100   1,217,508   83.6 million
    ========  =====  =====  ======  =====  ===============  =======  ==========  =============

    Attributes:
        num_classes: number of logits.
        patch: side of a patch in pixels; image sides must be multiples of it.
        width: features of a token.
        depth: number of blocks.
        heads: attention heads of a block, a divisor of the width; a block's hidden layer has four times the width.
        dtype: of the computation; softmax, LayerNorm, the head and the logits have at least float32.
        param_dtype: of the parameters.
        remat: whether training keeps only the blocks' inputs and recomputes the rest for the gradient.
    """

    num_classes: int
    patch: int
    width: int
    depth: int
    heads: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """Map normalised images ``[batch, height, width, channels]`` to logits ``[batch, num_classes]``.

        Raises:
            InputError: a side of the images is not a multiple of the patch.
        """
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = patches(images, self.patch).astype(self.dtype)
        x = nn.Dense(self.width, **dtypes, name="patch_embedding")(x)
        token = self.param("class_token", nn.initializers.zeros, (self.width,), self.param_dtype)
        tokens = jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], 1, self.width))
        x = jnp.concatenate([tokens, x], axis=1)
        positions = self.param("position_embedding", nn.initializers.normal(0.02), x.shape[1:], self.param_dtype)
        x = x + positions.astype(self.dtype)[None]
        block_of = nn.remat(Block) if self.remat and train else Block
        for number in range(1, self.depth + 1):
            x = block_of(self.heads, **dtypes, name=f"block{number}")(x)
        features = layer_norm(x[:, 0], dtype=at_least_float32(self.dtype), name="norm")
        return Linear(self.num_classes, **dtypes, name="head")(features)


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    The outputs of ``qkv`` are ordered ``[3, heads, width / heads]``: queries, keys, values.
    """

    heads: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map ``[batch, tokens, width]`` to ``[batch, tokens, width]``."""
        batch, tokens, width = x.shape
        # Not timm's normal of standard deviation 0.02: SGD would keep a narrow network at chance for hundreds of steps.
        init = nn.initializers.xavier_uniform()
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=init)
        y = dense(3 * width, name="qkv")(layer_norm(x, dtype=self.dtype, name="norm1"))
        y = attention(*jnp.moveaxis(y.reshape(batch, tokens, 3, self.heads, width // self.heads), 2, 0))
        x = x + dense(width, name="proj")(y.reshape(batch, tokens, width))
        y = dense(4 * width, name="fc1")(layer_norm(x, dtype=self.dtype, name="norm2"))
        return x + dense(width, name="fc2")(nn.gelu(y, approximate=False))


def patches(images: Array, size: int) -> Array:
    """Cut images into square patches, row by row, each as one vector, so that their embedding is one product.

    Args:
        images: ``[batch, height, width, channels]``.
        size: side of a patch in pixels.

    Returns:
        ``[batch, height / size * width / size, size * size * channels]``.

    Raises:
        InputError: a side of the images is not a multiple of the size.

    Examples:
        >>> patches(jnp.arange(8.0).reshape(1, 2, 4, 1), 2).tolist()
        [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
    """
    batch, height, width, channels = images.shape
    if height % size or width % size:
        raise InputError(f"images of {height}x{width} pixels; expected sides that are multiples of the patch, {size}")
    grid = images.reshape(batch, height // size, size, width // size, size, channels)
    return grid.swapaxes(2, 3).reshape(batch, -1, size * size * channels)


def attention(queries: Array, keys: Array, values: Array) -> Array:
    """Return ``softmax(q k^T / sqrt(features)) v`` per head, with the softmax in at least float32.

    Args:
        queries: ``[batch, tokens, heads, features]``.
        keys: of the same shape.
        values: of the same shape.

    Returns:
        ``[batch, tokens, heads, features]`` in the dtype of the values.

    Examples:
        >>> values = jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1)
        >>> attention(jnp.zeros_like(values), values, values).ravel().tolist()
        [2.0, 2.0]
    """
    wide = at_least_float32(queries.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", queries, keys, preferred_element_type=wide)
    weights = nn.softmax(scores * queries.shape[-1] ** -0.5, axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(values.dtype), values)


def layer_norm(x: Array, *, dtype: Any, name: str) -> Array:
    """Apply ``nn.LayerNorm`` with epsilon 1e-6, as a submodule ``name`` of the calling module.

    Args:
        x: ``[..., features]``.
        dtype: of the result; the computation is in at least float32.
        name: of the parameters.
    """
    wide = at_least_float32(dtype)
    # Otherwise flax reduces float64 in float32, and computes the variance as a difference of large numbers.
    norm = nn.LayerNorm(
        epsilon=1e-6,
        dtype=wide,
        param_dtype=wide,
        use_fast_variance=False,
        force_float32_reductions=False,
        name=name,
    )
    return norm(x.astype(wide)).astype(dtype)


ViTSmall = partial(ViT, patch=16, width=384, depth=12, heads=6)
ViTTiny = partial(ViT, patch=4, width=128, depth=6, heads=4)
