"""Networks of the user's own: what is refused, and how they are called; `test_own_networks` has the commands."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax import models, train
from mpt_jax.errors import InputError
from mpt_jax.models import own_network

LINEN = """
from flax import linen as nn

class Net(nn.Module):
    num_classes: int
    dtype: object

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, dtype=self.dtype)(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.2, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(self.num_classes, name="head")(x)

def build(num_classes, dtype):
    return Net(num_classes, dtype)

class Headless(Net):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(x.reshape(x.shape[0], -1))

def headless(num_classes, dtype):
    return Headless(num_classes, dtype)

def wrong_shape(num_classes, dtype):
    return Net(num_classes + 1, dtype)

def fails(num_classes, dtype):
    return 1 / 0

def a_class(num_classes, dtype):
    return Net

def no_dtype(num_classes):
    return Net(num_classes, None)

class Narrow(Net):
    @nn.compact
    def __call__(self, x, train):
        dtypes = {"param_dtype": "bfloat16", "dtype": "float32"}
        return nn.Dense(self.num_classes, name="head", **dtypes)(x.reshape(x.shape[0], -1))

def narrow(num_classes, dtype):
    return Narrow(num_classes, dtype)
"""
NNX = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, num_classes, dtype, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), strides=2, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(64, num_classes, rngs=rngs)

    def __call__(self, x):
        x = self.norm(nnx.relu(self.conv(x)))
        return self.head(self.dropout(x.reshape(x.shape[0], -1)))

def build(num_classes, dtype, rngs):
    return Net(num_classes, dtype, rngs)

def same_weights(num_classes, dtype):
    return Net(num_classes, dtype, nnx.Rngs(0))
"""


@pytest.fixture(params=["linen", "nnx"])
def net(request, tmp_path):
    (tmp_path / "net.py").write_text({"linen": LINEN, "nnx": NNX}[request.param])
    return f"{tmp_path / 'net.py'}:build"


@pytest.fixture
def linen(tmp_path):
    (tmp_path / "linen.py").write_text(LINEN)
    return tmp_path / "linen.py"


def options(net, workdir, *more):
    settings = {
        "model.name": net,
        "seeds": "0,1",
        "optimizer.epochs": 1,
        "dataset.train_per_class": 8,
        "optimizer.batch_size": 16,
        "update.methods": "mpt_kl,bct",
        "update.tune": "{}",
        "update.start": "old",
    }
    return [
        *("--config", "digits", "--workdir", str(workdir)),
        *(f"--config.{key}={value}" for key, value in settings.items()),
        *more,
    ]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", r"has no function nothing; expected nothing\(num_classes, dtype\)"),
        ("fails", "failed in line 30: ZeroDivisionError: division by zero"),
        ("a_class", "returned the class Net; expected a flax.linen or flax.nnx module"),
        ("no_dtype", r"takes \(num_classes\); expected no_dtype\(num_classes, dtype\)"),
    ],
)
def test_a_function_that_returns_no_network(linen, function, message):
    with pytest.raises(InputError, match=message) as error:
        models.build(f"{linen}:{function}", 5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong_shape", r"returns float32 of shape \[2, 6\] in training; expected floats of shape \[2, 5\]"),
        ("narrow", "head/bias is bfloat16; expected float32"),
    ],
)
def test_a_network_that_breaks_the_contract(linen, function, message):
    name = f"{linen}:{function}"
    with pytest.raises(InputError, match=message):
        own_network.check(name, models.build(name, 5), 5, (8, 8, 1))


def test_a_file_is_built_once_for_each_text(net):
    first, second = (models.build(net, 5) for _ in range(2))
    assert first == second and hash(first) == hash(second) and first != models.build(net, 6)
    path, sha256 = pathlib.Path(net.rpartition(":")[0]), own_network.digest(net)
    path.write_text(path.read_text() + "\n# changed\n")
    assert models.build(net, 5, sha256=sha256) == first  # known to this process
    with pytest.raises(InputError, match="has changed: its SHA-256 is"):
        models.build(net, 5, sha256="0" * 64)


def test_dropout_and_statistics_act_in_training_alone(net):
    module, x = models.build(net, 5), jnp.asarray(np.random.default_rng(0).normal(size=(6, 8, 8, 1)), jnp.float32)
    params, batch_stats = models.init(module, jax.random.key(0), (8, 8, 1))
    first, features, updated = models.train_forward(module, params, batch_stats, x, jax.random.key(1))
    again, _, _ = models.train_forward(module, params, batch_stats, x, jax.random.key(1))
    other, _, _ = models.train_forward(module, params, batch_stats, x, jax.random.key(2))
    assert (first == again).all() and (first != other).any() and features.shape == (6, 64)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), updated, batch_stats)
    assert all(jax.tree.leaves(changed))
    classifier = models.Classifier(module, params, batch_stats, mean=None, std=None)
    np.testing.assert_array_equal(models.logits(classifier, x), models.logits(classifier, x))
    head = params["head"]
    found = models.features(classifier, x) @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(found, models.logits(classifier, x), rtol=1e-5, atol=1e-5)


def test_initial_weights_depend_on_the_key_where_the_function_takes_rngs(net, tmp_path):
    kernels = [models.init(models.build(net, 5), jax.random.key(i), (8, 8, 1))[0]["head"]["kernel"] for i in (0, 1)]
    assert (kernels[0] != kernels[1]).any()
    (tmp_path / "same.py").write_text(NNX)
    module = models.build(f"{tmp_path / 'same.py'}:same_weights", 5)
    kernels = [models.init(module, jax.random.key(i), (8, 8, 1))[0]["head"]["kernel"] for i in (0, 1)]
    assert (kernels[0] == kernels[1]).all()


def test_a_network_without_a_head_trains_the_plain_methods_and_refuses_the_others(linen, tmp_path, capsys):
    name = f"{linen}:headless"
    plain = options(name, tmp_path / "run", "--config.update.start=random", "--config.update.methods=mpt_kl", "--plan")
    assert train.main(plain) == 0
    capsys.readouterr()
    assert train.main(options(name, tmp_path / "run", "--plan")) == 2
    assert "needs the last layer of model.name=" in capsys.readouterr().err
