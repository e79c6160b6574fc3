"""Digests reveal every change of arrays and of JSON objects, and need no JAX."""

import json
import pathlib
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.errors import InputError
from mpt_jax.files import sealed

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_digest_depends_on_every_value_name_shape_and_dtype():
    tree = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    variants = [
        {"a": np.zeros((3, 2), np.float32), "b": tree["b"]},
        {"a": tree["a"], "c": tree["b"]},
        {"a": tree["a"].astype(np.float64), "b": tree["b"]},
        {"a": tree["a"], "b": np.nextafter(tree["b"], np.float32(2))},
        {"a": tree["a"]},
    ]
    digests = {sealed.digest(variant) for variant in [tree, *variants]}
    assert len(digests) == 6
    assert sealed.digest(dict(reversed(tree.items()))) == sealed.digest(tree)


def test_digests_stay_those_in_existing_files():
    assert sealed.digest({"ids": np.array(["a", "b"]), "labels": np.arange(2)}) == (
        "b950cb7ae300bace9df15c1506946601c85269419741f40442958d8670635e98"
    )
    assert sealed.digest(({"head": {"bias": np.float32([0, 1])}}, {})) == (
        "ad90f396df9e58dad949af91c6fea3064d485debf9daba4659038f56a4fcaf53"
    )


@pytest.mark.parametrize(
    "tree",
    [
        np.arange(6).reshape(2, 3)[:, ::2],
        {"b'": {"c": np.float32(2), "a": jnp.ones((2, 2), jnp.bfloat16)}, "a": np.zeros((0, 3))},
        [np.full(1, i) for i in range(12)],
        ({"head": [jnp.ones((2, 3)), (np.ones(1), None)]}, {}),
    ],
)
def test_paths_are_those_of_jax(tree):
    by_path = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    assert dict(sealed._leaves(tree, "")).keys() == by_path.keys()
    assert all(leaf is by_path[path] for path, leaf in sealed._leaves(tree, ""))


@given(st.data())
def test_no_flipped_bit_of_a_sealed_file_is_overlooked(data):
    contents = sealed.sealed({"name": "größer", "seconds": 0.1, "classes": ["a", "b"], "parents": {"r0": "00ff"}})
    text = bytearray(json.dumps(contents, indent=1).encode())
    bit = data.draw(st.integers(0, 8 * len(text) - 1))
    text[bit // 8] ^= 1 << bit % 8
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "card.json"
        path.write_bytes(text)
        try:
            assert sealed.read_sealed(path) == contents  # \u00DF and \u00df are the same character
        except InputError as error:
            assert str(path) in str(error)


def test_arrays_are_read_by_all_their_names_or_not_at_all(tmp_path):
    arrays = {"ids": np.array(["a", "ü"]), "images": np.zeros((2, 1), np.uint8)}
    sealed.write_arrays(tmp_path / "a.npz", arrays)
    found = sealed.read_arrays(tmp_path / "a.npz", ("images", "ids"))
    assert found.keys() == arrays.keys() and all(np.array_equal(found[name], arrays[name]) for name in arrays)
    for path, names in ((tmp_path / "a.npz", ("ids",)), (tmp_path / "b.npz", ("ids", "images"))):
        with pytest.raises(InputError, match=f"{path.name} is .*; run the same command again to regenerate it"):
            sealed.read_arrays(path, names)


def test_it_needs_no_jax():
    code = "import sys; sys.modules['jax'] = None; from mpt_jax.files import sealed, storage"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
