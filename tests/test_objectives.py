"""Every trained method against a float64 reference, and objectives as pytrees."""

import dataclasses
import functools
import json

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax import losses, objectives
from mpt_jax.objectives import (
    GATES,
    METHODS,
    SOURCES,
    Objective,
    Term,
    check_number,
    describe,
    per_example_loss,
    sources,
    stack,
    with_numbers,
)

K, K_OLD, N = 6, 4, 12
LABELS = np.arange(N, dtype=np.int32) % K
_rng = np.random.default_rng(0)
STUDENT, OLD, NEW, ENSEMBLE, HEAD = (_rng.normal(scale=3.0, size=(N, k)) for k in (K, K_OLD, K, K, K_OLD))
OLD[0, 0], OLD[1, 1], NEW[4, 4] = 12.0, 12.0, 12.0  # both sides of every gate occur
STUDENT[2, 2], STUDENT[5, 5] = 6.0, 6.0
COUNTS = np.array([400, 100, 20, 7, 500, 30], np.int32)
SCALE = np.array([0.5, 2.0, 1.0, 4.0, 0.25, 1.5])
# A point of the training at which terms that start at epoch 6 count and a schedule is in progress.
EPOCH, PROGRESS = 6, 0.25
MOMENT = {
    **{"num_old_classes": K_OLD, "class_counts": COUNTS, "label_scale": SCALE},
    **{"epoch": EPOCH, "progress": PROGRESS},
}


def arrays(dtype=jnp.float32):
    z, *teachers = (jnp.asarray(x, dtype) for x in (STUDENT, OLD, NEW, ENSEMBLE, HEAD))
    return z, dict(zip(("old", "new", "ensemble", "old_head"), teachers, strict=True))


def loss(objective, dtype=jnp.float32, **moment):
    z, teachers = arrays(dtype)
    return per_example_loss(objective, z, LABELS, teachers, **{**MOMENT, **moment})


@functools.cache
def losses_of_rows():
    """Return the losses of every method in float64, from one program."""
    with jax.enable_x64(True):
        return jax.device_get(jax.jit(lambda: {name: loss(row, jnp.float64) for name, row in METHODS.items()})())


# The published table, written again in NumPy, one image at a time.


def log_softmax(z):
    return z - np.log(np.sum(np.exp(z)))


def ce(z, y, b=0.0, prior=0.0, smoothing=0.0):
    target = (1 - smoothing) * (np.arange(K) == y) + smoothing / K
    return -np.sum(target * log_softmax(z + b * (np.arange(K) >= K_OLD) + prior))


def soft_ce(z, t):
    return -np.sum(np.exp(log_softmax(t)) * log_softmax(z)[: len(t)])


def right(t, y):
    return float(np.argmax(t) == y)


def kl(z, t, tau):
    p, q = log_softmax(t / tau), log_softmax(z[: len(t)] / tau)
    return np.sum(np.exp(p) * (p - q))


def fd_kl(z, t, y):
    return (1 + 5 * right(t, y)) * kl(z, t, 5)


def ldi(z, t, slack, largest=K):
    chosen = np.argsort(-t)[:largest]
    return np.sum(np.maximum(np.abs(z[chosen] - t[chosen]) - slack, 0) ** 2) / len(t)


def fd_centred(z, t, y):
    return (1 + 5 * right(t, y)) * np.var(z[: len(t)] - t) / 2


def fd_lm(z, t, y):
    return (1 + 5 * right(t, y)) * ldi(z, t, 0) / 2


def better(z, t, y):
    return float(y < len(t) and log_softmax(t)[min(y, len(t) - 1)] > log_softmax(z)[y])


def target_ce(z, t, y, share):
    """Cross-entropy with the target ``share * p_t + (1 - share) * onehot``."""
    target = (1.0 - share) * (np.arange(K) == y)
    target[: len(t)] += share * np.exp(log_softmax(t))
    return -np.sum(target * log_softmax(z))


def factored(factor):
    return np.log(COUNTS * np.where(np.arange(K) < K_OLD, factor, 1))


# student, old, new, ensemble, old head, label
TABLE = {
    "no_treatment": lambda z, o, n, e, h, y: ce(z, y),
    "pct_naive": lambda z, o, n, e, h, y: ce(z, y) + right(o, y) * ce(z, y),
    "pct_kl": lambda z, o, n, e, h, y: ce(z, y) + fd_kl(z, o, y),
    "pct_lm": lambda z, o, n, e, h, y: ce(z, y) + 0.4 * fd_lm(z, o, y),
    "mpt_kl": lambda z, o, n, e, h, y: ce(z, y, 4) + fd_kl(z, o, y) + fd_kl(z, n, y),
    "mpt_lm": lambda z, o, n, e, h, y: ce(z, y, 4) + 0.4 * fd_lm(z, o, y) + 0.4 * fd_lm(z, n, y),
    "mpt_no_distillation": lambda z, o, n, e, h, y: ce(z, y, 4),
    "mpt_kl_no_bias": lambda z, o, n, e, h, y: ce(z, y) + fd_kl(z, o, y) + fd_kl(z, n, y),
    "mpt_lm_no_bias": lambda z, o, n, e, h, y: ce(z, y) + 0.4 * fd_lm(z, o, y) + 0.4 * fd_lm(z, n, y),
    "mpt_kl_annealed": lambda z, o, n, e, h, y: ce(z, y, 3) + fd_kl(z, o, y) + fd_kl(z, n, y),
    "mpt_kl_grown": lambda z, o, n, e, h, y: ce(z, y, 1) + fd_kl(z, o, y) + fd_kl(z, n, y),
    "mpt_kl_per_class": lambda z, o, n, e, h, y: ce(z, y, 4 * SCALE[y]) + fd_kl(z, o, y) + fd_kl(z, n, y),
    "mpt_kl_ema": lambda z, o, n, e, h, y: ce(z, y, 4) + fd_kl(z, o, y) + fd_kl(z, n, y),
    "mpt_kl_ensemble": lambda z, o, n, e, h, y: ce(z, y, 4) + fd_kl(z, o, y) + fd_kl(z, e, y),
    "mpt_lm_centred": lambda z, o, n, e, h, y: ce(z, y, 1) + 0.4 * fd_centred(z, o, y) + 0.4 * fd_centred(z, n, y),
    "mpt_lm_ensemble": lambda z, o, n, e, h, y: ce(z, y, 1) + 0.4 * fd_centred(z, o, y) + 0.4 * fd_centred(z, e, y),
    "elodi": lambda z, o, n, e, h, y: 0.2 * ce(z, y) + 0.8 * ldi(z, e, 0.2),
    "elodi_mpt": lambda z, o, n, e, h, y: ce(z, y) + 0.6 * ldi(z, o, 0) / 2 + 0.4 * ldi(z, e, 0) / 2,
    "elodi_mpt_topk": lambda z, o, n, e, h, y: ce(z, y) + 0.6 * ldi(z, o, 0, 10) / 2 + 0.4 * ldi(z, e, 0, 10) / 2,
    "ldi": lambda z, o, n, e, h, y: 0.5 * ce(z, y) + 0.5 * ldi(z, o, 0.5) * (y < K_OLD),
    "kd": lambda z, o, n, e, h, y: 0.5 * ce(z, y) + 0.5 * 4 * kl(z, o, 2),
    "better_teacher": lambda z, o, n, e, h, y: 0.5 * ce(z, y) + 0.5 * 4 * kl(z, o, 2) if better(z, o, y) else ce(z, y),
    "churn_distillation": lambda z, o, n, e, h, y: target_ce(z, o, y, 0.5 if y < K_OLD else 0),
    "anchor": lambda z, o, n, e, h, y: target_ce(z, o, y, 0.5) if right(o, y) else ce(z, y, smoothing=0.1),
    "strict_imitation": lambda z, o, n, e, h, y: ce(z, y) + 0.5 * right(o, y) * soft_ce(z, o),
    "muscle": lambda z, o, n, e, h, y: 0.5 * ce(z, y) + 0.5 * (kl(z, n, 2) if right(z, y) else kl(z, o, 2)),
    "bct": lambda z, o, n, e, h, y: ce(z, y) - (log_softmax(h)[y] if y < K_OLD else 0),
    "label_smoothing": lambda z, o, n, e, h, y: ce(z, y, smoothing=0.1),
    "ema": lambda z, o, n, e, h, y: ce(z, y),
    "balanced_softmax": lambda z, o, n, e, h, y: -np.log(COUNTS[y] * np.exp(z[y]) / np.sum(COUNTS * np.exp(z))),
    "balanced_softmax_kd": lambda z, o, n, e, h, y: 0.5 * ce(z, y, prior=np.log(COUNTS)) + 0.5 * 4 * kl(z, o, 2),
    "balanced_softmax_factor": lambda z, o, n, e, h, y: ce(z, y, prior=factored(0.5)),
    "balanced_meta_softmax": lambda z, o, n, e, h, y: ce(z, y, prior=np.log(COUNTS)),
}
IMAGES = list(zip(STUDENT, OLD, NEW, ENSEMBLE, HEAD, LABELS, strict=True))
EXPECTED = {name: np.array([row(*x) for x in IMAGES]) for name, row in TABLE.items()}

MIXED = [
    *METHODS.values(),
    Objective(
        cross_entropy=0.2,
        bias=1.5,
        terms=(
            Term("old", "lm", weight=0.3, unknown_classes="drop", matching="mean"),
            Term("old", "lm", weight=0.5, alpha=0.1),
            Term("old", "lm", weight=0.7, beta=0.2),  # the same structure twice in one objective
            Term("new", "kl", gate="none", alpha=2.0, temperature=3.0, scale_by_temperature_squared=True),
        ),
    ),
    METHODS["elodi_mpt_topk"].replace(balance=0.5, bias=1.0, label_smoothing=0.2),
    Objective(terms=(Term("new", "ldi", "teacher_wrong", slack=0.1, power=1.5, top_k=2, start_epoch=9.0),)),
]


def value_and_gradient(objective, z, teachers, labels=LABELS):
    def total(z):
        values = per_example_loss(objective, z, labels, teachers, **MOMENT)
        return values.sum(), values

    gradient, values = jax.grad(total, has_aux=True)(z)
    return values, gradient


@jax.jit
def of_population(stacked, z, teachers):
    return jax.vmap(lambda objective: value_and_gradient(objective, z, teachers))(stacked)


@functools.cache
def of_each_alone():
    """Return the values and gradients of every objective, from one program on examples in a 3x4 grid."""
    z, teachers = jax.tree.map(lambda x: np.asarray(x).reshape(3, 4, -1), arrays())
    labels = LABELS.reshape(3, 4)
    program = jax.jit(lambda z, t: [value_and_gradient(objective, z, t, labels) for objective in MIXED])
    return [(values.reshape(N), gradient.reshape(N, K)) for values, gradient in jax.device_get(program(z, teachers))]


def test_the_table_has_these_rows():
    assert list(METHODS) == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_row_of_the_table(name):
    np.testing.assert_allclose(loss(METHODS[name]), EXPECTED[name], rtol=1e-5, atol=1e-5)
    double = losses_of_rows()[name]
    chex.assert_type(double, np.float64)
    np.testing.assert_allclose(double, EXPECTED[name], rtol=1e-12)


def test_every_number_and_option_has_an_effect():
    terms = (
        Term("old", "kl", "none", 0.3, 2.0, 7.0, 4.0, scale_by_temperature_squared=True, unknown_classes="drop"),
        Term("new", "lm", "teacher_right", 0.6, 0.5, 3.0, matching="half_sum"),
        Term("ensemble", "ldi", "teacher_wrong", 0.7, 0.2, 0.4, slack=1.5, power=1.0, top_k=2),
        Term("old", "ce", "student_right", 0.8, 0.3, 0.6, label_smoothing=0.4),
        Term("old", "soft_ce", "teacher_knows", 0.9, 0.1, 0.2),
    )

    def row(z, o, n, e, h, y):
        old_kl = 0.3 * 2.0 * 16 * kl(z, o, 4) * (y < K_OLD)  # gate "none": only alpha
        new_lm = 0.6 * (0.5 + 3 * right(n, y)) * np.sum((z - n) ** 2) / 2
        largest = np.argsort(-e)[:2]
        excess = np.sum(np.maximum(np.abs(z - e) - 1.5, 0)[largest]) / K
        smoothed = 0.8 * (0.3 + 0.6 * right(z, y)) * ce(z, y, smoothing=0.4)
        soft = 0.9 * (0.1 + 0.2 * (y < K_OLD)) * soft_ce(z, o)
        b = 2 * (0.5 + 0.25 * (3 - 0.5)) * SCALE[y] ** 0.7
        base = 0.7 * ce(z, y, b=b, prior=0.3 * factored(0.2), smoothing=0.15)
        return base + old_kl + new_lm + 0.7 * (0.2 + 0.4 * (1 - right(e, y))) * excess + smoothed + soft

    expected = [row(*x) for x in IMAGES]
    leaves = {"bias_start": 0.5, "bias_end": 3.0, "balance": 0.3, "old_count_factor": 0.2, "label_smoothing": 0.15}
    leaves["bias_power"] = 0.7
    values = loss(Objective(cross_entropy=0.7, bias=2.0, terms=terms, **leaves))
    np.testing.assert_allclose(values, expected, rtol=1e-5)


gradient_of_soft_cross_entropy = jax.jit(jax.grad(lambda z, t: losses.soft_cross_entropy(z, t).sum()))


@pytest.mark.parametrize("gate", [*GATES, "teacher_right&student_wrong", "teacher_knows&student_wrong&better_teacher"])
def test_gates(gate):
    expected = {
        "none": lambda z, o, y: False,
        "teacher_right": lambda z, o, y: right(o, y),
        "teacher_wrong": lambda z, o, y: not right(o, y),
        "teacher_knows": lambda z, o, y: y < K_OLD,
        "better_teacher": better,
        "student_right": lambda z, o, y: right(z, y),
        "student_wrong": lambda z, o, y: not right(z, y),
        "teacher_right&student_wrong": lambda z, o, y: right(o, y) and not right(z, y),
        "teacher_knows&student_wrong&better_teacher": lambda z, o, y: not right(z, y) and better(z, o, y),
    }[gate]
    opened = np.array([bool(expected(z, o, y)) for z, o, y in zip(STUDENT, OLD, LABELS, strict=True)])
    assert gate == "none" or (opened[LABELS < K_OLD].any() and not opened.all())
    z, teachers = arrays()
    if gate in GATES:
        np.testing.assert_array_equal(GATES[gate](z, teachers["old"], jnp.asarray(LABELS)), opened)
    terms = (Term("old", "soft_ce", gate, alpha=0.0, beta=1.0),)
    gated = lambda z: per_example_loss(Objective(0.0, terms=terms), z, LABELS, teachers, **MOMENT)  # noqa: E731
    expected = np.array([soft_ce(z, o) for z, o in zip(STUDENT, OLD, strict=True)]) * opened
    np.testing.assert_allclose(gated(z), expected, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda z: gated(z).sum()))(z)  # of the distance alone: the gate is a number
    expected = np.asarray(gradient_of_soft_cross_entropy(z, teachers["old"]))
    np.testing.assert_allclose(gradient, expected * opened[:, None], rtol=1e-5, atol=1e-6)


def test_no_gradient_flows_through_a_gate_of_numbers(monkeypatch):
    monkeypatch.setitem(objectives.GATES, "confidence", lambda z, t, y: jax.nn.softmax(z).max(-1))
    z, teachers = arrays()
    term = Term("new", "soft_ce", "confidence", alpha=0.0, beta=1.0)
    _, gradient = jax.jit(value_and_gradient)(Objective(0.0, terms=(term,)), z, teachers)
    gate = jax.nn.softmax(z).max(-1)
    expected = jax.jit(jax.grad(lambda z: (gate * losses.soft_cross_entropy(z, teachers["new"])).sum()))(z)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_gradients_agree_with_finite_differences():
    with jax.enable_x64(True):
        z, teachers = arrays(jnp.float64)
        stacked = stack(list(METHODS.values()))

        def total(z):
            one = lambda o: per_example_loss(o, z, LABELS, teachers, **MOMENT).sum()  # noqa: E731
            return jax.vmap(one)(stacked)

        direction = np.random.default_rng(1).normal(size=z.shape)
        value_and_derivative = jax.jit(lambda z: jax.jvp(total, (z,), (direction,)))
        _, derivative = value_and_derivative(z)
        step = 1e-6
        after, before = (np.asarray(value_and_derivative(z + s * direction)[0]) for s in (step, -step))
        difference = (after - before) / (2 * step)
    np.testing.assert_allclose(derivative, difference, rtol=1e-7, atol=1e-7)


def test_elodi_with_the_ten_largest_logits_of_each_row():
    random = np.random.default_rng(2)
    z, old, ensemble = (random.normal(size=(5, k)) for k in (24, 15, 24))
    teachers = {"old": jnp.asarray(old, jnp.float32), "ensemble": jnp.asarray(ensemble, jnp.float32)}
    labels = np.arange(5, dtype=np.int32)
    moment = {"num_old_classes": 15, "epoch": 6}
    row = METHODS["elodi_mpt_topk"]
    values = jax.jit(lambda z, t: per_example_loss(row, z, labels, t, **moment))(z.astype(np.float32), teachers)
    expected = [
        -log_softmax(z[i])[i] + 0.6 * ldi(z[i], old[i], 0, 10) / 2 + 0.4 * ldi(z[i], ensemble[i], 0, 10) / 2
        for i in range(5)
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_jit_and_leading_axes():
    expected = [loss(objective) for objective in MIXED]
    values = [values for values, _ in of_each_alone()]
    chex.assert_trees_all_close(values, jax.device_get(expected), rtol=1e-5)


def test_numbers_are_leaves():
    z, teachers = arrays()

    @jax.jit
    def mean_loss(objective):
        return per_example_loss(objective, z, LABELS, teachers, **MOMENT).mean()

    biases = np.array([0.0, 1.0, 4.0], np.float32)
    sweep = jax.jit(jax.vmap(lambda b: mean_loss(METHODS["mpt_kl"].replace(bias=b))))(biases)
    alone = [loss(METHODS["mpt_kl"].replace(bias=float(b))).mean() for b in biases]
    np.testing.assert_allclose(sweep, alone, rtol=1e-5)
    gradient = jax.jit(jax.grad(mean_loss))(METHODS["mpt_lm"])
    step = 1e-2
    finite = (
        mean_loss(METHODS["mpt_lm"].replace(bias=4 + step)) - mean_loss(METHODS["mpt_lm"].replace(bias=4 - step))
    ) / (2 * step)
    np.testing.assert_allclose(gradient.bias, finite, rtol=1e-2)
    assert len(jax.tree.leaves(METHODS["mpt_lm"])) == 10 + 2 * 8


def test_stack_equals_its_rows():
    z, teachers = arrays()
    stacked = stack(MIXED)
    chex.assert_tree_shape_prefix(stacked, (len(MIXED),))
    chex.assert_type(jax.tree.leaves(stacked), jnp.float32)
    structures = {jax.tree.structure(term) for objective in MIXED for term in objective.terms}
    assert len(stacked.terms) == len(structures) + 2  # two structures occur twice in one objective
    values, gradients = jax.device_get(of_population(stacked, z, teachers))
    for i, (value, gradient) in enumerate(of_each_alone()):
        np.testing.assert_allclose(values[i], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradients[i], gradient, rtol=1e-5, atol=1e-6)


def test_stack_keeps_float64_if_enabled():
    with jax.enable_x64(True):
        stacked = stack([METHODS["pct_lm"], METHODS["mpt_lm"]])
        z, teachers = arrays(jnp.float64)
        values = jax.jit(jax.vmap(lambda o: per_example_loss(o, z, LABELS, teachers, **MOMENT)))(stacked)
    np.testing.assert_allclose(values, [EXPECTED["pct_lm"], EXPECTED["mpt_lm"]], rtol=1e-12)


def test_stack_of_the_same_structure_has_no_further_terms():
    biases = [METHODS["mpt_kl"].replace(bias=b) for b in (0.0, 2.0, 4.0)]
    stacked = stack(biases)
    assert len(stacked.terms) == 2
    np.testing.assert_array_equal(stacked.bias, [0.0, 2.0, 4.0])
    np.testing.assert_array_equal(stacked.terms[1].weight, [1.0, 1.0, 1.0])


def test_an_absent_term_has_no_effect():
    z, teachers = arrays()
    broken = {
        **{"old": np.full((N, K_OLD), np.nan, np.float32), "new": np.full((N, K), np.inf, np.float32)},
        **{"ensemble": np.full((N, K), np.nan, np.float32), "old_head": np.full((N, K_OLD), -np.inf, np.float32)},
    }
    values, gradients = jax.device_get(of_population(stack(MIXED), z, broken))
    sound, expected = jax.device_get(of_population(stack(MIXED), z, teachers))
    needs_none = [i for i, objective in enumerate(METHODS.values()) if not sources(objective)]
    for i in needs_none:
        np.testing.assert_allclose(values[i], sound[i], rtol=1e-6)
        np.testing.assert_allclose(gradients[i], expected[i], rtol=1e-6)
    assert len(needs_none) > 2 and np.isnan(values[list(METHODS).index("mpt_kl")]).all()


def test_no_gradient_into_teachers():
    z, teachers = arrays()

    @jax.jit
    def of_each(teachers):
        totals = [lambda t, o=objective: per_example_loss(o, z, LABELS, t, **MOMENT).sum() for objective in MIXED]
        return [jax.grad(total)(teachers) for total in totals]

    for gradients in jax.device_get(of_each(teachers)):
        assert not any(gradient.any() for source, gradient in gradients.items() if source != "old_head")


def test_the_old_head_teaches_the_features_of_its_classes():
    z, _ = arrays()

    def total(features, head):
        return per_example_loss(METHODS["bct"], z, LABELS, {"old_head": features @ head}, **MOMENT).sum()

    features, head = np.ones((N, 2), np.float32), HEAD[:2].astype(np.float32)
    gradient = np.asarray(jax.jit(jax.grad(total))(features, head))
    known = LABELS < K_OLD
    assert gradient[known].any(-1).all() and not gradient[~known].any()


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_finite_at_extreme_logits(scale):
    z, teachers = arrays()
    z, teachers = scale * jnp.sign(z), jax.tree.map(lambda t: -scale * jnp.sign(t), teachers)
    chex.assert_tree_all_finite(of_population(stack(MIXED), z, teachers))


def test_first_release_is_plain_cross_entropy():
    z, _ = arrays()
    values = per_example_loss(METHODS["no_treatment"], z, LABELS, {}, num_old_classes=K)
    np.testing.assert_allclose(values, EXPECTED["no_treatment"], rtol=1e-5, atol=1e-6)
    biased = per_example_loss(METHODS["mpt_no_distillation"], z, LABELS, {}, num_old_classes=K)
    np.testing.assert_array_equal(biased, values)


def test_low_precision_is_computed_in_float32():
    z, teachers = arrays(jnp.bfloat16)
    z32, teachers32 = jax.tree.map(lambda x: x.astype(jnp.float32), (z, teachers))
    for objective in MIXED:
        values = per_example_loss(objective, z, LABELS, teachers, **MOMENT)
        chex.assert_type(values, jnp.float32)
        np.testing.assert_array_equal(values, per_example_loss(objective, z32, LABELS, teachers32, **MOMENT))


def test_small_label_dtypes_work():
    z, teachers = arrays()
    values = per_example_loss(MIXED[-1], z, LABELS.astype(np.uint8), teachers, **MOMENT)
    np.testing.assert_array_equal(values, loss(MIXED[-1]))


def test_sources():
    needed = {name: " ".join(sources(objective)) for name, objective in METHODS.items()}
    by_sources = {
        "": "no_treatment mpt_no_distillation label_smoothing ema balanced_softmax balanced_softmax_factor "
        "balanced_meta_softmax",
        "old": "pct_naive pct_kl pct_lm ldi kd better_teacher churn_distillation anchor strict_imitation "
        "balanced_softmax_kd",
        "old new": "mpt_kl mpt_lm mpt_kl_no_bias mpt_lm_no_bias mpt_kl_annealed mpt_kl_grown mpt_kl_per_class "
        "mpt_kl_ema mpt_lm_centred muscle",
        "old ensemble": "mpt_kl_ensemble mpt_lm_ensemble elodi_mpt elodi_mpt_topk",
        "ensemble": "elodi",
        "old_head": "bct",
    }
    assert needed == {name: names for names, methods in by_sources.items() for name in methods.split()}
    assert set(sources(stack(list(METHODS.values())))) == {"old", "new", "ensemble", "old_head"}


def test_muscle_uses_one_teacher_per_image():
    old, new = (Objective(0.0, terms=(term,)) for term in METHODS["muscle"].terms)
    both = np.stack([loss(old), loss(new)])
    np.testing.assert_array_equal((both > 0).sum(0), 1)
    np.testing.assert_allclose(loss(METHODS["muscle"]), 0.5 * loss(METHODS["no_treatment"]) + both.sum(0), rtol=1e-5)


def test_churn_distillation_lies_between_the_label_and_the_old_model():
    def churn(share):
        soft, label = METHODS["churn_distillation"].terms
        terms = (soft.replace(weight=share), label.replace(weight=share))
        return loss(Objective(1 - share, terms=terms))

    plain = loss(METHODS["no_treatment"])
    np.testing.assert_allclose(churn(0.0), plain, rtol=1e-6, atol=1e-6)
    imitation = [soft_ce(z, o) if y < K_OLD else ce(z, y) for z, o, *_, y in IMAGES]
    np.testing.assert_allclose(churn(1.0), imitation, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(churn(0.25), 0.75 * plain + 0.25 * churn(1.0), rtol=1e-5, atol=1e-6)


def test_terms_start_at_their_epoch_and_broken_teachers_have_no_effect_before():
    z, _ = arrays()
    broken = {"old": jnp.full((N, K_OLD), jnp.nan), "ensemble": jnp.full((N, K), jnp.nan)}
    plain = loss(METHODS["no_treatment"])
    at = jax.jit(
        lambda epoch, z: per_example_loss(METHODS["elodi_mpt"], z, LABELS, broken, **{**MOMENT, "epoch": epoch})
    )
    np.testing.assert_allclose(at(jnp.int32(5), z), plain, rtol=1e-6, atol=1e-6)
    chex.assert_tree_all_finite(jax.grad(lambda z: at(jnp.int32(5), z).sum())(z))
    assert np.isnan(at(jnp.int32(6), z)).all()
    for epoch in (0, 5.5, 6, 60):
        expected = EXPECTED["elodi_mpt" if epoch >= 6 else "no_treatment"]
        np.testing.assert_allclose(loss(METHODS["elodi_mpt"], epoch=epoch), expected, rtol=1e-5, atol=1e-6)


def test_a_bias_follows_its_schedule():
    constant = {b: loss(METHODS["mpt_kl"].replace(bias=b)) for b in (0.0, 1.0, 2.0, 3.0, 4.0)}
    for progress, annealed, grown in ((0.0, 4.0, 0.0), (0.25, 3.0, 1.0), (1.0, 0.0, 4.0)):
        for name, b in (("mpt_kl_annealed", annealed), ("mpt_kl_grown", grown), ("mpt_kl", 4.0)):
            np.testing.assert_allclose(loss(METHODS[name], progress=progress), constant[b], rtol=1e-6, atol=1e-6)
            half = loss(METHODS[name].replace(bias=2.0), progress=progress)  # the schedule scales b
            np.testing.assert_allclose(half, loss(METHODS["mpt_kl"].replace(bias=b / 2)), rtol=1e-6, atol=1e-6)
    along = jax.jit(jax.vmap(lambda p: loss(METHODS["mpt_kl_annealed"], progress=p)))(np.float32([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(along, [constant[4.0], constant[3.0], constant[0.0]], rtol=1e-5, atol=1e-6)


def test_balance():
    z, _ = arrays()
    balanced = losses.balanced_softmax_cross_entropy(z, LABELS, COUNTS)
    np.testing.assert_allclose(loss(Objective(balance=1.0)), balanced, rtol=1e-6, atol=1e-6)
    even = np.full(K, 7)
    np.testing.assert_allclose(loss(Objective(balance=1.0), class_counts=even), loss(Objective()), rtol=1e-6, atol=1e-6)
    # a factor on the old classes' counts is a margin
    margin = loss(Objective(bias=np.log(4.0)))
    factor = loss(Objective(balance=1.0, old_count_factor=0.25), class_counts=even)
    np.testing.assert_allclose(factor, margin, rtol=1e-5, atol=1e-6)
    # and adds to an existing one
    np.testing.assert_allclose(
        loss(Objective(balance=1.0, bias=1.0)),
        [ce(x[0], x[-1], 1, np.log(COUNTS)) for x in IMAGES],
        rtol=1e-5,
        atol=1e-6,
    )
    # without rehearsal images, old classes cannot occur: their images cost infinity, and only new classes compete
    new = np.where(np.arange(K) >= K_OLD, 500, 0)
    known = LABELS >= K_OLD
    among_new = losses.cross_entropy(z[known][:, K_OLD:], LABELS[known] - K_OLD)
    np.testing.assert_allclose(loss(Objective(balance=1.0), class_counts=new)[known], among_new, rtol=1e-5, atol=1e-6)
    assert np.isposinf(loss(Objective(balance=1.0), class_counts=new)[~known]).all()
    np.testing.assert_array_equal(loss(Objective(), class_counts=new), loss(Objective()))


def test_a_balance_needs_counts():
    with pytest.raises(ValueError, match=r"balance=1\.0 without class_counts"):
        loss(METHODS["balanced_softmax"], class_counts=None)
    np.testing.assert_array_equal(loss(METHODS["kd"], class_counts=None), loss(METHODS["kd"]))
    # for a traced objective, NaN instead of a wrong loss, and no effect on other rows
    rows = stack([METHODS["no_treatment"], METHODS["balanced_softmax"]])
    values = jax.jit(jax.vmap(lambda o: loss(o, class_counts=None)))(rows)
    np.testing.assert_allclose(values[0], loss(METHODS["no_treatment"]), rtol=1e-6)
    assert np.isnan(values[1]).all()
    counts = jnp.asarray(COUNTS)
    traced = jax.jit(lambda n: loss(METHODS["balanced_softmax_factor"], class_counts=n))(counts)
    np.testing.assert_allclose(traced, EXPECTED["balanced_softmax_factor"], rtol=1e-5)
    with pytest.raises(ValueError, match="one number per class"):
        loss(METHODS["balanced_softmax"], class_counts=COUNTS[:3])


def test_a_bias_power_needs_a_scale():
    with pytest.raises(ValueError, match=r"bias_power=1\.0 without label_scale"):
        loss(METHODS["mpt_kl_per_class"], label_scale=None)
    ones, none = np.ones(K), None
    for name in ("mpt_kl", "mpt_kl_per_class"):
        np.testing.assert_array_equal(loss(METHODS[name], label_scale=ones), loss(METHODS["mpt_kl"], label_scale=ones))
    np.testing.assert_allclose(loss(METHODS["mpt_kl"], label_scale=none), loss(METHODS["mpt_kl"]), rtol=1e-6)
    # for a traced objective, NaN instead of a wrong loss, and no effect on other rows
    rows = stack([METHODS["mpt_kl"], METHODS["mpt_kl_per_class"]])
    values = jax.jit(jax.vmap(lambda o: loss(o, label_scale=none)))(rows)
    np.testing.assert_allclose(values[0], EXPECTED["mpt_kl"], rtol=1e-5)
    assert np.isnan(values[1]).all()
    values = jax.jit(jax.vmap(loss))(rows)
    np.testing.assert_allclose(values, [EXPECTED["mpt_kl"], EXPECTED["mpt_kl_per_class"]], rtol=1e-5)


def test_numbers_of_the_training_loop_do_not_change_the_loss():
    for name, number in (("ema", "average"), ("mpt_kl_ema", "average"), ("balanced_meta_softmax", "sampler_rate")):
        assert getattr(METHODS[name], number) > 0
        np.testing.assert_array_equal(loss(METHODS[name]), loss(METHODS[name].replace(**{number: 0.0})))


OWN = [field.name for field in dataclasses.fields(Objective) if field.metadata.get("pytree_node", True)]
OWN.remove("terms")
OF_TERMS = ("weight", "alpha", "beta", "temperature", "slack", "power", "label_smoothing", "start_epoch")
NUMBERS = [*OWN, *(f"{source}.{leaf}" for source in SOURCES for leaf in OF_TERMS)]


def test_the_numbers_of_objectives_have_these_names():
    for name in NUMBERS:
        check_number(name, [0.5, 0.25])
    for name in (
        "biass",
        "weight",
        "terms",
        "doc",
        "family",
        "old.bias",
        "old.top_k",
        "old.gate",
        "older.weight",
        "old.",
        ".bias",
    ):
        with pytest.raises(ValueError, match=f"^no number of an objective is called '{name}'; valid: "):
            check_number(name)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("bias", [0.0, 30.0], -0.1),
        ("old.weight", [0.0, 2.0], -1.0),
        ("average", [0.0, 0.999], 1.0),
        ("label_smoothing", [0.0, 0.9], 1.0),
        ("old.label_smoothing", [0.0], 1.5),
        ("new.temperature", [0.1, 50.0], 0.0),
        ("sampler_rate", [0.01, 2.0], 0.0),
        ("old_count_factor", [0.01, 2.0], 0.0),
    ],
)
def test_the_numbers_of_objectives_have_ranges(name, good, bad):
    check_number(name, good)
    with pytest.raises(ValueError, match="expected numbers"):
        check_number(name, [*good, bad])


def is_used_by(objective, name):
    """Return whether the objective has a part with this number."""
    source, _, leaf = name.rpartition(".")
    if source:
        return any(term.source == source for term in objective.terms)
    whose = {"old_count_factor": "balance"}.get(leaf, "bias" if leaf.startswith("bias") else leaf)
    return getattr(objective, whose) != 0


@hypothesis.given(st.sampled_from(list(METHODS)), st.dictionaries(st.sampled_from(NUMBERS), st.floats(0.01, 0.99)))
def test_numbers_change_where_they_are_used_and_nothing_else_does(method, numbers):
    objective = METHODS[method]
    changed = with_numbers(objective, numbers)
    used = {name: value for name, value in numbers.items() if is_used_by(objective, name)}
    assert with_numbers(objective, {name: numbers[name] for name in numbers.keys() - used.keys()}) == objective
    for leaf in OWN:
        assert getattr(changed, leaf) == used.get(leaf, getattr(objective, leaf))
    for before, after in zip(objective.terms, changed.terms, strict=True):
        for leaf in OF_TERMS:
            assert getattr(after, leaf) == used.get(f"{before.source}.{leaf}", getattr(before, leaf))
        assert jax.tree.structure(after) == jax.tree.structure(before)
    assert jax.tree.structure(changed) == jax.tree.structure(objective)  # the structure is the same
    step_by_step = objective
    for name, value in numbers.items():
        step_by_step = with_numbers(step_by_step, {name: value})
    assert step_by_step == changed


@pytest.mark.parametrize("name", METHODS)
def test_describe(name):
    text = json.loads(json.dumps(describe(METHODS[name])))
    assert text["bias"] == METHODS[name].bias and len(text["terms"]) == len(METHODS[name].terms)
    # complete: the objective can be built again from it
    terms = tuple(Term(**term) for term in text.pop("terms"))
    assert Objective(**text, terms=terms, doc=METHODS[name].doc) == METHODS[name]


def test_describe_omits_defaults_of_special_numbers():
    assert describe(METHODS["balanced_softmax_factor"]) == {
        **{"cross_entropy": 1.0, "bias": 0.0, "balance": 1.0, "old_count_factor": 0.5, "terms": []}
    }
    assert describe(METHODS["mpt_kl_annealed"])["bias_end"] == 0.0
    assert describe(METHODS["ema"]) == {"cross_entropy": 1.0, "bias": 0.0, "average": 0.999, "terms": []}
    assert describe(METHODS["balanced_meta_softmax"]) == {
        **{"cross_entropy": 1.0, "bias": 0.0, "balance": 1.0, "sampler_rate": 0.01, "terms": []}
    }
    assert describe(METHODS["mpt_kl_per_class"]) == {**describe(METHODS["mpt_kl"]), "bias_power": 1.0}
    first, _ = describe(METHODS["elodi_mpt_topk"])["terms"]
    assert (first["top_k"], first["start_epoch"]) == (10, 6.0) and "slack" not in first
    assert set(describe(METHODS["pct_kl"])["terms"][0]) == {
        *("source", "distance", "gate", "weight", "alpha", "beta", "temperature"),
        *("scale_by_temperature_squared", "unknown_classes", "matching"),
    }


def test_describe_rounds_float32_to_the_written_number():
    row = jax.tree.map(lambda x: x[1], stack([METHODS["pct_kl"], METHODS["pct_lm"]]))
    described = describe(row.replace(terms=row.terms[1:]))
    assert described["terms"] == describe(METHODS["pct_lm"])["terms"]
    assert described["terms"][0]["weight"] == 0.4


def test_every_row_has_a_formula_in_one_line():
    assert all(objective.doc and "\n" not in objective.doc for objective in METHODS.values())


def test_new_rows_gates_and_distances_need_no_other_change(monkeypatch):
    monkeypatch.setitem(objectives.GATES, "even", lambda z, t, y: y.astype(int) % 2 == 0)
    monkeypatch.setitem(objectives.DISTANCES, "l1", lambda term, z, t, y: jnp.abs(z - t).mean(-1))
    values = loss(Objective(cross_entropy=0.0, terms=(Term("new", "l1", "even", alpha=0.0, beta=1.0),)))
    np.testing.assert_allclose(values, (LABELS % 2 == 0) * np.abs(STUDENT - NEW).mean(-1), rtol=1e-5)


def test_errors():
    z, teachers = arrays()
    with pytest.raises(ValueError, match="no teacher logits of new; expected old, new, given old"):
        per_example_loss(METHODS["mpt_kl"], z, LABELS, {"old": teachers["old"]}, **MOMENT)
    with pytest.raises(ValueError, match="unknown distance 'l2'; valid: kl, lm, ce"):
        Term("old", "l2")
    with pytest.raises(ValueError, match="unknown gate 'open'; valid: teacher_right, none"):
        Term("old", "kl", "open")
    for gate in ("teacher_right&open", "open&teacher_right"):
        with pytest.raises(ValueError, match="unknown gate 'open'; valid: teacher_right, none"):
            Term("old", "kl", gate)
    with pytest.raises(ValueError, match="unknown gate ''; valid: teacher_right, none"):
        Term("old", "kl", "teacher_right&")
    for bad, valid in (
        ({"source": "olds"}, "unknown source 'olds'; valid: old, new"),
        ({"unknown_classes": "dropp"}, "unknown unknown_classes 'dropp'; valid: keep, drop"),
        ({"matching": "sum"}, "unknown matching 'sum'; valid: half_mean"),
    ):
        with pytest.raises(ValueError, match=valid):
            Term(**{"source": "old", "distance": "lm", **bad})
    with pytest.raises(ValueError, match="number of classes"):
        per_example_loss(METHODS["pct_kl"], teachers["old"], LABELS, {"old": z}, num_old_classes=K_OLD)
    with pytest.raises(TypeError, match="floating point"):
        per_example_loss(METHODS["pct_kl"], z, LABELS, {"old": z.astype(int)}, **MOMENT)
    with pytest.raises(ValueError, match="no objectives"):
        stack([])
    with pytest.raises(dataclasses.FrozenInstanceError):
        METHODS["mpt_kl"].bias = 0.0


def test_a_name_may_fix_numbers():
    assert objectives.named("mpt_kl") is METHODS["mpt_kl"]
    fixed = objectives.named("mpt_lm@bias=2@old.weight=0.25")
    assert (fixed.bias, [term.weight for term in fixed.terms]) == (2.0, [0.25, 0.4])
    assert fixed.doc == METHODS["mpt_lm"].doc + ", with bias = 2, old.weight = 0.25"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mpt_kl@", "expected ROW@NAME=NUMBER"),
        ("mpt_kl@bias", "expected ROW@NAME=NUMBER"),
        ("mpt_kl@bias=nan", "expected ROW@NAME=NUMBER"),
        ("mpt_kl@bias=inf", "expected ROW@NAME=NUMBER"),
        ("mpt_kl@bias=-1", "numbers of 0 or more"),
        ("mpt_kl@margin=1", "no number of an objective"),
        ("mpt_kl@bias=1@bias=2", "gives bias twice"),
        ("no_treatment@bias=1", "does not use bias"),
        ("pct_kl@new.weight=1", "does not use new.weight"),
    ],
)
def test_a_name_with_bad_numbers_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        objectives.own_numbers(name)


# An update that changes the classes: 0 and 2 are merged, 1 is split, 3 is retired, 4 is moved, and two are new.

STANDS_FOR = ([1], [2, 3], [1], [], [0])  # of each old class, the new ones
ALLOWED = np.array([[k in news for k in range(K)] for news in STANDS_FOR])
COMMON = objectives.common_classes(ALLOWED)
OLD_5, HEAD_5 = (_rng.normal(scale=3.0, size=(N, 5)) for _ in range(2))
OLD_5[1, 2], OLD_5[2, 1], OLD_5[6, 4], OLD_5[4, 3] = 12.0, 12.0, 12.0, 12.0
OLD_5[7], HEAD_5[7] = (2.0, 2.4, 2.0, 0.0, 0.0), 0.0  # 1 is predicted, though 0 and 2 together are more likely


def together(*logits):
    return np.log(np.sum(np.exp(logits)))


def new_in_common(z):
    return np.array([z[1], together(z[2], z[3]), z[0], z[4], z[5]])


def old_in_common(t):
    return np.array([together(t[0], t[2]), t[1], t[4]])


LABEL_IN_COMMON = (2, 0, 1, 1, 3, 4)


def changed(row):
    """Return a row as a function of (z, y) on the new classes, (u, t, y_common) on the common ones, and the gate."""

    def of_image(z, o, n, e, h, y):
        old, u, gate = old_in_common(o), new_in_common(z), float(y in STANDS_FOR[np.argmax(o)])
        return row(z=z, y=y, u=u, t=old, v=LABEL_IN_COMMON[y], gate=gate, n=n, e=e, h=old_in_common(h))

    return of_image


def soft_target(u, t, v, share):
    target = (1 - share) * (np.arange(len(u)) == v)
    target[: len(t)] += share * np.exp(log_softmax(t))
    return -np.sum(target * log_softmax(u))


def churn_in_common(z, y, u, t, v, **_):
    if v >= len(t):
        return ce(z, y)
    return 0.5 * ce(z, y) - 0.5 * np.sum(np.exp(log_softmax(t)) * log_softmax(u)[: len(t)])


def anchor_in_common(z, y, u, t, gate, **_):
    return 0.5 * soft_ce(u, t) + 0.5 * ce(z, y) if gate else ce(z, y, smoothing=0.1)


def better_in_common(z, y, u, t, v, **_):
    is_better = v < len(t) and log_softmax(t)[v] > log_softmax(u)[v]
    return 0.5 * ce(z, y) + 0.5 * 4 * kl(u, t, 2) if is_better else ce(z, y)


def mpt_kl_in_common(bias):
    return lambda z, y, u, t, gate, n, **_: ce(z, y, bias(y)) + (1 + 5 * gate) * kl(u, t, 5) + fd_kl(z, n, y)


def elodi_in_common(largest):
    return lambda z, y, u, t, e, **_: ce(z, y) + 0.6 * ldi(u, t, 0, largest) / 2 + 0.4 * ldi(z, e, 0, largest) / 2


CHANGED = {
    "pct_naive": lambda z, y, gate, **_: (1 + gate) * ce(z, y),
    "pct_kl": lambda z, y, u, t, gate, **_: ce(z, y) + (1 + 5 * gate) * kl(u, t, 5),
    "pct_lm": lambda z, y, u, t, gate, **_: ce(z, y) + 0.4 * (1 + 5 * gate) * ldi(u, t, 0) / 2,
    "mpt_kl": mpt_kl_in_common(lambda y: 4),
    "mpt_lm": lambda z, y, u, t, gate, n, **_: (
        ce(z, y, 4) + 0.4 * (1 + 5 * gate) * ldi(u, t, 0) / 2 + 0.4 * fd_lm(z, n, y)
    ),
    "mpt_kl_no_bias": mpt_kl_in_common(lambda y: 0),
    "mpt_lm_no_bias": lambda z, y, u, t, gate, n, **_: (
        ce(z, y) + 0.4 * (1 + 5 * gate) * ldi(u, t, 0) / 2 + 0.4 * fd_lm(z, n, y)
    ),
    "mpt_kl_annealed": mpt_kl_in_common(lambda y: 3),
    "mpt_kl_grown": mpt_kl_in_common(lambda y: 1),
    "mpt_kl_per_class": mpt_kl_in_common(lambda y: 4 * SCALE[y]),
    "mpt_kl_ema": mpt_kl_in_common(lambda y: 4),
    "mpt_kl_ensemble": lambda z, y, u, t, gate, e, **_: ce(z, y, 4) + (1 + 5 * gate) * kl(u, t, 5) + fd_kl(z, e, y),
    "mpt_lm_centred": lambda z, y, u, t, gate, n, **_: (
        ce(z, y, 1) + 0.4 * (1 + 5 * gate) * np.var(u[: len(t)] - t) / 2 + 0.4 * fd_centred(z, n, y)
    ),
    "mpt_lm_ensemble": lambda z, y, u, t, gate, e, **_: (
        ce(z, y, 1) + 0.4 * (1 + 5 * gate) * np.var(u[: len(t)] - t) / 2 + 0.4 * fd_centred(z, e, y)
    ),
    "elodi_mpt": elodi_in_common(K),
    "elodi_mpt_topk": elodi_in_common(10),
    "ldi": lambda z, y, u, t, v, **_: 0.5 * ce(z, y) + 0.5 * ldi(u, t, 0.5) * (v < len(t)),
    "kd": lambda z, y, u, t, **_: 0.5 * ce(z, y) + 0.5 * 4 * kl(u, t, 2),
    "better_teacher": better_in_common,
    "churn_distillation": churn_in_common,
    "anchor": anchor_in_common,
    "strict_imitation": lambda z, y, u, t, gate, **_: ce(z, y) + 0.5 * gate * soft_ce(u, t),
    "muscle": lambda z, y, u, t, n, **_: 0.5 * ce(z, y) + 0.5 * (kl(z, n, 2) if right(z, y) else kl(u, t, 2)),
    "bct": lambda z, y, v, h, **_: ce(z, y) - (log_softmax(h)[v] if v < len(h) else 0),
    "balanced_softmax_kd": lambda z, y, u, t, **_: 0.5 * ce(z, y, prior=np.log(COUNTS)) + 0.5 * 4 * kl(u, t, 2),
}


def changed_arrays(dtype=jnp.float32):
    z, teachers = arrays(dtype)
    return z, {**teachers, "old": jnp.asarray(OLD_5, dtype), "old_head": jnp.asarray(HEAD_5, dtype)}


@functools.cache
def losses_of_changed_rows():
    with jax.enable_x64(True):
        z, teachers = changed_arrays(jnp.float64)

        def rows():
            return {n: per_example_loss(o, z, LABELS, teachers, common=COMMON, **MOMENT) for n, o in METHODS.items()}

        return jax.device_get(jax.jit(rows)())


@pytest.mark.parametrize("name", TABLE)
def test_row_of_the_table_when_classes_change(name):
    row = changed(CHANGED[name]) if name in CHANGED else TABLE[name]
    images = zip(STUDENT, OLD_5, NEW, ENSEMBLE, HEAD_5, LABELS, strict=True)
    values = losses_of_changed_rows()[name]
    chex.assert_type(values, np.float64)
    np.testing.assert_allclose(values, [row(*x) for x in images], rtol=1e-12)
    uses_old = {"old", "old_head"} & set(sources(METHODS[name]))
    assert bool(uses_old) == (name in CHANGED)


def test_gradients_agree_with_finite_differences_when_classes_change():
    with jax.enable_x64(True):
        z, teachers = changed_arrays(jnp.float64)
        stacked = stack(list(METHODS.values()))

        def each(z, head):  # the derivative of every row
            given = {**teachers, "old_head": head}
            one = lambda o: per_example_loss(o, z, LABELS, given, common=COMMON, **MOMENT).sum()  # noqa: E731
            return jax.vmap(one)(stacked)

        random = np.random.default_rng(1)
        point = z, teachers["old_head"]
        direction = tuple(random.normal(size=x.shape) for x in point)
        value_and_derivative = jax.jit(lambda point: jax.jvp(each, point, direction))
        _, derivative = value_and_derivative(point)
        step = 1e-6
        after, before = (
            np.asarray(value_and_derivative(tuple(x + s * d for x, d in zip(point, direction, strict=True)))[0])
            for s in (step, -step)
        )
    np.testing.assert_allclose(derivative, (after - before) / (2 * step), rtol=1e-6, atol=1e-6)


def test_a_prediction_is_right_before_by_what_it_stands_for_and_not_by_the_common_classes():
    u, t = new_in_common(STUDENT[7]), old_in_common(OLD_5[7])
    assert (
        np.argmax(OLD_5[7]) == 1 and np.argmax(t) == 0 and LABELS[7] == 1
    )  # the merged class, which it did not predict
    z, teachers = changed_arrays()
    values = per_example_loss(METHODS["pct_kl"], z, LABELS, teachers, common=COMMON, **MOMENT)
    np.testing.assert_allclose(values[7], ce(STUDENT[7], 1) + kl(u, t, 5), rtol=1e-5)
    retired = LABELS == 4  # image 4 is predicted as a retired class, image 10 is of the same new class
    assert np.argmax(OLD_5[4]) == 3 and retired[4] and not any(4 in news for news in STANDS_FOR)


def test_each_part_of_a_gate_sees_the_classes_that_it_needs():
    z, teachers = changed_arrays()
    term = Term("old", "ce", "teacher_right&student_wrong", alpha=0.0, beta=1.0)
    values = per_example_loss(Objective(0.0, terms=(term,)), z, LABELS, teachers, common=COMMON, **MOMENT)
    flips = [y in STANDS_FOR[np.argmax(o)] and not right(z, y) for z, o, y in zip(STUDENT, OLD_5, LABELS, strict=True)]
    assert 0 < np.sum(flips) < np.sum([y in STANDS_FOR[np.argmax(o)] for o, y in zip(OLD_5, LABELS, strict=True)])
    expected = [flip * ce(z, y) for flip, z, y in zip(flips, STUDENT, LABELS, strict=True)]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_classes_that_only_move_are_compared_as_before():
    z, teachers = arrays()
    moved = np.array([2, 0, 3, 1])  # the old model's outputs in another order
    allowed = np.eye(K_OLD, K, dtype=bool)[moved]
    given = {**teachers, **{source: teachers[source][:, moved] for source in ("old", "old_head")}}
    for objective in MIXED:
        values = per_example_loss(objective, z, LABELS, given, common=objectives.common_classes(allowed), **MOMENT)
        # In this order the sums over classes are rounded alike only up to their last digits.
        np.testing.assert_allclose(
            values, per_example_loss(objective, z, LABELS, teachers, **MOMENT), rtol=1e-5, atol=1e-6
        )


def test_without_common_classes_the_program_is_the_same():
    z, teachers = arrays()
    program = lambda common: str(  # noqa: E731
        jax.make_jaxpr(lambda z, t: [per_example_loss(o, z, LABELS, t, common=common, **MOMENT) for o in MIXED])(
            z, teachers
        )
    )
    assert program(None) == program(objectives.common_classes(np.eye(K_OLD, K, dtype=bool)))
    assert "scatter" not in program(None) and "logsumexp" not in program(None)


def test_an_old_model_of_another_number_of_classes_than_the_common_ones_is_refused():
    z, teachers = arrays()
    with pytest.raises(ValueError, match=r"old model's logits have shape \(12, 4\); expected 5 classes"):
        per_example_loss(METHODS["pct_kl"], z, LABELS, teachers, common=COMMON, **MOMENT)
