"""Heads on frozen features: a linear layer, with or without a hidden layer before it."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mpt_jax.models.layers import Linear


class LinearHead(nn.Module):
    """``x @ kernel + bias``: softmax regression on features ``[batch, D]``, or on the pixels of images.

    It has ``(D + 1) * num_classes`` parameters and takes ``D * num_classes`` multiply-adds: 51,300 and 51,200 for 512
    features and 100 classes.

    Attributes:
        num_classes: number of logits.
        dtype: of the features; the layer and the logits have at least float32.
        param_dtype: of the parameters.
        columns: the first of the D features that it takes, and the one after the last; None: all of them. So the heads
            of two networks can learn from one array with the features of both.
    """

    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    columns: tuple[int, int] | None = None

    @nn.compact
    def __call__(self, features: Array, train: bool) -> Array:
        """Map normalised features ``[batch, ...]`` to logits ``[batch, num_classes]``."""
        x = features.reshape(features.shape[0], -1)
        if self.columns is not None:
            x = x[:, slice(*self.columns)]
        return Linear(self.num_classes, dtype=self.dtype, param_dtype=self.param_dtype, name="head")(x)


class MLPHead(nn.Module):
    """``relu(x @ kernel + bias)``, then a linear head: for features that no hyperplane separates.

    It has ``(D + 1) * hidden + (hidden + 1) * num_classes`` parameters: 313,956 for 512 features and 100 classes, with
    313,344 multiply-adds.

    Attributes:
        num_classes: number of logits.
        hidden: width of the hidden layer.
        dtype: of the computation; the head and the logits have at least float32.
        param_dtype: of the parameters.
    """

    num_classes: int
    hidden: int = 512
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: Array, train: bool) -> Array:
        """Map normalised features ``[batch, ...]`` to logits ``[batch, num_classes]``."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = features.reshape(features.shape[0], -1)
        x = nn.relu(nn.Dense(self.hidden, **dtypes, kernel_init=nn.initializers.he_normal(), name="hidden")(x))
        return Linear(self.num_classes, **dtypes, name="head")(x)
