"""Layers with PyTorch's initialisation and constants, in any compute dtype."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mpt_jax.models.convolution import at_least_float32, conv2d, depthwise_conv2d, same_padding

_EPSILON = 1e-5  # of batch normalisation, where a network has no other


class Conv(nn.Module):
    """`conv2d` without bias; its parameter has the name and shape of ``nn.Conv``'s.

    ``padding`` is a number of pixels, or ``SAME`` as in TensorFlow (`same_padding`).
    Initialised from a normal distribution of variance ``2 / (features * size ** 2)``, as in torchvision.
    Source: Delving Deep into Rectifiers, He et al., 2015.
    """

    features: int
    size: int
    stride: int = 1
    padding: int | str = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Map ``[batch, height, width, channels]`` to ``[batch, height_out, width_out, features]`` in ``dtype``."""
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        shape = (self.size, self.size, images.shape[-1], self.features)
        kernel = self.param("kernel", init, shape, self.param_dtype).astype(self.dtype)
        same = same_padding(images.shape, self.size, self.stride)
        padding = self.padding if isinstance(self.padding, int) else same
        return conv2d(images.astype(self.dtype), kernel, stride=self.stride, padding=padding)


class DepthwiseConv(nn.Module):
    """`depthwise_conv2d` without bias, padded as TensorFlow's ``SAME``; its parameter is ``[size, size, 1, channels]``.

    Initialised from a normal distribution of variance ``2 / size ** 2``, as in the code of EfficientNet.
    """

    size: int
    stride: int = 1
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Map ``[batch, height, width, channels]`` to ``[batch, height_out, width_out, channels]`` in ``dtype``."""
        init = nn.initializers.normal((2 / self.size**2) ** 0.5)
        shape = (self.size, self.size, 1, images.shape[-1])
        kernel = self.param("kernel", init, shape, self.param_dtype).astype(self.dtype)
        padding = same_padding(images.shape, self.size, self.stride)
        return depthwise_conv2d(images.astype(self.dtype), kernel, stride=self.stride, padding=padding)


def batch_norm(
    images: Array, *, train: bool, folded: bool = False, dtype: Any, name: str, epsilon: float = _EPSILON
) -> Array:
    """Apply ``nn.BatchNorm`` with PyTorch's constants, as a submodule ``name`` of the calling module.

    Computed in at least float32. The recorded variance is that of the batch; PyTorch records ``n / (n - 1)`` times it.

    Args:
        images: ``[batch, ..., channels]``.
        train: whether to use and record the statistics of the batch instead of the running ones.
        folded: whether scale and statistics are in the convolution before it (`fold_batch_norms`), so that only a bias
            is left.
        dtype: of the result.
        name: of the parameters and statistics.
        epsilon: added to the variance.
    """
    wide = at_least_float32(dtype)
    if folded:
        return Bias(wide, name=name)(images.astype(wide)).astype(dtype)
    # Otherwise flax promotes dtypes implicitly and keeps float32 statistics beside float64 parameters.
    norm = nn.BatchNorm(
        momentum=0.9, epsilon=epsilon, dtype=wide, param_dtype=wide, force_float32_reductions=False, name=name
    )
    return norm(images.astype(wide), use_running_average=not train).astype(dtype)


def layer_norm(x: Array, *, dtype: Any, name: str, epsilon: float = 1e-6) -> Array:
    """Apply ``nn.LayerNorm``, as a submodule ``name`` of the calling module.

    Args:
        x: ``[..., features]``.
        dtype: of the result; the computation is in at least float32.
        name: of the parameters.
        epsilon: added to the variance.
    """
    wide = at_least_float32(dtype)
    # Otherwise flax reduces float64 in float32, and computes the variance as a difference of large numbers.
    norm = nn.LayerNorm(
        epsilon=epsilon,
        dtype=wide,
        param_dtype=wide,
        use_fast_variance=False,
        force_float32_reductions=False,
        name=name,
    )
    return norm(x.astype(wide)).astype(dtype)


class Bias(nn.Module):
    """``x + bias``, one number per channel: a folded `batch_norm`."""

    param_dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map ``[..., channels]`` to ``[..., channels]``."""
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        return x + jnp.expand_dims(bias, range(x.ndim - 1))


def fold_batch_norms(
    params: Mapping[str, Any], batch_stats: Mapping[str, Any], epsilon: float = _EPSILON
) -> dict[str, Any]:
    """Return the folded parameters: ``kernel * gamma / sqrt(var + epsilon)``, ``beta - mean * gamma / sqrt(...)``.

    The convolution before ``norm1`` must be named ``conv1``, the one before ``stem_norm`` ``stem_conv``, and so on.
    Leaves may have leading axes.
    """
    folded = dict(params)
    for name, stats in batch_stats.items():
        if "var" not in stats:
            folded[name] = fold_batch_norms(params[name], stats, epsilon)
            continue
        norm, conv = params[name], name.replace("norm", "conv")
        scale = norm["scale"] / (stats["var"] + epsilon) ** 0.5
        folded[conv] = {"kernel": params[conv]["kernel"] * scale[..., None, None, None, :]}
        folded[name] = {"bias": norm["bias"] - stats["mean"] * scale}
    return folded


class Linear(nn.Module):
    """``x @ kernel + bias`` in at least float32, initialised uniformly in ``+-1 / sqrt(inputs)`` as in PyTorch."""

    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Map ``[batch, inputs]`` to ``[batch, features]``."""
        bound = inputs.shape[-1] ** -0.5

        def init(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        kernel = self.param("kernel", init, (inputs.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", init, (self.features,), self.param_dtype)
        dtype = at_least_float32(self.dtype)
        return _product(inputs.astype(dtype), kernel.astype(dtype)) + bias.astype(dtype)[None]


@jax.custom_vjp
def _product(x: Array, matrix: Array) -> Array:
    """Return ``x @ matrix`` of two matrices."""
    return x @ matrix


def _product_backward(inputs: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, matrix = inputs
    # On a CPU the gradient of a head is twice as fast if its transpose is computed, `[outputs, inputs]`; without the
    # barrier XLA would turn one into the other.
    transposed = jax.lax.dot_general(gradient, x, (((0,), (0,)), ((), ())))
    return gradient @ matrix.T, jax.lax.optimization_barrier(transposed).T


_product.defvjp(lambda x, matrix: (x @ matrix, (x, matrix)), _product_backward)


@jax.custom_vjp
def fork(x: Array) -> tuple[Array, Array]:
    """Return ``x`` twice, for the two ways through a residual block ``x + f(x)``.

    On a CPU the sum of their gradients is stored once. XLA would compute it anew wherever it is read, from the last
    block on: the time for the gradients of a network would grow with the square of its blocks.
    """
    return x, x


def _fork_backward(_: None, gradients: tuple[Array, Array]) -> tuple[Array]:
    def stored(ours: Array, theirs: Array) -> Array:
        # A reduction is never computed twice; without the barrier XLA would make an addition of it. Over the first axis
        # it takes ten times as long as over the second.
        return jax.lax.optimization_barrier(jnp.stack([ours, theirs], axis=1)).sum(axis=1)

    return (jax.lax.platform_dependent(*gradients, cpu=stored, default=jnp.add),)


fork.defvjp(lambda x: (fork(x), None), _fork_backward)


def stochastic_depth(rate: float, blocks: int) -> Iterator[float]:
    """Yield the rate of each block: it grows linearly from 0 at the first block to ``rate`` at the last.

    Source: Deep Networks with Stochastic Depth, Huang et al., 2016.

    Examples:
        >>> list(stochastic_depth(0.5, 3))
        [0.0, 0.25, 0.5]
    """
    return (rate * block / max(blocks - 1, 1) for block in range(blocks))


def skipped_at_random(branch: Array, rate: float, train: bool) -> Array:
    """Return a residual branch ``[batch, ...]``; training sets that of an example to zero at this rate.

    The others are divided by ``1 - rate``. A rate above 0 needs the random key ``dropout``.
    """
    axes = tuple(range(1, branch.ndim))
    return nn.Dropout(rate, broadcast_dims=axes, deterministic=not train)(branch)
