"""The memory of a device, and how many members of a population it can train side by side.

These are estimates from shapes, for a choice that is made before anything is compiled. The memory of a compiled program
is reported by `python -m mpt_jax.benchmark step --memory`.
"""

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from mpt_jax import data, models
from mpt_jax.models import parameters
from mpt_jax.models.convolution import native_convolutions
from mpt_jax.training import sharding
from mpt_jax.training.recipe import Recipe
from mpt_jax.training.state import Inputs, init_state

SHARE = 0.85  # of a device's memory that may be planned with; the rest covers fragmentation and what is not counted


def limit() -> int | None:
    """Return the bytes of memory that this process may use on the first device; None if JAX does not report them.

    A CPU reports none; members do not run side by side there.
    """
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def fastest_members_at_once() -> int:
    """Return how many members should run side by side (`vmap`) for speed: all on an accelerator, one on a CPU.

    A CPU core is slower with several side by side.
    """
    return 1 if jax.default_backend() == "cpu" else sys.maxsize


def limit_members(recipe: Recipe, mesh: Mesh, inputs: Inputs, images: Any, limit: int | None) -> Recipe:
    """Return the recipe with at most as many members side by side as fit a device.

    Args:
      mesh: of `sharding.choose_mesh`.
      images: uint8 ``[N, H, W, C]``, an array or a `data.Stream`.
      limit: bytes of a device; None: unknown, and nothing changes.
    """
    if limit is None:
        return recipe
    seeds, num_objectives, shape = inputs.keys.shape[0], inputs.num_objectives, images.shape[1:]
    state = jax.eval_shape(
        lambda keys: init_state(recipe, keys, num_objectives, shape, inputs.num_examples), inputs.keys
    )
    freeze = recipe.optimizer.freeze
    trained, _ = parameters.split(state.params, freeze)
    members = seeds * num_objectives // (mesh.shape["seeds"] * mesh.shape["objectives"])
    images_at_once = recipe.batch_size // sharding.data_devices(mesh) // recipe.optimizer.accumulate
    resident = (None if isinstance(images, data.Stream) else images, inputs.labels)
    fit = members_side_by_side(
        limit,
        shared=tree_bytes(resident) + tree_bytes(inputs.teachers) // mesh.shape["seeds"],
        state=tree_bytes(state) // (seeds * num_objectives * mesh.shape["fsdp"]),
        work=images_at_once * activations(recipe.module, shape, remat=recipe.remat, freeze=freeze, fixed=recipe.fixed)
        + (tree_bytes(state.params) + tree_bytes(trained)) // (seeds * num_objectives),
        members=members,
    )
    return recipe if fit >= members else dataclasses.replace(recipe, members_at_once=min(recipe.members_at_once, fit))


def members_side_by_side(limit: int, *, shared: int, state: int, work: int, members: int) -> int:
    """Return ``(SHARE * limit - shared - members * state) / work``, from 1 to `members`.

    Args:
      limit: bytes of the device.
      shared: bytes that all members use: images, teachers.
      state: bytes that each member keeps: parameters, state of the optimizer, statistics, averages.
      work: bytes that a member takes while it trains: its activations, and its parameters and gradient once more.
      members: that the device has.

    Examples:
      >>> members_side_by_side(100, shared=15, state=5, work=20, members=4)
      2
      >>> members_side_by_side(100, shared=90, state=5, work=20, members=4)
      1
    """
    free = SHARE * limit - shared - members * state
    return max(1, min(members, int(free // work)))


def tree_bytes(tree: Any) -> int:
    """Return the bytes of all arrays of a tree (or of their shapes)."""
    sizes = [math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)]
    return sum(sizes)


def activations(
    module: nn.Module,
    image_shape: Sequence[int],
    *,
    remat: bool = False,
    freeze: Sequence[str] = (),
    fixed: Sequence[str] = (),
) -> int:
    """Return the bytes that one image adds to what the backward pass needs: every array that JAX keeps.

    The convolutions are those of accelerators. A compiler keeps less, because it recomputes cheap arrays
    (normalisations, ReLUs). With `remat`, networks with blocks keep the arrays between blocks and a quarter of the
    rest, for the block that is being recomputed.

    Args:
      freeze: patterns of the parameters without a gradient.
      fixed: of `models.train_forward`.

    Examples:
      >>> activations(models.build("linear", 10), (64,))
      256
      >>> mlp = models.build("mlp", 10)  # its head takes 512 features
      >>> activations(mlp, (64,), freeze=["backbone"])
      2048
    """
    if remat and hasattr(module, "remat"):
        between = _kept(module.clone(remat=True), image_shape, freeze, fixed)
        return between + (_kept(module, image_shape, freeze, fixed) - between) // 4
    return _kept(module, image_shape, freeze, fixed)


def _kept(module: nn.Module, image_shape: Sequence[int], freeze: Sequence[str] = (), fixed: Sequence[str] = ()) -> int:
    params, batch_stats = models.shapes(module, tuple(image_shape))

    def residuals(params: Any, batch_stats: Any, images: jax.Array) -> Any:
        trained, frozen = parameters.split(params, freeze)

        def logits(trained: Any) -> jax.Array:
            params = parameters.merge(trained, frozen)
            return models.train_forward(module, params, batch_stats, images, jax.random.key(0), fixed=fixed)[0]

        return jax.vjp(logits, trained)[1]  # a tree of the arrays that it keeps

    with native_convolutions():
        one, two = (
            tree_bytes(
                jax.eval_shape(residuals, params, batch_stats, jax.ShapeDtypeStruct((n, *image_shape), jnp.float32))
            )
            for n in (1, 2)
        )
    return two - one  # the parameters are among them, but not once per image
