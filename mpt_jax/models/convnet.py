"""A small convolutional network for small images such as the 8x8 digits."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mpt_jax.models.layers import Conv, Linear, batch_norm


class ConvNet(nn.Module):
    """3x3 convolutions, each with batch normalisation and ReLU, the second of stride 2; a linear head on the map.

    With the default ``features`` and 10 classes it has 19 thousand parameters, and takes 235 thousand multiply-adds for
    an image of 8x8x1.

    Attributes:
        num_classes: number of logits.
        features: channels of each convolution.
        dtype: of the computation; the head and the logits have at least float32.
        param_dtype: of the parameters.
        folded: whether batch normalisations are folded into the convolutions, for inference.
    """

    num_classes: int
    features: Sequence[int] = (16, 32, 32)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    folded: bool = False

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """Map normalised images ``[batch, height, width, channels]`` to logits ``[batch, num_classes]``."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = images
        for number, features in enumerate(self.features, start=1):
            x = Conv(features, 3, stride=2 if number == 2 else 1, padding=1, **dtypes, name=f"conv{number}")(x)
            x = nn.relu(batch_norm(x, train=train, folded=self.folded, dtype=self.dtype, name=f"norm{number}"))
        return Linear(self.num_classes, **dtypes, name="head")(x.reshape(x.shape[0], -1))
