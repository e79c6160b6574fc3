"""The training loop: calls of the compiled steps, the next on its way before one ends; values, checkpoints, signals."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mpt_jax import data
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint
from mpt_jax.models import Classifier
from mpt_jax.runtime import interruption, processes
from mpt_jax.training import population, sharding
from mpt_jax.training.population import Inputs, Recipe, TrainState

# At most, where a single step takes less: a signal is heard between two calls. Not shorter, since a call costs as much
# as a third of a step of four ResNet-18 on a CPU, whose temporaries are new pages of memory every time.
SECONDS_PER_CALL = 5.0


def means(sums: Mapping[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """``sums / steps``, the loss over the steps that were not skipped; NaN where all of them were."""
    result = {name: total / total.dtype.type(steps) for name, total in sums.items()}
    if "skipped" in result:
        with np.errstate(invalid="ignore", divide="ignore"):
            result["loss"] = result["loss"] / (1 - result["skipped"])
    return result


def feed_of(recipe: Recipe, mesh: Mesh, inputs: Inputs) -> data.Feed | data.Resident:
    """Where the images of each call come from: of a stream the rows are those that `training.train_steps` would draw.

    Raises:
      InputError: a stream for objectives that draw their batches themselves.
    """
    if not isinstance(inputs.images, data.Stream):
        return data.Resident(processes.device_put(inputs.images, NamedSharding(mesh, P())), recipe.steps_per_call)
    if recipe.sampled:
        raise InputError(
            "learned class rates (balanced_meta_softmax) choose their images on the device, where a stream has them "
            "not; expected dataset.source=memory, or other methods"
        )
    order_keys, augment_keys = (jax.vmap(jax.random.fold_in, in_axes=(0, None))(inputs.keys, i) for i in (1, 2))
    rows = None if inputs.rows is None else np.asarray(inputs.rows)
    order = data.Shuffled(
        order_keys, augment_keys, num_examples=inputs.num_examples, batch_size=recipe.batch_size, chosen=rows
    )
    if mesh.shape["seeds"] * mesh.shape["objectives"] > 1:
        raise InputError("mesh.members splits students whose images are in memory; expected dataset.source=memory")
    batches = NamedSharding(mesh, P(sharding.BATCH))
    return data.Feed(inputs.images, order, steps=recipe.steps_per_call, batches=batches)


def fit(
    recipe: Recipe,
    mesh: Mesh,
    inputs: Inputs,
    *,
    folder: pathlib.Path,
    checkpoint_every: int,
    teachers: Sequence[str],
    on_start: Callable[[int], None],
    on_values: Callable[[int, dict[str, np.ndarray]], None],
    start: Classifier | None = None,
    say: Callable[[str], None] = print,
    checkpoint_seconds: float = 0.0,
) -> tuple[TrainState, float]:
    """Train a stage to its end, from the newest whole checkpoint in `folder` if there is one.

    Tells `say` of damaged checkpoints. A checkpoint does not hold the teachers but `teachers`, their digests, and is
    refused where they have changed.

    Calls `on_start(step)` once with the steps already done, then `on_values(step, means)` at every multiple of
    `steps_per_call` and of `checkpoint_every` with the means since the last one, ``[seeds, objectives]`` each. Calls of
    the compiled program are shorter where steps are slow, which changes no result.

    Args:
      mesh: see `training.mesh_of`.
      inputs: its images an array, or a `data.Stream`, of which every call gets a `data.Window`.
      start: what the members start from instead of random weights, see `training.init_state`.
      checkpoint_seconds: longest time between checkpoints, by how long the steps take; 0: no matter how long.

    Returns:
      The final state, and the seconds spent over all sessions of this stage, compilation included.

    Raises:
      Interrupted: a signal came; what was done until then is saved.
    """
    num_examples = inputs.num_examples
    total = recipe.total_steps(num_examples)
    num_objectives = jax.tree.leaves(inputs.objectives)[0].shape[0]
    mesh = sharding.of_population(mesh, inputs.keys.shape[0], num_objectives)
    teachers_as_run = {
        source: teacher.replace(params={"head": teacher.params["head"]}, batch_stats={})
        if source == "old_head"
        else population.frozen(teacher, inputs.mean, inputs.std)
        for source, teacher in inputs.teachers.items()
    }
    image_shape, feed = inputs.images.shape[1:], feed_of(recipe, mesh, inputs)
    inputs = population.place(mesh, inputs.replace(teachers=teachers_as_run, images=None))
    state = population.new_state(recipe, mesh, inputs, image_shape, start)
    of_members = sharding.of_members(mesh, num_objectives)
    zeros = sums = processes.device_put(population.no_sums(recipe, inputs), of_members)

    def seen(begin: int, stop: int) -> Inputs:
        return inputs.replace(images=feed.window(begin, stop))

    step = since = 0
    seconds = 0.0
    restored = checkpoint.restore(folder, state, say)
    if restored is not None:
        step, state, notes = restored
        seconds, since = notes["seconds"], notes["since"]
        saved = {name: np.array(notes["sums"][name], zeros[name].dtype) for name in zeros}
        sums = processes.device_put(saved, of_members)
        if notes["teachers"] != list(teachers):
            raise InputError(f"{folder} was begun with other teachers; remove that folder to train anew")
    on_start(step)
    if step == total:
        return state, seconds
    started = time.perf_counter() - seconds
    number = np.int32 if processes.is_distributed() else jnp.int32  # on one device it cannot be an argument of several
    steps = functools.partial(population.train_steps, recipe, mesh)
    # Compiles, and does no step: a signal has nothing to save meanwhile.
    state, sums = steps(state, seen(step, step), number(step), number(step), sums)
    jax.block_until_ready(sums)
    free = time.perf_counter()  # when the device had nothing to do, or began with what it does now
    measured: list[float] = []  # seconds of a step in the first process: several all make the same calls

    def end_of_interval(step: int) -> int:
        return min(total, *((step // every + 1) * every for every in (recipe.steps_per_call, checkpoint_every)))

    def settle(begin: int, stop: int, since: int, sums: Any) -> tuple[int, float]:
        """Wait for a call and tell its values at the end of an interval; steps of the next one, seconds of a step."""
        nonlocal free
        sums = jax.device_get(sums)
        now = time.perf_counter()
        seconds_per_step, free = (now - free) / (stop - begin), now
        if stop == end_of_interval(begin):
            on_values(stop, means(sums, stop - since))
        if processes.is_distributed():
            if len(measured) < 2:  # the first call is a single step; to agree on every one would make the devices wait
                measured.append(processes.from_first(lambda: seconds_per_step))
            seconds_per_step = measured[-1]
        return max(1, min(feed.steps, int(SECONDS_PER_CALL / seconds_per_step))), seconds_per_step

    with interruption.deferred(), contextlib.closing(feed):
        pending, steps_per_call, seconds_per_step, saved, stopping = None, 1, 0.0, step, False
        while step < total and not stopping:
            begin, end = step, end_of_interval(step)
            step = min(end, begin + steps_per_call)
            state, sums = steps(state, seen(begin, step), number(begin), number(step), sums)
            if pending is not None:  # waited for only now, so that the host never makes the device wait
                steps_per_call, seconds_per_step = settle(*pending)
            pending = (begin, step, since, sums)
            if step == end:
                since, sums = end, zeros
            stopping = processes.stop_requested()
            due = 0 < checkpoint_seconds <= (step - saved) * seconds_per_step
            if step % checkpoint_every == 0 or step == total or stopping or due:
                # before the save: saved steps are never told again
                (steps_per_call, seconds_per_step), pending = settle(*pending), None
                seconds = time.perf_counter() - started
                told = {name: np.asarray(value).tolist() for name, value in sums.items()}
                notes = {"seconds": seconds, "teachers": list(teachers), "since": since, "sums": told}
                checkpoint.save(folder, step, state, notes)
                free, saved = time.perf_counter(), step
        processes.share_stop_request()
    return state, seconds
