"""A classifier as a StableHLO program of `jax.export`, with its weights inside."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from mpt_jax import models
from mpt_jax.models import Classifier


def input_dtype(shape: Sequence[int]) -> np.dtype:
    """Return the dtype of raw inputs of this shape: uint8 for images, float32 for features."""
    return np.dtype(np.uint8 if len(shape) == 3 else np.float32)


def serialize(classifier: Classifier, shape: Sequence[int], platforms: Sequence[str]) -> bytes:
    """Return a program that maps raw inputs ``[batch, *shape]`` to float32 logits, for any batch size.

    Normalisation is part of the program, and batch normalisation is folded into the weights.
    """
    folded = models.fold(classifier)
    (batch,) = jax.export.symbolic_shape("batch")
    inputs = jax.ShapeDtypeStruct((batch, *shape), input_dtype(shape))
    logits = jax.jit(lambda inputs: models.logits(folded, inputs).astype(jnp.float32))
    return bytes(jax.export.export(logits, platforms=tuple(platforms))(inputs).serialize())


def deserialize(program: bytes) -> Callable[[Any], jax.Array]:
    """Return the function of a program that `serialize` returned."""
    return jax.export.deserialize(bytearray(program)).call
