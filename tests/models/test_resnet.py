"""ResNets equal torchvision's: logits, gradients, statistics, sizes and initialisation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax.models import build, init
from mpt_jax.models.resnet import ResNet

SIZES = {"small": ((1, 1), False), "resnet18": ((2, 2, 2, 2), False), "resnet50": ((3, 4, 6, 3), True)}


def _randomised_batch_norms(module, torch):
    """Set scales, biases and running statistics to values that are not trivial."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            with torch.no_grad():
                for tensor, low, high in (
                    (layer.weight, 0.5, 1.5),
                    (layer.bias, -0.5, 0.5),
                    (layer.running_mean, -0.5, 0.5),
                    (layer.running_var, 0.5, 1.5),
                ):
                    tensor.uniform_(low, high, generator=generator)
    return module


@pytest.mark.parametrize(
    "train", [pytest.param(False, id="eval", marks=pytest.mark.slow), pytest.param(True, id="train")]
)
@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("small", "imagenet"),
        pytest.param("resnet18", "imagenet", marks=pytest.mark.slow),
        pytest.param("resnet18", "cifar", marks=pytest.mark.slow),
        pytest.param("resnet50", "imagenet", marks=pytest.mark.slow),
    ],
)
def test_logits_gradients_and_statistics_match_pytorch(name, stem, train):
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    import torch_reference

    torch.manual_seed(0)
    depths, bottleneck = SIZES[name]
    reference = torch_reference.TorchResNet(7, stem, depths, bottleneck)
    reference = _randomised_batch_norms(reference.double(), torch).train(train)
    params, batch_stats = torch_reference.to_flax(reference)
    batch, size = 8, 32 if stem == "imagenet" else 16
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, size, size, 3))
    cotangent = rng.standard_normal((batch, 7))

    torch_images = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    expected = reference(torch_images)
    (expected * torch.tensor(cotangent)).sum().backward()
    expected_gradient, expected_stats = torch_reference.to_flax(reference, of=lambda parameter: parameter.grad)

    with jax.enable_x64(True):
        module = ResNet(7, depths, bottleneck, stem, dtype=jnp.float64, param_dtype=jnp.float64)

        def loss(params, images):
            variables = {"params": params, "batch_stats": batch_stats}
            output, updated = module.apply(variables, images, train=train, mutable=["batch_stats"])
            return jnp.sum(output * cotangent), (output, updated["batch_stats"])

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        (of_params, of_images), (output, stats) = gradient(params, jnp.asarray(images))
        chex.assert_type(output, jnp.float64)

    def close(ours, theirs):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * max(1.0, np.abs(theirs).max()))

    close(output, expected.detach().numpy())
    close(of_images, torch_images.grad.numpy().transpose(0, 2, 3, 1))
    jax.tree.map(close, of_params, expected_gradient)
    means = lambda tree: {k: v for k, v in jax.tree_util.tree_leaves_with_path(tree) if k[-1].key == "mean"}  # noqa: E731
    for path, value in means(stats).items():
        close(value, means(expected_stats)[path])


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("resnet18", 1000, 11_689_512),  # the published counts of torchvision's models
        ("resnet34", 1000, 21_797_672),
        ("resnet50", 1000, 25_557_032),
        ("resnet18", 100, 11_227_812),
    ],
)
def test_parameter_counts_match_torchvision(name, classes, expected):
    params, _ = jax.eval_shape(lambda key: init(build(name, classes), key, (32, 32, 3)), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_initial_parameters_have_the_spread_of_torchvision():
    @jax.jit  # which compiles only what is returned
    def initialise(key):
        params, batch_stats = init(build("resnet18", 100), key, (32, 32, 3))
        norm = params["stage4_block2"]["norm2"]
        return params["stage3_block1"]["conv2"]["kernel"], params["head"], norm, batch_stats["stem_norm"]

    kernel, head, norm, stats = initialise(jax.random.key(0))
    assert float(kernel.std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert float(jnp.abs(kernel).max()) > 4 * float(kernel.std())  # normal, not truncated at two deviations
    assert float(jnp.abs(head["kernel"]).max()) == pytest.approx(512**-0.5, rel=0.01)
    assert float(head["kernel"].std()) == pytest.approx((512 * 3) ** -0.5, rel=0.01)
    assert 0.9 * 512**-0.5 < float(jnp.abs(head["bias"]).max()) <= 512**-0.5
    np.testing.assert_array_equal(norm["scale"], 1)
    np.testing.assert_array_equal(norm["bias"], 0)
    np.testing.assert_array_equal(stats["mean"], 0)
    np.testing.assert_array_equal(stats["var"], 1)


@pytest.mark.slow
def test_bfloat16_logits_are_near_those_of_float32():
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    params, batch_stats = init(build("resnet18", 5), jax.random.key(0), (32, 32, 3))

    def run(dtype):
        module, variables = build("resnet18", 5, dtype=dtype), {"params": params, "batch_stats": batch_stats}
        return jax.jit(lambda v: module.apply(v, images, train=False))(variables)

    narrow, wide = run("bfloat16"), run("float32")
    chex.assert_type([narrow, wide], jnp.float32)
    error = float(jnp.abs(narrow - wide).max() / wide.std())
    assert 0 < error < 0.1


def test_an_unknown_stem_is_refused():
    from mpt_jax.models.resnet import ResNet18

    with pytest.raises(ValueError, match="unknown stem 'imagnet'; expected one of imagenet, cifar"):
        init(ResNet18(10, stem="imagnet"), jax.random.key(0), (32, 32, 3))
