"""The steps of a whole population in one compiled program: seeds and objectives over devices, side by side, in turn."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mpt_jax import data
from mpt_jax.objectives import Objective
from mpt_jax.training import batches, sharding, teachers
from mpt_jax.training.batches import Call
from mpt_jax.training.member import Seed, Sums, train_member
from mpt_jax.training.recipe import Recipe
from mpt_jax.training.state import Inputs, SeedInputs, TrainState, input_specs, zero_sums
from mpt_jax.training.step import SeedFacts


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2,))
def train_steps(
    recipe: Recipe,
    mesh: Mesh,
    state: TrainState,
    inputs: Inputs,
    window: data.Window,
    start: jax.Array,
    stop: jax.Array,
    sums: Sums | None = None,
) -> tuple[TrainState, Sums]:
    """Take the steps ``start .. stop-1`` of the whole population.

    The bounds are traced, so one program serves all calls. Members that do not run side by side take all steps in turn,
    so that only one state at a time is worked on. The logits of their teachers on all batches are then recorded first,
    see `teachers.record`.

    Args:
      mesh: of `sharding.choose_mesh`.
      window: the images of these steps.
      start: a number, int32.
      stop: at most ``start + recipe.steps_per_call``.
      sums: of the calls before; None: zeros.

    Returns:
      The state, and `sums` plus ``{"loss", "accuracy"}`` of these steps, each ``[seeds, objectives]``; with
      ``skip_nonfinite`` also the number of steps ``"skipped"``. Values are added step by step, so sums over several
      calls are bit-identical to those of one call.
    """
    if sums is None:
        sums = zero_sums(recipe, inputs)
    numbers = jnp.arange(inputs.keys.shape[0])
    of_members = sharding.members_spec(mesh, inputs.num_objectives)
    of_inputs = input_specs().replace(objectives=P(of_members[1]))
    steps = sharding.over_members(
        mesh,
        functools.partial(_train_seeds, recipe, mesh, of_members[1] is None),
        (of_members, of_inputs, P("seeds") if window.streamed else P(), P(), P(), of_members, P("seeds")),
        of_members,
    )
    state, sums = steps(state, inputs, window, start, stop, sums, numbers)
    # Placed as they came in, so that the next call does not compile again.
    return jax.lax.with_sharding_constraint((state, sums), sharding.state_shardings(mesh, (state, sums)))


def _train_seeds(
    recipe: Recipe,
    mesh: Mesh,
    uneven: bool,
    state: TrainState,
    inputs: Inputs,
    window: data.Window,
    start: jax.Array,
    stop: jax.Array,
    sums: Sums,
    numbers: jax.Array,
) -> tuple[TrainState, Sums]:
    """Do `train_steps` for the members of one group of devices.

    Args:
      uneven: whether the group has all objectives, and trains its share of them.
      numbers: of its seeds.
    """
    call = Call(recipe, mesh, inputs, window, start, stop)
    seeds = SeedInputs(
        teachers=inputs.teachers,
        key=inputs.keys,
        rows=inputs.rows,
        label_scale=inputs.label_scale,
        window=window if window.streamed else None,
        number=numbers,
    )
    at_once = recipe.members_at_once // inputs.num_objectives
    return advance(at_once, functools.partial(_train_seed, call, uneven), (state, sums), seeds)


def _train_seed(call: Call, uneven: bool, state: TrainState, sums: Sums, seed: SeedInputs) -> tuple[TrainState, Sums]:
    """Train the objectives of one seed."""
    recipe, inputs, groups = call.recipe, call.inputs, call.mesh.shape["objectives"]
    of_seed = batches.of_seed(call, seed)
    facts = SeedFacts(inputs.num_examples, of_seed.class_counts, seed.label_scale, teachers.old_head(seed.teachers))
    tape = None
    if teachers.needs_tape(recipe, inputs.num_objectives, groups):
        tape = teachers.record(of_seed, groups)
    train = functools.partial(train_member, Seed(of_seed, facts, tape))
    if uneven:
        return _train_shares(call, train, (state, sums))
    return advance(
        recipe.members_at_once, functools.partial(_train_whole, call, train), (state, sums), inputs.objectives
    )


def _train_whole(
    call: Call, train: Callable, state: TrainState, sums: Sums, objective: Objective
) -> tuple[TrainState, Sums]:
    """Take all steps of a call with one member."""
    return train(state, sums, objective, call.start, call.stop)


def _train_shares(call: Call, train: Callable, carry: tuple[TrainState, Sums]) -> tuple[TrainState, Sums]:
    """Train objectives that do not divide by the groups of devices, see `sharding.assign_members`.

    Args:
      train: `train_member` of a seed.
      carry: leaves ``[objectives, ...]``.
    """
    objectives, groups = call.inputs.objectives, call.mesh.shape["objectives"]
    in_turn = call.recipe.members_at_once == 1
    index, begin, end = map(jnp.asarray, sharding.assign_members(call.inputs.num_objectives, groups, in_pieces=in_turn))

    def one_round(number, carry):
        mine = number, jax.lax.axis_index("objectives")
        own, own_objectives = jax.tree.map(lambda leaf: leaf[index[mine]], (carry, objectives))
        if in_turn:
            steps = call.stop - call.start
            bounds = [call.start + each[mine] * steps // groups for each in (begin, end)]
            own = advance(1, train, own, own_objectives, *bounds)
        else:
            whole = functools.partial(_train_whole, call, train)
            own = advance(call.recipe.members_at_once, whole, own, own_objectives)
        own = jax.lax.all_gather(own, "objectives")
        return jax.tree.map(lambda leaf, part: leaf.at[index[number]].set(part, mode="drop"), carry, own)

    return jax.lax.fori_loop(0, 2 if in_turn else 1, one_round, carry)


def advance(at_once: int, function: Callable[..., tuple], carry: tuple, *args: Any) -> tuple:
    """Return ``function(*carry, *args)`` for each entry of the leading axis of all, at most `at_once` side by side.

    Examples:
      >>> advance(1, lambda total, x: (total + x,), (jnp.zeros(3),), jnp.arange(3.0))[0].tolist()
      [0.0, 1.0, 2.0]
    """
    size = jax.tree.leaves(carry)[0].shape[0]
    if size == 1:  # no batched operations for a lone member
        result = function(*jax.tree.map(lambda leaf: leaf[0], (*carry, *args)))
        return jax.tree.map(lambda leaf: leaf[None], result)
    if at_once >= size:
        return jax.vmap(function)(*carry, *args)
    if at_once > 1:
        return jax.lax.map(lambda packed: function(*packed), (*carry, *args), batch_size=at_once)

    def one(index, carry):
        result = function(*jax.tree.map(lambda leaf: leaf[index], (*carry, *args)))
        return jax.tree.map(lambda leaf, own: jax.lax.dynamic_update_index_in_dim(leaf, own, index, 0), carry, result)

    # A map would write new arrays and copy them over the old ones in every call.
    return jax.lax.fori_loop(0, size, one, carry)
