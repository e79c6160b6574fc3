"""The train step against PyTorch, and a population against its members, devices and chunks."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from populations import (
    ALL,
    LINEAR,
    OLD,
    ROWS,
    STILL,
    N,
    assert_same,
    long_tailed,
    make_inputs,
    make_recipe,
)

from mpt_jax import data, models, objectives, posttraining, training
from mpt_jax.models import Classifier
from mpt_jax.objectives import METHODS
from mpt_jax.training import loop, sharding


def train(recipe, inputs, steps=6, devices=1, chunks=None):
    """Final state and values of the last chunk after `steps` steps in calls of the given sizes."""
    mesh = sharding.make_mesh(jax.devices()[:devices])
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    inputs = jax.device_put(inputs, replicated)
    rows = jax.tree.leaves(inputs.objectives)[0].shape[0]
    initialize = jax.jit(training.init_state, static_argnums=(0, 2, 3, 4), out_shardings=replicated)
    state, step = initialize(recipe, inputs.keys, rows, inputs.images.shape[1:], N), 0
    for chunk in chunks or [steps]:
        stop = step + chunk
        state, sums = training.train_steps(recipe, mesh, state, inputs, jnp.int32(step), jnp.int32(stop))
        step = stop
    return jax.device_get(state), loop.means(jax.device_get(sums), chunk)


@functools.cache
def exact(seeds, rows, **options):
    """`train` in float64: a ReLU that rounding opens in float32 alone would move a gradient by a thousandth."""
    recipe = {key: options.pop(key) for key in ("members_at_once",) if key in options}
    with jax.enable_x64(True):
        return train(make_recipe("float64", **recipe), make_inputs(seeds, rows, "float64"), **options)


def member(state, seed, row):
    return jax.tree.map(lambda leaf: leaf[seed, row], state)


def assert_close(a, b, tolerance=1e-9):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


@pytest.mark.slow
def test_eight_devices_give_the_result_of_one():
    assert_close(exact((0, 1), ROWS, devices=8), exact((0, 1), ROWS))


@pytest.mark.parametrize("at_once", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3)), 8])
def test_a_population_gives_what_its_members_give_alone(at_once):
    state, values = exact((0, 1), ROWS, members_at_once=at_once)
    rows = (3,) if at_once == 8 else range(4)  # each is a program of its own to compile
    for seed in (0, 1):
        for index in rows:
            alone, alone_values = exact((seed,), (ROWS[index],))
            assert_close(member(state, seed, index), member(alone, 0, 0))
            assert_close(member(values, seed, index), member(alone_values, 0, 0))


def test_seeds_and_objectives_differ_and_objectives_start_equal():
    recipe, inputs = make_recipe(), make_inputs((0, 1), ROWS)
    start = jax.jit(training.init_state, static_argnums=(0, 2, 3, 4))(recipe, inputs.keys, len(ROWS), (8, 8, 1), N)
    kernel = max(jax.tree.leaves(start.params), key=lambda leaf: leaf.size)
    assert_same(kernel[:, 0], kernel[:, 3])
    assert not np.allclose(kernel[0], kernel[1])
    state, _ = exact((0, 1), ROWS, members_at_once=8)
    kernel = max(jax.tree.leaves(state.params), key=lambda leaf: leaf.size)
    pairs = [(kernel[0, i], kernel[0, j]) for i in range(4) for j in range(i)] + [(kernel[0, 0], kernel[1, 0])]
    assert not any(np.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_calls_of_any_size_give_bit_identical_results_from_one_program():
    recipe, inputs = make_recipe(), make_inputs(rows=ROWS)
    whole, _ = train(recipe, inputs, chunks=[9])
    before = training.train_steps._cache_size()
    parts, _ = train(recipe, inputs, chunks=[1, 4, 2, 2])  # epochs end after steps 3, 6, 9: chunks cross them
    assert_same(whole, parts)
    assert training.train_steps._cache_size() == before


def test_the_state_is_donated_and_the_teachers_are_not():
    recipe, inputs = make_recipe(), make_inputs()
    mesh = sharding.make_mesh(jax.devices()[:1])
    inputs = jax.device_put(inputs, jax.devices()[0])
    state = training.init_state(recipe, inputs.keys, 1, (8, 8, 1), N)
    teacher = jax.device_get(inputs.teachers["old"].params)
    after, _ = training.train_steps(recipe, mesh, state, inputs, jnp.int32(0), jnp.int32(2))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert_same(jax.device_get(inputs.teachers["old"].params), teacher)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_members_that_take_turns_are_worked_on_in_place(seeds):
    inputs = make_inputs(seeds, ("no_treatment",) * 16)
    inputs = inputs.replace(images=np.zeros((N, 64, 64, 3), np.uint8), mean=np.zeros(3), std=np.ones(3))
    recipe, none = make_recipe(module=LINEAR, members_at_once=1, **STILL), jnp.int32(0)
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = jax.eval_shape(lambda: training.init_state(recipe, inputs.keys, 16, (64, 64, 3), N))
    sizes = training.train_steps.lower(recipe, mesh, state, inputs, none, none).compile().memory_analysis()
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert sizes.temp_size_in_bytes < 0.7 * held  # one of 16 members, beside that all of one of two seeds


def test_learning_rate_is_the_cosine_per_step_or_per_epoch():
    steps_per_epoch = math.ceil(N / 16)
    for unit, every in (("step", 1), ("epoch", steps_per_epoch)):
        recipe = make_recipe(schedule_unit=unit, learning_rate=0.2, epochs=5)
        schedule = training.learning_rate(recipe, N)
        total = recipe.total_steps(N)
        assert total == 5 * steps_per_epoch
        for step in range(total):
            expected = 0.1 * (1 + math.cos(math.pi * (step // every) / (total // every)))
            assert float(schedule(jnp.int32(step))) == pytest.approx(expected, rel=1e-5)
    constant = training.learning_rate(make_recipe(schedule="constant"), N)
    assert float(constant(jnp.int32(7))) == pytest.approx(0.1)


def test_frozen_teachers_teach_the_same():
    with jax.enable_x64(True):
        recipe, inputs = make_recipe("float64"), make_inputs((0, 1), ROWS, "float64")
        old = inputs.teachers["old"]
        teachers = {
            **inputs.teachers,
            "old": old.replace(mean=0 * old.mean + inputs.mean, std=0 * old.std + inputs.std),
        }
        inputs = inputs.replace(teachers=teachers)
        frozen = {name: training.frozen(teacher, inputs.mean, inputs.std) for name, teacher in teachers.items()}
        assert frozen["old"].mean is None and frozen["new"].mean is not None  # the student's normalisation, its own
        assert_close(train(recipe, inputs.replace(teachers=frozen)), train(recipe, inputs))


@pytest.mark.slow
def test_what_an_objective_has_on_a_schedule_and_the_class_counts_reach_it():
    rows, step = ("mpt_kl_annealed", "balanced_softmax", "no_treatment"), 5
    recipe, inputs = make_recipe(crop_padding=0, flip=False), make_inputs(rows=rows)
    start = jax.jit(training.init_state, static_argnums=(0, 2, 3, 4))(recipe, inputs.keys, len(rows), (8, 8, 1), N)
    weights = jax.device_get(member(start, 0, 0))
    mesh = sharding.make_mesh(jax.devices()[:1])
    _, values = training.train_steps(recipe, mesh, start, inputs, jnp.int32(step), jnp.int32(step + 1))
    stream, epoch = jax.random.fold_in(inputs.keys[0], 1), step // 3  # of 40 images in batches of 16
    batch = data.batch_indices(data.epoch_permutation(stream, epoch, N), step % 3, 16)
    images, labels = inputs.images[batch], inputs.labels[batch]
    variables = {"params": weights.params, "batch_stats": weights.batch_stats}
    normalized = models.normalize(jnp.asarray(images), inputs.mean, inputs.std)
    logits, _ = recipe.module.apply(variables, normalized, train=True, mutable=["batch_stats"])
    answers = {s: models.logits(jax.tree.map(lambda leaf: leaf[0], t), images) for s, t in inputs.teachers.items()}
    for row, value in zip(rows, values["loss"][0], strict=True):
        expected = objectives.per_example_loss(
            *(METHODS[row], logits, labels, answers),
            num_old_classes=OLD,
            class_counts=np.bincount(inputs.labels, minlength=ALL),
            epoch=epoch,
            progress=step / 12,
        )
        assert float(value) == pytest.approx(float(expected.mean()), rel=1e-4)


@pytest.mark.slow
def test_ten_steps_of_mpt_in_float64_agree_with_pytorch():
    torch = pytest.importorskip("torch", reason="parity needs the extra: pip install 'mpt_jax[torch]'")
    import torch_reference
    from torch.nn import functional

    torch.manual_seed(0)
    random = np.random.default_rng(1)
    num_old, num_all, count, batch, epochs = 4, 10, 32, 16, 5
    images = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = random.integers(0, num_all, count)
    orders = [random.permutation(count) for _ in range(epochs)]
    mean, std = np.array([0.49, 0.48, 0.45]), np.array([0.20, 0.20, 0.21])
    student, old, new = (torch_reference.resnet18(k, "imagenet").double() for k in (num_all, num_old, num_all))
    for teacher in (old, new):  # running statistics of their own, not the initial zeros and ones
        for _ in range(3):
            teacher(torch.randn(8, 3, 32, 32, dtype=torch.float64))
        teacher.eval().requires_grad_(False)

    def batches():
        for order in orders:
            for start in range(0, count, batch):
                rows = order[start : start + batch]
                yield images[rows], labels[rows]

    with jax.enable_x64(True):
        build = lambda k: models.build("resnet18", k, stem="imagenet", dtype="float64")  # noqa: E731
        recipe = training.Recipe(build(num_all), num_old, batch, epochs, 0.1, 0.9, 5e-4, schedule_unit="epoch")
        teachers = {
            name: Classifier(build(k), *torch_reference.to_flax(model), mean=mean, std=std)
            for name, model, k in (("old", old, num_old), ("new", new, num_all))
        }
        params, batch_stats = torch_reference.to_flax(student)
        state = training.TrainState(params, batch_stats, training.optimizer(recipe, count).init(params))

        @jax.jit
        def step(state, teachers, x, y):
            teacher_logits = {name: models.logits(teacher, x) for name, teacher in teachers.items()}
            normalized = models.normalize(x, teachers["old"].mean, teachers["old"].std, jnp.float64)
            return training.train_step(recipe, count, state, METHODS["mpt_kl"], normalized, y, teacher_logits)

        losses = []
        for x, y in batches():
            state, values = step(state, teachers, jnp.asarray(x), jnp.asarray(y, jnp.int32))
            losses.append(float(values["loss"]))
        params, batch_stats = jax.device_get((state.params, state.batch_stats))

    def focal_kl(student_logits, teacher_logits, y):
        weight = 1.0 + 5.0 * (teacher_logits.argmax(1) == y).double()
        log_p, p = functional.log_softmax(student_logits / 5, 1), functional.softmax(teacher_logits / 5, 1)
        return (weight * functional.kl_div(log_p, p, reduction="none").sum(1)).mean()

    optimizer = torch.optim.SGD(student.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    torch_losses = []
    for number, (x, y) in enumerate(batches()):
        x = torch.tensor(((x / 255 - mean) / std).transpose(0, 3, 1, 2))
        y = torch.tensor(y)
        z, z_old, z_new = student(x), old(x), new(x)
        biased = torch.cat([z[:, :num_old], z[:, num_old:] + 4.0], 1)
        loss = functional.cross_entropy(biased, y) + focal_kl(z[:, :num_old], z_old, y) + focal_kl(z, z_new, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch_losses.append(loss.item())
        if number % (count // batch) == count // batch - 1:
            schedule.step()

    np.testing.assert_allclose(losses, torch_losses, rtol=0, atol=1e-8)
    expected_params, expected_stats = torch_reference.to_flax(student)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params, jax.device_get(expected_params))
    assert max(jax.tree.leaves(moved)) < 1e-8
    means = [
        (a, b)
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(batch_stats), jax.tree.leaves(expected_stats), strict=True
        )
        if path[-1].key == "mean"
    ]
    assert means and all(np.abs(a - b).max() < 1e-8 for a, b in means)  # (torch's running variance is unbiased)


@pytest.mark.slow
def test_bfloat16_computes_with_float32_weights_and_losses():
    recipe = make_recipe("bfloat16")
    inputs = make_inputs(rows=("no_treatment", "mpt_kl"))
    state, values = train(recipe, inputs)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.batch_stats))} == {"float32"}
    float32, float32_values = train(make_recipe(), inputs)
    assert values["loss"].dtype == np.float32
    np.testing.assert_allclose(values["loss"], float32_values["loss"], rtol=0.05)
    different = jax.tree.map(lambda a, b: bool(np.any(a != b)), state.params, float32.params)
    assert all(jax.tree.leaves(different))


def with_objectives(inputs, *chosen):
    return inputs.replace(objectives=objectives.stack(chosen))


def trajectory(recipe, inputs, steps):
    """The states before and after each of these steps, and the values of each, on the host."""
    mesh = sharding.make_mesh(jax.devices()[:1])
    inputs = jax.device_put(inputs, jax.devices()[0])
    rows = len(inputs.objectives.bias)
    initialize = jax.jit(training.init_state, static_argnums=(0, 2, 3, 4))
    state = initialize(recipe, inputs.keys, rows, inputs.images.shape[1:], inputs.num_examples)
    states, values = [jax.device_get(state)], []
    for step in range(steps):
        state, sums = training.train_steps(recipe, mesh, state, inputs, jnp.int32(step), jnp.int32(step + 1))
        states.append(jax.device_get(state))
        values.append(loop.means(jax.device_get(sums), 1))
    return states, values


def batch_of(key, step, num_examples=N, batch_size=16):
    per_epoch = math.ceil(num_examples / batch_size)
    order = data.epoch_permutation(jax.random.fold_in(key, 1), step // per_epoch, num_examples)
    return np.asarray(data.batch_indices(order, step % per_epoch, batch_size))


@pytest.mark.parametrize(
    "rows_of_objectives",
    [("no_treatment", "balanced_softmax"), pytest.param(("balanced_meta_softmax",), marks=pytest.mark.slow)],
)
def test_a_run_on_some_of_the_images_is_one_that_has_no_others(rows_of_objectives):
    random = np.random.default_rng(3)
    rows = np.stack([np.sort(random.permutation(N)[:23]) for _ in range(2)]).astype(np.int32)
    recipe = make_recipe(module=LINEAR, sampled="balanced_meta_softmax" in rows_of_objectives)
    inputs = make_inputs((0, 1), rows_of_objectives).replace(rows=rows)
    assert inputs.num_examples == 23
    state, values = train(recipe, inputs)
    for seed in (0, 1):
        alone = make_inputs((seed,), rows_of_objectives)
        without = alone.replace(images=alone.images[rows[seed]], labels=alone.labels[rows[seed]])
        as_rows = train(recipe, alone.replace(rows=rows[seed : seed + 1]))
        assert_close(as_rows, train(recipe, without), 1e-6)
        assert_close((member(state, seed, 0), member(values, seed, 0)), jax.tree.map(lambda x: x[0, 0], as_rows), 1e-4)
    assert np.abs(state.params["head"]["kernel"][0] - state.params["head"]["kernel"][1]).max() > 1e-2


@pytest.mark.slow
def test_the_average_is_that_of_the_weights_and_statistics_of_every_step():
    decays, steps = (0.7, 0.0, 0.999), 5
    recipe = make_recipe(averaged=True)
    inputs = with_objectives(make_inputs(rows=("ema",)), *(METHODS["ema"].replace(average=d) for d in decays))
    states, _ = trajectory(recipe, inputs, steps)
    past = [(state.params, state.batch_stats) for state in states[1:]]
    for row, decay in enumerate(decays):
        weights = np.array([decay ** (steps - 1 - i) for i in range(steps)])
        weights = weights / weights.sum()
        mean = lambda *leaves, w=weights: np.tensordot(w, np.stack(leaves).astype(float), 1)  # noqa: E731
        expected = jax.tree.map(mean, *(member(each, 0, row) for each in past))
        assert_close(member(states[-1].average, 0, row), expected, 1e-6)
    assert_same(member(states[-1].average, 0, 1), member(past[-1], 0, 1))
    running = past[0]
    for step, each in enumerate(past):
        running = jax.tree.map(jnp.asarray, posttraining.ema(running, each, 0.7, step))
    assert_close(member(states[-1].average, 0, 0), member(jax.device_get(running), 0, 0), 1e-6)
    plain, _ = trajectory(make_recipe(module=recipe.module), inputs, steps)  # an average is only looked at
    assert_close((plain[-1].params, plain[-1].opt_state), (states[-1].params, states[-1].opt_state), 1e-6)
    assert plain[-1].average is None


def test_an_update_that_is_not_finite_leaves_the_state_and_is_counted():
    bad, steps = 7, 6
    random = np.random.default_rng(0)
    clean = make_inputs(rows=("no_treatment", "label_smoothing")).replace(
        images=random.normal(size=(N, 4)).astype(np.float32), mean=np.zeros(4, np.float32), std=np.ones(4, np.float32)
    )
    clean = with_objectives(clean, *(METHODS[row].replace(average=0.5) for row in ("no_treatment", "label_smoothing")))
    images = clean.images.copy()
    images[bad, 2] = np.inf
    recipe = make_recipe(module=LINEAR, averaged=True, skip_nonfinite=True, **STILL)
    states, values = trajectory(recipe, clean.replace(images=images), steps)
    skipped = [bad in batch_of(clean.keys[0], step) for step in range(steps)]
    assert 2 <= sum(skipped) < steps  # at least once an epoch
    for before, after, means, is_skipped in zip(states, states[1:], values, skipped, strict=False):
        same = jax.tree.map(np.array_equal, before, after)
        assert all(jax.tree.leaves(same)) == is_skipped
        np.testing.assert_array_equal(means["skipped"], float(is_skipped))
        assert (np.isfinite(means["loss"]) == (not is_skipped)).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[-1]))
    _, whole = train(recipe, clean.replace(images=images), steps=3)  # an epoch in one call
    np.testing.assert_allclose(whole["skipped"], sum(skipped[:3]) / 3, rtol=1e-6)
    done = [value["loss"] for value, skip in zip(values[:3], skipped[:3], strict=True) if not skip]
    np.testing.assert_allclose(whole["loss"], np.mean(done, 0), rtol=1e-5)
    guarded, guarded_values = train(recipe, clean)
    plain, plain_values = train(make_recipe(module=LINEAR, averaged=True, **STILL), clean)
    assert_close(guarded, plain, 1e-6)
    assert (guarded_values.pop("skipped") == 0).all()
    assert_close(guarded_values, plain_values, 1e-6)
    broken, _ = train(make_recipe(module=LINEAR, averaged=True, **STILL), clean.replace(images=images))
    assert not np.isfinite(broken.params["head"]["kernel"]).all()


def test_a_number_that_is_not_finite_harms_no_neighbour():
    recipe = make_recipe(module=LINEAR, skip_nonfinite=True)
    inputs = make_inputs(rows=("no_treatment",))
    plain = METHODS["no_treatment"]
    states, values = trajectory(recipe, with_objectives(inputs, plain, plain.replace(cross_entropy=np.nan)), 3)
    assert_same(member(states[-1], 0, 1), member(states[0], 0, 1))
    np.testing.assert_array_equal([value["skipped"][0] for value in values], [[0, 1]] * 3)
    alone, _ = train(make_recipe(module=LINEAR), inputs, steps=3)
    assert_close(member(states[-1], 0, 0), member(alone, 0, 0), 1e-5)


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def first_logits(state, images):
    """Of the linear network, in NumPy; mean and std as in `make_inputs`."""
    x = ((images / 255 - 0.4) / 0.3).reshape(len(images), -1)
    return x @ state.params["head"]["kernel"][0, 0].astype(float) + state.params["head"]["bias"][0, 0]


def test_the_old_head_judges_the_features_of_the_student_and_teaches_them():
    rate, hidden = 0.05, 6
    random = np.random.default_rng(5)
    with jax.enable_x64(True):
        inputs = with_objectives(make_inputs(rows=("no_treatment",), dtype="float64"), METHODS["bct"])
        module = models.MODELS["mlp"](ALL, hidden=hidden, dtype=jnp.float64, param_dtype=jnp.float64)
        old = module.clone(num_classes=OLD)
        params, _ = random_weights.init(old, jax.random.key(8), (8, 8, 1))
        old_head = jax.tree.map(lambda leaf: random.normal(size=(1, *leaf.shape)), params["head"])
        teacher = Classifier(old, {"head": old_head}, {}, mean=np.zeros((1, 1)), std=np.ones((1, 1)))
        inputs = inputs.replace(teachers={"old_head": teacher})
        numbers = {"learning_rate": rate, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
        recipe = make_recipe("float64", module=module, **numbers, **STILL)
        (start, after), (values,) = trajectory(recipe, inputs, 1)
    batch = batch_of(inputs.keys[0], 0)
    images, labels = inputs.images[batch], inputs.labels[batch]
    x = ((images / 255 - 0.4) / 0.3).reshape(len(batch), -1)
    rows = np.arange(len(batch))

    def loss(params):
        features = np.maximum(x @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
        plain = -log_softmax(features @ params["head"]["kernel"] + params["head"]["bias"])[rows, labels]
        by_old = -log_softmax(features @ old_head["kernel"][0] + old_head["bias"][0])
        return (plain + np.where(labels < OLD, by_old[rows, np.minimum(labels, OLD - 1)], 0)).mean()

    params = jax.tree.map(lambda leaf: leaf[0, 0], start.params)
    assert float(values["loss"][0, 0]) == pytest.approx(loss(params), rel=1e-9)
    assert 0 < (labels < OLD).mean() < 1
    step = 1e-6
    for part in ("hidden", "head"):
        for leaf in ("kernel", "bias"):
            direction = random.normal(size=params[part][leaf].shape)
            move = lambda by, p=part, k=leaf, d=direction: {**params, p: {**params[p], k: params[p][k] + by * d}}  # noqa: E731
            expected = (loss(move(step)) - loss(move(-step))) / (2 * step)
            moved = (params[part][leaf] - after.params[part][leaf][0, 0]) / rate
            np.testing.assert_allclose((moved * direction).sum(), expected, rtol=1e-5, atol=1e-8)


def test_a_student_starts_from_what_the_old_model_knows():
    recipe = make_recipe(averaged=True)
    inputs = make_inputs((0, 1), ("pct_lm",))
    old = inputs.teachers["old"]
    initialize = jax.jit(training.init_state, static_argnums=(0, 2, 3, 4))
    arguments = (recipe, inputs.keys, 2, (8, 8, 1), N)
    fresh, started = jax.device_get((initialize(*arguments), initialize(*arguments, old)))
    for row in (0, 1):
        for part, leaves in old.params.items():
            for name, leaf in leaves.items():
                ours, random = (state.params[part][name][:, row] for state in (started, fresh))
                np.testing.assert_array_equal(ours[..., : leaf.shape[-1]], leaf)
                np.testing.assert_array_equal(ours[..., leaf.shape[-1] :], random[..., leaf.shape[-1] :])
                assert (ours.shape != leaf.shape) == (part == "head")
        assert_same(jax.tree.map(lambda leaf, r=row: leaf[:, r], started.batch_stats), jax.device_get(old.batch_stats))
    assert not np.allclose(fresh.params["head"]["kernel"][..., :OLD], started.params["head"]["kernel"][..., :OLD])
    assert_same(started.opt_state, fresh.opt_state)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(started.opt_state))
    assert_same(started.average, (started.params, started.batch_stats))


@pytest.mark.slow
def test_teachers_answer_to_the_batch_that_the_learned_rates_draw():
    objective = objectives.Objective(0.0, terms=(objectives.Term("new", "lm"),), sampler_rate=0.1)
    for at_once in (1, 8):
        recipe = make_recipe(module=LINEAR, sampled=True, members_at_once=at_once)
        inputs = with_objectives(long_tailed(), objective, objective.replace(sampler_rate=0.2))
        start = jax.jit(training.init_state, static_argnums=(0, 2, 3, 4))(recipe, inputs.keys, 1, (8, 8, 1), N)
        params = jax.tree.map(lambda leaf: leaf[:, 0], start.params)
        teacher = Classifier(LINEAR, params, {}, mean=inputs.mean[None], std=inputs.std[None])
        _, (values,) = trajectory(recipe, inputs.replace(teachers={"new": teacher}), 1)
        np.testing.assert_allclose(values["loss"], 0, atol=1e-10)  # teacher and student are the same network
        _, (values,) = trajectory(recipe, inputs.replace(teachers={"new": teacher.replace(mean=teacher.mean + 1)}), 1)
        assert (values["loss"] > 0.1).all()


@pytest.mark.slow
def test_the_scale_of_the_labels_scales_the_bias_of_each_example():
    recipe = make_recipe(module=LINEAR, num_old_classes=OLD, **STILL)
    plain = objectives.Objective(bias=3.0)
    inputs = with_objectives(make_inputs((0, 1)), plain, plain.replace(bias_power=1.0), plain.replace(bias_power=0.5))
    inputs = inputs.replace(teachers={})
    scales = np.random.default_rng(4).uniform(0.25, 4, (2, ALL)).astype(np.float32)
    neutral, _ = train(recipe, inputs.replace(label_scale=np.ones_like(scales)))
    for row in (1, 2):
        assert_close(member(neutral, 0, row), member(neutral, 0, 0), 1e-6)
    unscaled, _ = train(recipe, with_objectives(inputs, plain))
    assert_close(member(neutral, 0, 0), member(unscaled, 0, 0), 1e-6)
    states, (values, *_) = trajectory(recipe, inputs.replace(label_scale=scales), 1)
    for seed in (0, 1):
        batch = batch_of(inputs.keys[seed], 0)
        labels = inputs.labels[batch]
        logits = first_logits(jax.tree.map(lambda leaf, s=seed: leaf[s : s + 1], states[0]), inputs.images[batch])
        for row, power in enumerate((0.0, 1.0, 0.5)):
            bias = 3.0 * scales[seed, labels].astype(float)[:, None] ** power * (np.arange(ALL) >= OLD)
            expected = -log_softmax(logits + bias)[np.arange(len(batch)), labels].mean()
            assert float(values["loss"][seed, row]) == pytest.approx(expected, rel=1e-5)
