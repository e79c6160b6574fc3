"""One population as a compiled program that can be timed; a peer's command; and rounds that alternate between them."""

import contextlib
import dataclasses
import functools
import json
import math
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mpt_jax import data, models, objectives, training
from mpt_jax.benchmark import flops
from mpt_jax.errors import InputError
from mpt_jax.models import Classifier
from mpt_jax.models.convolution import as_on_accelerators
from mpt_jax.objectives import Objective
from mpt_jax.training import TrainState, sharding

CALLS = 2  # timed calls of the program per round, of which the median counts
SECONDS_PER_CALL, FEWEST_STEPS, MOST_STEPS = 3.0, 10, 1000  # where the number of steps per call is not given


@dataclasses.dataclass(frozen=True)
class Job:
    """What a model learns from here: random pixels in the sizes of the model's experiment in `configs/`."""

    image_shape: tuple[int, int, int]
    num_classes: Mapping[str, int]  # of the old release and of the new one
    num_images: int
    batch: int
    crop_padding: int
    flip: bool


DIGITS = Job((8, 8, 1), {"old": 5, "new": 10}, num_images=320, batch=48, crop_padding=0, flip=False)
CIFAR100 = Job((32, 32, 3), {"old": 50, "new": 100}, num_images=50_000, batch=128, crop_padding=4, flip=True)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the measurements of one command have in common; zeros and empty texts stand for the usual values."""

    model: str = "resnet18"
    stem: str = ""
    batch: int = 0
    dtype: str = "float32"
    steps: int = 0  # per timed call
    rounds: int = 3
    members_at_once: int = 0
    peak_tflops: float = 0.0
    image_size: int = 0  # a side
    images: int = 0  # on the device
    accumulate: int = 1
    remat: bool = False
    fsdp: int = 1

    @property
    def job(self) -> Job:
        job = DIGITS if self.model == "convnet" else CIFAR100
        shape = (self.image_size, self.image_size, job.image_shape[2]) if self.image_size else job.image_shape
        num_images = self.images or job.num_images
        return dataclasses.replace(job, batch=self.batch or job.batch, image_shape=shape, num_images=num_images)

    def network(self, source: str = "new") -> nn.Module:
        options = {"stem": self.stem} if self.stem else {}
        return models.build(self.model, self.job.num_classes[source], dtype=self.dtype, **options)

    def recipe(self) -> training.Recipe:
        job, module = self.job, self.network()
        return training.Recipe(
            module=module,
            num_old_classes=job.num_classes["old"],
            batch_size=job.batch,
            epochs=1,
            learning_rate=1e-3,
            momentum=0.9,
            weight_decay=5e-4,
            schedule="constant",
            crop_padding=job.crop_padding,
            flip=job.flip,
            members_at_once=self.members_at_once or training.members_at_once(),
            accumulate=self.accumulate,
            remat=self.remat,
        )


def examples(job: Job, mesh: Mesh, data_dir: str = "") -> tuple[jax.Array, jax.Array]:
    """Images and labels on the device: of CIFAR-100 where its folder is given, else random."""
    if data_dir:
        train = data.load("cifar100", data_dir=data_dir, num_classes=job.num_classes["new"]).train
        images, labels = train.images, train.labels
    else:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (job.num_images, *job.image_shape), np.uint8)
        labels = np.sort(random.integers(0, job.num_classes["new"], job.num_images).astype(np.int32))
    return jax.device_put((images, labels), NamedSharding(mesh, P()))


def make_inputs(setup: Setup, rows: Sequence[Objective], images: jax.Array, labels: jax.Array) -> training.Inputs:
    """The arguments of the train steps: one seed, and random teachers for the sources that the rows name."""
    middle, key = np.full(images.shape[-1], 0.5, np.float32), jax.random.key(0)
    teachers = {}
    for source in dict.fromkeys(source for row in rows for source in objectives.sources(row)):
        module = setup.network(source)
        weights = _fill(*jax.eval_shape(functools.partial(models.init, module, key, images.shape[1:])))
        teacher = training.frozen(Classifier(module, *weights, middle, middle), middle, middle)
        teachers[source] = jax.tree.map(lambda leaf: leaf[None], teacher)
    return training.Inputs(images, labels, middle, middle, jnp.stack([key]), objectives.stack(rows), teachers)


def make_state(recipe: training.Recipe, inputs: training.Inputs, students: int) -> TrainState:
    """What `training.init_state` gives, without its compilation: all students start from the same random weights."""
    rest = (1, inputs.images.shape[1:], len(inputs.labels))
    shapes = jax.eval_shape(lambda keys: training.init_state(recipe, keys, *rest), inputs.keys)
    opt_state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.opt_state)
    one = TrainState(*_fill(shapes.params, shapes.batch_stats), opt_state)
    return jax.tree.map(lambda leaf: np.broadcast_to(leaf, (1, students, *leaf.shape[2:])), one)


def _fill(params: Any, batch_stats: Any) -> tuple[Any, Any]:
    """Arrays of these shapes: random parameters, and ones as statistics."""
    random = np.random.default_rng(0)
    return (
        jax.tree.map(lambda leaf: (0.05 * random.standard_normal(leaf.shape)).astype(leaf.dtype), params),
        jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), batch_stats),
    )


def lower(setup: Setup, rows: Sequence[Objective], mesh: Mesh, *, native: bool) -> tuple[Any, Any, jax.stages.Lowered]:
    """The train steps of a population of one seed without any array: state and inputs as shapes, and the program.

    Args:
      native: with convolutions as accelerators have them, whatever the platform it is compiled for.
    """
    recipe, mesh, job = setup.recipe(), sharding.of_population(mesh, 1, len(rows)), setup.job
    images = jax.ShapeDtypeStruct((job.num_images, *job.image_shape), jnp.uint8)
    labels = jax.ShapeDtypeStruct((job.num_images,), jnp.int32)
    inputs = make_inputs(setup, rows, images, labels)
    state = make_state(recipe, inputs, len(rows))

    def shapes(tree: Any, shardings: Any) -> Any:
        return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, shardings)

    inputs = shapes(inputs, sharding.placed(mesh, inputs, training.input_specs()))
    state = shapes(state, sharding.of_state(mesh, state))
    bound = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, P()))
    # A function of its own: what was traced in the other form before must not be taken for it.
    steps = jax.jit(lambda *arguments: training.train_steps.__wrapped__(recipe, mesh, *arguments), donate_argnums=0)
    with as_on_accelerators() if native else contextlib.nullcontext():
        return state, inputs, steps.lower(state, inputs, bound, bound)


class Program:
    """The compiled train steps of a population, and the state that they advance.

    Attributes:
      students: how many; `at_once` of them side by side.
      compile_seconds: to trace, lower and compile, without running.
      program_bytes: device memory of one call: state, inputs and temporaries.
      work: counted FLOPs of a step.
      steps: per timed call.
    """

    def __init__(self, setup: Setup, rows: Sequence[Objective], images: jax.Array, labels: jax.Array, mesh: Mesh):
        recipe, mesh = setup.recipe(), sharding.of_population(mesh, 1, len(rows))
        inputs = training.place(mesh, make_inputs(setup, rows, images, labels))
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
        state = make_state(recipe, inputs, len(rows))
        self._state = jax.device_put(state, sharding.of_state(mesh, state))
        self._inputs, self._step, self._steps_per_call = inputs, 0, recipe.steps_per_call
        started, none = time.perf_counter(), jnp.int32(0)
        self._call = training.train_steps.lower(recipe, mesh, self._state, inputs, none, none).compile()
        self.compile_seconds = time.perf_counter() - started
        self.program_bytes = program_bytes(self._call)
        self.run(1)  # the first call also allocates
        seconds = 0.0 if setup.steps else self.run(2) / 2
        self.steps = setup.steps or min(MOST_STEPS, max(FEWEST_STEPS, round(SECONDS_PER_CALL / seconds)))
        self.peak_bytes = peak_bytes()

    def run(self, steps: int) -> float:
        """Seconds of so many steps after the last ones, in calls of the size that a run's have."""
        end, started = self._step + steps, time.perf_counter()
        while True:  # at least one call, if only of no steps
            stop = min(end, self._step + self._steps_per_call)
            self._state, values = self._call(self._state, self._inputs, jnp.int32(self._step), jnp.int32(stop))
            self._step = stop
            if stop == end:
                break
        jax.block_until_ready((self._state, values))
        return time.perf_counter() - started

    def milliseconds(self) -> float:
        """Of a step, as the median of a few calls."""
        return 1e3 * statistics.median(self.run(self.steps) for _ in range(CALLS)) / self.steps

    def call_milliseconds(self) -> float:
        """Of a call that does no step: what the host and the program spend once per call, whatever the steps."""
        return 1e3 * statistics.median(self.run(0) for _ in range(10 * CALLS))


def program_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Memory of one device that one call of a program takes: state, inputs and temporaries."""
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
    """The most memory in use so far: of the first accelerator, or on a CPU of this process (compiler included)."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_command(command: str) -> None:
    """Refuse a peer's command that cannot be started, before anything slow has been done.

    Raises:
      InputError: no such program.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"cannot read the command {command!r}: {error}") from error
    if not words or not shutil.which(words[0]):
        raise InputError(f"cannot run {command!r}: no such program; expected a command such as 'python peer.py'")


def peer_milliseconds(command: str, batch: int) -> float:
    """What a command measures: `median_ms` of the JSON object in the last line that it prints.

    Raises:
      InputError: it fails, prints something else, or says that its `batch` is another one.
    """
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{command!r} ended with status {done.returncode}: {last}")
    last = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        said = json.loads(last)
        milliseconds, peers_batch = float(said["median_ms"]), said.get("batch", batch)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{command!r} printed {last[:80]!r}; expected a JSON object with 'median_ms'") from error
    if not (math.isfinite(milliseconds) and milliseconds > 0):
        raise InputError(f"{command!r} measured median_ms={milliseconds}; expected a number above 0")
    if peers_batch != batch:
        raise InputError(f"{command!r} has batch {peers_batch}; expected {batch}, or pass --batch {peers_batch}")
    return milliseconds


def alternate(
    rounds: int, contestants: Mapping[str, Callable[[], float]], say: Callable[[str], None]
) -> dict[str, list[float]]:
    """What each contestant returns in each round; every round asks all of them once.

    Examples:
      >>> ticks = iter(range(9))
      >>> alternate(2, {"a": lambda: next(ticks), "b": lambda: next(ticks)}, say=lambda text: None)
      {'a': [0, 2], 'b': [1, 3]}
    """
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(1, rounds + 1):
        for name, measure in contestants.items():
            values[name].append(measure())
            say(f"round {number} of {rounds}, {name}: {values[name][-1]:.4g} ms")
    return values


def compare(times: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    """The ratio of the medians, and the ratio in each round.

    Examples:
      >>> compare([1.0, 2.0, 6.0], [4.0, 4.0, 4.0])
      {'ratio': 0.5, 'ratios': [0.25, 0.5, 1.5]}
    """
    ratios = [mine / other for mine, other in zip(times, others, strict=True)]
    return {"ratio": statistics.median(times) / statistics.median(others), "ratios": ratios}
