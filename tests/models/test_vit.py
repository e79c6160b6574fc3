"""Vision transformers equal timm's: logits, gradients, sizes and initialisation; and that they learn."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import random_weights
from sklearn.datasets import load_digits

from mpt_jax.errors import InputError
from mpt_jax.models import build, init
from mpt_jax.models.vit import ViT, attention, patches, resized_positions


def _small(classes=5, dtype="float32", depth=2):
    return ViT(classes, patch=2, width=12, depth=depth, heads=3, dtype=jnp.dtype(dtype))


def _perturbed(params, seed=0, scale=0.3):
    """Move every parameter away from its trivial initial value, so that one that is not used is noticed."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(scale * rng.standard_normal(leaf.shape), leaf.dtype), params)


def _images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_logits_and_gradients_match_pytorch():
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    import torch_vit_reference

    torch.manual_seed(0)
    reference = torch_vit_reference.vit(7, 8, 12, patch=4, features=24, depth=2, heads=3)
    params = torch_vit_reference.to_flax(reference)
    rng = np.random.default_rng(0)
    images, cotangent = rng.standard_normal((5, 8, 12, 3)), rng.standard_normal((5, 7))

    torch_images = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    expected = reference(torch_images)
    (expected * torch.tensor(cotangent)).sum().backward()
    expected_gradient = torch_vit_reference.to_flax(reference, of=lambda parameter: parameter.grad)

    with jax.enable_x64(True):
        module = ViT(7, patch=4, width=24, depth=2, heads=3, dtype=jnp.float64, param_dtype=jnp.float64)
        ours, _ = jax.eval_shape(lambda key: init(module, key, (8, 12, 3)), jax.random.key(0))
        chex.assert_trees_all_equal_shapes_and_dtypes(ours, jax.tree.map(jnp.asarray, params))

        def loss(params, images):
            output = module.apply({"params": params}, images, train=True)
            return jnp.sum(output * cotangent), output

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        (of_params, of_images), output = gradient(params, jnp.asarray(images))
        chex.assert_type(output, jnp.float64)

    def close(ours, theirs):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * max(1.0, np.abs(theirs).max()))

    close(output, expected.detach().numpy())
    close(of_images, torch_images.grad.numpy().transpose(0, 2, 3, 1))
    jax.tree.map(close, of_params, expected_gradient)


def test_logits_match_the_formula_in_numpy():
    module, images = _small(), _images(3, 4, 6, 2)
    params = _perturbed(random_weights.init(module, jax.random.key(0), (4, 6, 2))[0])
    tree = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    def normal(x, layer):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * layer["scale"] + layer["bias"]

    outputs = []
    for image in np.asarray(images, np.float64):
        pieces = [image[a : a + 2, b : b + 2].ravel() for a in range(0, 4, 2) for b in range(0, 6, 2)]
        x = np.vstack([tree["class_token"], dense(np.array(pieces), tree["patch_embedding"])])
        x = x + tree["position_embedding"]
        for block in (tree["block1"], tree["block2"]):
            q, k, v = np.split(dense(normal(x, block["norm1"]), block["qkv"]), 3, axis=1)
            heads = []
            for head in (slice(0, 4), slice(4, 8), slice(8, 12)):
                weights = np.exp(q[:, head] @ k[:, head].T / 2)
                heads.append(weights / weights.sum(1, keepdims=True) @ v[:, head])
            x = x + dense(np.hstack(heads), block["proj"])
            hidden = dense(normal(x, block["norm2"]), block["fc1"])
            x = x + dense(hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2, block["fc2"])
        outputs.append(dense(normal(x[0], tree["norm"]), tree["head"]))

    ours, mutated = jax.jit(
        lambda params: module.apply({"params": params}, images, train=True, mutable=["batch_stats"])
    )(params)
    np.testing.assert_allclose(ours, outputs, rtol=0, atol=1e-4)
    assert float(np.std(outputs)) > 0.1
    assert mutated == {}


@pytest.mark.parametrize(
    ("name", "classes", "shape", "expected"),
    [
        ("vit_s16", 1000, (224, 224, 3), 22_050_664),  # the published count of timm's vit_small_patch16_224
        ("vit_tiny", 100, (32, 32, 3), 1_217_508),
        ("vit_tiny", 10, (8, 8, 1), 1_217_508 - 90 * 129 - 60 * 128 - 2 * 16 * 128),  # fewer classes, positions, inputs
    ],
)
def test_parameter_counts(name, classes, shape, expected):
    params, batch_stats = jax.eval_shape(lambda key: init(build(name, classes), key, shape), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    assert batch_stats == {}


def test_initial_parameters_have_the_spread_of_the_paper():
    params = jax.jit(lambda key: init(build("vit_tiny", 100), key, (32, 32, 3))[0])(jax.random.key(0))
    block = params["block3"]
    for name, outputs in (("qkv", 3 * 128), ("proj", 128), ("fc1", 512)):
        kernel, bound = block[name]["kernel"], (6 / (128 + outputs)) ** 0.5
        assert 0.98 * bound < float(jnp.abs(kernel).max()) <= bound
        assert float(kernel.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert float(params["patch_embedding"]["kernel"].std()) == pytest.approx(48**-0.5, rel=0.03)
    assert float(params["position_embedding"].std()) == pytest.approx(0.02, rel=0.03)
    for zero in (block["qkv"]["bias"], block["fc1"]["bias"], params["patch_embedding"]["bias"], params["class_token"]):
        np.testing.assert_array_equal(zero, 0)
    np.testing.assert_array_equal(params["norm"]["scale"], 1)


def test_patches_and_their_product_are_a_convolution_of_that_stride():
    images, kernel = _images(2, 6, 9, 2), _images(3, 3, 2, 5, seed=1)
    convolved = jax.lax.conv_general_dilated(
        images, kernel, (3, 3), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    ours = patches(images, 3) @ kernel.reshape(-1, 5)
    chex.assert_trees_all_close(ours, convolved.reshape(2, 6, 5), atol=1e-5)


@pytest.mark.parametrize("shape", [(30, 32, 3), (32, 33, 3)])
def test_image_sizes_that_are_no_multiple_of_the_patch_are_refused(shape):
    message = f"images of {shape[0]}x{shape[1]} pixels; expected sides that are multiples of the patch, 4"
    with pytest.raises(InputError, match=message):
        init(build("vit_tiny", 10), jax.random.key(0), shape)


def test_the_order_of_patches_matters_only_with_positions():
    module, images = _small(), _images(2, 6, 6, 1)
    params = _perturbed(random_weights.init(module, jax.random.key(0), (6, 6, 1))[0])
    order = np.random.default_rng(0).permutation(9)
    grid = images.reshape(2, 3, 2, 3, 2, 1).swapaxes(2, 3).reshape(2, 9, 2, 2, 1)[:, order]
    shuffled = grid.reshape(2, 3, 3, 2, 2, 1).swapaxes(2, 3).reshape(2, 6, 6, 1)

    def difference(params):
        run = jax.jit(lambda images: module.apply({"params": params}, images, train=False))
        return float(jnp.abs(run(images) - run(shuffled)).max())

    constant = jnp.broadcast_to(params["position_embedding"][:1], params["position_embedding"].shape)
    assert difference({**params, "position_embedding": constant}) < 1e-5
    assert difference(params) > 1e-2


def test_attention_at_sharp_scores_picks_the_matching_key():
    keys = 100 * jnp.eye(5)[None, :, None]
    values, order = _images(1, 5, 1, 5), jnp.array([3, 1, 4, 0, 2])
    chex.assert_trees_all_close(attention(keys[:, order], keys, values), values[:, order], atol=1e-6)


@pytest.mark.slow
def test_a_population_gives_the_logits_and_gradients_of_each_alone():
    module, images, labels = _small(depth=1), _images(4, 4, 4, 3), jnp.array([0, 1, 2, 3])
    keys = jax.random.split(jax.random.key(0), 3)
    members = [_perturbed(random_weights.init(module, key, (4, 4, 3))[0], seed, 0.1) for seed, key in enumerate(keys)]

    def loss(params):
        output = module.apply({"params": params}, images, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(output, labels).mean(), output

    run = jax.grad(loss, has_aux=True)
    together = jax.jit(jax.vmap(run))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *members))
    alone = [jax.jit(run)(member) for member in members]
    chex.assert_trees_all_close(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone), atol=1e-5)
    chex.assert_tree_all_finite(together)
    gradient = jax.tree.leaves(alone[0][0])
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in gradient), "a parameter without a gradient"


@pytest.mark.slow
def test_a_population_learns_the_digits():
    digits = load_digits()
    images = jnp.asarray(digits.images[:400, :, :, None] / 8 - 0.6, jnp.float32)
    labels = jnp.asarray(digits.target[:400], jnp.int32)
    module, optimizer = ViT(10, patch=2, width=32, depth=2, heads=2), optax.sgd(0.03, 0.9)

    def fit(key):
        params, _ = init(module, key, (8, 8, 1))

        def loss(params, rows):
            output = module.apply({"params": params}, images[rows], train=True)
            return optax.softmax_cross_entropy_with_integer_labels(output, labels[rows]).mean()

        def step(number, state):
            rows = jax.random.randint(jax.random.fold_in(key, number), (50,), 0, 400)
            updates, momentum = optimizer.update(jax.grad(loss)(state[0], rows), state[1])
            return optax.apply_updates(state[0], updates), momentum

        params, _ = jax.lax.fori_loop(0, 250, step, (params, optimizer.init(params)))
        return (module.apply({"params": params}, images, train=False).argmax(-1) == labels).mean(dtype=jnp.float32)

    accuracy = jax.jit(jax.vmap(fit))(jax.random.split(jax.random.key(0), 2))
    assert float(accuracy.min()) > 0.9


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits_in_half_precision_are_near_those_of_float32(dtype):
    images = _images(4, 4, 4, 3)
    params = _perturbed(random_weights.init(_small(depth=1), jax.random.key(0), (4, 4, 3))[0], scale=0.1)

    def run(dtype):
        return jax.jit(lambda params: _small(dtype=dtype, depth=1).apply({"params": params}, images, train=False))(
            params
        )

    narrow, wide = run(dtype), run("float32")
    chex.assert_type([narrow, wide], jnp.float32)
    error = float(jnp.abs(narrow - wide).max() / wide.std())
    assert 0 < error < (0.1 if dtype == "bfloat16" else 0.01)


def test_positions_of_the_same_size_stay_and_a_ramp_stays_a_ramp():
    rows = np.repeat(np.arange(16.0), 16)
    positions = np.stack([np.r_[-7.0, rows], np.r_[5.0, np.ones(256)]], axis=1).astype(np.float32)
    module = ViT(3, patch=2, width=2, depth=0, heads=1)
    np.testing.assert_allclose(resized_positions(positions, module, (32, 32, 3)), positions, atol=1e-5)
    half = resized_positions(positions, module, (16, 24, 3))
    np.testing.assert_array_equal(half[0], positions[0])
    grid = half[1:].reshape(8, 12, 2)
    np.testing.assert_allclose(grid[..., 1], 1, atol=1e-5)
    np.testing.assert_allclose(grid[2:-2, :, 0], np.repeat(np.arange(0.5, 16, 2)[2:-2, None], 12, 1), atol=1e-4)


def test_positions_of_no_square_grid_are_refused():
    with pytest.raises(InputError, match="4 positions; expected those of a class token and of a square grid"):
        resized_positions(np.ones((4, 2), np.float32), ViT(3, patch=2, width=2, depth=0, heads=1), (4, 4, 3))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 8), (5, 9), (14, 14)])
def test_positions_are_interpolated_as_by_timm(size):
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    pytorch_packages = pytest.importorskip("pytorch_packages")
    positions = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    layers = pytorch_packages.timm().layers
    expected = layers.resample_abs_pos_embed(torch.tensor(positions[None]), size, num_prefix_tokens=1)[0].numpy()
    module = ViT(3, patch=2, width=6, depth=0, heads=1)
    ours = resized_positions(positions, module, (2 * size[0], 2 * size[1], 3))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
