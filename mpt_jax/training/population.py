"""Train a population: students that differ in seed and in the numbers of their objective, in one compiled program.

Every leaf of a `TrainState` has two leading axes, ``[seeds, objectives]``. A seed is a complete replica, with its own
teachers and its own stream of batches; the objectives of a seed share that stream and one pass of its teachers, and
start from the same weights, so that they differ in nothing but their numbers. Batches, crops and flips are pure
functions of (seed, step), drawn inside the program from images that stay on the device as uint8.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mpt_jax import data, models, objectives, posttraining
from mpt_jax.models import Classifier
from mpt_jax.runtime import processes
from mpt_jax.training import class_rates, device_memory, sharding

_COPIES = 2**30  # bytes of images on all cores of a CPU together


@struct.dataclass
class TrainState:
    """What one step changes; leaves ``[seeds, objectives, ...]``. The step number is kept beside it."""

    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any = None  # moving average of (params, batch_stats), where an objective of the population wants one
    log_rates: Any = None  # of the classes in a batch, ``[K]``, where they are learned


@struct.dataclass
class Inputs:
    """What a population learns from: arguments of the compiled program, never donated, never in a checkpoint."""

    images: jax.Array | data.Window | data.Stream | None  # uint8 ``[N, H, W, C]``; streamed: of one call, see `fit`
    labels: jax.Array  # int32 ``[N]``
    mean: jax.Array  # ``[C]``
    std: jax.Array
    keys: jax.Array  # one typed key per seed, ``[seeds]``
    objectives: objectives.Objective  # leaves ``[objectives]``
    teachers: Mapping[str, Classifier]  # leaves ``[seeds, ...]``; only the sources that the objectives name
    rows: jax.Array | None = None  # int32 ``[seeds, n]``, the images that each seed learns from; None: all
    label_scale: jax.Array | None = None  # ``[seeds, K]``, for objectives with a `bias_power`
    # Sources that answer from a table instead of a network: float32 ``[1 or seeds, N, K_source]``, a row per image.
    tables: Mapping[str, jax.Array] = struct.field(default_factory=dict)

    @property
    def num_examples(self) -> int:
        """How many images each seed learns from."""
        return (self.labels if self.rows is None else self.rows).shape[-1]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The static part of a stage: with it and the shapes, the compiled program is fixed."""

    module: nn.Module
    num_old_classes: int
    batch_size: int
    epochs: int
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: str = "cosine"
    schedule_unit: str = "step"
    skip_nonfinite: bool = False
    accumulate: int = 1
    crop_padding: int = 0
    flip: bool = False
    members_at_once: int = sys.maxsize
    steps_per_call: int = 50
    remat: bool = False
    averaged: bool = False  # whether any objective has an `average`
    sampled: bool = False  # whether all objectives have a `sampler_rate`

    def total_steps(self, num_examples: int) -> int:
        """Steps of the whole stage: epochs times ceil(N / batch size)."""
        return self.epochs * data.steps_per_epoch(num_examples, self.batch_size)


def members_at_once() -> int:
    """How many members run side by side (`vmap`), the rest after them, for a population to be fastest on this platform.

    All of them on an accelerator; one on a CPU, where more side by side on a core are slower.
    """
    return 1 if jax.default_backend() == "cpu" else sys.maxsize


def mesh_of(
    mesh: Mesh, cores: Sequence[jax.Device], module: nn.Module, images: Any, seeds: int, objectives: int
) -> Mesh:
    """The mesh that a population trains on: `mesh`, or as many of `cores` as are of use, each with members of its own.

    Cores are for networks of fewer than a million parameters, whose operations are too short to be worth being shared
    out, and for images in memory: each has a copy of them, all together no more than a GiB.
    """
    params, _ = jax.eval_shape(lambda: models.init(module, jax.random.key(0), images.shape[1:]))
    small = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) < 1_000_000
    if small and not isinstance(images, data.Stream):
        cores = cores[: _COPIES // images.nbytes]
        if cores:
            return sharding.of_cores(cores, seeds, objectives)
    return mesh


def within_memory(recipe: Recipe, mesh: Mesh, inputs: Inputs, limit: int | None) -> Recipe:
    """The recipe with no more members side by side than a device of `limit` bytes can hold, by `device_memory`.

    Unchanged where the limit is not known, or where all of them fit.
    """
    if limit is None:
        return recipe
    seeds, num_objectives = inputs.keys.shape[0], jax.tree.leaves(inputs.objectives)[0].shape[0]
    mesh = sharding.of_population(mesh, seeds, num_objectives)
    rest = (num_objectives, inputs.images.shape[1:], inputs.num_examples)
    state = jax.eval_shape(lambda keys: init_state(recipe, keys, *rest), inputs.keys)
    members = seeds * num_objectives // (mesh.shape["seeds"] * mesh.shape["objectives"])
    images_at_once = recipe.batch_size // sharding.data_devices(mesh) // recipe.accumulate
    activations = device_memory.activations(recipe.module, inputs.images.shape[1:], remat=recipe.remat)
    fit = device_memory.members_side_by_side(
        limit,
        shared=device_memory.of_tree((None if isinstance(inputs.images, data.Stream) else inputs.images, inputs.labels))
        + device_memory.of_tree(inputs.teachers) // mesh.shape["seeds"],
        state=device_memory.of_tree(state) // (seeds * num_objectives * mesh.shape["fsdp"]),
        work=images_at_once * activations + 2 * device_memory.of_tree(state.params) // (seeds * num_objectives),
        members=members,
    )
    return recipe if fit >= members else dataclasses.replace(recipe, members_at_once=min(recipe.members_at_once, fit))


def frozen(teacher: Classifier, mean: Any, std: Any) -> Classifier:
    """A teacher as the train step runs it: folded, and without a normalisation of its own where it is the student's.

    What networks make of the same normalised images before their weights come in is then made once for all of them.
    """
    same = all(
        (np.asarray(ours) == np.asarray(theirs)).all() for ours, theirs in ((teacher.mean, mean), (teacher.std, std))
    )
    return models.fold(teacher.replace(mean=None, std=None) if same else teacher)


def learning_rate(recipe: Recipe, num_examples: int) -> optax.Schedule:
    """The rate at a step: ``lr/2 * (1 + cos(pi * t/T))`` with t the steps (or whole epochs) done, or constant.

    Or "thirds": a tenth, and then a hundredth, of it after one and two thirds of the steps.
    """
    if recipe.schedule == "constant":
        return optax.constant_schedule(recipe.learning_rate)
    if recipe.schedule == "thirds":
        third = recipe.total_steps(num_examples) / 3
        ends = jnp.array([round(third), round(2 * third)], jnp.int32)
        return lambda step: recipe.learning_rate * jnp.power(0.1, (step >= ends).sum(dtype=float))
    unit = data.steps_per_epoch(num_examples, recipe.batch_size) if recipe.schedule_unit == "epoch" else 1
    units = recipe.total_steps(num_examples) // unit

    def cosine(step):
        return recipe.learning_rate * 0.5 * (1.0 + jnp.cos(jnp.asarray(step // unit, float) * (math.pi / units)))

    return cosine


def optimizer(recipe: Recipe, num_examples: int) -> optax.GradientTransformation:
    """SGD as PyTorch's: weight decay is added to the gradient of every parameter before the momentum."""
    rate = learning_rate(recipe, num_examples)
    return optax.chain(optax.add_decayed_weights(recipe.weight_decay), optax.sgd(rate, recipe.momentum))


def init_state(
    recipe: Recipe,
    keys: jax.Array,
    num_objectives: int,
    image_shape: Sequence[int],
    num_examples: int,
    start: Classifier | None = None,
):
    """A fresh `TrainState`: the objectives of a seed start from the same weights.

    Args:
      start: leaves ``[seeds, ...]``, networks of the same architecture whose weights are taken instead of random ones;
        what they lack, the columns of classes they do not know, stays random.
    """

    def one(key, start):
        params, batch_stats = models.init(recipe.module, jax.random.fold_in(key, 0), image_shape)
        if start is not None:
            params, batch_stats = models.warm_start((params, batch_stats), (start.params, start.batch_stats))
        return TrainState(
            params,
            batch_stats,
            optimizer(recipe, num_examples).init(params),
            average=(params, batch_stats) if recipe.averaged else None,
            log_rates=jnp.zeros(recipe.module.num_classes) if recipe.sampled else None,
        )

    spread = lambda leaf: jnp.broadcast_to(leaf[:, None], (leaf.shape[0], num_objectives, *leaf.shape[1:]))  # noqa: E731
    return jax.tree.map(spread, jax.vmap(one)(keys, start))


def new_state(
    recipe: Recipe, mesh: Mesh, inputs: Inputs, image_shape: Sequence[int], start: Classifier | None = None
) -> TrainState:
    """`init_state` made where it stays: each device of the mesh gets its part."""
    num_objectives = jax.tree.leaves(inputs.objectives)[0].shape[0]
    sizes = (num_objectives, image_shape, inputs.num_examples)
    shapes = jax.eval_shape(lambda keys, start: init_state(recipe, keys, *sizes, start), inputs.keys, start)
    initialize = jax.jit(init_state, static_argnums=(0, 2, 3, 4), out_shardings=sharding.of_state(mesh, shapes))
    return initialize(recipe, inputs.keys, *sizes, start)


def input_specs() -> Inputs:
    """How `Inputs` are split over the axes of a mesh: what belongs to a seed goes where it is."""
    of_seeds = ("keys", "teachers", "rows", "label_scale")
    return Inputs(**{field.name: P("seeds") if field.name in of_seeds else P() for field in dataclasses.fields(Inputs)})


def place(mesh: Mesh, inputs: Inputs) -> Inputs:
    """The inputs on the devices of a mesh of `sharding.of_population`."""
    return processes.device_put(inputs, sharding.placed(mesh, inputs, input_specs()))


def train_step(
    recipe,
    num_examples,
    state,
    objective,
    images,
    labels,
    teacher_logits,
    *,
    step=0,
    class_counts=None,
    label_scale=None,
    old_head=None,
):
    """One SGD step of one member on one batch of normalised images: the whole method, without axes or devices.

    With `recipe.accumulate` A the gradient is the mean of those of A micro-batches, the i-th of examples i, i + A, and
    so on. It is the gradient of the whole batch but for BatchNorm, which normalises each micro-batch by its own
    statistics (those of the devices together), as is usual where gradients are accumulated: the whole batch's would
    take one more forward pass for every layer. The running statistics move once a step, by the mean over the
    micro-batches, so that they forget as fast as without.

    Args:
      state: a `TrainState` without leading axes.
      images: floats ``[batch, H, W, C]``.
      labels: int32 ``[batch]``.
      teacher_logits: source name -> logits ``[batch, K_source]``.
      step: steps done before, for what an objective has on a schedule (may be traced).
      class_counts: training images of each class, ``[K]``, for an objective with a balance.
      label_scale: ``[K]``, for an objective with a `bias_power`.
      old_head: ``{"kernel": [D, K_old], "bias": [K_old]}``, for an objective with that source, which sees the
        student's features through it.

    Returns:
      The next state, and ``{"loss", "accuracy"}`` of the batch (before the step); where the recipe skips updates that
      are not finite, also whether this one was ``"skipped"``, with the loss given as 0.
    """

    module = recipe.module.clone(remat=True) if recipe.remat and hasattr(recipe.module, "remat") else recipe.module

    def loss_function(params, images, labels, teacher_logits):
        logits, features, batch_stats = models.train_forward(module, params, state.batch_stats, images)
        answers = dict(teacher_logits)
        if old_head is not None:
            answers["old_head"] = features @ old_head["kernel"] + old_head["bias"][None]
        losses = objectives.per_example_loss(
            objective,
            logits,
            labels,
            answers,
            num_old_classes=recipe.num_old_classes,
            class_counts=class_counts,
            label_scale=label_scale,
            epoch=jnp.asarray(step) // data.steps_per_epoch(num_examples, recipe.batch_size),
            progress=jnp.asarray(step, float) / recipe.total_steps(num_examples),
        )
        accuracy = (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels).mean(dtype=float)
        return losses.mean(), (accuracy, batch_stats)

    def gradient(*batch):
        return jax.value_and_grad(loss_function, has_aux=True)(state.params, *batch)

    batch = (images, labels, teacher_logits)
    (loss, (accuracy, batch_stats)), grads = _mean_over_micro_batches(recipe.accumulate, gradient, batch)
    updates, opt_state = optimizer(recipe, num_examples).update(grads, state.opt_state, state.params)
    before, params = state, optax.apply_updates(state.params, updates)
    if state.average is not None:
        average = posttraining.ema(state.average, (params, batch_stats), objective.average, step)
        state = state.replace(average=average)
    values = {"loss": loss.astype(float), "accuracy": accuracy}
    after = state.replace(params=params, batch_stats=batch_stats, opt_state=opt_state)
    if recipe.skip_nonfinite:
        finite = jnp.isfinite(optax.tree.norm(grads)) & jnp.isfinite(loss)
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
        values |= {"loss": jnp.where(finite, values["loss"], 0.0), "skipped": (~finite).astype(float)}
    return after, values


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2,))
def train_steps(
    recipe: Recipe, mesh: Mesh, state: TrainState, inputs: Inputs, start: jax.Array, stop: jax.Array, sums: Any = None
):
    """Steps ``start .. stop-1`` of the whole population in one call; the bounds are traced, so one program serves all.

    At most `recipe.steps_per_call` steps. Members that do not run side by side each take all steps in turn, so that
    only one state at a time is worked on; their teachers' answers to all batches are then recorded first, by all the
    devices that the objectives are split over, each of them those of its share of the steps.

    Returns:
      The state, and the sums ``{"loss", "accuracy"}`` over these steps, each ``[seeds, objectives]``; also how many
      were ``"skipped"`` where the recipe does. They are added to `sums`, step by step, so that those over several calls
      are the ones of a single call to the last bit.
    """
    if sums is None:
        sums = no_sums(recipe, inputs)
    numbers = jnp.arange(inputs.keys.shape[0])
    of_members = sharding.members_spec(mesh, jax.tree.leaves(inputs.objectives)[0].shape[0])
    specs = (of_members, input_specs().replace(objectives=P(of_members[1])), P(), P(), of_members, P("seeds"))
    steps = sharding.over_members(
        mesh, functools.partial(_train_steps, recipe, mesh, of_members[1] is None), specs, of_members
    )
    state, sums = steps(state, inputs, start, stop, sums, numbers)
    # As they came in: compiled only once.
    return jax.lax.with_sharding_constraint((state, sums), sharding.of_state(mesh, (state, sums)))


def _train_steps(
    recipe: Recipe,
    mesh: Mesh,
    uneven: bool,
    state: TrainState,
    inputs: Inputs,
    start: jax.Array,
    stop: jax.Array,
    sums: Any,
    numbers: jax.Array,
):
    """`train_steps` of the members that one group of devices has; `numbers` are those of their seeds.

    Uneven: every group has all objectives, and trains its share of them.
    """
    num_examples, num_objectives = inputs.num_examples, jax.tree.leaves(inputs.objectives)[0].shape[0]
    per_epoch = data.steps_per_epoch(num_examples, recipe.batch_size)

    def one_seed(state, sums, teachers, key, images_of_seed, label_scale, window, number):
        stream_key, augment_key = jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)
        labels_of_seed = inputs.labels if images_of_seed is None else inputs.labels[images_of_seed]
        class_counts = jnp.bincount(labels_of_seed, length=recipe.module.num_classes)
        old_head = teachers["old_head"].params["head"] if "old_head" in teachers else None

        def batch_of(positions, key):
            """Images, cropped and flipped, labels and tabled answers of these positions among the seed's examples."""
            chosen = positions if images_of_seed is None else images_of_seed[positions]
            images = sharding.split_batch(mesh, inputs.images[chosen])
            images = data.augment(key, images, crop_padding=recipe.crop_padding, flip=recipe.flip)
            return images, inputs.labels[chosen], tabled(chosen)

        def tabled(chosen):
            return {source: table[number % len(table), chosen] for source, table in inputs.tables.items()}

        def draw(step, carry):
            rows, permutation = carry
            epoch, step_in_epoch = step // per_epoch, step % per_epoch
            permutation = jax.lax.cond(step_in_epoch == 0, lambda: permutation_of(epoch), lambda: permutation)
            batch = data.batch_indices(permutation, step_in_epoch, recipe.batch_size)
            return rows.at[step - start].set(batch), permutation

        def permutation_of(epoch):
            return data.epoch_permutation(stream_key, epoch, num_examples)

        if window is None:
            rows = jnp.zeros((recipe.steps_per_call, recipe.batch_size), jnp.int32)
            rows, _ = jax.lax.fori_loop(start, stop, draw, (rows, permutation_of(start // per_epoch)))

        def batch_at(step):
            key = jax.random.fold_in(augment_key, step)
            if window is None:
                return batch_of(rows[step - start], key)
            images = sharding.split_batch(mesh, window.images[step - start])
            images = data.augment(key, images, crop_padding=recipe.crop_padding, flip=recipe.flip)
            chosen = window.rows[step - start]
            return images, inputs.labels[chosen], tabled(chosen)

        def over_steps(function, carry, start, stop):
            """``carry = function(carry, step, images, labels, tabled)`` for each step with its batch."""

            def body(step, carry):
                # The barrier keeps what makes the batch out of the steps' arithmetic: that of a stream is the same.
                return function(carry, step, *jax.lax.optimization_barrier(batch_at(step)))

            return jax.lax.fori_loop(start, stop, body, carry)

        def normalized(images):
            return models.normalize(images, inputs.mean, inputs.std, inputs.mean.dtype)

        def answers(images):
            return {
                source: models.logits(teacher, normalized(images) if teacher.mean is None else images)
                for source, teacher in teachers.items()
                if source != "old_head"  # it answers to the student's features, in the step
            }

        if recipe.accumulate > 1:
            answers = _in_micro_batches(recipe.accumulate, answers)

        recorded, groups, in_turn = None, mesh.shape["objectives"], recipe.members_at_once == 1
        if max(groups, num_objectives / recipe.members_at_once) > 1 and not recipe.sampled:  # those have own batches
            empty = jax.tree.map(
                lambda one: jnp.zeros((recipe.steps_per_call, *one.shape), one.dtype),
                jax.eval_shape(lambda: answers(batch_at(start)[0])),
            )

            def record(number, tape):
                # Also of steps after the last one, where steps do not divide: nobody reads those.
                step = start + groups * number + (jax.lax.axis_index("objectives") if groups > 1 else 0)
                images, *_ = jax.lax.optimization_barrier(batch_at(step))
                return jax.tree.map(lambda all_, one: all_.at[step - start].set(one), tape, answers(images))

            recorded = jax.lax.fori_loop(0, (stop - start + groups - 1) // groups, record, empty)
            if groups > 1:
                recorded = jax.lax.psum(recorded, "objectives")

        def resampled(state, objective, step):
            """The state with better class rates, and a batch drawn by them."""
            keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 3), step), 6)

            def features(positions, key):
                images, labels, _ = batch_of(positions, key)
                _, seen, _ = models.train_forward(recipe.module, state.params, state.batch_stats, normalized(images))
                return seen, labels

            balanced = jnp.where(class_counts > 0, 0.0, -jnp.inf)  # rates of a class-balanced batch
            log_rates = class_rates.improve(
                jnp.where(class_counts > 0, state.log_rates, -jnp.inf),
                keys[0],
                lambda chosen: features(class_rates.positions(keys[1], chosen, class_counts), keys[2]),
                features(
                    class_rates.positions(
                        keys[3], class_rates.draw(keys[4], balanced, recipe.batch_size), class_counts
                    ),
                    keys[2],
                ),
                state.params["head"],
                class_counts=class_counts,
                batch_size=recipe.batch_size,
                head_rate=learning_rate(recipe, num_examples)(step),
                sampler_rate=objective.sampler_rate,
            )
            chosen = class_rates.draw(keys[5], log_rates, recipe.batch_size)
            batch = batch_of(
                class_rates.positions(jax.random.fold_in(keys[5], 1), chosen, class_counts),
                jax.random.fold_in(augment_key, step),
            )
            return state.replace(log_rates=log_rates), batch

        def one_member(state, sums, objective, begin=start, end=stop):
            def step_of_member(carry, step, images, labels, tabled):
                state, sums = carry
                if recipe.sampled:
                    state, (images, labels, tabled) = resampled(state, objective, step)
                teacher_logits = (
                    answers(images) if recorded is None else jax.tree.map(lambda tape: tape[step - start], recorded)
                )
                whole = state.replace(params=sharding.gather_parameters(mesh, state.params))
                state, values = train_step(
                    *(recipe, num_examples, whole, objective, normalized(images), labels, teacher_logits | tabled),
                    step=step,
                    class_counts=class_counts,
                    label_scale=label_scale,
                    old_head=old_head,
                )
                return sharding.split_parameters(mesh, state), jax.tree.map(jnp.add, sums, values)

            return over_steps(step_of_member, (state, sums), begin, end)

        if not uneven:
            return _advance(recipe.members_at_once, one_member, (state, sums), inputs.objectives)
        index, begin, end = map(jnp.asarray, sharding.shares(num_objectives, groups, in_pieces=in_turn))

        def one_round(number, carry):
            mine = number, jax.lax.axis_index("objectives")
            own, own_objectives = jax.tree.map(lambda leaf: leaf[index[mine]], (carry, inputs.objectives))
            bounds = [start + each[mine] * (stop - start) // groups for each in (begin, end)] if in_turn else ()
            own = _advance(recipe.members_at_once, one_member, own, own_objectives, *bounds)
            own = jax.lax.all_gather(own, "objectives")
            return jax.tree.map(lambda leaf, part: leaf.at[index[number]].set(part, mode="drop"), carry, own)

        return jax.lax.fori_loop(0, 2 if in_turn else 1, one_round, (state, sums))

    at_once = recipe.members_at_once // num_objectives
    window = inputs.images if isinstance(inputs.images, data.Window) else None
    per_seed = (inputs.teachers, inputs.keys, inputs.rows, inputs.label_scale, window, numbers)
    return _advance(at_once, one_seed, (state, sums), *per_seed)


def no_sums(recipe: Recipe, inputs: Inputs) -> dict[str, jax.Array]:
    """What `train_steps` adds to at first: zeros ``[seeds, objectives]``."""
    shape = (inputs.keys.shape[0], jax.tree.leaves(inputs.objectives)[0].shape[0])
    return {name: jnp.zeros(shape) for name in ("loss", "accuracy", *(["skipped"] if recipe.skip_nonfinite else []))}


def _mean_over_micro_batches(parts: int, function: Callable, batch: Any) -> Any:
    """The mean of ``function(*micro_batch)`` over the micro-batches, one after the other."""
    if parts == 1:
        return function(*batch)
    pieces = jax.tree.map(functools.partial(_apart, parts), batch)
    shapes = jax.eval_shape(function, *jax.tree.map(lambda leaf: leaf[0], pieces))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    add = lambda total, piece: (jax.tree.map(jnp.add, total, function(*piece)), None)  # noqa: E731
    return jax.tree.map(lambda total: total / parts, jax.lax.scan(add, zeros, pieces)[0])


def _in_micro_batches(parts: int, function: Callable) -> Callable:
    """`function` of a batch, example by example, that works on one micro-batch after the other."""

    def in_parts(batch):
        results = jax.lax.map(function, _apart(parts, batch))
        return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:]), results)

    return in_parts


def _apart(parts: int, leaf: jax.Array) -> jax.Array:
    """``[batch, ...] -> [parts, batch / parts, ...]``, every parts-th example: none moves to another device."""
    return leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1)


def _advance(at_once: int, function: Callable, carry: tuple, *args: Any) -> tuple:
    """``carry = function(*carry, *args)`` for each entry of the leading axis of all, at most `at_once` side by side."""
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

    # A map would write new arrays and copy them over the old ones, in every call.
    return jax.lax.fori_loop(0, size, one, carry)
