"""ResNet-18, -34 and -50 for images of any size, identical to torchvision's layer by layer.

Source: Deep Residual Learning for Image Recognition, He et al., 2016; the stride of a bottleneck is that of its 3x3
convolution ("v1.5").
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mpt_jax.models.convolution import max_pool2d
from mpt_jax.models.layers import Conv, Linear, at_least_float32, batch_norm

STEMS = ("imagenet", "cifar")


class ResNet(nn.Module):
    """A residual network: stem, four stages of blocks, mean over the map, linear head.

    Attributes:
        num_classes: number of logits.
        depths: blocks in each of the four stages.
        bottleneck: whether blocks are 1x1, 3x3, 1x1 convolutions with four times as many outputs, instead of two 3x3.
        stem: ``imagenet`` (7x7 convolution of stride 2, then 3x3 max pool of stride 2) or ``cifar`` (3x3, no pool).
        dtype: of the computation; the head and the logits have at least float32.
        param_dtype: of the parameters.
        folded: whether batch normalisations are folded into the convolutions, for inference.
        remat: whether training keeps only the blocks' inputs and recomputes the rest for the gradient.
    """

    num_classes: int
    depths: Sequence[int]
    bottleneck: bool = False
    stem: str = "imagenet"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    folded: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """Map normalised images ``[batch, height, width, channels]`` to logits ``[batch, num_classes]``."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.stem == "imagenet":
            x = Conv(64, 7, stride=2, padding=3, **dtypes, name="stem_conv")(images)
        elif self.stem == "cifar":
            x = Conv(64, 3, padding=1, **dtypes, name="stem_conv")(images)
        else:
            raise ValueError(f"unknown stem {self.stem!r}; expected one of {', '.join(STEMS)}")
        x = batch_norm(x, train=train, folded=self.folded, dtype=self.dtype, name="stem_norm")
        if self.stem == "imagenet":
            x = max_pool2d(x, size=3, stride=2, padding=1)  # before the ReLU: they commute, and this has fewer pixels
        x = nn.relu(x)
        block_of = nn.remat(Block, static_argnums=(2,)) if self.remat and train else Block
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                x = block_of(
                    64 * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    bottleneck=self.bottleneck,
                    folded=self.folded,
                    **dtypes,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x, train)
        features = jnp.mean(x.astype(at_least_float32(self.dtype)), axis=(1, 2))
        return Linear(self.num_classes, **dtypes, name="head")(features)


class Block(nn.Module):
    """``relu(x + f(x))``, with ``x`` projected by a 1x1 convolution if ``f`` changes its shape."""

    features: int
    stride: int
    bottleneck: bool
    folded: bool
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map ``[batch, height, width, channels]`` to ``features`` channels, or four times as many in a bottleneck."""
        conv = partial(Conv, dtype=self.dtype, param_dtype=self.param_dtype)
        norm = partial(batch_norm, train=train, folded=self.folded, dtype=self.dtype)
        if self.bottleneck:
            outputs = 4 * self.features
            layers = [
                conv(self.features, 1, name="conv1"),
                conv(self.features, 3, self.stride, padding=1, name="conv2"),
                conv(outputs, 1, name="conv3"),
            ]
        else:
            outputs = self.features
            layers = [
                conv(outputs, 3, self.stride, padding=1, name="conv1"),
                conv(outputs, 3, padding=1, name="conv2"),
            ]
        y = x
        for number, layer in enumerate(layers, start=1):
            y = norm(layer(y), name=f"norm{number}")
            if number < len(layers):
                y = nn.relu(y)
        if self.stride != 1 or x.shape[-1] != outputs:
            x = norm(conv(outputs, 1, self.stride, name="project_conv")(x), name="project_norm")
        return nn.relu(x + y)


ResNet18 = partial(ResNet, depths=(2, 2, 2, 2))
ResNet34 = partial(ResNet, depths=(3, 4, 6, 3))
ResNet50 = partial(ResNet, depths=(3, 4, 6, 3), bottleneck=True)
