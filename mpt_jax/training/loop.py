"""The training loop of a stage: calls of the compiled steps, values, checkpoints and signals.

The next call is dispatched before the values of the last one are fetched, so that the device never waits for the host.
"""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

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
from mpt_jax.training import population, sharding, teachers
from mpt_jax.training.member import Sums
from mpt_jax.training.recipe import Recipe
from mpt_jax.training.state import Inputs, TrainState, new_state, place, zero_sums

# Longest call, unless a single step takes longer: a signal takes effect between two calls. It is not shorter because a
# call costs a third of a step of four ResNet-18 on a CPU, whose temporaries are new pages of memory in every call.
SECONDS_PER_CALL = 5.0


def fit(
    recipe: Recipe,
    mesh: Mesh,
    inputs: Inputs,
    images: np.ndarray | data.Stream,
    *,
    folder: pathlib.Path,
    checkpoint_every: int = 1000,
    teacher_digests: Sequence[str] = (),
    on_start: Callable[[int], None] = lambda step: None,
    on_values: Callable[[int, dict[str, np.ndarray]], None] = lambda step, values: None,
    start: Classifier | None = None,
    log: Callable[[str], None] = print,
    checkpoint_seconds: float = 0.0,
    of: Mapping[str, str] = MappingProxyType({}),
    snapshot_every: int = 0,
    on_snapshot: Callable[[int, TrainState], None] = lambda step, state: None,
) -> tuple[TrainState, float]:
    """Train a stage to its end, from its newest intact checkpoint if there is one.

    Calls of the compiled program have at most `steps_per_call` steps, and fewer if steps are slow, which changes no
    result.

    Args:
      mesh: of `sharding.choose_mesh`.
      inputs: with teachers as they were released.
      images: uint8 ``[N, H, W, C]``.
      folder: of the checkpoints.
      checkpoint_every: steps between checkpoints.
      teacher_digests: digests of the teachers, which checkpoints hold in place of the teachers.
      on_start: called once with the number of steps already done.
      on_values: called with the step and the means since the last call, ``[seeds, objectives]`` each, at every multiple
        of `steps_per_call` and of `checkpoint_every`.
      start: initial weights of the members, see `init_state`.
      log: receives messages about damaged checkpoints.
      checkpoint_seconds: longest time between checkpoints, estimated from the time of a step; 0: no limit.
      of: what the checkpoints belong to, see `checkpoint.save`. Those of something else are not used.
      snapshot_every: steps between calls of `on_snapshot`; 0: none.
      on_snapshot: called with the step and the state during training, before a checkpoint of that step. A resumed stage
        repeats the calls since its checkpoint.

    Returns:
      The final state, and the seconds spent over all sessions of this stage, compilation included.

    Raises:
      InputError: the checkpoint was made with other teachers, or none can be used.
      Interrupted: a signal was received; the state has been saved.
    """
    total, image_shape = recipe.total_steps(inputs.num_examples), images.shape[1:]
    feed = make_feed(recipe, mesh, inputs, images)
    inputs = inputs.replace(teachers=teachers.freeze_all(inputs.teachers, inputs.mean, inputs.std))
    inputs = place(mesh, inputs)
    of_members = sharding.member_sharding(mesh, inputs.num_objectives)
    zeros = processes.device_put(zero_sums(recipe, inputs), of_members)
    stage = _Stage(new_state(recipe, mesh, inputs, image_shape, start), zeros)
    checkpoints = _Checkpoints(folder, list(teacher_digests), log, of)
    checkpoints.restore(stage, of_members)
    on_start(stage.step)
    if stage.step == total:
        return stage.state, stage.seconds
    started = time.perf_counter() - stage.seconds
    call = functools.partial(_call, recipe, mesh, inputs, feed, stage)
    call(stage.step)  # compiles, and does no step: a signal has nothing to save meanwhile
    jax.block_until_ready(stage.sums)
    pace = _Pace(feed.steps)

    def end_of_interval(step: int) -> int:
        return min(total, *((step // every + 1) * every for every in (recipe.steps_per_call, checkpoint_every)))

    def settle(begin: int, stop: int, since: int, sums: Sums) -> None:
        """Wait for a call, and report the means at the end of an interval."""
        values = jax.device_get(sums)
        pace.measure(stop - begin)
        if stop == end_of_interval(begin):
            on_values(stop, means(values, stop - since))
        pace.agree()

    with interruption.deferred(), contextlib.closing(feed):
        pending, saved, stopping = None, stage.step, False
        while stage.step < total and not stopping:
            begin, end = stage.step, end_of_interval(stage.step)
            snapshot = (begin // snapshot_every + 1) * snapshot_every if snapshot_every else total
            call(min(end, snapshot, begin + pace.steps_per_call))
            if pending is not None:  # only now, so that the host never makes the device wait
                settle(*pending)
            pending = (begin, stage.step, stage.since, stage.sums)
            if stage.step == end:
                stage.since, stage.sums = end, zeros
            stopping = processes.stop_requested()
            due = 0 < checkpoint_seconds <= (stage.step - saved) * pace.seconds_per_step
            due = due or stage.step % checkpoint_every == 0 or stage.step == total or stopping
            if stage.step == snapshot < total or due:
                settle(*pending)  # before the checkpoint: values of saved steps are never reported again
                pending = None
                if stage.step == snapshot < total:
                    on_snapshot(stage.step, stage.state)
                if due:
                    saved, stage.seconds = stage.step, time.perf_counter() - started
                    checkpoints.save(stage)
                pace.restart()
        processes.share_stop_request()
    return stage.state, stage.seconds


def make_feed(
    recipe: Recipe, mesh: Mesh, inputs: Inputs, images: np.ndarray | data.Stream
) -> data.Feed | data.Resident:
    """Return the source of the images of each call; a stream's batches are those that the program would draw."""
    if not isinstance(images, data.Stream):
        return data.Resident(processes.device_put(images, NamedSharding(mesh, P())), recipe.steps_per_call)
    order_keys, augment_keys = (jax.vmap(jax.random.fold_in, in_axes=(0, None))(inputs.keys, i) for i in (1, 2))
    rows = None if inputs.rows is None else np.asarray(inputs.rows)
    order = data.Shuffled(
        order_keys, augment_keys, num_examples=inputs.num_examples, batch_size=recipe.batch_size, chosen=rows
    )
    return data.Feed(images, order, steps=recipe.steps_per_call, batches=NamedSharding(mesh, P(sharding.BATCH)))


def means(sums: Mapping[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """Return ``sums / steps``, and the loss over the steps that were not skipped: NaN if all of them were.

    Examples:
      >>> {k: float(v) for k, v in means({"loss": np.float32(6), "skipped": np.float32(1)}, 4).items()}
      {'loss': 2.0, 'skipped': 0.25}
    """
    result = {name: total / total.dtype.type(steps) for name, total in sums.items()}
    if "skipped" in result:
        with np.errstate(invalid="ignore", divide="ignore"):
            result["loss"] = result["loss"] / (1 - result["skipped"])
    return result


@dataclasses.dataclass
class _Stage:
    """How far a stage has come; the arrays may not be computed yet."""

    state: TrainState
    sums: Sums  # of the values since the last report
    step: int = 0  # steps done
    since: int = 0  # step of the last report
    seconds: float = 0.0  # spent until the last checkpoint


def _call(
    recipe: Recipe, mesh: Mesh, inputs: Inputs, feed: data.Feed | data.Resident, stage: _Stage, stop: int
) -> None:
    """Dispatch the steps up to `stop`."""
    # Several processes cannot share an array of one device.
    number = np.int32 if processes.is_distributed() else jnp.int32
    window = feed.window(stage.step, stop)
    stage.state, stage.sums = population.train_steps(
        recipe, mesh, stage.state, inputs, window, number(stage.step), number(stop), stage.sums
    )
    stage.step = stop


@dataclasses.dataclass(frozen=True)
class _Checkpoints:
    """The checkpoints of a stage."""

    folder: pathlib.Path
    teacher_digests: list[str]
    log: Callable[[str], None]
    of: Mapping[str, str]

    def restore(self, stage: _Stage, of_members: NamedSharding) -> None:
        """Continue the stage from the newest intact checkpoint, if there is one."""
        restored = checkpoint.restore(self.folder, stage.state, self.log, self.of)
        if restored is None:
            return
        stage.step, stage.state, notes = restored
        if notes["teachers"] != self.teacher_digests:
            raise InputError(
                f"{self.folder} was trained with other teachers; expected the same teachers, or no such folder: remove "
                "it to train this stage again"
            )
        stage.seconds, stage.since = notes["seconds"], notes["since"]
        try:
            sums = {name: np.array(notes["sums"][name], zero.dtype) for name, zero in stage.sums.items()}
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{self._other_sums()} ({type(error).__name__})") from error
        if any(sums[name].shape != zero.shape for name, zero in stage.sums.items()):
            raise InputError(self._other_sums())
        stage.sums = processes.device_put(sums, of_members)

    def _other_sums(self) -> str:
        return f"{self.folder} has the sums of other values than this stage; remove it to train this stage again"

    def save(self, stage: _Stage) -> None:
        """Save the stage; its steps must have been settled."""
        sums = {name: np.asarray(value).tolist() for name, value in stage.sums.items()}
        notes = {"seconds": stage.seconds, "teachers": self.teacher_digests, "since": stage.since, "sums": sums}
        checkpoint.save(self.folder, stage.step, stage.state, notes, self.of)


class _Pace:
    """How long a step takes, and how many steps a call has.

    All processes must make the same calls, so they use the times of the first process.
    """

    def __init__(self, most: int):
        self.steps_per_call, self.seconds_per_step = 1, 0.0
        self._most = most
        self._agreed: list[float] = []
        self.restart()

    def restart(self) -> None:
        """Start the clock of the call that is being dispatched."""
        self._idle_since = time.perf_counter()

    def measure(self, steps: int) -> None:
        """Take the time of a call that has just ended, after which the device began the next one."""
        now = time.perf_counter()
        self.seconds_per_step, self._idle_since = (now - self._idle_since) / steps, now

    def agree(self) -> None:
        """Agree with the other processes on the time of a step, and choose the steps of the next calls."""
        if processes.is_distributed():
            # The first call is a single step. To agree on every call would make the devices wait.
            if len(self._agreed) < 2:
                self._agreed.append(processes.from_first(lambda: self.seconds_per_step))
            self.seconds_per_step = self._agreed[-1]
        self.steps_per_call = max(1, min(self._most, int(SECONDS_PER_CALL / self.seconds_per_step)))
