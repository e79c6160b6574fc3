"""An NNX network behaves as a linen module; see also `test_own_network`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mpt_jax import models
from mpt_jax.errors import InputError
from mpt_jax.models.nnx_network import NNXNetwork


class Net(nnx.Module):
    def __init__(self, num_classes, dtype, rngs):
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, num_classes, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(self.norm(x))


X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)


def test_it_equals_the_network_called_by_itself():
    module = NNXNetwork(Net, num_classes=3)
    variables = module.init(jax.random.key(0), X, train=False)
    assert all(
        isinstance(key, str)
        for path, _ in jax.tree_util.tree_leaves_with_path(variables)
        for key in (part.key for part in path)
    )
    network = Net(3, jnp.float32, nnx.Rngs(0))
    params, batch_stats = variables["params"], variables["batch_stats"]
    network.head.kernel[...], network.head.bias[...] = params["head"]["kernel"], params["head"]["bias"]
    for number, layer in enumerate(network.layers):
        weights = params["layers"][str(number)]
        layer.kernel[...], layer.bias[...] = weights["kernel"], weights["bias"]
    network.eval()
    np.testing.assert_allclose(module.apply(variables, X, train=False), network(X), rtol=1e-6)
    network.train()
    logits, _, updated = models.train_forward(module, params, batch_stats, X, jax.random.key(1))
    np.testing.assert_allclose(logits, network(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(updated["norm"]["mean"], network.norm.mean[...], rtol=1e-5, atol=1e-7)


def test_statistics_of_frozen_layers_stay():
    module = NNXNetwork(Net, num_classes=3)
    params, batch_stats = models.init(module, jax.random.key(0), (4,))
    _, _, updated = models.train_forward(module, params, batch_stats, X, jax.random.key(1), fixed=("norm",))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), updated, batch_stats)))


def test_random_numbers_at_inference_are_refused():
    class Noisy(Net):
        def __init__(self, num_classes, dtype, rngs):
            super().__init__(num_classes, dtype, rngs)
            self.noise = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            self.noise.deterministic = False
            return self.head(self.noise(x))

    module = NNXNetwork(Noisy, num_classes=3)
    variables = module.init(jax.random.key(0), X, train=False)
    with pytest.raises(InputError, match="draws random numbers at inference"):
        module.apply(variables, X, train=False)
