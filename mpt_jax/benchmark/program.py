"""A population of students as one compiled program: built from shapes alone, or run and timed."""

import contextlib
import inspect
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mpt_jax import data, training
from mpt_jax.benchmark import flops
from mpt_jax.benchmark.workload import Setup, make_inputs, make_state
from mpt_jax.models.convolution import native_convolutions
from mpt_jax.objectives import Objective
from mpt_jax.training import sharding

CALLS = 2  # timed calls per round; the median is used
SECONDS_PER_CALL, FEWEST_STEPS, MOST_STEPS = 3.0, 10, 1000  # if the number of steps per call is not given


def lower(
    setup: Setup, rows: Sequence[Objective], mesh: Mesh, *, native: bool
) -> tuple[Any, Any, Any, jax.stages.Lowered]:
    """Lower the train steps of a population of one seed without allocating any array.

    Args:
      native: use the convolutions of accelerators, whatever platform the program is compiled for.

    Returns:
      State, inputs and images as shapes with shardings, and the lowered program.
    """
    recipe, job = setup.recipe(), setup.job
    images: Any = jax.ShapeDtypeStruct((job.num_images, *job.image_shape), jnp.uint8)
    labels: Any = jax.ShapeDtypeStruct((job.num_images,), jnp.int32)
    inputs = make_inputs(setup, rows, labels)
    state = make_state(recipe, inputs, job.image_shape, len(rows))

    replicated: Any = NamedSharding(mesh, P())

    def shapes(tree: Any, shardings: Any) -> Any:
        return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, shardings)

    inputs = shapes(inputs, sharding.named_shardings(mesh, inputs, training.input_specs()))
    state = shapes(state, sharding.state_shardings(mesh, state))
    window = shapes(data.Window(images), data.Window(replicated))
    bound = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated)
    # A new function, because JAX would reuse a trace made with the other form of convolutions.
    steps = jax.jit(lambda *arguments: inspect.unwrap(training.train_steps)(recipe, mesh, *arguments), donate_argnums=0)
    with native_convolutions() if native else contextlib.nullcontext():
        return state, inputs, window, steps.lower(state, inputs, window, bound, bound)


class Program:
    """The compiled train steps of a population, and the state that they advance.

    Attributes:
      students: the size of the population; `at_once` students train side by side.
      compile_seconds: time to trace, lower and compile, without running.
      program_bytes: device memory of one call: state, inputs and temporaries.
      work: counted FLOPs of a step.
      steps: steps per timed call.
    """

    def __init__(self, setup: Setup, rows: Sequence[Objective], images: jax.Array, labels: jax.Array, mesh: Mesh):
        recipe, inputs = setup.recipe(), training.place(mesh, make_inputs(setup, rows, labels))
        groups = mesh.shape["seeds"] * mesh.shape["objectives"]
        self.students, self.at_once = len(rows), min(recipe.members_at_once * groups, len(rows))
        self.work = flops.step(
            recipe.module,
            [teacher.module for teacher in inputs.teachers.values()],
            setup.job.image_shape,
            batch=recipe.batch_size,
            students=len(rows),
        )
        self.steps_per_epoch = data.steps_per_epoch(len(labels), recipe.batch_size)
        state = make_state(recipe, inputs, images.shape[1:], len(rows))
        self._state = jax.device_put(state, sharding.state_shardings(mesh, state))
        self._window = data.Window(jax.device_put(images, NamedSharding(mesh, P())))  # the mesh may have more devices
        self._inputs, self._step, self._steps_per_call = inputs, 0, recipe.steps_per_call
        started, none = time.perf_counter(), jnp.int32(0)
        self._call = training.train_steps.lower(recipe, mesh, self._state, inputs, self._window, none, none).compile()
        self.compile_seconds = time.perf_counter() - started
        self.program_bytes = program_bytes(self._call)
        self.run(1)  # the first call also allocates
        seconds = 0.0 if setup.steps else self.run(2) / 2
        self.steps = setup.steps or min(MOST_STEPS, max(FEWEST_STEPS, round(SECONDS_PER_CALL / seconds)))
        self.peak_bytes = peak_bytes()

    def run(self, steps: int) -> float:
        """Train for this many more steps, in calls as long as those of a real run; return the seconds it took."""
        end, started = self._step + steps, time.perf_counter()
        while True:  # at least one call, even for 0 steps
            stop = min(end, self._step + self._steps_per_call)
            bounds = jnp.int32(self._step), jnp.int32(stop)
            self._state, values = self._call(self._state, self._inputs, self._window, *bounds)
            self._step = stop
            if stop == end:
                break
        jax.block_until_ready((self._state, values))
        return time.perf_counter() - started

    def milliseconds(self) -> float:
        """Measure a step: the median of a few calls."""
        return 1e3 * statistics.median(self.run(self.steps) for _ in range(CALLS)) / self.steps

    def call_milliseconds(self) -> float:
        """Measure a call of 0 steps: the fixed cost of a call on the host and in the program."""
        return 1e3 * statistics.median(self.run(0) for _ in range(10 * CALLS))


def program_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Return the device memory that one call of a program needs: state, inputs and temporaries."""
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes  # the donated state
        + sizes.temp_size_in_bytes
    )


def peak_bytes() -> int | None:
    """Return the peak memory so far: of the first accelerator, or on a CPU of this process (compiler included)."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
