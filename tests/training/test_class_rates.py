"""The Meta Sampler against float64 references written from its formulas, and what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax import losses
from mpt_jax.training import class_rates

K, BATCH, D = 5, 12, 3


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def within_five_sigma(counts, probabilities):
    """Return whether the counts fit independent draws; a true fit fails about once in a million."""
    n = counts.sum()
    return np.abs(counts - n * probabilities) <= 5 * np.sqrt(n * probabilities * (1 - probabilities))


@pytest.mark.parametrize("seed", range(3))
def test_classes_are_drawn_with_their_rates(seed):
    log_rates = np.array([0.5, -np.inf, -3.0, 2.0, -np.inf, 0.0], np.float32)
    drawn = class_rates.draw(jax.random.key(seed), jnp.asarray(log_rates), 20_000)
    counts = np.bincount(drawn, minlength=6)
    assert counts[1] == counts[4] == 0
    assert within_five_sigma(counts, softmax(log_rates.astype(float))).all()


def test_the_images_of_a_class_are_drawn_uniformly():
    class_counts = np.array([3, 0, 5, 1], np.int32)
    classes = np.repeat([0, 2, 3], 3000)
    positions = np.asarray(class_rates.positions(jax.random.key(0), jnp.asarray(classes), jnp.asarray(class_counts)))
    np.testing.assert_array_equal(np.repeat(np.arange(4), class_counts)[positions], classes)
    counts = np.bincount(positions, minlength=9)
    for images in (slice(0, 3), slice(3, 8)):
        assert within_five_sigma(counts[images], np.full(len(counts[images]), 1 / len(counts[images]))).all()
    assert counts[8] == 3000


def make_case(seed, unknown=()):
    """Return log-rates, the noise of the draw, batches and a head, in float64."""
    random, key = np.random.default_rng(seed), jax.random.key(seed)
    log_rates = random.normal(size=K)
    class_counts = random.integers(3, 200, K)
    for k in unknown:
        log_rates[k], class_counts[k] = -np.inf, 0
    noise = np.asarray(jax.random.gumbel(key, (BATCH, K), jnp.float64))
    known = np.setdiff1d(np.arange(K), unknown)
    features_of_class, spread = random.normal(size=(K, D)), random.normal(size=(BATCH, D))
    balanced = random.normal(size=(BATCH, D)), known[np.arange(BATCH) % len(known)]
    head = {"kernel": random.normal(size=(D, K)), "bias": random.normal(size=K)}
    return key, log_rates, class_counts, noise, lambda c: (features_of_class[c] + spread, c), balanced, head


def soft_weights(log_rates, at, noise):
    """Compute straight-through weights: 1 if `log_rates` equal `at`, with which the batch was drawn."""
    chosen = (at + noise).argmax(1)
    of = lambda rates: softmax(rates + noise)[np.arange(BATCH), chosen]  # noqa: E731
    return 1 + of(log_rates) - of(at)


def slope(function, at, step=1e-6):
    """Compute the gradient by central differences, over the finite entries of `at`."""
    gradient = np.zeros(len(at))
    for k in np.flatnonzero(np.isfinite(at)):
        move = step * (np.arange(len(at)) == k)
        gradient[k] = (function(at + move) - function(at - move)) / (2 * step)
    return gradient


@pytest.mark.parametrize("unknown", [(), (1, 4)])
def test_weights_are_one_with_the_gradient_of_the_gumbel_softmax(unknown):
    with jax.enable_x64(True):
        key, log_rates, _, noise, *_ = make_case(0, unknown)
        values = np.random.default_rng(1).normal(size=BATCH)
        total = lambda rates: (class_rates.weights(key, rates, BATCH) * values).sum()  # noqa: E731
        gradient = jax.grad(total)(jnp.asarray(log_rates))
        np.testing.assert_array_equal(class_rates.weights(key, jnp.asarray(log_rates), BATCH), 1)
        drawn = class_rates.draw(key, jnp.asarray(log_rates), BATCH)
    np.testing.assert_array_equal(drawn, (log_rates + noise).argmax(1))
    known = np.isfinite(log_rates)
    expected = slope(lambda rates: soft_weights(rates, log_rates, noise) @ values, log_rates)
    np.testing.assert_allclose(np.asarray(gradient)[known], expected[known], rtol=1e-7, atol=1e-9)


def meta_loss(log_rates, at, noise, class_counts, batch, balanced, head, head_rate):
    """Compute the cross-entropy of the balanced batch after a step of Balanced Softmax on the weighted batch."""
    features, labels = batch
    weight = soft_weights(log_rates, at, noise)
    with np.errstate(divide="ignore"):
        prior = np.log(class_counts)
    p = softmax(features @ head["kernel"] + head["bias"] + prior)
    error = (weight / weight.sum())[:, None] * (p - np.eye(K)[labels])
    kernel, bias = head["kernel"] - head_rate * features.T @ error, head["bias"] - head_rate * error.sum(0)
    after = softmax(balanced[0] @ kernel + bias)
    return -np.log(after[np.arange(BATCH), balanced[1]]).mean()


@pytest.mark.parametrize("unknown", [(), (1, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_the_log_rates_descend_the_gradient_of_the_loss_of_the_balanced_batch(seed, unknown):
    with jax.enable_x64(True):
        key, log_rates, class_counts, noise, features_of, balanced, head = make_case(seed, unknown)

        def improved(sampler_rate, head_rate=0.7):
            return class_rates.improve(
                jnp.asarray(log_rates),
                key,
                lambda chosen: jax.tree.map(jnp.asarray, features_of(np.asarray(chosen))),
                jax.tree.map(jnp.asarray, balanced),
                jax.tree.map(jnp.asarray, head),
                class_counts=class_counts,
                batch_size=BATCH,
                head_rate=head_rate,
                sampler_rate=sampler_rate,
            )

        ours, without_a_step = improved(0.2), improved(0.2, head_rate=0.0)
    batch = features_of((log_rates + noise).argmax(1))
    case = (log_rates, noise, class_counts, batch, balanced, head, 0.7)
    gradient = slope(lambda rates: meta_loss(rates, *case), log_rates)
    known = np.isfinite(log_rates)
    expected = log_rates - 0.2 * gradient / np.sqrt((gradient[known] ** 2).mean())
    np.testing.assert_allclose(ours[known], expected[known], rtol=1e-6)
    assert np.isneginf(ours[~known]).all()
    step = 1e-3 * (np.asarray(ours)[known] - log_rates[known])
    downhill = log_rates.copy()
    downhill[known] += step
    assert meta_loss(downhill, *case) < meta_loss(log_rates, *case)
    np.testing.assert_array_equal(without_a_step, log_rates)  # the loss does not depend on the draw: no direction


def test_log_rates_do_not_change_if_features_are_not_finite():
    log_rates = jnp.array([0.3, -jnp.inf, -0.2])
    head, labels = {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, jnp.array([0, 2, 0])

    @jax.jit
    def improved(value):
        return class_rates.improve(
            *(log_rates, jax.random.key(0), lambda chosen: (value * jnp.arange(8.0).reshape(4, 2), chosen)),
            *((jnp.ones((3, 2)), labels), head),
            **{"class_counts": jnp.array([9, 0, 2]), "batch_size": 4, "head_rate": 0.1, "sampler_rate": 0.1},
        )

    assert (improved(1.0) != log_rates).tolist() == [True, False, True]
    for broken in (np.nan, np.inf):
        np.testing.assert_array_equal(improved(broken), log_rates)


LONG_TAIL = np.array([200, 140, 100, 70, 48, 33, 23, 16, 11, 8])
SHARES = LONG_TAIL / LONG_TAIL.sum()


@jax.jit
def learn(key, log_rates):
    """Return class rates after 100 steps of a linear head on ten overlapping clouds of `LONG_TAIL` images."""
    classes, batch, rate, counts = len(LONG_TAIL), 64, 0.1, jnp.asarray(LONG_TAIL, jnp.int32)
    centres = jax.random.normal(jax.random.fold_in(key, 0), (classes, 24))
    centres = 2.2 * centres / jnp.linalg.norm(centres, axis=1, keepdims=True)
    images = jnp.repeat(centres, LONG_TAIL, axis=0)
    images = images + jax.random.normal(jax.random.fold_in(key, 1), images.shape)

    def pick(key, classes):
        return images[class_rates.positions(key, classes, counts)], classes

    def step(carry, key):
        log_rates, head = carry
        keys = jax.random.split(key, 6)
        log_rates = class_rates.improve(
            log_rates,
            keys[0],
            lambda chosen: pick(keys[1], chosen),
            pick(keys[2], class_rates.draw(keys[3], jnp.zeros(classes), batch)),
            head,
            **{"class_counts": counts, "batch_size": batch, "head_rate": rate, "sampler_rate": 0.01},
        )
        features, labels = pick(keys[4], class_rates.draw(keys[5], log_rates, batch))

        def loss(head):
            logits = features @ head["kernel"] + head["bias"][None]
            return losses.cross_entropy(logits, labels, offset=losses.log_prior(counts)).mean()

        head = jax.tree.map(lambda w, g: w - rate * g, head, jax.grad(loss)(head))
        return (log_rates, head), None

    head = {"kernel": jnp.zeros((24, classes)), "bias": jnp.zeros(classes)}
    (log_rates, _), _ = jax.lax.scan(step, (log_rates, head), jax.random.split(key, 100))
    return jax.nn.softmax(log_rates)


@pytest.mark.parametrize("seed", range(3))
def test_rare_classes_are_drawn_more_often_than_their_share_of_the_images(seed):
    rare = slice(5, None)
    for start in (jnp.log(SHARES), jnp.zeros(len(SHARES))):
        rates = np.asarray(learn(jax.random.key(seed), start.astype(jnp.float32)))
        assert rates[rare].sum() > 1.2 * SHARES[rare].sum()
        assert rates[-1] > SHARES[-1]
    # From uniform rates, with which Balanced Softmax favours rare classes, those of frequent classes rise.
    assert rates[0] > 1.2 / len(SHARES) and rates[rare].sum() < 0.5
