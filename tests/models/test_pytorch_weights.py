"""Weights saved by PyTorch give the same logits in our networks as in PyTorch."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from networks import slow_unless_first

from mpt_jax.errors import InputError
from mpt_jax.models import build, pytorch_weights, registry
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


CASES = [
    slow_unless_first(name, dialect) for name in registry.WITH_WEIGHTS for dialect in registry.NETWORKS[name].dialects
]


@pytest.mark.parametrize(("name", "dialect"), CASES)
def test_every_name_is_used_once(name, dialect):
    module = build(name, 5)
    found = pytorch_weights.names(module, (224, 224, 3), dialect)
    assert len(found) == len(set(found))
    assert set(pytorch_weights.head_names(module, dialect)) <= set(found)
    ours = r"kernel|scale|mean|var|block\d+|stage\d.*|stem_.*|top_.*|norm_before|project.*|expand.*|qkv"
    forgotten = {part for each in found for part in each.split(".") if re.fullmatch(ours, part)}
    assert forgotten <= {"qkv"}  # of timm


TINY = {
    "resnet18": {"depths": (1, 2)},
    "vit_tiny": {"width": 8, "depth": 2, "heads": 2},
    "clip_b32": {"patch": 4, "width": 8, "depth": 2, "heads": 2, "embedding": 6},
    "convnext_tiny": {"depths": (1, 2), "features": 4},
    "efficientnet_lite0": {"stages": build("efficientnet_lite0", 2).stages[:3]},
}


@pytest.mark.parametrize(("name", "dialect"), [case for case in CASES if case[0] in TINY])
def test_weights_go_there_and_back(name, dialect):
    module, shape = build(name, 3).clone(**TINY[name]), (16, 24, 3)
    ours = random_weights.drawn(module, shape)
    state = pytorch_weights.back(*ours, module, shape, dialect)
    counts = [name for name, array in state.items() if array.dtype == np.int64]
    assert all(f"{name.removesuffix('num_batches_tracked')}running_var" in state for name in counts)
    assert len(counts) == sum(name.endswith("running_var") for name in state)
    state = {f"net.{name}": array for name, array in state.items() if name not in counts}
    found = pytorch_weights.select(state, module, shape)
    assert found.prefix == "net." and (found.dialect == dialect or name == "resnet18")
    again = pytorch_weights.convert(found.state, module, shape, dialect=dialect)
    jax.tree.map(np.testing.assert_array_equal, again, ours)
    headless, _ = pytorch_weights.convert(found.state, module, shape, dialect=dialect, head=False)
    assert headless.pop("head")["kernel"].shape == (ours[0]["head"]["kernel"].shape[0], 0)
    jax.tree.map(np.testing.assert_array_equal, headless, {name: ours[0][name] for name in headless})


def test_positions_are_interpolated_for_a_start_alone():
    state = random_weights.timm_vit(9, 16, **random_weights.TIMM_VIT_TINY)
    module, shape = build("vit_tiny", 5), (8, 24, 3)
    params, _ = pytorch_weights.convert(state, module, shape, head=False)
    assert params["position_embedding"].shape == (1 + 2 * 6, 128)
    np.testing.assert_array_equal(params["position_embedding"][0], state["pos_embed"][0, 0])
    with pytest.raises(InputError, match=r"'pos_embed' \[1, 17, 128\] instead of \[1, 13, 128\]"):
        pytorch_weights.convert(state, build("vit_tiny", 9), shape)
    with pytest.raises(InputError, match=r"'pos_embed' \[1, 17, 64\] instead of"):
        pytorch_weights.convert({**state, "pos_embed": state["pos_embed"][..., :64]}, module, shape, head=False)


def test_texts_beside_the_images_are_left_out():
    module, shape = build("clip_b32", 3).clone(**TINY["clip_b32"]), (16, 16, 3)
    params, _ = random_weights.drawn(module, shape)
    for dialect, text in (
        ("openclip", ["transformer.resblocks.0.ln_1.weight", "positional_embedding", "logit_scale", "ln_final.bias"]),
        ("huggingface", ["text_model.final_layer_norm.bias", "text_projection.weight", "logit_scale"]),
    ):
        state = pytorch_weights.back(params, {}, module, shape, dialect)
        found = pytorch_weights.select(state | dict.fromkeys(text, np.ones(3, np.float32)), module, shape)
        assert found.dialect == dialect and set(found.state) == set(state)


def test_an_image_tower_that_was_saved_alone_is_found():
    module, shape = build("clip_b32", 5), (224, 224, 3)
    whole = {name: np.zeros(1) for name in pytorch_weights.names(module, shape, "openclip")}
    assert {name for name in whole if not name.startswith("visual.")} == {"head.weight", "head.bias"}
    alone = {name.removeprefix("visual."): array for name, array in whole.items()}
    for state, prefix in ((whole, ""), (alone, ""), ({f"net.{name}": array for name, array in alone.items()}, "net.")):
        found = pytorch_weights.select(state, module, shape)
        assert (found.state.keys(), found.dialect, found.prefix) == (whole.keys(), "openclip", prefix)
