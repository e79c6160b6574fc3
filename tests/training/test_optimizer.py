"""The schedules of the learning rate, and the optimizers against their formulas, plain optax and PyTorch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from populations import N, assert_close, assert_same, make_recipe

from mpt_jax import training
from mpt_jax.config.optimizers import OPTIMIZERS
from mpt_jax.models import parameters
from mpt_jax.training import optimizer as optimizers


def test_the_learning_rate_follows_a_cosine_per_step_or_per_epoch():
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


def test_the_learning_rate_drops_to_a_tenth_after_each_third():
    rate = training.learning_rate(make_recipe(schedule="thirds", epochs=90), 160)
    found = [float(rate(jnp.int32(10 * epoch + step))) for epoch, step in ((0, 0), (29, 9), (30, 0), (59, 9), (60, 0))]
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-6)


def test_weight_decay_is_added_to_the_gradient_before_the_momentum():
    recipe = make_recipe(schedule="constant", learning_rate=0.2, momentum=0.9, weight_decay=0.1)
    optimizer, params, velocity = training.make_optimizer(recipe, N), np.array([1.0, -2.0]), np.zeros(2)
    state = optimizer.init(jnp.asarray(params))
    for gradient in (np.array([0.5, 0.0]), np.array([-1.0, 3.0])):
        updates, state = optimizer.update(jnp.asarray(gradient), state, jnp.asarray(params))
        velocity = 0.9 * velocity + gradient + 0.1 * params
        np.testing.assert_allclose(updates, -0.2 * velocity, rtol=1e-6)
        params = params + np.asarray(updates)


def optimizer_of(**settings):
    return training.make_optimizer(make_recipe(schedule="constant", **settings), N)


PARAMS = {
    "conv": {"kernel": np.linspace(-1, 1, 54, dtype=np.float32).reshape(3, 3, 2, 3)},
    "norm": {"scale": np.linspace(0.5, 1.5, 3, dtype=np.float32), "bias": np.linspace(-1, 1, 3, dtype=np.float32)},
    "head": {"kernel": np.linspace(2, 1, 12, dtype=np.float32).reshape(3, 4), "bias": np.ones(4, np.float32)},
}


def gradients(steps, like=PARAMS):
    """Return the gradients of some steps, all different and none zero."""
    random = np.random.default_rng(1)
    return [jax.tree.map(lambda p: (random.normal(size=p.shape) + 0.1).astype(p.dtype), like) for _ in range(steps)]


def after_steps(optimizer, steps=3, params=PARAMS):
    state = optimizer.init(params)
    for gradient in gradients(steps, params):
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_the_default_is_plain_sgd_of_optax_bit_by_bit():
    recipe = make_recipe()
    plain = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(training.learning_rate(recipe, N), 0.9))
    ours, state = after_steps(training.make_optimizer(recipe, N))
    expected, expected_state = after_steps(plain)
    assert_same(ours, expected)
    assert jax.tree.structure(state) == jax.tree.structure(expected_state)


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({"name": "adamw", "options": {"b2": 0.95}}, lambda: optax.adamw(0.01, b2=0.95, weight_decay=0.1)),
        ({"name": "lamb"}, lambda: optax.lamb(0.01, weight_decay=0.1)),
        ({"name": "lion"}, lambda: optax.lion(0.01, weight_decay=0.1)),
        ({"name": "adam"}, lambda: optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.01))),
        ({"options": {"nesterov": True}}, lambda: optax.chain(optax.add_decayed_weights(0.1), nesterov())),
    ],
    ids=["adamw", "lamb", "lion", "adam", "nesterov"],
)
def test_a_name_is_the_optimizer_of_optax_with_its_own_decay(settings, plain):
    with jax.numpy_dtype_promotion("standard"):
        expected, _ = after_steps(plain())
    assert_close(after_steps(optimizer_of(learning_rate=0.01, weight_decay=0.1, **settings))[0], expected, 1e-6)


def nesterov():
    return optax.sgd(0.01, 0.9, nesterov=True)


@pytest.mark.parametrize("name", ["sgd", "adamw", "adam"])
def test_five_steps_in_float64_agree_with_pytorch(name):
    torch = pytest.importorskip("torch", reason="parity needs the extra: pip install 'mpt_jax[torch]'")
    start = np.linspace(-1, 2, 12).reshape(3, 4)
    weight = torch.nn.Parameter(torch.tensor(start))
    theirs = {
        "sgd": lambda: torch.optim.SGD([weight], 0.02, momentum=0.8, weight_decay=0.1),
        "adamw": lambda: torch.optim.AdamW([weight], 0.02, betas=(0.8, 0.95), weight_decay=0.1),
        "adam": lambda: torch.optim.Adam([weight], 0.02, betas=(0.8, 0.95), weight_decay=0.1),
    }[name]()
    own = {"momentum": 0.8} if name == "sgd" else {"options": {"b1": 0.8, "b2": 0.95}}
    with jax.enable_x64(True):
        optimizer = optimizer_of(name=name, learning_rate=0.02, weight_decay=0.1, **own)
        params = {"kernel": jnp.asarray(start)}
        state = optimizer.init(params)
        for gradient in gradients(5, {"kernel": start}):
            weight.grad = torch.tensor(gradient["kernel"])
            theirs.step()
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["kernel"], weight.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize("schedule", ["cosine", "constant", "thirds"])
@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_a_warmup_rises_from_zero_and_the_schedule_takes_the_other_steps(schedule, unit):
    settings = {"schedule": schedule, "schedule_unit": unit, "learning_rate": 0.2}
    rate = training.learning_rate(make_recipe(warmup_epochs=2.5, epochs=12, **settings), 160)
    found = np.array([rate(jnp.int32(step)) for step in range(120)])
    np.testing.assert_allclose(found[:25], 0.2 * np.arange(25) / 25, rtol=1e-6)
    step = np.arange(95)
    expected = {
        "cosine": 0.1 * (1 + np.cos(np.pi * (step / 95 if unit == "step" else step // 10 / 10))),
        "constant": np.full(95, 0.2),
        "thirds": 0.2 * 0.1 ** ((step >= 32).astype(int) + (step >= 63)),
    }
    np.testing.assert_allclose(found[25:], expected[schedule], rtol=1e-5, atol=1e-7)


def test_a_warmup_of_almost_all_steps_leaves_the_schedule_none():
    rate = training.learning_rate(make_recipe(warmup_epochs=0.99, epochs=1), N)
    assert [round(float(rate(jnp.int32(step))), 3) for step in range(4)] == [0, 0.033, 0.067, 0.1]


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion"])
def test_rates_fall_by_a_factor_per_layer_from_the_head(name):
    layers = ("conv", "norm", "head")
    settings = {"name": name, "learning_rate": 0.01, "weight_decay": 0.1}
    params = PARAMS | {"class_token": np.ones(3, np.float32)}
    plain = optimizer_of(**settings)
    decayed = optimizer_of(layer_decay=0.5, layers=layers, **settings)
    own_head = optimizer_of(layer_decay=0.5, layers=layers, head_learning_rate=0.05, **settings)
    updates = [o.update(gradients(1, params)[0], o.init(params), params)[0] for o in (plain, decayed, own_head)]
    for layer, factor in (("conv", 0.25), ("norm", 0.5), ("head", 1.0), ("class_token", 0.25)):
        assert_close(updates[1][layer], jax.tree.map(lambda u, f=factor: f * u, updates[0][layer]), 1e-6)
    assert_close(updates[2]["head"], jax.tree.map(lambda u: 5 * u, updates[0]["head"]), 1e-6)
    assert_close(updates[2]["conv"], updates[1]["conv"], 1e-6)


def test_rates_per_layer_need_the_layers():
    with pytest.raises(ValueError, match="layer_order"):
        after_steps(optimizer_of(layer_decay=0.5))


def test_the_meta_sampler_takes_the_rate_of_the_head():
    recipe = make_recipe(head_learning_rate=0.3, learning_rate=0.1)
    for step in (0, 5):
        rate = training.learning_rate(recipe, N)(jnp.int32(step))
        assert float(optimizers.head_learning_rate(recipe, N)(jnp.int32(step))) == pytest.approx(3 * float(rate))
    assert float(optimizers.head_learning_rate(make_recipe(), N)(jnp.int32(0))) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "muon", "adam"])
def test_excluded_parameters_have_no_weight_decay(name):
    found = optimizer_of(name=name, weight_decay=0.1, decay_exclude=("bias", "norm/scale"), learning_rate=0.01)
    without = optimizer_of(name=name, weight_decay=0.0, learning_rate=0.01)
    whole = optimizer_of(name=name, weight_decay=0.1, learning_rate=0.01)
    updates, none, all_of_it = (after_steps(each)[0] for each in (found, without, whole))
    for path in (("norm", "scale"), ("norm", "bias"), ("head", "bias")):
        assert_same(*(tree[path[0]][path[1]] for tree in (updates, none)))
        assert np.abs(all_of_it[path[0]][path[1]] - none[path[0]][path[1]]).max() > 1e-4
    for path in (("conv", "kernel"), ("head", "kernel")):
        assert_same(*(tree[path[0]][path[1]] for tree in (updates, all_of_it)))


def test_the_gradient_of_the_trained_parameters_is_clipped_together():
    (gradient,) = gradients(1)
    settings = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0, "freeze": ("conv",)}
    norm = math.sqrt(sum((leaf**2).sum() for layer in ("norm", "head") for leaf in gradient[layer].values()))
    for limit in (norm / 2, 2 * norm):
        optimizer = optimizer_of(clip_norm=limit, **settings)
        updates, _ = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
        scale = min(1, limit / norm)
        for layer in ("norm", "head"):
            assert_close(updates[layer], jax.tree.map(lambda g, s=scale: -s * g, gradient[layer]), 1e-5)
        assert not updates["conv"]["kernel"].any()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_have_no_state_and_every_option_works_with_every_optimizer(name):
    settings = {"name": name, "learning_rate": 0.01, "decay_exclude": ("bias",), "clip_norm": 1.0, "warmup_epochs": 1.0}
    frozen = optimizer_of(freeze=("conv", "norm"), layer_decay=0.9, layers=("conv", "norm", "head"), **settings)
    params, state = jax.eval_shape(lambda: after_steps(frozen))
    trained, _ = parameters.split(PARAMS, ("conv", "norm"))
    assert jax.tree.structure(jax.eval_shape(frozen.init, trained)) == jax.tree.structure(state)
    shapes = {leaf.shape for leaf in jax.tree.leaves(state)}
    assert not shapes & {(3, 3, 2, 3), (3, 3, 3), (54,)}
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), PARAMS
    )
    of_trained = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (3, 4)]
    assert of_trained or name in ("adafactor", "novograd")


def test_muon_orthogonalizes_the_kernels_of_hidden_layers_and_adam_trains_the_rest():
    settings = {"learning_rate": 0.1, "weight_decay": 0.0}
    muon, adam = (optimizer_of(name=name, **settings) for name in ("muon", "nadam"))
    params = PARAMS | {"hidden": {"kernel": np.eye(4, 6, dtype=np.float32)}, "class_token": np.ones((1, 4), np.float32)}
    params["depthwise"] = {"kernel": np.ones((3, 3, 1, 3), np.float32)}
    (gradient,) = gradients(1, params)
    updates, expected = (each.update(gradient, each.init(params), params)[0] for each in (muon, adam))
    for layer in ("norm", "head", "class_token", "depthwise"):
        assert_close(updates[layer], expected[layer], 1e-5)
    for layer in ("conv", "hidden"):
        kernel = np.asarray(updates[layer]["kernel"])
        inputs, outputs = math.prod(kernel.shape[:-1]), kernel.shape[-1]
        values = np.linalg.svd(kernel.reshape(inputs, outputs), compute_uv=False) / 0.1
        np.testing.assert_array_less(0.5 * math.sqrt(max(1, outputs / inputs)), values)  # Newton-Schulz stops early
        np.testing.assert_array_less(values, 1.4 * math.sqrt(max(1, outputs / inputs)))
