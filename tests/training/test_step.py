"""The train step against PyTorch, and the effect of each setting and each part of an objective."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from populations import (
    ALL,
    IMAGES,
    LINEAR,
    NOT_AUGMENTED,
    OLD,
    Dropped,
    N,
    assert_close,
    assert_same,
    batch_of,
    first_state,
    make_inputs,
    make_recipe,
    member,
    take_steps,
    train,
    trajectory,
    with_objectives,
)

from mpt_jax import data, models, objectives, posttraining, training
from mpt_jax.config import OptimizerConfig
from mpt_jax.models import Classifier, parameters
from mpt_jax.objectives import METHODS
from mpt_jax.training import Batch, SeedFacts


@pytest.mark.ci
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
    for teacher in (old, new):  # statistics other than the initial zeros and ones
        for _ in range(3):
            teacher(torch.randn(8, 3, 32, 32, dtype=torch.float64))
        teacher.eval().requires_grad_(False)

    def batches():
        for order in orders:
            for start in range(0, count, batch):
                rows = order[start : start + batch]
                yield images[rows], labels[rows]

    with jax.enable_x64(True):
        settings = OptimizerConfig(0.1, 0.9, 5e-4, epochs, batch, schedule_unit="epoch")
        facts = SeedFacts(count)
        build = lambda k: models.build("resnet18", k, stem="imagenet", dtype="float64")  # noqa: E731
        recipe = training.Recipe(build(num_all), num_old, settings)
        teachers = {
            name: Classifier(build(k), *torch_reference.to_flax(model), mean=mean, std=std)
            for name, model, k in (("old", old, num_old), ("new", new, num_all))
        }
        params, batch_stats = torch_reference.to_flax(student)
        state = training.TrainState(params, batch_stats, training.make_optimizer(recipe, count).init(params))

        @jax.jit
        def step(state, teachers, x, y):
            teacher_logits = {name: models.logits(teacher, x) for name, teacher in teachers.items()}
            normalized = models.normalize(x, teachers["old"].mean, teachers["old"].std, jnp.float64)
            batch = Batch(normalized, y, teacher_logits)
            return training.train_step(recipe, facts, state, METHODS["mpt_kl"], batch)

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
def test_schedules_and_class_counts_reach_the_objective():
    rows, step = ("mpt_kl_annealed", "balanced_softmax", "no_treatment"), 5
    recipe, inputs = make_recipe(augmentation=data.Augmentation()), make_inputs(rows=rows)
    start = first_state(recipe, inputs)
    weights = jax.device_get(member(start, 0, 0))
    _, values = take_steps(recipe, start, inputs, step, step + 1)
    batch = batch_of(inputs.keys[0], step)
    images, labels = IMAGES[batch], inputs.labels[batch]
    variables = {"params": weights.params, "batch_stats": weights.batch_stats}
    normalized = models.normalize(jnp.asarray(images), inputs.mean, inputs.std)
    logits, _ = recipe.module.apply(variables, normalized, train=True, mutable=["batch_stats"])
    teacher_logits = {
        s: models.logits(jax.tree.map(lambda leaf: leaf[0], t), images) for s, t in inputs.teachers.items()
    }
    for row, value in zip(rows, values["loss"][0], strict=True):
        expected = objectives.per_example_loss(
            *(METHODS[row], logits, labels, teacher_logits),
            num_old_classes=OLD,
            class_counts=np.bincount(inputs.labels, minlength=ALL),
            epoch=step // 3,
            progress=step / 12,
        )
        assert float(value) == pytest.approx(float(expected.mean()), rel=1e-4)


@pytest.mark.slow
def test_bfloat16_keeps_weights_and_losses_in_float32():
    recipe = make_recipe("bfloat16")
    inputs = make_inputs(rows=("no_treatment", "mpt_kl"))
    state, values = train(recipe, inputs)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.batch_stats))} == {"float32"}
    float32, float32_values = train(make_recipe(), inputs)
    assert values["loss"].dtype == np.float32
    np.testing.assert_allclose(values["loss"], float32_values["loss"], rtol=0.05)
    different = jax.tree.map(lambda a, b: bool(np.any(a != b)), state.params, float32.params)
    assert all(jax.tree.leaves(different))


@pytest.mark.slow
def test_the_average_covers_the_weights_and_statistics_of_every_step():
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
    plain, _ = trajectory(make_recipe(module=recipe.module), inputs, steps)  # an average does not affect training
    assert_close((plain[-1].params, plain[-1].opt_state), (states[-1].params, states[-1].opt_state), 1e-6)
    assert plain[-1].average is None


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_dropout_has_the_key_of_its_seed_step_and_micro_batch_for_every_objective(accumulate):
    recipe = make_recipe(module=Dropped(ALL), accumulate=accumulate, **NOT_AUGMENTED)
    inputs = make_inputs((0, 1), ("no_treatment", "label_smoothing"))
    objectives_of = ("no_treatment", "label_smoothing")
    states, values = trajectory(recipe, inputs, 2)
    drawn = []
    for seed, key in enumerate(inputs.keys):
        for step in range(2):
            rows = batch_of(key, step)
            x = models.normalize(jnp.asarray(IMAGES[rows]), inputs.mean, inputs.std)
            for row, name in enumerate(objectives_of):
                params, losses = member(states[step], seed, row).params, []
                for number in range(accumulate):
                    part = slice(number, None, accumulate)
                    dropout = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, 4), step), number)
                    logits, features, _ = models.train_forward(recipe.module, params, {}, x[part], dropout)
                    loss = objectives.per_example_loss(
                        METHODS[name], logits, inputs.labels[rows][part], {}, num_old_classes=OLD, progress=step / 12
                    )
                    losses.append(loss.mean())
                    drawn.append(np.asarray(features == 0))
                assert float(values[step]["loss"][seed, row]) == pytest.approx(float(np.mean(losses)), rel=1e-4)
    distinct = {mask.tobytes() for mask in drawn}
    assert len(distinct) == 2 * 2 * accumulate  # seeds, steps, micro-batches


def test_an_update_that_is_not_finite_is_skipped_and_counted():
    bad, steps = 7, 6
    random = np.random.default_rng(0)
    clean = make_inputs(rows=("no_treatment", "label_smoothing")).replace(
        mean=np.zeros(4, np.float32), std=np.ones(4, np.float32)
    )
    features = random.normal(size=(N, 4)).astype(np.float32)
    clean = with_objectives(clean, *(METHODS[row].replace(average=0.5) for row in ("no_treatment", "label_smoothing")))
    broken_features = features.copy()
    broken_features[bad, 2] = np.inf
    recipe = make_recipe(module=LINEAR, averaged=True, skip_nonfinite=True, **NOT_AUGMENTED)
    states, values = trajectory(recipe, clean, steps, broken_features)
    skipped = [bad in batch_of(clean.keys[0], step) for step in range(steps)]
    assert 2 <= sum(skipped) < steps  # at least once per epoch
    for before, after, means, is_skipped in zip(states, states[1:], values, skipped, strict=False):
        same = jax.tree.map(np.array_equal, before, after)
        assert all(jax.tree.leaves(same)) == is_skipped
        np.testing.assert_array_equal(means["skipped"], float(is_skipped))
        assert (np.isfinite(means["loss"]) == (not is_skipped)).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[-1]))
    _, whole = train(recipe, clean, steps=3, images=broken_features)  # an epoch in one call
    np.testing.assert_allclose(whole["skipped"], sum(skipped[:3]) / 3, rtol=1e-6)
    done = [value["loss"] for value, skip in zip(values[:3], skipped[:3], strict=True) if not skip]
    np.testing.assert_allclose(whole["loss"], np.mean(done, 0), rtol=1e-5)
    guarded, guarded_values = train(recipe, clean, images=features)
    plain, plain_values = train(make_recipe(module=LINEAR, averaged=True, **NOT_AUGMENTED), clean, images=features)
    assert_close(guarded, plain, 1e-6)
    assert (guarded_values.pop("skipped") == 0).all()
    assert_close(guarded_values, plain_values, 1e-6)
    broken, _ = train(make_recipe(module=LINEAR, averaged=True, **NOT_AUGMENTED), clean, images=broken_features)
    assert not np.isfinite(broken.params["head"]["kernel"]).all()


def test_a_member_that_is_not_finite_does_not_affect_its_neighbour():
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
    """Compute the logits of the linear network in NumPy, with the mean and std of `make_inputs`."""
    x = ((images / 255 - 0.4) / 0.3).reshape(len(images), -1)
    return x @ state.params["head"]["kernel"][0, 0].astype(float) + state.params["head"]["bias"][0, 0]


def test_the_old_head_is_applied_to_the_features_of_the_student_and_trains_them():
    rate, hidden = 0.05, 6
    random = np.random.default_rng(5)
    with jax.enable_x64(True):
        inputs = with_objectives(make_inputs(rows=("no_treatment",), dtype="float64"), METHODS["bct"])
        module = models.NETWORKS["mlp"].constructor(ALL, hidden=hidden, dtype=jnp.float64, param_dtype=jnp.float64)
        old = module.clone(num_classes=OLD)
        params, _ = random_weights.init(old, jax.random.key(8), (8, 8, 1))
        old_head = jax.tree.map(lambda leaf: random.normal(size=(1, *leaf.shape)), params["head"])
        teacher = Classifier(old, {"head": old_head}, {}, mean=np.zeros((1, 1)), std=np.ones((1, 1)))
        inputs = inputs.replace(teachers={"old_head": teacher})
        numbers = {"learning_rate": rate, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
        recipe = make_recipe("float64", module=module, **numbers, **NOT_AUGMENTED)
        (start, after), (values,) = trajectory(recipe, inputs, 1)
    batch = batch_of(inputs.keys[0], 0)
    images, labels = IMAGES[batch], inputs.labels[batch]
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


@pytest.mark.slow
def test_the_label_scale_scales_the_bias_of_each_example():
    recipe = make_recipe(module=LINEAR, num_old_classes=OLD, **NOT_AUGMENTED)
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
        logits = first_logits(jax.tree.map(lambda leaf, s=seed: leaf[s : s + 1], states[0]), IMAGES[batch])
        for row, power in enumerate((0.0, 1.0, 0.5)):
            bias = 3.0 * scales[seed, labels].astype(float)[:, None] ** power * (np.arange(ALL) >= OLD)
            expected = -log_softmax(logits + bias)[np.arange(len(batch)), labels].mean()
            assert float(values["loss"][seed, row]) == pytest.approx(expected, rel=1e-5)


def products(recipe):
    """Return how many matrix products the compiled step has."""
    params, batch_stats = models.init(recipe.module, jax.random.key(0), (4,))
    state = training.TrainState(params, batch_stats, training.make_optimizer(recipe, N).init(params))
    batch = Batch(jnp.zeros((16, 4)), jnp.zeros(16, jnp.int32), {})
    step = functools.partial(training.train_step, recipe, SeedFacts(N))
    return jax.jit(step).lower(state, METHODS["no_treatment"], batch).compile().as_text().count(" dot(")


def test_frozen_parameters_have_no_gradient():
    module = models.build("mlp", ALL)
    found = [products(make_recipe(module=module, freeze=freeze)) for freeze in ((), ("hidden",), ("head",))]
    assert found == [5, 3, 4]  # forward 2; kernels 2, 1, 1; and one more to reach the hidden layer


FROZEN = {"freeze": ("conv1", "norm1", "*/scale"), "name": "adamw", "learning_rate": 0.01}


@pytest.mark.parametrize("changes", [{"accumulate": 2, "skip_nonfinite": True}, {"freeze_statistics": False}], ids=str)
def test_frozen_parameters_and_statistics_stay_bit_identical_also_in_averages(changes):
    recipe = make_recipe(averaged=True, **FROZEN, **changes)
    inputs = make_inputs((0, 1), ("no_treatment", "mpt_kl"))
    inputs = with_objectives(inputs, *(METHODS[row].replace(average=0.5) for row in ("no_treatment", "mpt_kl")))
    start = jax.device_get(first_state(recipe, inputs))
    state, _ = train(recipe, inputs)
    for params, batch_stats in ((state.params, state.batch_stats), state.average):
        before = dict(zip(parameters.paths(start.params), jax.tree.leaves(start.params), strict=True))
        for path, leaf in zip(parameters.paths(params), jax.tree.leaves(params), strict=True):
            same = [np.array_equal(leaf[i, j], before[path][i, j]) for i in (0, 1) for j in (0, 1)]
            assert same == [path in ("conv1/kernel", "norm1/scale", "norm1/bias", "norm2/scale")] * 4, path
        for layer in ("norm1", "norm2"):  # of norm2 only the scale is frozen
            fixed = layer == "norm1" and recipe.optimizer.freeze_statistics
            for name in ("mean", "var"):
                assert np.array_equal(batch_stats[layer][name], start.batch_stats[layer][name]) == fixed


def test_a_frozen_network_with_fixed_statistics_trains_its_head_on_the_features_of_inference():
    inputs = make_inputs(rows=("no_treatment",))
    recipe = make_recipe(freeze=("backbone",), **NOT_AUGMENTED)
    start = first_state(recipe, inputs)
    one = Classifier(
        recipe.module,
        *(jax.tree.map(lambda x: x[0, 0], t) for t in (start.params, start.batch_stats)),
        inputs.mean,
        inputs.std,
    )
    features = np.asarray(models.features(one, IMAGES))
    head = jax.device_get(one.params["head"])
    state, _ = train(recipe, inputs)
    # The same steps of the head alone, as a network on features.
    alone = make_recipe(module=LINEAR, **NOT_AUGMENTED)
    on_features = inputs.replace(
        mean=np.zeros(features.shape[1], np.float32), std=np.ones(features.shape[1], np.float32)
    )
    begin = first_state(alone, on_features, features.shape[1:])
    begin = begin.replace(params={"head": jax.tree.map(lambda leaf: leaf[None, None], head)})
    expected, _ = take_steps(alone, begin, on_features, 0, 6, features)
    assert_close(state.params["head"], jax.device_get(expected.params["head"]), 1e-5)
