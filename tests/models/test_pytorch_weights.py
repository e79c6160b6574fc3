"""Weights saved by PyTorch give the same logits in our networks as in PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax.errors import InputError
from mpt_jax.models import build, pytorch_weights
from mpt_jax.models.resnet import ResNet
from mpt_jax.models.vit import ViT


@pytest.mark.parametrize(
    ("depths", "bottleneck", "stem"),
    [
        ((1, 2), True, "cifar"),
        *(
            pytest.param(depths, bottleneck, "imagenet", marks=pytest.mark.slow)
            for depths, bottleneck in (((2, 2, 2, 2), False), ((3, 4, 6, 3), False), ((3, 4, 6, 3), True))
        ),
    ],
)
def test_a_resnet_with_torchvisions_names_gives_pytorchs_logits(depths, bottleneck, stem):
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    import torch_reference

    torch.manual_seed(0)
    net = torch_reference.TorchResNet(7, stem, depths, bottleneck).double().eval()
    with torch.no_grad():
        for tensor in [*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())]:
            tensor.mul_(1 + 0.1 * torch.rand_like(tensor)).add_(0.01 * torch.rand_like(tensor))
    state = torch_reference.torchvision_names(net.state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer2.0.downsample.1.bias", "fc.bias"} < {
        *state
    }
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3))
    expected = net(torch.tensor(images.transpose(0, 3, 1, 2))).detach().numpy()
    arrays = {key: value.numpy() for key, value in state.items() if value.is_floating_point()}
    with jax.enable_x64(True):
        module = ResNet(7, depths, bottleneck, stem, dtype=jnp.float64, param_dtype=jnp.float64)
        params, batch_stats = pytorch_weights.convert(arrays, module, (16, 16, 3))
        infer = jax.jit(functools.partial(module.apply, train=False))
        ours = infer({"params": params, "batch_stats": batch_stats}, jnp.asarray(images))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def vit_with_timms_names():
    """Return torch, a small network in PyTorch, and its state with timm's names."""
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    import torch_vit_reference

    torch.manual_seed(0)
    net = torch_vit_reference.vit(7, 8, 12, patch=4, features=24, depth=2, heads=3)
    return torch, net, torch_vit_reference.timm_names(net.state_dict())


def test_a_vision_transformer_with_timms_names_gives_pytorchs_logits():
    torch, net, state = vit_with_timms_names()
    assert {
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.1.attn.qkv.bias",
        "blocks.0.mlp.fc2.weight",
    } < {*state}
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 3))
    expected = net(torch.tensor(images.transpose(0, 3, 1, 2))).detach().numpy()
    with jax.enable_x64(True):
        module = ViT(7, patch=4, width=24, depth=2, heads=3, dtype=jnp.float64, param_dtype=jnp.float64)
        params, batch_stats = pytorch_weights.convert({k: v.numpy() for k, v in state.items()}, module, (8, 12, 3))
        ours = jax.jit(functools.partial(module.apply, train=False))({"params": params}, jnp.asarray(images))
    assert batch_stats == {}
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


SMALL = ViT(5, patch=2, width=6, depth=1, heads=2)


@pytest.fixture(scope="module")
def state():
    """Random weights of a small transformer with timm's names and PyTorch's layout."""
    shapes = {
        **{"cls_token": (1, 1, 6), "pos_embed": (1, 5, 6), "patch_embed.proj.weight": (6, 3, 2, 2)},
        **{"patch_embed.proj.bias": (6,), "norm.weight": (6,), "norm.bias": (6,)},
        **{"head.weight": (5, 6), "head.bias": (5,)},
        **{f"blocks.0.{name}.{leaf}": (6,) for name in ("norm1", "norm2") for leaf in ("weight", "bias")},
        **{"blocks.0.attn.qkv.weight": (18, 6), "blocks.0.attn.qkv.bias": (18,)},
        **{"blocks.0.attn.proj.weight": (6, 6), "blocks.0.attn.proj.bias": (6,)},
        **{"blocks.0.mlp.fc1.weight": (24, 6), "blocks.0.mlp.fc1.bias": (24,)},
        **{"blocks.0.mlp.fc2.weight": (6, 24), "blocks.0.mlp.fc2.bias": (6,)},
    }
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.bias": None, "norm.bias": None}, "2 names are missing: 'head.bias', 'norm.bias'"),
        ({"head_dist.bias": np.zeros(5)}, "1 name is unknown: 'head_dist.bias'"),
        (
            {"head.weight": np.zeros((7, 6))},
            r"1 name is of the wrong shape: 'head.weight' \[7, 6\] instead of \[5, 6\]",
        ),
        ({"pos_embed": np.zeros((1, 17, 6))}, r"'pos_embed' \[1, 17, 6\] instead of \[1, 5, 6\]"),
        ({"head.bias": np.full(5, np.nan)}, "1 name is not finite: 'head.bias'"),
        (
            dict.fromkeys([f"x{i}" for i in range(9)], np.zeros(1)),
            "9 names are unknown: 'x0', 'x1', 'x2' and 6 more$",
        ),
    ],
)
def test_names_that_do_not_fit_the_network_are_listed(state, change, message):
    changed = {name: array for name, array in (state | change).items() if array is not None}
    with pytest.raises(InputError, match=message):
        pytorch_weights.convert(changed, SMALL, (4, 4, 3))
    pytorch_weights.convert(state, SMALL, (4, 4, 3))


def test_a_network_without_names_is_refused(state):
    with pytest.raises(InputError, match=r"no PyTorch weights for a ConvNet; expected one of resnet18, "):
        pytorch_weights.convert(state, build("convnet", 5), (8, 8, 1))
