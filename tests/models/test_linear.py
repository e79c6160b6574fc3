"""Heads on features: their formula, size and initialisation, and what the hidden layer adds."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mpt_jax.models import Classifier, build, features, init, logits

MEAN, STD = np.array([1.0, -2.0, 0.5]), np.array([2.0, 0.5, 1.0])


def _classifier(name, key=0, classes=4):
    module = build(name, classes)
    params, batch_stats = init(module, jax.random.key(key), (3,))
    return Classifier(module, params, batch_stats, jnp.asarray(MEAN, jnp.float32), jnp.asarray(STD, jnp.float32))


def _inputs(batch=5):
    return np.random.default_rng(0).standard_normal((batch, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_logits_and_features_match_the_formula(name):
    classifier, inputs = _classifier(name), _inputs()
    tree = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), classifier.params)
    expected = (inputs - MEAN) / STD
    if name == "mlp":
        expected = np.maximum(expected @ tree["hidden"]["kernel"] + tree["hidden"]["bias"], 0)
    np.testing.assert_allclose(jax.jit(features)(classifier, inputs), expected, atol=1e-5)
    expected = expected @ tree["head"]["kernel"] + tree["head"]["bias"]
    np.testing.assert_allclose(jax.jit(logits)(classifier, inputs), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"), [("linear", 512 * 100 + 100), ("mlp", 512 * 512 + 512 + 512 * 100 + 100)]
)
def test_parameter_counts(name, expected):
    params, batch_stats = jax.eval_shape(lambda key: init(build(name, 100), key, (512,)), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    assert batch_stats == {}


def test_initial_parameters_keep_the_variance():
    params = jax.jit(lambda key: init(build("mlp", 10), key, (256,))[0])(jax.random.key(0))
    assert float(params["hidden"]["kernel"].std()) == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    np.testing.assert_array_equal(params["hidden"]["bias"], 0)
    assert float(jnp.abs(params["head"]["kernel"]).max()) == pytest.approx(512**-0.5, rel=0.01)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_stacked_classifiers_give_the_logits_of_each_alone(name):
    members, inputs = [_classifier(name, key) for key in range(3)], jnp.asarray(_inputs())
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(logits, in_axes=(0, None)))(stacked, inputs)
    chex.assert_trees_all_close(together, jnp.stack([logits(member, inputs) for member in members]), atol=1e-5)


@pytest.mark.parametrize(("name", "accuracy_range"), [("linear", (0.3, 0.8)), ("mlp", (0.97, 1.0))])
def test_only_the_hidden_layer_separates_classes_that_no_hyperplane_separates(name, accuracy_range):
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 2)).astype(np.float32)
    inputs = jnp.asarray(inputs[np.abs(inputs).min(1) > 0.1])
    labels = (inputs[:, 0] * inputs[:, 1] > 0).astype(jnp.int32)  # opposite quadrants
    module, optimizer = build(name, 2), optax.sgd(0.1, 0.9)

    @jax.jit
    def accuracy(key):
        def loss(params):
            output, mutated = module.apply({"params": params}, inputs, train=True, mutable=["batch_stats"])
            assert mutated == {}
            return optax.softmax_cross_entropy_with_integer_labels(output, labels).mean()

        def step(_, state):
            updates, momentum = optimizer.update(jax.grad(loss)(state[0]), state[1])
            return optax.apply_updates(state[0], updates), momentum

        params, _ = init(module, key, (2,))
        params, _ = jax.lax.fori_loop(0, 100, step, (params, optimizer.init(params)))
        return (module.apply({"params": params}, inputs, train=False).argmax(-1) == labels).mean(dtype=jnp.float32)

    low, high = accuracy_range
    assert low <= float(accuracy(jax.random.key(0))) <= high


def test_a_head_takes_its_columns_of_the_features():
    inputs = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    head = build("linear", 3).clone(columns=(2, 6))
    params, batch_stats = init(head, jax.random.key(0), (7,))
    assert params["head"]["kernel"].shape == (4, 3)
    narrow = init(build("linear", 3), jax.random.key(0), (4,))[0]
    jax.tree.map(np.testing.assert_array_equal, params, narrow)  # equal keys, equal weights
    mean, std = np.zeros(7, np.float32), np.ones(7, np.float32)
    classifier = Classifier(head, params, batch_stats, mean, std)
    np.testing.assert_array_equal(features(classifier, inputs), inputs[:, 2:6])
    expected = inputs[:, 2:6] @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"])
    np.testing.assert_allclose(logits(classifier, inputs), expected, rtol=1e-5)
