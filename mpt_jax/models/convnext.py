"""ConvNeXt tiny, small and base for images of any size, identical to torchvision's and timm's layer by layer.

Source: A ConvNet for the 2020s, Liu et al., 2022.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mpt_jax.models.convolution import at_least_float32, conv2d, depthwise_conv2d
from mpt_jax.models.dialect import Dialect
from mpt_jax.models.layers import Linear, layer_norm, skipped_at_random, stochastic_depth


class ConvNeXt(nn.Module):
    """Patches, four stages of blocks with downsampling between them, mean over the map, LayerNorm, linear head.

    Convolutions and linear layers have biases, GELU is exact, and LayerNorm over the channels has epsilon 1e-6. Weights
    start from a normal distribution of standard deviation 0.02, cut off at two of them, as in the paper's code.

    ==============  ===============  =====================  ==========  =============
    name            blocks           channels               parameters  multiply-adds
    ==============  ===============  =====================  ==========  =============
    convnext_tiny    3,  3,  9,  3    96, 192, 384,  768    28,589,128   4.46 billion
    convnext_small   3,  3, 27,  3    96, 192, 384,  768    50,223,688   8.68 billion
    convnext_base    3,  3, 27,  3   128, 256, 512, 1024    88,591,464  15.35 billion
    ==============  ===============  =====================  ==========  =============

    Attributes:
        num_classes: number of logits.
        depths: blocks in each stage.
        features: channels of the first stage; each later one has twice as many.
        dropout: probability that training sets a feature before the head to zero.
        drop_path: probability that training skips the last block; it grows linearly from 0 at the first block.
        dtype: of the computation; LayerNorm, the head and the logits have at least float32.
        param_dtype: of the parameters.
        remat: whether training keeps only the blocks' inputs and recomputes the rest for the gradient.
        patch: side of the first convolution, in pixels; images are at least as large as it times 8.
    """

    num_classes: int
    depths: Sequence[int]
    features: int
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False
    patch: int = 4

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """Map normalised images ``[batch, height, width, channels]`` to logits ``[batch, num_classes]``."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = partial(layer_norm, dtype=self.dtype)
        x = norm(PatchConv(self.features, self.patch, **dtypes, name="stem_conv")(images), name="stem_norm")
        block_of = nn.remat(Block, static_argnums=(2,)) if self.remat and train else Block
        rates = stochastic_depth(self.drop_path, sum(self.depths))
        for stage, depth in enumerate(self.depths, start=1):
            if stage > 1:
                x = norm(x, name=f"stage{stage}_norm")
                x = PatchConv(self.features * 2 ** (stage - 1), 2, **dtypes, name=f"stage{stage}_conv")(x)
            for block in range(1, depth + 1):
                x = block_of(next(rates), **dtypes, name=f"stage{stage}_block{block}")(x, train)
        wide = at_least_float32(self.dtype)
        features = layer_norm(jnp.mean(x.astype(wide), axis=(1, 2)), dtype=wide, name="norm")
        features = nn.Dropout(self.dropout, deterministic=not train)(features)
        return Linear(self.num_classes, **dtypes, name="head")(features)


class PatchConv(nn.Module):
    """A convolution with bias whose stride is its size; pixels that fill no patch are left out."""

    features: int
    size: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Map ``[batch, height, width, channels]`` to ``[batch, height / size, width / size, features]``."""
        shape = (self.size, self.size, images.shape[-1], self.features)
        kernel = self.param("kernel", _INIT, shape, self.param_dtype).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        return conv2d(images.astype(self.dtype), kernel, stride=self.size) + _vector(bias, self.dtype)


class DepthwiseConv(nn.Module):
    """A 7x7 convolution of each channel, with bias; the map keeps its size."""

    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map ``[batch, height, width, channels]`` to the same shape."""
        kernel = self.param("kernel", _INIT, (7, 7, 1, x.shape[-1]), self.param_dtype).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        return depthwise_conv2d(x, kernel, padding=((3, 3), (3, 3))) + _vector(bias, self.dtype)


class Block(nn.Module):
    """``x + layer_scale * mlp(norm(depthwise(x)))``.

    Attributes:
        drop_path: probability that training skips the branch.
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    drop_path: float
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map ``[batch, height, width, channels]`` to the same shape."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=_INIT)
        channels = x.shape[-1]
        y = layer_norm(DepthwiseConv(**dtypes, name="depthwise_conv")(x), dtype=self.dtype, name="norm")
        y = dense(channels, name="fc2")(nn.gelu(dense(4 * channels, name="fc1")(y), approximate=False))
        scale = self.param("layer_scale", nn.initializers.constant(1e-6), (channels,), self.param_dtype)
        return x + skipped_at_random(y * _vector(scale, self.dtype), self.drop_path, train)


_INIT = nn.initializers.truncated_normal(0.02)


def _vector(values: Array, dtype: Any) -> Array:
    """Return ``[channels]`` as ``[1, 1, 1, channels]``."""
    return values.astype(dtype)[None, None, None]


ConvNeXtTiny = partial(ConvNeXt, depths=(3, 3, 9, 3), features=96)
ConvNeXtSmall = partial(ConvNeXt, depths=(3, 3, 27, 3), features=96)
ConvNeXtBase = partial(ConvNeXt, depths=(3, 3, 27, 3), features=128)


def _torchvision_block(found: re.Match[str], module: Any) -> str:
    return f"features.{2 * int(found[1]) - 1}.{int(found[2]) - 1}"


def _timm_block(found: re.Match[str], module: Any) -> str:
    return f"stages.{int(found[1]) - 1}.blocks.{int(found[2]) - 1}"


DIALECTS = {
    "torchvision": Dialect(
        {
            r"stem_conv": "features.0.0",
            r"stem_norm": "features.0.1",
            r"stage(\d)_norm": lambda found, _: f"features.{2 * int(found[1]) - 2}.0",
            r"stage(\d)_conv": lambda found, _: f"features.{2 * int(found[1]) - 2}.1",
            r"stage(\d)_block(\d+)(?=\.layer_scale)": _torchvision_block,
            r"stage(\d)_block(\d+)\.norm": lambda found, module: f"{_torchvision_block(found, module)}.block.2",
            r"stage(\d)_block(\d+)": lambda found, module: f"{_torchvision_block(found, module)}.block",
            r"depthwise_conv": "0",
            r"fc1": "3",
            r"fc2": "5",
            r"norm": "classifier.0",
            r"head": "classifier.2",
        },
        {r".*layer_scale": lambda shape, _: ((*shape, 1, 1), (0, 1, 2))},
    ),
    "timm": Dialect(
        {
            r"stem_conv": "stem.0",
            r"stem_norm": "stem.1",
            r"stage(\d)_norm": lambda found, _: f"stages.{int(found[1]) - 1}.downsample.0",
            r"stage(\d)_conv": lambda found, _: f"stages.{int(found[1]) - 1}.downsample.1",
            r"stage(\d)_block(\d+)\.norm": lambda found, module: f"{_timm_block(found, module)}.norm",
            r"stage(\d)_block(\d+)": _timm_block,
            r"depthwise_conv": "conv_dw",
            r"(fc\d)": r"mlp.\1",
            r"layer_scale": "gamma",
            r"norm": "head.norm",
            r"head": "head.fc",
        },
    ),
}
