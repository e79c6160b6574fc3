"""The exact bias curve against recomputed predictions, the ends of interpolation, Fisher and averages in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mpt_jax import models, posttraining
from mpt_jax.metrics import class_growth_metrics
from mpt_jax.models import Classifier
from mpt_jax.models.layers import Linear, batch_norm
from mpt_jax.posttraining import PosthocCurve, interpolate, posthoc_curve, shift_new_classes
from mpt_jax.update import selection

K_OLD, K = 2, 5


@st.composite
def predicted(draw, quarters=8):
    """Logits on a grid of quarters, so that ties occur and no difference is rounded; old predictions; labels."""
    count = draw(st.integers(1, 12))
    logits = draw(hnp.arrays(np.int8, (count, K), elements=st.integers(-quarters, quarters))) / np.float32(4)
    old = draw(hnp.arrays(np.int32, count, elements=st.integers(0, K_OLD - 1)))
    labels = draw(hnp.arrays(np.int32, count, elements=st.integers(0, K - 1)))
    labels[0] %= K_OLD
    return logits.astype(np.float32), old, labels


def by_recomputing(logits, old, labels, c):
    predictions = (logits - c * np.array([k >= K_OLD for k in range(K)])).argmax(-1)
    row = class_growth_metrics(old, predictions, labels, num_old_classes=K_OLD)
    return {name: row[name] for name in ("accuracy", "accuracy_old_classes", "accuracy_new_classes", "nfr")}


def same(rates, expected):
    """Return whether the rates are bit-identical; NaN stands for None."""
    expected = {name: np.nan if value is None else value for name, value in expected.items()}
    return rates.keys() == expected.keys() and all(np.array_equal(rates[k], expected[k], True) for k in rates)


@given(predicted(), st.integers(0, 40))
def test_the_curve_equals_recomputed_predictions(case, eighths):
    curve = posthoc_curve(*case, num_old_classes=K_OLD)
    assert curve.starts[0] == 0 and np.all(np.diff(curve.starts) > 0) and len(curve.starts) <= len(case[2]) + 1
    between = (curve.starts[:-1] + curve.starts[1:]) / 2
    for c in (*curve.starts, *between, curve.starts[-1] + 1, eighths / 8):  # the starts themselves are ties
        assert same(posttraining.rates_at(curve, c), by_recomputing(*case, c))


def test_the_shift_lowers_only_new_classes():
    logits = np.random.default_rng(0).normal(size=(3, 4, K)).astype(np.float32)
    for c in (0.0, 1.5):
        expected = logits.copy()
        expected[..., K_OLD:] -= np.float32(c)
        np.testing.assert_array_equal(shift_new_classes(logits, c, K_OLD), expected)


def test_the_curve_of_real_numbers_between_its_steps():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(scale=3, size=(400, K)).astype(np.float32), rng.integers(0, K, 400)
    old = np.where(rng.random(400) < 0.8, labels % K_OLD, rng.integers(0, K_OLD, 400))
    curve = posthoc_curve(logits, old, labels, num_old_classes=K_OLD)
    for c in (0.0, *((curve.starts[:-1] + curve.starts[1:]) / 2)[::7], 100.0):
        assert same(posttraining.rates_at(curve, c), by_recomputing(logits, old, labels, c))
    assert np.all(np.diff(curve.nfr) <= 0) and curve.nfr[0] > curve.nfr[-1]  # lowering new classes never adds a flip
    assert np.all(np.diff(curve.accuracy_new_classes) <= 0) and curve.accuracy_new_classes[-1] == 0


def test_at_equality_the_old_class_wins():
    curve = posthoc_curve(np.array([[1.0, 0.0, 3.0]]), np.array([0]), np.array([0]), num_old_classes=2)
    assert curve.starts.tolist() == [0, 2] and curve.nfr.tolist() == [1, 0]
    level = posthoc_curve(np.array([[1.0, 0.0, 1.0]]), np.array([0]), np.array([0]), num_old_classes=2)
    assert level.starts.tolist() == [0] and level.nfr.tolist() == [0]
    assert np.isnan(level.accuracy_new_classes).all()


@given(predicted(), st.floats(0, 1))
def test_the_choice_follows_the_rule_for_candidates(case, required):
    curve = posthoc_curve(*case, num_old_classes=K_OLD)
    best = selection.choose(curve.accuracy.tolist(), curve.nfr.tolist(), required_accuracy=required)
    c = posttraining.choose_posthoc_bias(curve, required_accuracy=required)
    rates = posttraining.rates_at(curve, c)
    assert (rates["accuracy"], rates["nfr"]) == (curve.accuracy[best], curve.nfr[best])
    assert c >= curve.starts[best]
    # in the middle of the interval: the same rates up to both ends
    reach = 0.999 * (c - curve.starts[best])
    for other in (c - reach, c + reach):
        rates = posttraining.rates_at(curve, other)
        assert (rates["accuracy"], rates["nfr"]) == (curve.accuracy[best], curve.nfr[best])


def test_a_worked_choice():
    starts, other = np.array([0.0, 1.0, 2.0, 4.0]), np.zeros(4)
    curve = PosthocCurve(starts, np.array([0.9, 0.8, 0.8, 0.7]), other, other, np.array([0.3, 0.2, 0.2, 0.1]))
    choose = posttraining.choose_posthoc_bias
    assert choose(curve, required_accuracy=0.85) == 0  # the unchanged model
    assert choose(curve, required_accuracy=0.75) == 2.5  # 1 to 4 is one interval
    assert choose(curve, required_accuracy=0.5) == 5  # from 4 on, as long as 2 to 4
    assert choose(curve, required_accuracy=0.95) == 0  # none reaches it: the most accurate


@given(predicted(), predicted(), st.floats(0, 5))
def test_the_mean_of_curves_is_their_mean_at_every_c(one, two, c):
    curves = [posthoc_curve(*case, num_old_classes=K_OLD) for case in (one, two)]
    mean = posttraining.rates_at(posttraining.mean_curve(curves), c)
    rates = [posttraining.rates_at(curve, c) for curve in curves]
    for name in mean:
        assert mean[name] == pytest.approx(np.mean([r[name] for r in rates]), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.0, 1.0]], [0], [0], 2), "expected at least one old and one new"),
        (([[0.0, 1.0]], [0], [1], 1), "no image of an old class"),
        (([[0.0, 1.0]], [1], [0], 1), "old_predictions hold class 1; expected the old classes 0 to 0"),
        (([[0.0, np.nan]], [0], [0], 1), "not finite"),
        (([[0.0, 1.0]], [0, 0], [0], 1), "shapes do not fit"),
    ],
)
def test_bad_input_of_the_curve(arguments, message):
    with pytest.raises(ValueError, match=message):
        posthoc_curve(*map(np.array, arguments[:3]), num_old_classes=arguments[3])


def test_no_rates_below_0():
    with pytest.raises(ValueError, match="expected 0 or more"):
        posttraining.rates_at(PosthocCurve(*np.zeros((5, 1))), -1.0)


class Small(nn.Module):
    """A small network with all kinds of layers, quick to compile."""

    num_classes: int
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, images, train):
        x = Linear(6, name="hidden")(images.reshape(images.shape[0], -1))
        x = nn.relu(batch_norm(x, train=train, dtype=self.dtype, name="norm"))
        return Linear(self.num_classes, name="head")(x)


class Softmax(nn.Module):
    """A linear model on pixels, whose gradients are known in closed form."""

    num_classes: int
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, images, train):
        return Linear(self.num_classes, name="head")(images.reshape(images.shape[0], -1))


def make_classifier(seed, num_classes=K, make=Small):
    """Return a network whose running statistics are not the initial ones."""
    module, rng = make(num_classes), np.random.default_rng(seed)
    params, batch_stats = random_weights.drawn(module, (8, 8, 1), seed)
    batch_stats = jax.tree.map(lambda leaf: rng.uniform(0.5, 2, leaf.shape).astype(leaf.dtype), batch_stats)
    return Classifier(module, params, batch_stats, mean=np.array([0.3], np.float32), std=np.array([0.4], np.float32))


get_logits = jax.jit(models.logits)
IMAGES = np.random.default_rng(7).integers(0, 256, (10, 8, 8, 1), np.uint8)
LABELS = np.arange(10, dtype=np.int32) % K


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_bias_moves_into_the_weights():
    classifier = make_classifier(0)
    before = get_logits(classifier, IMAGES)
    after = get_logits(posttraining.with_new_class_bias(classifier, 1.5, K_OLD), IMAGES)
    np.testing.assert_array_equal(after[:, :K_OLD], before[:, :K_OLD])
    np.testing.assert_allclose(after[:, K_OLD:], before[:, K_OLD:] - 1.5, atol=1e-6)
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), classifier, make_classifier(1))
    each = jax.vmap(posttraining.with_new_class_bias, in_axes=(0, 0, None))(stack, jnp.array([1.5, 0.0]), K_OLD)
    np.testing.assert_array_equal(get_logits(jax.tree.map(lambda leaf: leaf[0], each), IMAGES), after)
    assert_trees_equal(jax.tree.map(lambda leaf: leaf[1], each), make_classifier(1))


def ones_like(tree):
    return jax.tree.map(jnp.ones_like, tree)


@pytest.mark.parametrize("importance", [None, "ones", "random", "zeros"])
def test_the_ends_of_an_interpolation_are_the_two_models(importance):
    old, new = make_classifier(0, K_OLD), make_classifier(1)
    rng = np.random.default_rng(0)
    makers = {
        "ones": jnp.ones_like,
        "zeros": jnp.zeros_like,
        "random": lambda leaf: jnp.asarray(rng.random(leaf.shape), leaf.dtype),
    }
    importance = importance and jax.tree.map(makers[importance], old.params)
    assert_trees_equal(interpolate(old, new, 0.0, importance=importance), new)
    end = interpolate(old, new, 1.0, importance=importance)
    for part in ("kernel", "bias"):
        np.testing.assert_array_equal(end.params["head"][part][..., :K_OLD], old.params["head"][part])
        np.testing.assert_array_equal(end.params["head"][part][..., K_OLD:], new.params["head"][part][..., K_OLD:])
    without = lambda params: {name: leaf for name, leaf in params.items() if name != "head"}  # noqa: E731
    assert_trees_equal((without(end.params), end.batch_stats), (without(old.params), old.batch_stats))
    np.testing.assert_allclose(get_logits(end, IMAGES)[:, :K_OLD], get_logits(old, IMAGES), rtol=1e-5, atol=1e-5)


def test_between_the_ends_by_the_formula_and_over_a_grid():
    old, new, grid = make_classifier(0, K_OLD), make_classifier(1), np.array([0.0, 0.3, 1.0], np.float32)
    rng = np.random.default_rng(0)
    F = jax.tree.map(lambda leaf: jnp.asarray(rng.random(leaf.shape), leaf.dtype), old.params)
    plain = jax.vmap(interpolate, in_axes=(None, None, 0))(old, new, grid)
    weighted = jax.vmap(lambda a: interpolate(old, new, a, importance=F))(grid)
    assert plain.module == new.module
    for i, a in enumerate(grid.astype(np.float64)):
        for layer, part in (("hidden", "kernel"), ("norm", "scale"), ("head", "kernel"), ("head", "bias")):
            o, n, f = (np.asarray(tree[layer][part], np.float64) for tree in (old.params, new.params, F))
            expected, expected_weighted = n.copy(), n.copy()
            known = np.s_[..., : o.shape[-1]]
            expected[known] = a * o + (1 - a) * n[known]
            expected_weighted[known] = (a * f * o + (1 - a) * n[known]) / (a * f + 1 - a)
            np.testing.assert_allclose(plain.params[layer][part][i], expected, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(weighted.params[layer][part][i], expected_weighted, rtol=1e-5, atol=1e-6)
        var = a * old.batch_stats["norm"]["var"] + (1 - a) * new.batch_stats["norm"]["var"]
        for stack in (plain, weighted):
            np.testing.assert_allclose(stack.batch_stats["norm"]["var"][i], var, rtol=1e-5)


def test_equal_importances_have_no_effect():
    old, new = make_classifier(0, K_OLD), make_classifier(1)
    weighted = interpolate(old, new, 0.4, importance=ones_like(old.params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), weighted, interpolate(old, new, 0.4)
    )


def test_only_the_head_may_be_wider():
    old, new = make_classifier(0), make_classifier(1)
    kernel = new.params["hidden"]["kernel"]
    wide = {**new.params, "hidden": {**new.params["hidden"], "kernel": jnp.concatenate([kernel, kernel], axis=-1)}}
    with pytest.raises(ValueError, match=r"hidden.*in the old model and"):
        interpolate(old, new.replace(params=wide), 0.5)
    with pytest.raises(ValueError, match=r"head.*in the old model and"):
        interpolate(make_classifier(0, K), make_classifier(0, K_OLD), 0.5)


def test_a_soup_is_the_mean_of_its_members():
    members = [make_classifier(seed) for seed in range(3)]
    soup = posttraining.soup(jax.tree.map(lambda *leaves: np.stack(leaves), *members))
    assert_trees_equal((soup.mean, soup.std), (members[0].mean, members[0].std))
    for get in (lambda c: c.params["hidden"]["kernel"], lambda c: c.batch_stats["norm"]["var"]):
        expected = np.mean([np.asarray(get(member), np.float64) for member in members], axis=0)
        np.testing.assert_allclose(get(soup), expected, rtol=1e-5, atol=1e-7)
    same = posttraining.soup(jax.tree.map(lambda leaf: np.stack([leaf] * 4), members[0]))
    assert_trees_equal(same, members[0])


@pytest.mark.parametrize("chunk", [1, 4, 10, 16])
def test_fisher_is_the_mean_of_squared_gradients(chunk):
    classifier = make_classifier(0, make=Softmax)
    F = posttraining.fisher(classifier, IMAGES, LABELS, chunk=chunk)
    kernel, bias = (np.asarray(classifier.params["head"][part], np.float64) for part in ("kernel", "bias"))
    expected = {"kernel": np.zeros_like(kernel), "bias": np.zeros_like(bias)}
    for image, label in zip(IMAGES, LABELS, strict=True):
        x = (image.reshape(-1) / 255 - 0.3) / 0.4
        p = np.exp(x @ kernel + bias)
        error = np.eye(K)[label] - p / p.sum()  # d log p_y / d z
        expected["kernel"] += np.outer(x, error) ** 2 / len(LABELS)
        expected["bias"] += error**2 / len(LABELS)
    for part in expected:
        np.testing.assert_allclose(F["head"][part], expected[part], rtol=1e-4, atol=1e-9)


def test_fisher_of_a_network_one_image_at_a_time():
    narrow = models.build("convnet", K).clone(features=(4, 6))
    classifier = make_classifier(0, make=lambda num_classes: narrow)

    def log_p(params, image, label):
        return jax.nn.log_softmax(models.logits(classifier.replace(params=params), image[None])[0])[label]

    gradient = jax.jit(jax.grad(log_p))
    gradients = [gradient(classifier.params, image, label) for image, label in zip(IMAGES, LABELS, strict=True)]
    expected = jax.tree.map(lambda *gs: np.mean([np.square(np.asarray(g, np.float64)) for g in gs], axis=0), *gradients)
    F = posttraining.fisher(classifier, IMAGES, LABELS, chunk=3)
    F = jax.device_get(F)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7), F, expected)
    relative = posttraining.relative_importance(F)
    flat, relative = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (F, relative))
    np.testing.assert_allclose(relative, flat / flat.mean(), rtol=1e-4)
    with pytest.raises(ValueError, match="no images"):
        posttraining.fisher(classifier, IMAGES[:0], LABELS[:0])


def test_refreshed_statistics_match_the_images():
    classifier, images = make_classifier(0), np.tile(IMAGES, (110, 1, 1, 1))
    refreshed = posttraining.refresh_batch_stats(classifier, images, batch_size=10)  # 110 times the same batch
    assert_trees_equal(refreshed.params, classifier.params)
    x = models.normalize(jnp.asarray(IMAGES), classifier.mean, classifier.std)
    variables = {"params": classifier.params, "batch_stats": classifier.batch_stats}
    expected, _ = classifier.module.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(get_logits(refreshed, IMAGES), expected, rtol=1e-3, atol=1e-3)
    assert not np.allclose(get_logits(classifier, IMAGES), expected, atol=0.1)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.9999])
def test_ema_is_a_weighted_mean_without_its_initial_value(decay):
    values = np.random.default_rng(0).normal(size=(30, 2))
    average = {"w": jnp.full(2, 1e6)}  # must have no effect
    update_average = jax.jit(posttraining.ema, static_argnums=2)
    for step, value in enumerate(values):
        average = update_average(average, {"w": jnp.asarray(value, jnp.float32)}, decay, jnp.int32(step))
        weights = decay ** np.arange(step + 1.0)[::-1]
        np.testing.assert_allclose(average["w"], weights @ values[: step + 1] / weights.sum(), rtol=1e-4, atol=1e-5)


def test_ema_of_a_constant_and_of_a_late_step():
    params = {"w": jnp.array([0.1, 3.0])}
    assert_trees_equal(posttraining.ema({"w": jnp.array([9.0, 9.0])}, params, 0.999, 0), params)
    late = posttraining.ema({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, 0.99, 100_000)
    np.testing.assert_allclose(late["w"], 0.01, rtol=1e-5)
    traced = jax.jit(posttraining.ema)({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, jnp.float32(0.99), jnp.int32(3))
    np.testing.assert_allclose(traced["w"], 0.01 / (1 - 0.99**4), rtol=1e-4)


def test_an_ensemble_is_the_mean_of_its_members():
    logits = np.random.default_rng(0).normal(size=(8, 6, K)).astype(np.float32)
    np.testing.assert_allclose(posttraining.logit_mean(logits), logits.astype(np.float64).mean(0), rtol=1e-5, atol=1e-6)
    assert posttraining.logit_mean(logits.astype(jnp.bfloat16)).dtype == jnp.float32
    np.testing.assert_array_equal(posttraining.logit_mean(logits[:1]), logits[0])
