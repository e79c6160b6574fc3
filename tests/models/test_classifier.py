"""Classifiers: normalisation, logits, features, folding, warm start and ensembles."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from flax import linen as nn
from networks import slow_unless_first

from mpt_jax import models
from mpt_jax.errors import InputError
from mpt_jax.models import (
    NETWORKS,
    Classifier,
    build,
    features,
    fold,
    init,
    normalize,
    train_forward,
    warm_start,
)

logits = jax.jit(models.logits)
logits_of_each = jax.jit(jax.vmap(models.logits, in_axes=(0, None)))


def _pixels(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _classifier(seed, classes=4):
    module = build("convnet", classes)
    weights = random_weights.drawn(module, (6, 6, 2), seed)
    std = np.array([0.2, 0.1 * (seed + 1)], np.float32)
    return Classifier(module, *weights, np.array([0.3, 0.4], np.float32), std)


def _shallow(name, classes, **options):
    """Return this network with one block per stage, which has all its kinds of layers and compiles quickly."""
    module = build(name, classes, **options)
    if name.startswith(("resnet", "convnext")):
        return module.clone(depths=(1, 1, 1, 1))
    if name.startswith("efficientnet"):
        return module.clone(stages=module.stages[:2])
    return module.clone(depth=1) if name.startswith(("vit", "clip")) else module


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalisation_matches_the_formula_in_each_dtype(dtype):
    pixels, mean, std = _pixels((3, 5, 4, 2)), np.array([0.49, 0.25]), np.array([0.2, 0.5])
    with jax.enable_x64(dtype == "float64"):
        ours = normalize(jnp.asarray(pixels), jnp.asarray(mean, dtype), jnp.asarray(std, dtype), jnp.dtype(dtype))
        chex.assert_type(ours, jnp.dtype(dtype))
        np.testing.assert_allclose(
            ours, (pixels / 255 - mean) / std, rtol=0, atol=2e-6 if dtype == "float32" else 1e-14
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("shape", [(7, 3), (2, 4, 5, 3)])
def test_floats_are_normalised_without_scaling(shape, dtype):
    rng = np.random.default_rng(0)
    mean, std = rng.standard_normal(3), rng.uniform(0.5, 2, 3)
    inputs = jnp.asarray(10 * rng.standard_normal(shape), dtype)
    ours = normalize(inputs, jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))
    chex.assert_type(ours, jnp.float32)
    np.testing.assert_allclose(ours, (np.asarray(inputs, np.float64) - mean) / std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, jnp.bool_])
def test_inputs_that_are_neither_pixels_nor_floats_are_refused(dtype):
    with pytest.raises(TypeError, match=f"{jnp.dtype(dtype)}; expected uint8 pixels or floating features"):
        logits(_classifier(0), jnp.zeros((1, 6, 6, 2), dtype))


def test_logits_come_from_normalised_images_and_running_statistics():
    classifier, pixels = _classifier(0), _pixels((5, 6, 6, 2))
    images = ((pixels / 255 - np.array([0.3, 0.4])) / np.array([0.2, 0.1])).astype(np.float32)
    variables = {"params": classifier.params, "batch_stats": classifier.batch_stats}
    expected = jax.jit(lambda: classifier.module.apply(variables, images, train=False))()
    ours = np.asarray(logits(classifier, pixels))
    chex.assert_trees_all_close(ours, np.asarray(expected), atol=1e-4)
    alone = np.concatenate([logits(classifier, pixels[i : i + 1]) for i in range(5)])
    chex.assert_trees_all_close(ours, alone, atol=1e-4)


def test_stacked_classifiers_give_the_logits_of_each_alone():
    members, pixels = [_classifier(seed) for seed in range(3)], _pixels((5, 6, 6, 2))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    alone = np.stack([logits(member, pixels) for member in members])
    chex.assert_trees_all_close(np.asarray(logits_of_each(stacked, pixels)), alone, atol=1e-4)
    assert np.abs(alone[0] - alone[1]).max() > 0.1


def test_a_second_classifier_of_the_same_network_is_not_compiled_again():
    count = 0

    @jax.jit
    def run(classifier, pixels):
        nonlocal count
        count += 1
        return logits(classifier, pixels)

    pixels = _pixels((2, 6, 6, 2))
    run(_classifier(0), pixels), run(_classifier(1), pixels)
    assert count == 1
    chex.assert_shape(run(_classifier(0, classes=5), pixels), (2, 5))


@pytest.mark.parametrize("name", ["convnet", "resnet18", "vit_tiny", "efficientnet_lite0", "mlp"])
def test_float64_throughout(name):
    module = _shallow(name, 3, dtype="float64")

    def run(key, mean, std, pixels):
        params, batch_stats = init(module, key, (8, 8, 1))
        variables, images = {"params": params, "batch_stats": batch_stats}, normalize(pixels, mean, std, jnp.float64)
        output, updated = module.apply(variables, images, train=True, mutable=["batch_stats"])
        return variables, output, updated, logits(Classifier(module, params, batch_stats, mean, std), pixels)

    with jax.enable_x64(True):
        float32 = jax.ShapeDtypeStruct((1,), jnp.float32)
        result = jax.eval_shape(run, jax.random.key(0), float32, float32, jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.uint8))
        chex.assert_type(jax.tree.leaves(result), jnp.float64)


@pytest.mark.parametrize(
    "dtype", ["bfloat16", *(pytest.param(d, marks=pytest.mark.slow) for d in ("float16", "float32"))]
)
@pytest.mark.parametrize("name", [slow_unless_first(name) for name in NETWORKS])
def test_logits_and_parameters_are_float32_whatever_the_compute_dtype(name, dtype):
    module = _shallow(name, 3, dtype=dtype)
    side = 28 if name.endswith("14") else 32  # a multiple of the patch

    def run(key):
        params, batch_stats = init(module, key, (side, side, 3))
        classifier = Classifier(module, params, batch_stats, jnp.zeros(3), jnp.ones(3))
        return params, batch_stats, logits(classifier, jnp.zeros((2, side, side, 3), jnp.uint8))

    chex.assert_type(jax.tree.leaves(jax.eval_shape(run, jax.random.key(0))), jnp.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            ("resnet20", 10),
            {},
            "unknown model 'resnet20'; expected one of convnet, resnet18, resnet34, resnet50, resnet1",
        ),
        (("resnet18", 10), {"stem": "small"}, "unknown stem 'small'; expected one of imagenet, cifar"),
        (("resnet18", 10), {"stemm": "cifar"}, "model 'resnet18' has no option 'stemm'; expected one of stem"),
        (("resnet18", 10), {"depths": (1,)}, "model 'resnet18' has no option 'depths'; expected one of stem"),
        (("convnet", 10), {"stem": "cifar"}, "model 'convnet' has no option 'stem'; expected none"),
        (("vit_tiny", 10), {"patch": 8}, "model 'vit_tiny' has no option 'patch'; expected one of dropout, drop_path"),
        (("convnet", 10), {"dtype": "int8"}, "unknown dtype 'int8'; expected one of bfloat16, float16, float32, flo"),
        (("convnet", 0), {}, "0 classes; expected at least 1"),
    ],
)
def test_bad_input_is_one_line_with_the_valid_choices(arguments, options, message):
    with pytest.raises(InputError) as error:
        build(*arguments, **options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_builds(name):
    assert build(name, 12).num_classes == 12


@pytest.mark.parametrize(
    "name",
    ["convnet", *(pytest.param(f"resnet{n}", marks=pytest.mark.slow) for n in (18, 34, 50)), "mlp"],
)
def test_a_folded_classifier_is_the_same_function(name):
    with jax.enable_x64(True):
        module = build(name, 4, dtype="float64")
        # Statistics and scales are far from the fresh ones, which would fold to nothing.
        params, batch_stats = random_weights.drawn(module, (8, 8, 3), count=2)
        mean, std = np.full((2, 3), 0.4), np.full((2, 3), 0.2)
        stack = Classifier(module, params, batch_stats, mean, std)
        pixels = _pixels((5, 8, 8, 3))
        plain, folded = (logits_of_each(each, pixels) for each in (stack, fold(stack)))
        assert np.abs(plain).max() > 1e-3
        chex.assert_trees_all_close(folded, plain, rtol=1e-9)
        assert not fold(stack).batch_stats
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(fold(stack)))


FEATURES = {"convnet": 4 * 4 * 32, "resnet18": 512, "vit_tiny": 128, "mlp": 512, "linear": 8 * 8 * 2}


NORMALIZATION = np.array([0.3, 0.4], np.float32), np.array([0.2, 0.3], np.float32)


@functools.cache
def _members(name, count=2):
    """Return a stack of networks with different weights for images of 8x8x2."""
    module = _shallow(name, 3)
    mean, std = (np.broadcast_to(each, (count, 2)) for each in NORMALIZATION)
    return Classifier(module, *random_weights.drawn(module, (8, 8, 2), count=count), mean, std)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "resnet18" else name for name in FEATURES]
)
def test_the_head_on_the_features_gives_the_logits_of_every_member(name):
    members, pixels = _members(name, count=6), _pixels((5, 8, 8, 2))
    ours = jax.jit(jax.vmap(features, in_axes=(0, None)))(members, pixels)
    chex.assert_shape(ours, (6, 5, FEATURES[name]))
    head, expected = members.params["head"], logits_of_each(members, pixels)
    np.testing.assert_allclose(ours @ head["kernel"] + head["bias"][:, None], expected, atol=2e-4)
    one = jax.tree.map(lambda leaf: leaf[1], members)
    np.testing.assert_allclose(jax.jit(features)(one, pixels), np.asarray(ours)[1], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", ["convnet", "vit_tiny", "mlp"])
def test_features_have_gradients_for_all_but_the_head(name):
    classifier = jax.tree.map(lambda leaf: leaf[0], _members(name))
    pixels = _pixels((5, 8, 8, 2))
    target = np.random.default_rng(1).standard_normal((5, FEATURES[name]), np.float32)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda params: (features(classifier.replace(params=params), pixels) * target).sum())(params)

    ours = gradient(classifier.params)
    chex.assert_tree_all_finite(ours)
    for part, leaves in ours.items():
        assert all((part == "head") == (np.abs(leaf).max() == 0) for leaf in jax.tree.leaves(leaves)), part


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", FEATURES)
def test_features_are_float32_whatever_the_compute_dtype(name, dtype):
    module = _shallow(name, 3, dtype=dtype)

    def run(key):
        classifier = Classifier(module, *init(module, key, (8, 8, 2)), *NORMALIZATION)
        return features(classifier, jnp.zeros((2, 8, 8, 2), jnp.uint8))

    chex.assert_type(jax.eval_shape(run, jax.random.key(0)), jnp.float32)


@pytest.mark.parametrize("name", FEATURES)
def test_a_training_pass_also_returns_the_inputs_of_the_head(name):
    classifier = jax.tree.map(lambda leaf: leaf[0], _members(name))
    module, head = classifier.module, classifier.params["head"]
    inputs = np.random.default_rng(1).standard_normal((5, 8, 8, 2), np.float32)

    @jax.jit
    def both(params, batch_stats, inputs):
        variables = {"params": params, "batch_stats": batch_stats}
        outputs, mutated = module.apply(variables, inputs, train=True, mutable=["batch_stats"])
        ours = train_forward(module, params, batch_stats, inputs)
        return (outputs, mutated.get("batch_stats", {})), ours

    results = jax.device_get(both(classifier.params, classifier.batch_stats, inputs))
    (outputs, batch_stats), (ours, head_inputs, stats) = results
    chex.assert_shape(head_inputs, (5, FEATURES[name]))
    chex.assert_trees_all_close(ours, outputs, atol=1e-5)
    np.testing.assert_allclose(head_inputs @ head["kernel"] + head["bias"], outputs, atol=1e-4)
    chex.assert_trees_all_close(stats, batch_stats, atol=1e-5)
    assert bool(stats) == (name in ("convnet", "resnet18"))


def test_the_features_of_a_training_pass_have_gradients():
    module, x = build("mlp", 3), np.random.default_rng(1).standard_normal((5, 4), np.float32)
    params, _ = random_weights.drawn(module, (4,))
    gradient = jax.jit(jax.grad(lambda params: train_forward(module, params, {}, x)[1].sum()))(params)
    opened = x @ params["hidden"]["kernel"] + params["hidden"]["bias"] > 0
    np.testing.assert_allclose(gradient["hidden"]["kernel"], x.T @ opened, rtol=1e-5, atol=1e-5)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["head"]))


class Own(nn.Module):
    """A network with BatchNorm of every kind: told in the call or when it is built, masked, without parameters."""

    num_classes: int = 3
    dtype: str = "float32"
    remat: bool = False

    def setup(self):
        self.head = nn.Dense(self.num_classes)
        self.late, self.early = nn.Dense(4), nn.Dense(4)

    @nn.compact
    def __call__(self, x, train):
        x = self.early(x)
        x = nn.BatchNorm(name="in_call")(x, use_running_average=not train)
        x = nn.BatchNorm(name="positional")(x, not train)
        x = nn.BatchNorm(use_running_average=not train, name="built")(x)
        x = nn.BatchNorm(name="masked")(x, use_running_average=not train, mask=jnp.arange(len(x))[:, None] < 3)
        x = nn.BatchNorm(use_scale=False, use_bias=False, name="bare")(x, use_running_average=not train)
        inner = nn.remat(Inner, static_argnums=(2,)) if self.remat else Inner
        return self.head(self.late(inner(name="inner")(x, train)))


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(name="norm")(x, use_running_average=not train)


NORMS = ("in_call", "positional", "built", "masked", "bare", "inner")


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("fixed", [(), ("backbone",), ("built", "in*"), ("*/scale",)])
def test_fixed_statistics_are_used_and_kept(fixed, remat):
    module, x = Own(remat=remat), np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    params, stats = init(module, jax.random.key(0), (3,))
    stats = jax.tree.map(lambda leaf: leaf + 0.3, stats)
    outputs, _, after = train_forward(module, params, stats, x, fixed=fixed)
    same = {name for name in NORMS if all(jax.tree.leaves(jax.tree.map(np.array_equal, stats[name], after[name])))}
    assert same == {(): set(), ("backbone",): {*NORMS}, ("built", "in*"): {"built", "in_call", "inner"}}.get(
        fixed, set()
    )
    if fixed == ("backbone",):
        expected = module.apply({"params": params, "batch_stats": stats}, x, train=False)
        np.testing.assert_allclose(outputs, expected, rtol=1e-5)


def test_layers_are_in_the_order_of_their_calls():
    assert models.layer_order(Own(), (3,)) == ("early", *NORMS[:4], "inner", "late", "head")
    vit = build("vit_tiny", 3)
    assert models.layer_order(vit, (8, 8, 1)) == (
        "patch_embedding",
        *(f"block{i}" for i in range(1, 7)),
        "norm",
        "head",
    )


@pytest.mark.parametrize("name", ["convnet", "linear"])
def test_a_warm_started_network_has_the_trained_logits_for_old_classes(name):
    small, large = build(name, 3), build(name, 5)
    trained, fresh = random_weights.drawn(small, (8, 8, 2), 0), random_weights.drawn(large, (8, 8, 2), 1)
    params, batch_stats = warm_start(fresh, trained)
    chex.assert_trees_all_equal_shapes_and_dtypes((params, batch_stats), fresh)
    pixels = _pixels((5, 8, 8, 2))
    old = logits(Classifier(small, *trained, *NORMALIZATION), pixels)
    grown = np.asarray(logits(Classifier(large, params, batch_stats, *NORMALIZATION), pixels))
    np.testing.assert_allclose(grown[:, :3], old, atol=1e-5)
    np.testing.assert_array_equal(params["head"]["kernel"][:, 3:], fresh[0]["head"]["kernel"][:, 3:])
    chex.assert_trees_all_equal(warm_start(fresh, fresh), fresh)
    with pytest.raises(ValueError, match=r"\['head'\]\['bias'\] has shape \(5,\) in the trained network and \(3,\)"):
        warm_start(trained, fresh)


def test_warm_start_refuses_networks_of_other_shapes():
    def make(name, features=4, **options):
        return random_weights.drawn(NETWORKS[name].constructor(3, **options), (features,))

    for fresh, trained, name in (
        (make("mlp", 5, hidden=4), make("mlp", 6, hidden=4), "['hidden']['kernel']"),
        (make("mlp", hidden=7), make("mlp", hidden=6), "['head']['kernel']"),
        (make("linear", 5), make("linear", 4), "['head']['kernel']"),
    ):
        with pytest.raises(ValueError) as error:
            warm_start(fresh, trained)
        assert str(error.value).startswith(f"{name} has shape (")
    with pytest.raises(ValueError, match="hidden"):
        warm_start(make("mlp"), make("linear"))


@pytest.mark.parametrize("name", ["convnet", "linear"])
def test_an_ensemble_predicts_the_mean_logits_of_its_members(name):
    members, pixels = _members(name, count=6), _pixels((5, 8, 8, 2))
    alone = np.asarray(logits_of_each(members, pixels))
    seeds = jax.tree.map(lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:]), members).replace(ensemble=True)
    expected = alone.astype(float).reshape(2, 3, 5, 3).mean(1)
    assert np.abs(alone - alone[0]).max() > 0.01
    np.testing.assert_allclose(logits_of_each(seeds, pixels), expected, atol=1e-5)
    one = jax.tree.map(lambda leaf: leaf[1], seeds)
    assert one.ensemble
    np.testing.assert_allclose(logits(one, pixels), expected[1], atol=1e-5)
    normalized = normalize(pixels, one.mean[0], one.std[0])  # which all members share
    bare = logits(one.replace(mean=None, std=None), normalized)
    np.testing.assert_allclose(bare, expected[1], atol=1e-5)
    folded = fold(seeds)
    assert folded.ensemble and not folded.batch_stats
    np.testing.assert_allclose(logits_of_each(folded, pixels), expected, atol=1e-4)
    with pytest.raises(ValueError, match="features of an ensemble; expected one network"):
        features(one, pixels)
