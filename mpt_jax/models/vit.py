"""Vision transformers with class token and learned positions, identical to timm's and torchvision's.

Source: An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, Dosovitskiy et al., 2021; the small
size is from Training data-efficient image transformers & distillation through attention, Touvron et al., 2021.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from mpt_jax.errors import InputError
from mpt_jax.models.dialect import HALF, Dialect, Shape
from mpt_jax.models.layers import Linear, at_least_float32, fork, layer_norm, skipped_at_random, stochastic_depth

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": partial(nn.gelu, approximate=False),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),  # of CLIP's first weights
}


class ViT(nn.Module):
    """Patches, class token and positions through pre-norm encoder blocks; a linear head on the normalised class token.

    The class token has its own position. All linear layers have biases, those of queries, keys and values included.
    GELU is exact, LayerNorm has epsilon 1e-6, and there is no hidden layer before the head. The image size at
    initialisation fixes the position embeddings. Initialisation follows the paper's code: Glorot uniform in the
    blocks, positions normal with standard deviation 0.02, biases and class token zero. The head is as in all networks.

    ========  =====  =====  ======  =====  ===============  =======  ===========  =============
    name      patch  width  blocks  heads  images           classes   parameters  multiply-adds
    ========  =====  =====  ======  =====  ===============  =======  ===========  =============
    vit_s16      16    384      12      6  224x224x3           1000   22,050,664   4.60 billion
    vit_b16      16    768      12     12  224x224x3           1000   86,567,656
    vit_b32      32    768      12     12  224x224x3           1000   88,224,232
    vit_l14      14   1024      24     16  224x224x3           1000  304,182,248
    vit_tiny      4    128       6      4  32x32x3              100    1,217,508   83.6 million
    ========  =====  =====  ======  =====  ===============  =======  ===========  =============

    Attributes:
        num_classes: number of logits.
        patch: side of a patch in pixels; image sides must be multiples of it.
        width: features of a token.
        depth: number of blocks.
        heads: attention heads of a block, a divisor of the width; a block's hidden layer has four times the width.
        dropout: probability that training sets a feature before the head to zero.
        drop_path: probability that training skips the branches of the last block; it grows linearly from 0 at the
            first block.
        dtype: of the computation; softmax, LayerNorm, the head and the logits have at least float32.
        param_dtype: of the parameters.
        remat: whether training keeps only the blocks' inputs and recomputes the rest for the gradient.
    """

    num_classes: int
    patch: int
    width: int
    depth: int
    heads: int
    dropout: float = 0.0
    drop_path: float = 0.0
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
        block_of = nn.remat(Block, static_argnums=(2,)) if self.remat and train else Block
        for number, rate in enumerate(stochastic_depth(self.drop_path, self.depth), start=1):
            x = block_of(self.heads, rate, **dtypes, name=f"block{number}")(x, train)
        features = layer_norm(x[:, 0], dtype=at_least_float32(self.dtype), name="norm")
        features = nn.Dropout(self.dropout, deterministic=not train)(features)
        return Linear(self.num_classes, **dtypes, name="head")(features)


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    The outputs of ``qkv`` are ordered ``[3, heads, width / heads]``: queries, keys, values.

    Attributes:
        heads: of the attention.
        drop_path: probability that training skips a branch.
        dtype: of the computation.
        param_dtype: of the parameters.
        activation: of the hidden layer, a key of `ACTIVATIONS`.
        epsilon: of the LayerNorms.
    """

    heads: int
    drop_path: float
    dtype: Any
    param_dtype: Any
    activation: str = "gelu"
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map ``[batch, tokens, width]`` to ``[batch, tokens, width]``."""
        batch, tokens, width = x.shape
        # Not timm's normal of standard deviation 0.02: SGD would keep a narrow network at chance for hundreds of steps.
        init = nn.initializers.xavier_uniform()
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=init)
        norm = partial(layer_norm, dtype=self.dtype, epsilon=self.epsilon)
        x, y = fork(x)
        y = dense(3 * width, name="qkv")(norm(y, name="norm1"))
        y = attention(*jnp.unstack(y.reshape(batch, tokens, 3, self.heads, width // self.heads), axis=2))
        y = dense(width, name="proj")(y.reshape(batch, tokens, width))
        x, y = fork(x + skipped_at_random(y, self.drop_path, train))
        y = ACTIVATIONS[self.activation](dense(4 * width, name="fc1")(norm(y, name="norm2")))
        return x + skipped_at_random(dense(width, name="fc2")(y), self.drop_path, train)


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


def resized_positions(positions: np.ndarray, module: Any, image_shape: Shape) -> np.ndarray:
    """Interpolate learned positions for images of another size: bicubic with antialiasing, as timm does.

    The position of the class token, the first, stays. The original grid is square.

    Args:
        positions: ``[1 + side ** 2, width]``.
        module: a transformer with a ``patch``.
        image_shape: ``(height, width, channels)`` of the new images.

    Returns:
        ``[1 + height / patch * width / patch, width]``.

    Raises:
        InputError: the original grid is not square.

    Examples:
        >>> resized_positions(np.ones((5, 3), np.float32), ViTTiny(10), (12, 8, 3)).shape
        (7, 3)
    """
    token, grid = positions[:1], positions[1:]
    side = round(len(grid) ** 0.5)
    if side * side != len(grid):
        raise InputError(f"{len(positions)} positions; expected those of a class token and of a square grid")
    rows, columns = (pixels // module.patch for pixels in image_shape[:2])
    square = grid.reshape(side, side, -1)
    resized = jax.image.resize(square, (rows, columns, square.shape[-1]), "bicubic", antialias=True)
    return np.concatenate([token, np.asarray(resized).reshape(rows * columns, -1)]).astype(positions.dtype)


def embedded_patches(shape: Shape, module: Any) -> tuple[Shape, Shape]:
    """Return the layout of the patch embedding, in PyTorch a convolution."""
    return (module.patch, module.patch, shape[0] // module.patch**2, shape[1]), (3, 2, 0, 1)


ViTSmall = partial(ViT, patch=16, width=384, depth=12, heads=6)
ViTTiny = partial(ViT, patch=4, width=128, depth=6, heads=4)
ViTBase16 = partial(ViT, patch=16, width=768, depth=12, heads=12)
ViTBase32 = partial(ViT, patch=32, width=768, depth=12, heads=12)
ViTLarge = partial(ViT, patch=14, width=1024, depth=24, heads=16)

_LAYOUTS = {
    r"patch_embedding\.kernel": embedded_patches,
    r"class_token": lambda shape, _: ((1, 1, *shape), (0, 1, 2)),
    r"position_embedding": lambda shape, _: ((1, *shape), (0, 1, 2)),
}
_RESIZED = {"position_embedding": resized_positions}
DIALECTS = {
    # timm has weights of one network for several statistics: these are those of its default, the ones by Google.
    "timm": Dialect(
        {
            r"patch_embedding": "patch_embed.proj",
            r"class_token": "cls_token",
            r"position_embedding": "pos_embed",
            r"block(\d+)": lambda found, _: f"blocks.{int(found[1]) - 1}",
            r"(qkv|proj)": r"attn.\1",
            r"(fc\d)": r"mlp.\1",
        },
        _LAYOUTS,
        HALF,
        resized=_RESIZED,
    ),
    "torchvision": Dialect(
        {
            r"patch_embedding": "conv_proj",
            r"position_embedding": "encoder.pos_embedding",
            r"block(\d+)": lambda found, _: f"encoder.layers.encoder_layer_{int(found[1]) - 1}",
            r"qkv\.(weight|bias)": r"self_attention.in_proj_\1",
            r"proj": "self_attention.out_proj",
            r"fc1": "mlp.0",
            r"fc2": "mlp.3",
            r"norm(\d)": r"ln_\1",
            r"norm": "encoder.ln",
            r"head": "heads.head",
        },
        _LAYOUTS,
        resized=_RESIZED,
    ),
}
