"""CLIP's image tower: published sizes, the formula in NumPy, activations, and that every parameter is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from networks import slow_unless_first

from mpt_jax.models import build, init, train_forward
from mpt_jax.models.clip import CLIPImageTower

SMALL = CLIPImageTower(5, patch=2, width=6, depth=1, heads=2, embedding=4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("clip_b32", 87_849_216), slow_unless_first("clip_b16", 86_192_640), slow_unless_first("clip_l14", 303_966_208)],
)
def test_parameter_counts_are_those_of_openclip(name, expected):
    params, _ = jax.eval_shape(lambda key: init(build(name, 1), key, (224, 224, 3)), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves({**params, "head": ()})) == expected


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_logits_match_the_formula(activation):
    params, _ = random_weights.drawn(SMALL, (4, 6, 3))
    tree = jax.tree.map(np.float64, params)
    inputs = np.random.default_rng(0).standard_normal((3, 4, 6, 3)).astype(np.float32)

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    def normal(x, layer):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * layer["scale"] + layer["bias"]

    def active(x):
        if activation == "quick_gelu":
            return x / (1 + np.exp(-1.702 * x))
        return np.float64(jax.nn.gelu(x, approximate=False))

    outputs, block = [], tree["block1"]
    for image in np.float64(inputs):
        pieces = [image[a : a + 2, b : b + 2].ravel() for a in range(0, 4, 2) for b in range(0, 6, 2)]
        x = np.vstack([tree["class_token"], np.array(pieces) @ tree["patch_embedding"]["kernel"]])
        x = normal(x + tree["position_embedding"], tree["norm_before"])
        q, k, v = np.split(dense(normal(x, block["norm1"]), block["qkv"]), 3, axis=1)
        heads = []
        for head in (slice(0, 3), slice(3, 6)):
            weights = np.exp(q[:, head] @ k[:, head].T / np.sqrt(3))
            heads.append(weights / weights.sum(1, keepdims=True) @ v[:, head])
        x = x + dense(np.hstack(heads), block["proj"])
        x = x + dense(active(dense(normal(x, block["norm2"]), block["fc1"])), block["fc2"])
        outputs.append(dense(normal(x[0], tree["norm"]) @ tree["projection"]["kernel"], tree["head"]))
    module = SMALL.clone(activation=activation)
    ours = jax.jit(lambda params: module.apply({"params": params}, inputs, train=False))(params)
    np.testing.assert_allclose(ours, outputs, rtol=0, atol=1e-5 * np.abs(outputs).max())


def test_every_parameter_has_a_gradient():
    params, _ = random_weights.drawn(SMALL, (4, 4, 3))
    inputs = np.random.default_rng(0).standard_normal((4, 4, 4, 3)).astype(np.float32)
    loss = lambda params: jnp.sum(jnp.sin(train_forward(SMALL, params, {}, inputs)[0]))  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))
