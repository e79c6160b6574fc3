"""Every loss and option against float64 references written from the formulas, and the properties they guarantee."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from mpt_jax import losses

K, K_OLD, N = 7, 4, 12
LABELS = np.arange(N, dtype=np.int32) % K
COUNTS = np.array([500, 500, 500, 500, 20, 10, 5])


def random_logits(seed, *shape, scale=3.0):
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


STUDENT, OLD, NEW = random_logits(0, N, K), random_logits(1, N, K_OLD), random_logits(2, N, K)
OLD[0, 0], OLD[1, 1], NEW[4, 4] = 9.0, 9.0, 9.0  # some correct predictions, so that both sides of the gate occur


# References: one example at a time, in float64, over a list of the classes that count.


def ref_log_softmax(z):
    m = max(z)
    return z - m - np.log(np.sum(np.exp(z - m)))


def ref_ce(z, y):
    return -ref_log_softmax(z)[y]


def ref_kl(z, t, tau=5.0, squared=False):
    q, p = ref_log_softmax(z[: len(t)] / tau), ref_log_softmax(t / tau)
    return sum(np.exp(p) * (p - q)) * (tau**2 if squared else 1)


def ref_lm(z, t, matching="half_mean"):
    differences = z[: len(t)] - t
    squares, own = sum(differences**2), differences - sum(differences) / len(t)
    return {
        **{"half_mean": squares / len(t) / 2, "mean": squares / len(t), "half_sum": squares / 2},
        "centred": sum(own**2) / len(t) / 2,
    }[matching]


def ref_focal(
    z, t, y, distance="kl", alpha=1.0, beta=5.0, temperature=5.0, squared=False, unknown="keep", m="half_mean"
):
    if unknown == "drop" and y >= len(t):
        return 0.0
    d = ref_kl(z, t, temperature, squared) if distance == "kl" else ref_lm(z, t, m)
    return (alpha + (beta if list(t).index(max(t)) == y else 0)) * d


def ref_smooth_ce(z, y, eps):
    target = eps / len(z) + (1 - eps) * (np.arange(len(z)) == y)
    return -sum(target * ref_log_softmax(z))


def ref_largest(t, top_k):
    return sorted(range(len(t)), key=lambda k: -t[k])[:top_k]


def ref_ldi(z, t, slack, power, top_k=None):
    return sum(max(abs(z[k] - t[k]) - slack, 0) ** power for k in ref_largest(t, top_k)) / len(t)


def ref_soft_ce(z, t):
    return -sum(np.exp(p) * q for p, q in zip(ref_log_softmax(t), ref_log_softmax(z), strict=False))


def rows(function, *arrays):
    return np.array([function(*row) for row in zip(*arrays, strict=True)])


MARGIN = {"num_old_classes": K_OLD, "bias": 4.0}
# name: (loss as a function of the student's, old and new model's logits; expected values)
CASES = {
    "ce": (lambda z, old, new: losses.cross_entropy(z, LABELS), rows(ref_ce, STUDENT, LABELS)),
    "margin": (
        lambda z, old, new: losses.margin_calibrated_cross_entropy(z, LABELS, **MARGIN),
        rows(ref_ce, STUDENT + np.array([0, 0, 0, 0, 4, 4, 4]), LABELS),
    ),
    "margin_without_new_classes": (
        lambda z, old, new: losses.margin_calibrated_cross_entropy(z, LABELS, num_old_classes=K, bias=4.0),
        rows(ref_ce, STUDENT, LABELS),
    ),
    "balanced": (
        lambda z, old, new: losses.balanced_softmax_cross_entropy(z, LABELS, COUNTS),
        rows(lambda z, y: -np.log(COUNTS[y] * np.exp(z[y]) / np.sum(COUNTS * np.exp(z))), STUDENT, LABELS),
    ),
    "margin_smoothed_balanced": (
        lambda z, old, new: losses.margin_calibrated_cross_entropy(
            z, LABELS, **MARGIN, offset=losses.log_prior(COUNTS, exponent=0.5), label_smoothing=0.1
        ),
        rows(lambda z, y: ref_smooth_ce(z + np.log(COUNTS) / 2 + 4 * (np.arange(K) >= K_OLD), y, 0.1), STUDENT, LABELS),
    ),
    **{
        f"ldi_{slack}_{power}_{top_k}": (
            lambda z, old, new, options=(slack, power, top_k): losses.logit_difference_inhibition(
                z, old, **dict(zip(("slack", "power", "top_k"), options, strict=True))
            ),
            rows(lambda z, t, options=(slack, power, top_k): ref_ldi(z, t, *options), STUDENT, OLD),
        )
        for slack, power, top_k in ((0.5, 2.0, 2), (0.2, 1.0, None), (1.0, 1.5, 9))
    },
    "lm_top_k": (
        lambda z, old, new: losses.logit_matching(z, new, top_k=3),
        rows(lambda z, t: ref_ldi(z, t, 0, 2, 3) / 2, STUDENT, NEW),
    ),
    "soft_ce": (lambda z, old, new: losses.soft_cross_entropy(z, old), rows(ref_soft_ce, STUDENT, OLD)),
    "influence": (
        lambda z, old, new: losses.influence_loss(z[:, :K_OLD], LABELS),
        rows(lambda z, y: ref_ce(z[:K_OLD], y) if y < K_OLD else 0.0, STUDENT, LABELS),
    ),
    "kl": (lambda z, old, new: losses.kl_distance(z, old), rows(ref_kl, STUDENT, OLD)),
    "kl_tau": (
        lambda z, old, new: losses.kl_distance(z, new, temperature=0.7),
        rows(lambda z, t: ref_kl(z, t, 0.7), STUDENT, NEW),
    ),
    "kl_squared": (
        lambda z, old, new: losses.kl_distance(z, old, temperature=2.0, scale_by_temperature_squared=True),
        rows(lambda z, t: ref_kl(z, t, 2.0, True), STUDENT, OLD),
    ),
    "lm": (lambda z, old, new: losses.logit_matching(z, old), rows(ref_lm, STUDENT, OLD)),
    "fd_kl_old": (lambda z, old, new: losses.focal_distillation(z, old, LABELS), rows(ref_focal, STUDENT, OLD, LABELS)),
    "fd_kl_new": (lambda z, old, new: losses.focal_distillation(z, new, LABELS), rows(ref_focal, STUDENT, NEW, LABELS)),
    "fd_kl_pct_code": (
        lambda z, old, new: losses.focal_distillation(
            z, old, LABELS, temperature=100.0, scale_by_temperature_squared=True, unknown_classes="drop"
        ),
        rows(lambda z, t, y: ref_focal(z, t, y, temperature=100.0, squared=True, unknown="drop"), STUDENT, OLD, LABELS),
    ),
    "fd_lm_numbers": (
        lambda z, old, new: losses.focal_distillation(z, old, LABELS, distance="lm", alpha=0.3, beta=2.5),
        rows(lambda z, t, y: ref_focal(z, t, y, "lm", 0.3, 2.5), STUDENT, OLD, LABELS),
    ),
    **{
        f"fd_lm_{m}_{unknown}": (
            lambda z, old, new, m=m, unknown=unknown: losses.focal_distillation(
                z, old, LABELS, distance="lm", matching=m, unknown_classes=unknown
            ),
            rows(lambda z, t, y, m=m, u=unknown: ref_focal(z, t, y, "lm", unknown=u, m=m), STUDENT, OLD, LABELS),
        )
        for m in ("half_mean", "mean", "half_sum", "centred")
        for unknown in ("keep", "drop")
    },
    **{
        f"double_{d}": (
            lambda z, old, new, d=d: losses.double_source_focal_distillation(
                z, old, new, LABELS, distance=d, old_weight=0.4, new_weight=0.7
            ),
            0.4 * rows(lambda z, t, y, d=d: ref_focal(z, t, y, d), STUDENT, OLD, LABELS)
            + 0.7 * rows(lambda z, t, y, d=d: ref_focal(z, t, y, d), STUDENT, NEW, LABELS),
        )
        for d in ("kl", "lm")
    },
}
cases = pytest.mark.parametrize("name", CASES)


def arrays(dtype):
    """Return the logits as new JAX arrays in the current precision."""
    return tuple(jnp.asarray(x, dtype) for x in (STUDENT, OLD, NEW))


@jax.jit
def values_and_gradients(z, old, new):
    """Return the values of every case, and the gradients of their sums in the student's logits."""

    def of_case(loss):
        values, pull = jax.vjp(lambda z: loss(z, old, new), z)
        return values, pull(jnp.ones_like(values))[0]

    return {name: of_case(loss) for name, (loss, _) in CASES.items()}


@functools.cache
def outcomes(dtype):
    with jax.enable_x64(dtype == np.float64):
        return jax.device_get(values_and_gradients(*arrays(dtype)))


@functools.cache
def finite_differences(step=1e-5):
    """Return a direction, and the derivatives of every case along it."""
    direction = random_logits(3, N, K, scale=1.0)
    with jax.enable_x64(True):
        z, *teachers = arrays(np.float64)
        ends = [jax.device_get(values_and_gradients(z + s * direction, *teachers)) for s in (step, -step)]
    return direction, {name: (ends[0][name][0] - ends[1][name][0]) / (2 * step) for name in CASES}


@functools.cache
def extreme_outcomes(scale):
    z, *teachers = arrays(np.float32)
    return jax.device_get(values_and_gradients(scale * np.sign(z), *teachers))


@cases
def test_values_in_float64(name):
    values, _ = outcomes(np.float64)[name]
    chex.assert_type(values, np.float64)
    np.testing.assert_allclose(values, CASES[name][1], rtol=1e-12, atol=1e-13 if name != "fd_kl_pct_code" else 1e-10)


@cases
def test_values_and_gradients_in_float32(name):
    loss, expected = CASES[name]
    values = loss(*arrays(np.float32))  # one operation at a time
    chex.assert_type(values, np.float32)
    # at temperature 100 the divergence is a difference of nearly equal logarithms, times 10^4: its value loses digits,
    # its gradient does not
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6 if name != "fd_kl_pct_code" else 2e-2)
    np.testing.assert_allclose(outcomes(np.float32)[name][1], outcomes(np.float64)[name][1], rtol=1e-5, atol=1e-5)


@cases
def test_gradients(name):
    direction, expected = finite_differences()
    derivative = (outcomes(np.float64)[name][1] * direction).sum(1)
    np.testing.assert_allclose(derivative, expected[name], rtol=1e-6, atol=1e-6)


@cases
def test_jit(name):
    eager, atol = CASES[name][0](*arrays(np.float32)), 1e-6 if name != "fd_kl_pct_code" else 2e-2
    np.testing.assert_allclose(outcomes(np.float32)[name][0], eager, rtol=1e-5, atol=atol)


@cases
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_finite_at_extreme_logits(name, scale):
    chex.assert_tree_all_finite(extreme_outcomes(scale)[name])


def calls(z, old, new, y, where=None):
    """Call every public loss once, for tests of their common properties."""
    return {
        "ce": losses.cross_entropy(z, y, where=where),
        "margin": losses.margin_calibrated_cross_entropy(z, y, num_old_classes=old.shape[-1], bias=4.0, where=where),
        "balanced": losses.balanced_softmax_cross_entropy(z, y, COUNTS[: z.shape[-1]], where=where),
        "smoothed": losses.cross_entropy(z, y, label_smoothing=0.3, where=where),
        "ldi": losses.logit_difference_inhibition(z, new, slack=0.5, power=1.5, where=where),
        "ldi_top": losses.logit_difference_inhibition(z, old, slack=0.2, power=2.0, top_k=2, where=where),
        "lm_top": losses.logit_matching(z, new, top_k=3, where=where),
        "soft_ce": losses.soft_cross_entropy(z, old, where=where),
        "influence": losses.influence_loss(
            z[..., : old.shape[-1]], y, where=None if where is None else where[..., : old.shape[-1]]
        ),
        "kl": losses.kl_distance(z, old, where=where),
        "lm": losses.logit_matching(z, old, where=where),
        "lm_centred": losses.logit_matching(z, old, matching="centred", where=where),
        "lm_top_centred": losses.logit_matching(z, old, matching="centred", top_k=2, where=where),
        "fd_kl": losses.focal_distillation(z, old, y, where=where),
        "fd_lm": losses.focal_distillation(z, old, y, distance="lm", matching="half_sum", where=where),
        "double": losses.double_source_focal_distillation(z, old, new, y, where=where),
    }


call_all = jax.jit(calls)


@jax.jit
def gradient_of_all(z, old, new, y, where=None):
    """Return the gradient of the sum of every public loss."""
    return jax.grad(lambda z: sum(value.sum() for value in calls(z, old, new, y, where).values()))(z)


def test_finite_when_teachers_are_extreme():
    extreme = [(-1e4 * np.sign(x)).astype(np.float32) for x in (STUDENT, OLD, NEW)]
    chex.assert_tree_all_finite(call_all(-extreme[0], *extreme[1:], LABELS))
    chex.assert_tree_all_finite(gradient_of_all(-extreme[0], *extreme[1:], LABELS))


def test_vmap_equals_batch_and_any_batch_axes_do():
    args = (*(x.astype(np.float32) for x in (STUDENT, OLD, NEW)), LABELS)
    batch = call_all(*args)
    chex.assert_trees_all_close(jax.jit(jax.vmap(calls))(*args), batch, rtol=1e-6)
    batch = jax.device_get(batch)
    chex.assert_trees_all_close(call_all(*(x[5] for x in args)), {k: v[5] for k, v in batch.items()}, rtol=1e-6)
    grid = call_all(*(x.reshape(3, 4, *x.shape[1:]) for x in args))
    chex.assert_trees_all_close(grid, {k: v.reshape(3, 4) for k, v in batch.items()}, rtol=1e-6)


def test_numbers_may_be_traced():
    z, old, _ = arrays(jnp.float32)
    numbers = np.array([0.5, 2.0, 4.0], np.float32)
    margin = lambda b: losses.margin_calibrated_cross_entropy(z, LABELS, num_old_classes=K_OLD, bias=b)  # noqa: E731
    focal = lambda x: losses.focal_distillation(z, old, LABELS, alpha=x, beta=2 * x, temperature=3 * x)  # noqa: E731
    smooth = lambda x: losses.cross_entropy(z, LABELS, label_smoothing=x / 8)  # noqa: E731
    inhibition = lambda x: losses.logit_difference_inhibition(z, old, slack=x, power=x)  # noqa: E731
    prior = lambda x: losses.log_prior(COUNTS, exponent=x)  # noqa: E731
    for loss in (margin, focal, smooth, inhibition, prior):
        alone = np.stack([loss(float(x)) for x in numbers])
        np.testing.assert_allclose(jax.jit(jax.vmap(loss))(numbers), alone, rtol=1e-5)


MASKS = {
    "every_other": np.array([True, False, True, True, False, True, True]),
    "from_the_front": np.array([False, False, True, True, True, True, True]),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_mask_equals_slice(mask):
    mask_old = mask[:K_OLD]
    y = np.flatnonzero(mask)[np.arange(N) % mask.sum()].astype(np.int32)
    position = (np.cumsum(mask) - 1).astype(np.int32)
    z, old, new = (x.astype(np.float32) for x in (STUDENT, OLD, NEW))
    old[:, ~mask_old] += 20.0  # the largest logit is a masked one

    def masked(z):
        return calls(z, old, new, y, where=mask)

    def sliced(z):
        z, t, n = z[:, np.flatnonzero(mask)], old[:, np.flatnonzero(mask_old)], new[:, np.flatnonzero(mask)]
        result = calls(z, t, n, position[y])
        # the counts of `calls` belong to positions of the full set of classes
        result["balanced"] = losses.balanced_softmax_cross_entropy(z, position[y], COUNTS[mask])
        return result

    @jax.jit
    def values_and_gradients_of_both(z):
        def of(losses_of):
            totals = lambda z: (lambda values: ({k: v.sum() for k, v in values.items()}, values))(losses_of(z))  # noqa: E731
            gradients, values = jax.jacrev(totals, has_aux=True)(z)
            return values, gradients

        return of(masked), of(sliced)

    (values, gradients), expected = jax.device_get(values_and_gradients_of_both(z))
    chex.assert_trees_all_close((values, gradients), expected, rtol=1e-5, atol=1e-6)
    assert len(gradients) > 10 and not any(gradient[:, ~mask].any() for gradient in gradients.values())


def test_masked_classes_may_hold_anything():
    mask = MASKS["every_other"]
    y = np.zeros(N, np.int32)
    logits = [x.astype(np.float32) for x in (STUDENT, OLD, NEW)]
    holes = [np.where(mask[None, : x.shape[-1]], x, np.float32(np.nan)) for x in logits]
    chex.assert_trees_all_close(call_all(*holes, y, where=mask), call_all(*logits, y, where=mask))
    chex.assert_tree_all_finite(gradient_of_all(*holes, y, where=mask))


def test_mask_may_differ_between_examples_and_be_empty():
    logits = [x.astype(np.float32) for x in (STUDENT, OLD, NEW)]
    where = np.ones((N, K), bool)
    where[1] = False
    where[2, 5] = False
    y = np.zeros(N, np.int32)
    values, plain = jax.device_get((call_all(*logits, y, where=where), call_all(*logits, y)))
    alone = jax.device_get(call_all(*(x[2:3] for x in logits), y[2:3], where=where[2]))
    for name in plain:
        np.testing.assert_allclose(values[name][0], plain[name][0], rtol=1e-6)
        np.testing.assert_allclose(values[name][2], alone[name][0], rtol=1e-6)
        assert values[name][1] == 0  # no classes: loss 0
    gradient = np.asarray(gradient_of_all(*logits, y, where=where))
    chex.assert_tree_all_finite(gradient)
    assert not gradient[1].any()


def test_examples_can_be_excluded_by_a_select():
    z, old, new = (x.astype(np.float32) for x in (STUDENT, OLD, NEW))
    used = np.arange(N) % 2 == 0
    z = np.where(used[:, None], z, np.float32(1e4))  # padding may hold any values

    def total(z):
        return sum(jnp.where(used, value, 0.0).sum() for value in calls(z, old, new, LABELS).values())

    gradient = np.asarray(jax.jit(jax.grad(total))(z))
    chex.assert_tree_all_finite(gradient)
    assert not gradient[~used].any() and gradient[used].any()


def test_no_gradient_into_teachers():
    z, old, new = arrays(jnp.float32)
    total = lambda old, new: sum(value.sum() for value in calls(z, old, new, LABELS).values())  # noqa: E731
    assert not any(gradient.any() for gradient in jax.jit(jax.grad(total, argnums=(0, 1)))(old, new))


def test_classes_without_images_cannot_occur():
    counts = np.array([500, 0, 300, 0, 20, 10, 5])
    y = np.array([0, 2, 4, 5, 6, 0, 2, 4, 5, 6, 0, 2], np.int32)
    keep = np.flatnonzero(counts)
    position = (np.cumsum(counts > 0) - 1).astype(np.int32)
    loss = lambda z: losses.balanced_softmax_cross_entropy(z, y, counts).sum()  # noqa: E731
    z = STUDENT.astype(np.float32)
    value, gradient = jax.jit(jax.value_and_grad(loss))(z)
    expected = losses.balanced_softmax_cross_entropy(z[:, keep], position[y], counts[keep]).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    chex.assert_tree_all_finite(gradient)
    assert not np.asarray(gradient)[:, [1, 3]].any()
    learned = lambda n: losses.balanced_softmax_cross_entropy(z, y, n).sum()  # noqa: E731
    chex.assert_tree_all_finite(jax.jit(jax.grad(learned))(counts.astype(np.float32)))


@pytest.mark.parametrize("label", [-1, -K, K, 100])
def test_an_invalid_label_gives_nan_or_is_unknown_to_the_teacher(label):
    z, old, y = STUDENT.astype(np.float32), OLD.astype(np.float32), np.full(N, label, np.int32)
    counts = COUNTS
    assert np.isnan(losses.cross_entropy(z, y)).all()
    assert np.isnan(losses.margin_calibrated_cross_entropy(z, y, num_old_classes=K_OLD, bias=2.0)).all()
    assert np.isnan(losses.balanced_softmax_cross_entropy(z, y, class_counts=counts)).all()
    assert not losses.influence_loss(old, y).any() and not losses.teacher_right(old, y).any()
    assert not losses.better_teacher(z, old, y).any()
    dropped = losses.focal_distillation(z, old, y, distance="kl", unknown_classes="drop")
    np.testing.assert_array_equal(dropped, 0.0)
    unknown = losses.focal_distillation(z, old, np.full(N, K - 1, np.int32), distance="kl")
    np.testing.assert_array_equal(losses.focal_distillation(z, old, y, distance="kl"), unknown)
    gate = np.ones(N, np.float32), np.ones(N, bool)
    one = losses.focal_weighting(*gate, y, num_teacher_classes=K_OLD, unknown_classes="drop")
    np.testing.assert_array_equal(one, 0.0)


def test_a_label_that_cannot_occur_costs_infinity_with_finite_gradients():
    z, y = np.zeros((1, 3), np.float32), np.array([1], np.int32)
    for loss in (
        lambda z: losses.balanced_softmax_cross_entropy(z, y, np.array([5, 0, 5])).sum(),
        lambda z: losses.cross_entropy(z, y, where=np.array([True, False, True])).sum(),
    ):
        value, gradient = jax.jit(jax.value_and_grad(loss))(z)
        assert np.isposinf(value)
        chex.assert_tree_all_finite(gradient)


def test_balanced_softmax_is_the_margin_with_uneven_counts():
    z = STUDENT.astype(np.float32)
    counts = np.array([3.0] * K_OLD + [3.0 * np.exp(2.0)] * (K - K_OLD), np.float32)
    balanced = losses.balanced_softmax_cross_entropy(z, LABELS, counts)
    margin = losses.margin_calibrated_cross_entropy(z, LABELS, num_old_classes=K_OLD, bias=2.0)
    np.testing.assert_allclose(balanced, margin, rtol=1e-5, atol=1e-6)


def test_teacher_may_rule_classes_out():
    z, old = STUDENT.astype(np.float32), OLD.astype(np.float32)
    old[:, 1] = -np.inf
    expected = rows(
        lambda z, t: sum(
            np.exp(p) * (p - q)
            for p, q in zip(ref_log_softmax(t / 5)[[0, 2, 3]], ref_log_softmax(z[:K_OLD] / 5)[[0, 2, 3]], strict=True)
        ),
        STUDENT,
        np.asarray(old, np.float64),
    )
    np.testing.assert_allclose(losses.kl_distance(z, old), expected, rtol=1e-4, atol=1e-6)
    chex.assert_tree_all_finite(jax.jit(jax.grad(lambda z: losses.kl_distance(z, old).sum()))(z))

    target = jax.nn.softmax(old, axis=-1)
    expected = rows(lambda z, p: -sum(p * ref_log_softmax(z)[:K_OLD]), STUDENT, np.asarray(target, np.float64))
    np.testing.assert_allclose(losses.soft_cross_entropy(z, old), expected, rtol=1e-5)
    chex.assert_tree_all_finite(jax.jit(jax.grad(lambda z: losses.soft_cross_entropy(z, old).sum()))(z))


def test_a_broken_teacher_is_not_hidden():
    z, old, _ = arrays(jnp.float32)
    broken = old.at[2, 1].set(jnp.nan)
    ldi = functools.partial(losses.logit_difference_inhibition, slack=0.5, power=2.0)
    top = functools.partial(ldi, top_k=2)
    for loss in (losses.kl_distance, losses.logit_matching, losses.soft_cross_entropy, ldi, top):
        np.testing.assert_array_equal(np.isnan(loss(z, broken)), np.arange(N) == 2)


def test_teacher_right():
    teacher = np.array([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [1.0, 2.0]], np.float32)
    labels = np.array([0, 1, 2, 1], np.uint8)
    np.testing.assert_array_equal(losses.teacher_right(teacher, labels), [True, False, False, True])
    only_second = losses.teacher_right(teacher, labels, where=np.array([False, True]))
    np.testing.assert_array_equal(only_second, [False, True, False, True])


def test_better_teacher():
    z, old = arrays(jnp.float32)[:2]
    gate = losses.better_teacher(z, old, LABELS)
    expected = rows(lambda z, t, y: y < K_OLD and ref_ce(t, y) < ref_ce(z, y), STUDENT, OLD, LABELS)
    np.testing.assert_array_equal(gate, expected)
    assert gate[LABELS < K_OLD].any() and not gate[LABELS < K_OLD].all()
    assert not losses.better_teacher(z, z, LABELS).any()  # equal is not better
    mask = MASKS["every_other"]
    y = np.array([0, 2, 3, 5, 6, 0, 2, 3, 5, 6, 0, 2], np.int32)
    expected = rows(
        lambda z, t, y: y < K_OLD and ref_ce(np.where(mask[:4], t, -99), y) < ref_ce(np.where(mask, z, -99), y),
        *(STUDENT, OLD, y),
    )
    np.testing.assert_array_equal(losses.better_teacher(z, old, y, where=mask), expected)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
def inhibition_of_numbers(z, slack, power):
    return losses.logit_difference_inhibition(z, np.zeros(6, np.float32), slack=slack, power=power)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("slack", [0.0, 0.5])
def test_inhibition_has_a_finite_gradient_on_the_edge_of_the_slack(slack, power):
    student = np.array([0.0, slack, -slack, slack / 2, slack + 1.0, -slack - 4.0], np.float32)
    value, gradient = inhibition_of_numbers(student, np.float32(slack), np.float32(power))
    np.testing.assert_allclose(value, (1 + 4**power) / 6, rtol=1e-5)
    chex.assert_tree_all_finite(gradient)
    expected = np.array([0, 0, 0, 0, power, -power * 4 ** (power - 1)]) / 6
    np.testing.assert_allclose(gradient[0], expected, rtol=1e-5)
    np.testing.assert_allclose(gradient[1], -(power + power * 4 ** (power - 1)) / 6, rtol=1e-5)
    np.testing.assert_allclose(gradient[2], 4**power * np.log(4) / 6, rtol=1e-5)


def test_inhibition_without_slack_is_logit_matching():
    z, old, new = arrays(jnp.float32)
    for teacher, top_k in ((old, None), (new, 2), (new, 100)):
        ldi = losses.logit_difference_inhibition(z, teacher, slack=0.0, power=2.0, top_k=top_k)
        np.testing.assert_allclose(ldi, losses.logit_matching(z, teacher, matching="mean", top_k=top_k), rtol=1e-5)
    np.testing.assert_array_equal(losses.logit_matching(z, new, top_k=K), losses.logit_matching(z, new, top_k=100))


def test_centred_matching_sees_no_constant_of_either_side():
    z, old, _ = arrays(jnp.float32)
    for top_k in (None, 2):
        matching = functools.partial(losses.logit_matching, matching="centred", top_k=top_k)
        shifted = matching(z + jnp.linspace(-3, 3, N)[:, None], old + jnp.linspace(5, 0, N)[:, None])
        np.testing.assert_allclose(shifted, matching(z, old), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(matching(z[:, :K_OLD] + 2.0, z[:, :K_OLD]), 0.0, atol=1e-10)


def test_top_k_uses_the_teachers_largest_logits_of_each_row():
    z = jnp.array([[10.0, 10.0, 10.0], [10.0, 10.0, 10.0]])
    teacher = jnp.array([[3.0, 0.0, 1.0], [0.0, 1.0, 4.0]])
    one = losses.logit_difference_inhibition(z, teacher, slack=0.0, power=1.0, top_k=1)
    np.testing.assert_allclose(one, [7 / 3, 6 / 3], rtol=1e-6)  # divided by all classes


def test_smoothing_covers_the_classes_that_can_occur():
    z, y = STUDENT.astype(np.float32), np.array([0, 2, 4] * 4, np.int32)
    offset = losses.log_prior(np.array([5, 0, 5, 0, 5, 5, 5]))
    keep = np.array([0, 2, 4, 5, 6])
    expected = rows(lambda z, y: ref_smooth_ce(z[keep], list(keep).index(y), 0.2), STUDENT, y)
    loss = lambda z: losses.cross_entropy(z, y, offset=offset, label_smoothing=0.2)  # noqa: E731
    np.testing.assert_allclose(loss(z), expected, rtol=1e-5)
    chex.assert_tree_all_finite(jax.jit(jax.grad(lambda z: loss(z).sum()))(z))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("offset", [None, np.linspace(-2, 3, K)])
def test_a_bias_per_example(offset, smoothing):
    biases, by = random_logits(7, N), 0 if offset is None else offset
    is_new = np.arange(K) >= K_OLD
    expected = [
        ref_smooth_ce(z + b * is_new + by, y, smoothing) for z, y, b in zip(STUDENT, LABELS, biases, strict=True)
    ]

    def loss(z, bias, labels=LABELS):
        options = {"num_old_classes": K_OLD, "offset": offset, "label_smoothing": smoothing}
        return losses.margin_calibrated_cross_entropy(z, labels, bias=bias, **options)

    with jax.enable_x64(True):
        z, b, compiled = STUDENT, biases, jax.jit(loss)
        np.testing.assert_allclose(compiled(z, b), expected, rtol=1e-12)
        grid = compiled(z.reshape(3, 4, K), b.reshape(3, 4), LABELS.reshape(3, 4))
        np.testing.assert_allclose(grid, np.reshape(expected, (3, 4)), rtol=1e-12)
        np.testing.assert_allclose(compiled(z, np.full(N, 1.5)), compiled(z, 1.5), rtol=1e-12)
        of_logits, of_bias = jax.jit(jax.grad(lambda z, b: loss(z, b).sum(), argnums=(0, 1)))(z, b)
    p = np.array([np.exp(ref_log_softmax(z + b * is_new + by)) for z, b in zip(STUDENT, biases, strict=True)])
    excess = p - (1 - smoothing) * np.eye(K)[LABELS] - smoothing / K
    np.testing.assert_allclose(of_logits, excess, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(of_bias, excess[:, is_new].sum(1), rtol=1e-9, atol=1e-12)


def test_log_prior():
    counts = np.array([500, 20, 0], np.int32)
    np.testing.assert_allclose(losses.log_prior(counts), [np.log(500), np.log(20), -np.inf], rtol=1e-6)
    np.testing.assert_allclose(losses.log_prior(counts, exponent=0.5), [np.log(500) / 2, np.log(20) / 2, -np.inf])
    np.testing.assert_array_equal(losses.log_prior(counts, exponent=0.0), [0, 0, 0])
    for exponent in (0.0, 1.0):
        gradient = jax.grad(lambda n, e=exponent: losses.log_prior(n, exponent=e)[:2].sum())(jnp.array([4.0, 2.0, 0.0]))
        np.testing.assert_allclose(gradient, [exponent / 4, exponent / 2, 0], rtol=1e-6)


def test_the_old_head_is_evaluated_on_the_features_and_trains_them():
    head = jnp.asarray(OLD, jnp.float32)
    gradient = jax.jit(jax.grad(lambda z: losses.influence_loss(z, LABELS).sum()))(head)
    expected = np.asarray(jax.nn.softmax(head)) - (np.arange(K_OLD) == LABELS[:, None])
    np.testing.assert_allclose(gradient, expected * (LABELS < K_OLD)[:, None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_computed_in_float32(dtype):
    low = [jnp.asarray(x, dtype) for x in (STUDENT, OLD, NEW)]
    values = calls(*low, LABELS)
    chex.assert_trees_all_equal(values, calls(*(x.astype(jnp.float32) for x in low), LABELS))
    chex.assert_type(list(values.values()), jnp.float32)


def test_student_and_teachers_may_differ_in_precision():
    with jax.enable_x64(True):
        z, old, new = arrays(jnp.float64)
        old, new = old.astype(jnp.float32), new.astype(jnp.bfloat16)
        mixed = call_all(z, old, new, LABELS)
        double = call_all(z, old.astype(jnp.float64), new.astype(jnp.float64), LABELS)
        swapped = losses.focal_distillation(z.astype(jnp.float32), old.astype(jnp.float64), LABELS)
    chex.assert_trees_all_equal(mixed, double)
    chex.assert_type([*mixed.values(), swapped], np.float64)


Z, T, Y = STUDENT.astype(np.float32), OLD.astype(np.float32), LABELS
ERRORS = {
    "integer logits": (TypeError, "floating point", lambda: losses.cross_entropy(Z.astype(int), Y)),
    "integer teacher": (TypeError, "floating point", lambda: losses.kl_distance(Z, T.astype(int))),
    "float labels": (TypeError, "integers", lambda: losses.cross_entropy(Z, Y.astype(np.float32))),
    "boolean labels": (TypeError, "integers", lambda: losses.focal_distillation(Z, T, Y > 0)),
    "number mask": (TypeError, "booleans", lambda: losses.cross_entropy(Z, Y, where=np.ones(K))),
    "label column": (ValueError, "shape", lambda: losses.cross_entropy(Z, Y[:, None])),
    "one label": (ValueError, "shape", lambda: losses.focal_distillation(Z, T, Y[:1])),
    "scalar logits": (ValueError, "last axis", lambda: losses.cross_entropy(1.0, 0)),
    "mask of other shape": (ValueError, "broadcast", lambda: losses.cross_entropy(Z, Y, where=np.ones(K - 1, bool))),
    "one teacher row": (ValueError, "same examples", lambda: losses.logit_matching(Z, T[:1])),
    "large teacher": (ValueError, "number of classes", lambda: losses.focal_distillation(T, Z, Y)),
    "bias per class": (
        ValueError,
        "bias",
        lambda: losses.margin_calibrated_cross_entropy(Z, Y, num_old_classes=2, bias=np.ones(K)),
    ),
    "old classes": (
        ValueError,
        f"0 to {K}",
        lambda: losses.margin_calibrated_cross_entropy(Z, Y, num_old_classes=K + 1, bias=1.0),
    ),
    "counts": (ValueError, "one number per class", lambda: losses.balanced_softmax_cross_entropy(Z, Y, COUNTS[:3])),
    "counts of a scalar": (ValueError, "one number per class", lambda: losses.balanced_softmax_cross_entropy(Z, Y, 3)),
    "offset": (
        ValueError,
        "one number per class",
        lambda: losses.margin_calibrated_cross_entropy(Z, Y, num_old_classes=2, bias=1.0, offset=np.ones(2)),
    ),
    "top_k": (ValueError, "top_k=0", lambda: losses.logit_matching(Z, T, top_k=0)),
    "slack per class": (
        ValueError,
        "slack",
        lambda: losses.logit_difference_inhibition(Z, T, slack=np.ones(K_OLD), power=2.0),
    ),
    "large soft teacher": (ValueError, "number of classes", lambda: losses.soft_cross_entropy(T, Z)),
    "labels of the old head": (TypeError, "integers", lambda: losses.influence_loss(T, Y > 0)),
    "labels of a better teacher": (ValueError, "shape", lambda: losses.better_teacher(Z, T, Y[:3])),
    "distance": (ValueError, "valid: kl, lm", lambda: losses.focal_distillation(Z, T, Y, distance="l1")),
    "matching": (ValueError, "half_mean, mean, half_sum", lambda: losses.focal_distillation(Z, T, Y, matching="sum")),
    "unknown": (ValueError, "valid: keep, drop", lambda: losses.focal_distillation(Z, T, Y, unknown_classes="no")),
    "positional option": (TypeError, "positional", lambda: losses.focal_distillation(Z, T, Y, "kl")),
    "gate": (
        ValueError,
        "expected one shape",
        lambda: losses.focal_weighting(np.ones(3, np.float32), np.ones(1, bool), Y[:3], num_teacher_classes=2),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    error, message, call = ERRORS[name]
    with pytest.raises(error, match=message):
        call()


def test_double_source_takes_every_option_of_focal_distillation():
    options = {
        "distance": "lm",
        "alpha": 0.5,
        "beta": 2.0,
        "temperature": 3.0,
        "scale_by_temperature_squared": True,
        "unknown_classes": "drop",
        "matching": "mean",
        "where": MASKS["every_other"],
    }
    focal = functools.partial(losses.focal_distillation, **options)
    z, old, new = arrays(jnp.float32)
    values = losses.double_source_focal_distillation(z, old, new, Y, **options)
    np.testing.assert_allclose(values, focal(z, old, Y) + focal(z, new, Y), rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 4, 5], "label 5 at position 2; expected 0 to 4"),
        ([[0, 1], [-1, 9]], "label -1 at position 1, 0; expected 0 to 4"),
        (np.uint8(200), r"label 200 at position \(\); expected 0 to 4"),
    ],
)
def test_labels_out_of_range_are_found(labels, message):
    with pytest.raises(ValueError, match=message):
        losses.check_labels(labels, 5)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_labels_within_the_range_are_returned(dtype):
    labels = np.arange(100, dtype=dtype)
    np.testing.assert_array_equal(losses.check_labels(labels, 100), labels)
    np.testing.assert_array_equal(losses.check_labels(labels, 1000), labels)  # more classes than int8 can count
    with pytest.raises(TypeError, match="float32; expected integers"):
        losses.check_labels(labels.astype(np.float32), 100)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_labels_are_checked_inside_jit_by_checkify(dtype):
    check = jax.jit(checkify.checkify(lambda labels: losses.check_labels(labels, 5)))
    error, labels = check(np.array([4, 0], dtype))
    assert error.get() is None and labels.tolist() == [4, 0]
    error, _ = check(np.array([0, 7, 9], dtype))
    assert "label 7 at position 1; expected 0 to 4" in error.get()
    with pytest.raises(ValueError, match="checkify"):
        jax.jit(lambda labels: losses.check_labels(labels, 5))(np.array([0], dtype))


GROUPS = [[3], [0, 2, 5], [1, 6]]


def test_logits_are_carried_over_to_groups_of_classes():
    expected = [[z[3], np.log(np.exp(z[[0, 2, 5]]).sum()), np.log(np.exp(z[[1, 6]]).sum())] for z in STUDENT]
    with jax.enable_x64(True):
        np.testing.assert_allclose(losses.carry_over(STUDENT, GROUPS), expected, rtol=1e-14)
        cotangent = random_logits(5, N, 3)
        _, pull = jax.vjp(lambda z: losses.carry_over(z, GROUPS), jnp.asarray(STUDENT))
        (gradient,) = pull(jnp.asarray(cotangent))
    by_hand = np.zeros_like(STUDENT)  # d u_g / d z_k is the share of k in its group
    for g, group in enumerate(GROUPS):
        share = np.exp(STUDENT[:, group])
        by_hand[:, group] = cotangent[:, g, None] * share / share.sum(-1, keepdims=True)
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-12, atol=1e-15)
    probability = np.exp(STUDENT) / np.exp(STUDENT)[:, [k for group in GROUPS for k in group]].sum(-1, keepdims=True)
    carried = jax.nn.softmax(losses.carry_over(STUDENT.astype(np.float32), GROUPS))
    np.testing.assert_allclose(carried, np.stack([probability[:, g].sum(-1) for g in GROUPS], -1), rtol=1e-5)


def test_a_class_alone_is_moved_bit_for_bit():
    z = STUDENT.astype(np.float32)
    np.testing.assert_array_equal(losses.carry_over(z, [[4], [0]]), z[:, [4, 0]])
    np.testing.assert_array_equal(losses.carry_over(z, GROUPS)[:, 0], z[:, 3])
    np.testing.assert_array_equal(
        losses.carry_over(z.reshape(3, 4, K), GROUPS), losses.carry_over(z, GROUPS).reshape(3, 4, 3)
    )


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_carried_over_logits_are_finite_at_extreme_ones(scale):
    z = jnp.asarray(scale * np.sign(STUDENT), jnp.float32)
    values, gradient = jax.value_and_grad(lambda z: losses.carry_over(z, GROUPS).sum())(z)
    chex.assert_tree_all_finite((values, gradient))


def test_a_group_without_a_class_is_refused():
    with pytest.raises(ValueError, match="empty group"):
        losses.carry_over(jnp.zeros((2, 3)), [[0], []])
    with pytest.raises(TypeError, match="floating point"):
        losses.carry_over(jnp.zeros((2, 3), int), [[0]])
