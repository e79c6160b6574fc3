"""ResNet-18, -34, -50 and -101 for images of any size, identical to torchvision's layer by layer.

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
from mpt_jax.models.dialect import Dialect
from mpt_jax.models.layers import Conv, Linear, at_least_float32, batch_norm, skipped_at_random, stochastic_depth

STEMS = ("imagenet", "cifar")


class ResNet(nn.Module):
    """A residual network: stem, four stages of blocks, mean over the map, linear head.

    Attributes:
        num_classes: number of logits.
        depths: blocks in each of the four stages.
        bottleneck: whether blocks are 1x1, 3x3, 1x1 convolutions with four times as many outputs, instead of two 3x3.
        stem: ``imagenet`` (7x7 convolution of stride 2, then 3x3 max pool of stride 2) or ``cifar`` (3x3, no pool).
        dropout: probability that training sets a feature before the head to zero.
        drop_path: probability that training skips the last block; it grows linearly from 0 at the first block.
        dtype: of the computation; the head and the logits have at least float32.
        param_dtype: of the parameters.
        folded: whether batch normalisations are folded into the convolutions, for inference.
        remat: whether training keeps only the blocks' inputs and recomputes the rest for the gradient.
    """

    num_classes: int
    depths: Sequence[int]
    bottleneck: bool = False
    stem: str = "imagenet"
    dropout: float = 0.0
    drop_path: float = 0.0
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
        rates = stochastic_depth(self.drop_path, sum(self.depths))
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                x = block_of(
                    64 * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    bottleneck=self.bottleneck,
                    drop_path=next(rates),
                    folded=self.folded,
                    **dtypes,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x, train)
        features = jnp.mean(x.astype(at_least_float32(self.dtype)), axis=(1, 2))
        features = nn.Dropout(self.dropout, deterministic=not train)(features)
        return Linear(self.num_classes, **dtypes, name="head")(features)


class Block(nn.Module):
    """``relu(x + f(x))``, with ``x`` projected by a 1x1 convolution if ``f`` changes its shape."""

    features: int
    stride: int
    bottleneck: bool
    drop_path: float
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
        return nn.relu(x + skipped_at_random(y, self.drop_path, train))


ResNet18 = partial(ResNet, depths=(2, 2, 2, 2))
ResNet34 = partial(ResNet, depths=(3, 4, 6, 3))
ResNet50 = partial(ResNet, depths=(3, 4, 6, 3), bottleneck=True)
ResNet101 = partial(ResNet, depths=(3, 4, 23, 3), bottleneck=True)

_NAMES = Dialect(
    {
        r"stem_conv": "conv1",
        r"stem_norm": "bn1",
        r"stage(\d+)_block(\d+)": lambda found, _: f"layer{found[1]}.{int(found[2]) - 1}",
        r"norm(\d)": r"bn\1",
        r"project_conv": "downsample.0",
        r"project_norm": "downsample.1",
        r"head": "fc",
    }
)
DIALECTS = {"torchvision": _NAMES, "timm": _NAMES}
