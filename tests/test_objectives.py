"""Every row of the table of methods against a float64 reference, and objectives as pytrees."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax import objectives
from mpt_jax.objectives import METHODS, Objective, Term, describe, per_example_loss, sources, stack

K, K_OLD, N = 6, 4, 12
LABELS = np.arange(N, dtype=np.int32) % K
_rng = np.random.default_rng(0)
STUDENT, OLD, NEW = (_rng.normal(scale=3.0, size=(N, k)) for k in (K, K_OLD, K))
OLD[0, 0], OLD[1, 1], NEW[4, 4] = 12.0, 12.0, 12.0  # both sides of every gate occur


def arrays(dtype=jnp.float32):
    z, old, new = (jnp.array(x, dtype) for x in (STUDENT, OLD, NEW))
    return z, {"old": old, "new": new}


def loss(objective, dtype=jnp.float32):
    z, teachers = arrays(dtype)
    return per_example_loss(objective, z, LABELS, teachers, num_old_classes=K_OLD)


# The published table, written once more in NumPy, one image at a time.


def log_softmax(z):
    return z - np.log(np.sum(np.exp(z)))


def ce(z, y, b=0.0):
    return -log_softmax(z + b * (np.arange(K) >= K_OLD))[y]


def right(t, y):
    return float(np.argmax(t) == y)


def fd_kl(z, t, y):
    p, q = log_softmax(t / 5), log_softmax(z[: len(t)] / 5)
    return (1 + 5 * right(t, y)) * np.sum(np.exp(p) * (p - q))


def fd_lm(z, t, y):
    return (1 + 5 * right(t, y)) * np.mean((z[: len(t)] - t) ** 2) / 2


TABLE = {
    "no_treatment": lambda z, o, n, y: ce(z, y),
    "pct_naive": lambda z, o, n, y: ce(z, y) + right(o, y) * ce(z, y),
    "pct_kl": lambda z, o, n, y: ce(z, y) + fd_kl(z, o, y),
    "pct_lm": lambda z, o, n, y: ce(z, y) + 0.4 * fd_lm(z, o, y),
    "mpt_kl": lambda z, o, n, y: ce(z, y, 4) + fd_kl(z, o, y) + fd_kl(z, n, y),
    "mpt_lm": lambda z, o, n, y: ce(z, y, 4) + 0.4 * fd_lm(z, o, y) + 0.4 * fd_lm(z, n, y),
    "mpt_no_distillation": lambda z, o, n, y: ce(z, y, 4),
    "mpt_kl_no_bias": lambda z, o, n, y: ce(z, y) + fd_kl(z, o, y) + fd_kl(z, n, y),
    "mpt_lm_no_bias": lambda z, o, n, y: ce(z, y) + 0.4 * fd_lm(z, o, y) + 0.4 * fd_lm(z, n, y),
}
EXPECTED = {
    name: np.array([row(*x) for x in zip(STUDENT, OLD, NEW, LABELS, strict=True)]) for name, row in TABLE.items()
}

MIXED = [
    *METHODS.values(),
    Objective(
        cross_entropy=0.2,
        bias=1.5,
        terms=(
            Term("old", "lm", weight=0.3, unknown_classes="drop", matching="mean"),
            Term("old", "lm", weight=0.5, alpha=0.1),
            Term("old", "lm", weight=0.7, beta=0.2),  # the structure of the one before, twice in one objective
            Term("new", "kl", gate="none", alpha=2.0, temperature=3.0, scale_by_temperature_squared=True),
        ),
    ),
]


def test_the_table_has_these_rows():
    assert list(METHODS) == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_row_of_the_table(name):
    np.testing.assert_allclose(loss(METHODS[name]), EXPECTED[name], rtol=1e-5, atol=1e-5)
    with jax.enable_x64(True):
        double = loss(METHODS[name], jnp.float64)
    chex.assert_type(double, np.float64)
    np.testing.assert_allclose(double, EXPECTED[name], rtol=1e-12)


def test_every_number_and_option_takes_part():
    terms = (
        Term("old", "kl", "none", 0.3, 2.0, 7.0, 4.0, scale_by_temperature_squared=True, unknown_classes="drop"),
        Term("new", "lm", "teacher_right", 0.6, 0.5, 3.0, matching="half_sum"),
    )

    def row(z, o, n, y):
        p, q = log_softmax(o / 4), log_softmax(z[:K_OLD] / 4)
        kl = 0.3 * 2.0 * 16 * np.sum(np.exp(p) * (p - q)) * (y < K_OLD)  # gate "none": only alpha
        return 0.7 * ce(z, y, 2) + kl + 0.6 * (0.5 + 3 * right(n, y)) * np.sum((z - n) ** 2) / 2

    expected = [row(*x) for x in zip(STUDENT, OLD, NEW, LABELS, strict=True)]
    values = loss(Objective(cross_entropy=0.7, bias=2.0, terms=terms))
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("name", TABLE)
def test_jit_and_leading_axes(name):
    objective, (z, teachers) = METHODS[name], arrays()
    jitted = jax.jit(per_example_loss, static_argnames="num_old_classes")
    np.testing.assert_allclose(
        jitted(objective, z, LABELS, teachers, num_old_classes=K_OLD), loss(objective), rtol=1e-5
    )
    grid = jax.tree.map(lambda x: x.reshape(3, 4, -1), (z, teachers))
    values = per_example_loss(objective, grid[0], LABELS.reshape(3, 4), grid[1], num_old_classes=K_OLD)
    np.testing.assert_allclose(values.reshape(-1), loss(objective), rtol=1e-5)


def test_numbers_are_leaves():
    z, teachers = arrays()

    def mean_loss(objective):
        return per_example_loss(objective, z, LABELS, teachers, num_old_classes=K_OLD).mean()

    biases = jnp.array([0.0, 1.0, 4.0])
    sweep = jax.vmap(lambda b: mean_loss(METHODS["mpt_kl"].replace(bias=b)))(biases)
    np.testing.assert_allclose(sweep, [mean_loss(METHODS["mpt_kl"].replace(bias=float(b))) for b in biases], rtol=1e-5)
    gradient = jax.grad(mean_loss)(METHODS["mpt_lm"])
    step = 1e-2
    finite = (
        mean_loss(METHODS["mpt_lm"].replace(bias=4 + step)) - mean_loss(METHODS["mpt_lm"].replace(bias=4 - step))
    ) / (2 * step)
    np.testing.assert_allclose(gradient.bias, finite, rtol=1e-2)
    assert len(jax.tree.leaves(METHODS["mpt_lm"])) == 2 + 2 * 4


def test_stack_equals_its_rows():
    z, teachers = arrays()

    def total(z, objective):
        values = per_example_loss(objective, z, LABELS, teachers, num_old_classes=K_OLD)
        return values.sum(), values

    stacked = stack(MIXED)
    chex.assert_tree_shape_prefix(stacked, (len(MIXED),))
    chex.assert_type(jax.tree.leaves(stacked), jnp.float32)
    # old/ce, old/kl, old/lm (twice), new/kl, new/lm, and two with options of their own
    assert len(stacked.terms) == 8
    gradients, values = jax.jit(jax.vmap(jax.grad(total, has_aux=True), in_axes=(None, 0)))(z, stacked)
    for i, objective in enumerate(MIXED):
        gradient, value = jax.grad(total, has_aux=True)(z, objective)
        np.testing.assert_allclose(values[i], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradients[i], gradient, rtol=1e-5, atol=1e-6)


def test_stack_keeps_float64_where_it_is_on():
    with jax.enable_x64(True):
        stacked = stack([METHODS["pct_lm"], METHODS["mpt_lm"]])
        z, teachers = arrays(jnp.float64)
        values = jax.vmap(lambda o: per_example_loss(o, z, LABELS, teachers, num_old_classes=K_OLD))(stacked)
    np.testing.assert_allclose(values, [EXPECTED["pct_lm"], EXPECTED["mpt_lm"]], rtol=1e-12)


def test_stack_of_the_same_structure_has_no_further_terms():
    biases = [METHODS["mpt_kl"].replace(bias=b) for b in (0.0, 2.0, 4.0)]
    stacked = stack(biases)
    assert len(stacked.terms) == 2
    np.testing.assert_array_equal(stacked.bias, [0.0, 2.0, 4.0])
    np.testing.assert_array_equal(stacked.terms[1].weight, [1.0, 1.0, 1.0])


def test_an_absent_term_cannot_harm():
    z, _ = arrays()
    teachers = {"old": jnp.full((N, K_OLD), jnp.nan), "new": jnp.full((N, K), jnp.inf)}

    def total(z, objective):
        return per_example_loss(objective, z, LABELS, teachers, num_old_classes=K_OLD).sum()

    stacked = stack([METHODS["no_treatment"], *METHODS.values()])
    values, gradients = jax.vmap(jax.value_and_grad(total), in_axes=(None, 0))(z, stacked)
    np.testing.assert_allclose(values[0], EXPECTED["no_treatment"].sum(), rtol=1e-5)
    np.testing.assert_allclose(gradients[0], jax.grad(total)(z, METHODS["no_treatment"]), rtol=1e-5, atol=1e-6)
    assert np.isnan(values[list(METHODS).index("mpt_kl") + 1])


def test_no_gradient_into_teachers():
    z, teachers = arrays()
    for objective in MIXED:
        gradients = jax.grad(lambda t, o=objective: per_example_loss(o, z, LABELS, t, num_old_classes=K_OLD).sum())(
            teachers
        )
        assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_finite_at_extreme_logits(scale):
    z, teachers = arrays()
    z, teachers = scale * jnp.sign(z), jax.tree.map(lambda t: -scale * jnp.sign(t), teachers)

    def total(z, objective):
        return per_example_loss(objective, z, LABELS, teachers, num_old_classes=K_OLD).sum()

    chex.assert_tree_all_finite(jax.vmap(jax.value_and_grad(total), in_axes=(None, 0))(z, stack(MIXED)))


def test_first_release_is_plain_cross_entropy():
    z, _ = arrays()
    values = per_example_loss(METHODS["no_treatment"], z, LABELS, {}, num_old_classes=K)
    np.testing.assert_allclose(values, EXPECTED["no_treatment"], rtol=1e-5)
    biased = per_example_loss(METHODS["mpt_no_distillation"], z, LABELS, {}, num_old_classes=K)
    np.testing.assert_array_equal(biased, values)


def test_low_precision_is_computed_in_float32():
    z, teachers = arrays(jnp.bfloat16)
    z32, teachers32 = jax.tree.map(lambda x: x.astype(jnp.float32), (z, teachers))
    for objective in MIXED:
        values = per_example_loss(objective, z, LABELS, teachers, num_old_classes=K_OLD)
        chex.assert_type(values, jnp.float32)
        np.testing.assert_array_equal(
            values, per_example_loss(objective, z32, LABELS, teachers32, num_old_classes=K_OLD)
        )


def test_small_label_types_do():
    z, teachers = arrays()
    values = per_example_loss(MIXED[-1], z, LABELS.astype(np.uint8), teachers, num_old_classes=K_OLD)
    np.testing.assert_array_equal(values, loss(MIXED[-1]))


def test_sources():
    needed = {name: set(sources(objective)) for name, objective in METHODS.items()}
    none, old, both = set(), {"old"}, {"old", "new"}
    assert needed == {
        "no_treatment": none,
        "pct_naive": old,
        "pct_kl": old,
        "pct_lm": old,
        "mpt_kl": both,
        "mpt_lm": both,
        "mpt_no_distillation": none,
        "mpt_kl_no_bias": both,
        "mpt_lm_no_bias": both,
    }
    assert set(sources(stack(list(METHODS.values())))) == both


@pytest.mark.parametrize("name", METHODS)
def test_describe(name):
    text = json.loads(json.dumps(describe(METHODS[name])))
    assert text["bias"] == METHODS[name].bias and len(text["terms"]) == len(METHODS[name].terms)
    # everything is there: the objective can be built again from it
    terms = tuple(Term(**term) for term in text["terms"])
    assert Objective(text["cross_entropy"], text["bias"], terms, doc=METHODS[name].doc) == METHODS[name]


def test_describe_reads_arrays_as_they_were_written():
    row = jax.tree.map(lambda x: x[1], stack([METHODS["pct_kl"], METHODS["pct_lm"]]))
    described = describe(row.replace(terms=row.terms[1:]))
    assert described["terms"] == describe(METHODS["pct_lm"])["terms"]
    assert described["terms"][0]["weight"] == 0.4


def test_every_row_says_what_it_is():
    assert all(objective.doc and "\n" not in objective.doc for objective in METHODS.values())


def test_new_rows_gates_and_distances_need_no_other_change(monkeypatch):
    monkeypatch.setitem(
        objectives.GATES, "student_wrong", lambda z, t, y: jnp.argmax(z, axis=-1) != jnp.asarray(y).astype(int)
    )
    monkeypatch.setitem(objectives.DISTANCES, "l1", lambda term, z, t, y: jnp.abs(z - t).mean(-1))
    values = loss(Objective(cross_entropy=0.0, terms=(Term("new", "l1", "student_wrong", alpha=0.0, beta=1.0),)))
    wrong = np.argmax(STUDENT, -1) != LABELS
    np.testing.assert_allclose(values, wrong * np.abs(STUDENT - NEW).mean(-1), rtol=1e-5)


def test_errors():
    z, teachers = arrays()
    with pytest.raises(ValueError, match="no teacher logits of new; expected old, new, given old"):
        per_example_loss(METHODS["mpt_kl"], z, LABELS, {"old": teachers["old"]}, num_old_classes=K_OLD)
    with pytest.raises(ValueError, match="unknown distance 'l2'; valid: kl, lm, ce"):
        Term("old", "l2")
    with pytest.raises(ValueError, match="unknown gate 'open'; valid: teacher_right, none"):
        Term("old", "kl", "open")
    with pytest.raises(ValueError, match="valid: half_mean"):
        loss(Objective(terms=(Term("old", "lm", matching="sum"),)))
    with pytest.raises(ValueError, match="number of classes"):
        per_example_loss(METHODS["pct_kl"], teachers["old"], LABELS, {"old": z}, num_old_classes=K_OLD)
    with pytest.raises(TypeError, match="floating point"):
        per_example_loss(METHODS["pct_kl"], z, LABELS, {"old": z.astype(int)}, num_old_classes=K_OLD)
    with pytest.raises(ValueError, match="no objectives"):
        stack([])
    with pytest.raises(dataclasses.FrozenInstanceError):
        METHODS["mpt_kl"].bias = 0.0
