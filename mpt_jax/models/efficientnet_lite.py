"""EfficientNet-Lite0 to -Lite4 for images of any size, identical to the published ones layer by layer.

Inverted residual blocks without squeeze-and-excitation, and ReLU6 in place of swish. Sources: EfficientNet: Rethinking
Model Scaling for Convolutional Neural Networks, Tan and Le, 2019; the Lite networks come from the same authors' code.
"""

import math
import re
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mpt_jax.models.dialect import HALF, Dialect
from mpt_jax.models.layers import Conv, DepthwiseConv, Linear, at_least_float32, batch_norm

EPSILON = 1e-3  # of the batch normalisations


class Stage(NamedTuple):
    """Blocks of one shape; the first has the stride, and the channels of the stage before as inputs."""

    blocks: int
    size: int  # of the depthwise kernel
    stride: int
    expansion: int  # hidden channels per input channel
    features: int


# Of Lite0; the others scale channels and numbers of blocks.
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def scaled(width: float, depth: float) -> tuple[Stage, ...]:
    """Return the stages of a scaled network.

    Channels are rounded to multiples of 8, never down by more than a tenth. Numbers of blocks are rounded up; those of
    the first and last stage stay.

    Examples:
        >>> [(stage.blocks, stage.features) for stage in scaled(1.2, 1.4)]
        [(1, 24), (3, 32), (3, 48), (5, 96), (5, 136), (6, 232), (1, 384)]
    """

    def channels(number: int) -> int:
        rounded = max(8, int(number * width + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * number * width else rounded + 8

    first, *middle, last = (stage._replace(features=channels(stage.features)) for stage in STAGES)
    return (first, *(stage._replace(blocks=math.ceil(stage.blocks * depth)) for stage in middle), last)


class EfficientNetLite(nn.Module):
    """Stem, stages of inverted residual blocks, 1x1 convolution, mean over the map, linear head.

    Convolutions are padded as TensorFlow's ``SAME``: with a stride, one side can get a pixel more than the other.

    ==================  =====  =====  ======  ==========  =============
    name                width  depth  images  parameters  multiply-adds
    ==================  =====  =====  ======  ==========  =============
    efficientnet_lite0    1.0    1.0     224   4,652,008    0.39 billion
    efficientnet_lite1    1.0    1.1     240   5,416,680    0.61 billion
    efficientnet_lite2    1.1    1.2     260   6,092,072    0.87 billion
    efficientnet_lite3    1.2    1.4     280   8,197,096    1.62 billion
    efficientnet_lite4    1.4    1.8     300  13,006,568    3.70 billion
    ==================  =====  =====  ======  ==========  =============

    Attributes:
        num_classes: number of logits.
        stages: the blocks, from the stem to the top.
        dropout: probability that training sets a feature before the head to zero.
        drop_path: probability that training skips the last block; it grows linearly from 0 at the first block.
        dtype: of the computation; the head and the logits have at least float32.
        param_dtype: of the parameters.
        folded: whether batch normalisations are folded into the convolutions, for inference.
        remat: whether training keeps only the blocks' inputs and recomputes the rest for the gradient.
        norm_epsilon: of the batch normalisations.
    """

    num_classes: int
    stages: tuple[Stage, ...]
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    folded: bool = False
    remat: bool = False
    norm_epsilon: float = EPSILON

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """Map normalised images ``[batch, height, width, channels]`` to logits ``[batch, num_classes]``."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = partial(batch_norm, train=train, folded=self.folded, dtype=self.dtype, epsilon=self.norm_epsilon)
        x = Conv(32, 3, stride=2, padding="SAME", **dtypes, name="stem_conv")(images)
        x = nn.relu6(norm(x, name="stem_norm"))
        block_of = nn.remat(Block, static_argnums=(2,)) if self.remat and train else Block
        total, before = sum(stage.blocks for stage in self.stages), 0
        for number, stage in enumerate(self.stages, start=1):
            for block in range(stage.blocks):
                x = block_of(
                    stage._replace(stride=stage.stride if block == 0 else 1),
                    drop_path=self.drop_path * before / total,
                    folded=self.folded,
                    norm_epsilon=self.norm_epsilon,
                    **dtypes,
                    name=f"stage{number}_block{block + 1}",
                )(x, train)
                before += 1
        x = nn.relu6(norm(Conv(1280, 1, **dtypes, name="top_conv")(x), name="top_norm"))
        features = jnp.mean(x.astype(at_least_float32(self.dtype)), axis=(1, 2))
        features = nn.Dropout(self.dropout, deterministic=not train)(features)
        return Linear(self.num_classes, **dtypes, name="head")(features)


class Block(nn.Module):
    """Expand by a 1x1 convolution, convolve each channel, project by a 1x1; plus the input if the shape stays."""

    stage: Stage
    drop_path: float
    folded: bool
    norm_epsilon: float
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map ``[batch, height, width, channels]`` to ``stage.features`` channels."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = partial(batch_norm, train=train, folded=self.folded, dtype=self.dtype, epsilon=self.norm_epsilon)
        stage, y = self.stage, x
        if stage.expansion > 1:
            y = Conv(stage.expansion * x.shape[-1], 1, **dtypes, name="expand_conv")(y)
            y = nn.relu6(norm(y, name="expand_norm"))
        y = DepthwiseConv(stage.size, stage.stride, **dtypes, name="depthwise_conv")(y)
        y = nn.relu6(norm(y, name="depthwise_norm"))
        y = norm(Conv(stage.features, 1, **dtypes, name="project_conv")(y), name="project_norm")
        if stage.stride > 1 or x.shape[-1] != stage.features:
            return y
        return x + nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)(y)


EfficientNetLite0 = partial(EfficientNetLite, stages=scaled(1.0, 1.0))
EfficientNetLite1 = partial(EfficientNetLite, stages=scaled(1.0, 1.1))
EfficientNetLite2 = partial(EfficientNetLite, stages=scaled(1.1, 1.2))
EfficientNetLite3 = partial(EfficientNetLite, stages=scaled(1.2, 1.4))
EfficientNetLite4 = partial(EfficientNetLite, stages=scaled(1.4, 1.8))


def _block_number(found: re.Match[str], module: EfficientNetLite) -> str:
    """Return the name of a block in a package that counts the blocks of all stages together."""
    before = sum(stage.blocks for stage in module.stages[: int(found[1]) - 1])
    return f"_blocks.{before + int(found[2]) - 1}"


DIALECTS = {
    "efficientnet_lite_pytorch": Dialect(
        {
            r"stem_conv": "_conv_stem",
            r"stem_norm": "_bn0",
            r"top_conv": "_conv_head",
            r"top_norm": "_bn1",
            r"stage(\d+)_block(\d+)": _block_number,
            r"(expand|depthwise|project)_conv": r"_\1_conv",
            r"expand_norm": "_bn0",
            r"depthwise_norm": "_bn1",
            r"project_norm": "_bn2",
            r"head": "_fc",
        },
        statistics=((127 / 255,) * 3, (128 / 255,) * 3),
    ),
    "timm": Dialect(
        {
            r"stem_conv": "conv_stem",
            r"stem_norm": "bn1",
            r"top_conv": "conv_head",
            r"top_norm": "bn2",
            # The blocks of the first stage do not expand, and timm names their layers otherwise.
            r"stage1_block(\d+)\.project_conv": lambda found, _: f"blocks.0.{int(found[1]) - 1}.conv_pw",
            r"stage1_block(\d+)\.depthwise_norm": lambda found, _: f"blocks.0.{int(found[1]) - 1}.bn1",
            r"stage1_block(\d+)\.project_norm": lambda found, _: f"blocks.0.{int(found[1]) - 1}.bn2",
            r"stage(\d+)_block(\d+)": lambda found, _: f"blocks.{int(found[1]) - 1}.{int(found[2]) - 1}",
            r"expand_conv": "conv_pw",
            r"depthwise_conv": "conv_dw",
            r"project_conv": "conv_pwl",
            r"expand_norm": "bn1",
            r"depthwise_norm": "bn2",
            r"project_norm": "bn3",
            r"head": "classifier",
        },
        statistics=HALF,
    ),
}
