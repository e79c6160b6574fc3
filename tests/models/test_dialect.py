"""Arrays are renamed and laid out by a table, and come back bit by bit."""

import numpy as np
import pytest
from flax import linen as nn

from mpt_jax.models import dialect
from mpt_jax.models.dialect import Dialect

TABLE = Dialect(
    {
        r"block(\d+)": lambda found, module: f"layers.{int(found[1]) + module.features}",
        r"qkv\.(weight|bias)": r"in_proj_\1",
        r"split": "{q,k,v}_proj",
        r"norm": "ln",
        r"token": "embeddings.token",
    },
    layouts={
        r"patch\.kernel": lambda shape, _: ((2, 2, shape[0] // 4, shape[1]), (3, 2, 0, 1)),
        "token": lambda shape, _: ((1, *shape), (0, 1)),
    },
)


@pytest.mark.parametrize(
    ("path", "shape", "names", "their_shape"),
    [
        ("block2/qkv/kernel", (3, 5), ["layers.9.in_proj_weight"], (5, 3)),
        ("block2/norm1/scale", (3,), ["layers.9.norm1.weight"], (3,)),  # a pattern fits whole parts alone
        ("block2/norm/var", (3,), ["layers.9.ln.running_var"], (3,)),
        ("conv/kernel", (2, 3, 4, 5), ["conv.weight"], (5, 4, 2, 3)),
        ("patch/kernel", (12, 5), ["patch.weight"], (5, 3, 2, 2)),
        ("token", (5,), ["embeddings.token"], (1, 5)),
        ("a/split/kernel", (4, 6), ["a.q_proj.weight", "a.k_proj.weight", "a.v_proj.weight"], (2, 4)),
        ("a/split/bias", (6,), ["a.q_proj.bias", "a.k_proj.bias", "a.v_proj.bias"], (2,)),
    ],
)
def test_names_and_layouts_there_and_back(path, shape, names, their_shape):
    leaf = dialect.leaf(path.split("/"), shape, nn.Dense(7), TABLE)
    ours = np.random.default_rng(0).standard_normal(shape)
    theirs = leaf.to_theirs(ours)
    assert list(theirs) == names == list(leaf.names)
    assert {array.shape for array in theirs.values()} == {their_shape} == {leaf.their_shape}
    np.testing.assert_array_equal(leaf.to_ours([theirs[name] for name in names]), ours)


def test_layouts_are_pytorchs():
    kernel = np.arange(24.0).reshape(2, 3, 2, 2)  # rows, columns, inputs, outputs
    (weight,) = dialect.leaf(["kernel"], kernel.shape, nn.Dense(7), TABLE).to_theirs(kernel).values()
    assert weight[1, 0, 1, 2] == kernel[1, 2, 0, 1]
    packed = np.arange(24.0).reshape(4, 6)
    _, keys, _ = dialect.leaf(["split", "kernel"], (4, 6), nn.Dense(7), TABLE).to_theirs(packed).values()
    np.testing.assert_array_equal(keys, packed[:, 2:4].T)
