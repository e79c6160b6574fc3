"""Random weights of the real packages give the packages' logits in our networks, and go back bit by bit."""

import functools

import jax
import numpy as np
import pytest

from mpt_jax.models import build, pytorch_weights

pytestmark = pytest.mark.slow


def check(module, network, dialect, size):
    """Compare the logits of a network of PyTorch with ours, and its weights with those that come back."""
    import pytorch_packages

    images = pytorch_packages.images(2, *size, 3)
    expected = pytorch_packages.logits(network, images)
    state = pytorch_packages.arrays(network.state_dict())
    found = pytorch_weights.select(state, module, (*size, 3))
    assert found.dialect == dialect
    params, batch_stats = pytorch_weights.convert(found.state, module, (*size, 3), dialect=found.dialect)
    infer = jax.jit(functools.partial(module.apply, train=False))
    ours = infer({"params": params, "batch_stats": batch_stats}, images)
    assert np.ptp(expected, axis=0).max() > 1e-2 * np.abs(expected).max()  # the logits depend on the image
    exact = pytorch_packages.logits(network.double(), images.astype(np.float64))
    rounding = np.abs(expected - exact).max()  # of PyTorch; above 1e-5 in the deepest networks with random weights
    assert np.abs(np.asarray(ours) - exact).max() <= max(1e-5 * np.abs(exact).max(), 2 * rounding)
    back = pytorch_weights.back(params, batch_stats, module, (*size, 3), dialect)
    assert {name for name in back if "num_batches" not in name} == set(found.state)
    for name, array in found.state.items():
        np.testing.assert_array_equal(back[name], array)


TIMM = [
    ("resnet101", "resnet101", (64, 64)),
    ("vit_s16", "vit_small_patch16_224", (32, 48)),
    ("vit_b32", "vit_base_patch32_224", (64, 96)),
    ("vit_b16", "vit_base_patch16_224", (32, 32)),
    ("vit_l14", "vit_large_patch14_224", (28, 28)),
    ("convnext_tiny", "convnext_tiny", (64, 32)),
    ("convnext_small", "convnext_small", (32, 32)),
    ("efficientnet_lite0", "tf_efficientnet_lite0", (64, 64)),
    ("efficientnet_lite4", "tf_efficientnet_lite4", (64, 64)),
]
TORCHVISION = [
    ("resnet101", "resnet101", (64, 64)),
    ("vit_b32", "vit_b_32", (64, 64)),
    ("vit_b16", "vit_b_16", (32, 32)),
    ("convnext_tiny", "convnext_tiny", (64, 36)),
    ("convnext_base", "convnext_base", (32, 32)),
]


@pytest.mark.parametrize(("name", "theirs", "size"), TIMM)
def test_logits_are_timms(name, theirs, size):
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    import pytorch_packages

    options = {"img_size": size} if "vit" in theirs else {}
    network = pytorch_packages.timm().create_model(theirs, num_classes=7, **options)
    # timm's ResNets have torchvision's names
    dialect = "torchvision" if "resnet" in name else "timm"
    check(build(name, 7), pytorch_packages.randomised(network, size=size), dialect, size)


@pytest.mark.parametrize(("name", "theirs", "size"), TORCHVISION)
def test_logits_are_torchvisions(name, theirs, size):
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    import pytorch_packages

    options = {"image_size": size[0]} if "vit" in theirs else {}
    network = getattr(pytorch_packages.package("torchvision").models, theirs)(num_classes=7, **options)
    check(build(name, 7), pytorch_packages.randomised(network, size=size), "torchvision", size)


def test_logits_are_efficientnet_lite_pytorchs():
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    import pytorch_packages

    package = pytorch_packages.package("efficientnet_lite_pytorch")
    network = package.EfficientNet.from_name("efficientnet-lite0", num_classes=7, image_size=64)
    check(
        build("efficientnet_lite0", 7),
        pytorch_packages.randomised(network, size=(64, 64)),
        "efficientnet_lite_pytorch",
        (64, 64),
    )


def clip(name="ViT-B-32-quickgelu", size=64):
    """Return an OpenCLIP model, text tower included, and a network of PyTorch from images to our logits."""
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    import pytorch_packages

    open_clip = pytorch_packages.package("open_clip")
    model = pytorch_packages.randomised(open_clip.create_model(name, force_image_size=size))
    head = torch.nn.Linear(model.visual.output_dim, 7)
    return model, torch.nn.Sequential(model.visual, head).eval(), head


def check_clip(module, state, network, head, dialect, size):
    import pytorch_packages

    images = pytorch_packages.images(2, size, size, 3)
    expected = pytorch_packages.logits(network, images)
    own = pytorch_packages.arrays(head.state_dict())
    state = {**pytorch_packages.arrays(state), **{f"head.{name}": array for name, array in own.items()}}
    found = pytorch_weights.select(state, module, (size, size, 3))
    assert found.dialect == dialect and not any("text" in name for name in found.state)
    params, _ = pytorch_weights.convert(found.state, module, (size, size, 3), dialect=dialect)
    ours = jax.jit(functools.partial(module.apply, train=False))({"params": params}, images)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    back = pytorch_weights.back(params, {}, module, (size, size, 3), dialect)
    assert set(back) == set(found.state)
    for name, array in found.state.items():
        np.testing.assert_array_equal(back[name], array)
    del state["head.weight"], state["head.bias"]
    found = pytorch_weights.select({f"model.{name}": array for name, array in state.items()}, module, (size, size, 3))
    headless, _ = pytorch_weights.convert(found.state, module, (size, size, 3), dialect=found.dialect, head=False)
    assert headless["head"]["kernel"].shape == (params["head"]["kernel"].shape[0], 0)


@pytest.mark.parametrize(
    ("name", "theirs", "activation", "size"),
    [
        ("clip_b32", "ViT-B-32-quickgelu", "quick_gelu", 64),
        ("clip_b16", "ViT-B-16", "gelu", 32),
        ("clip_l14", "ViT-L-14-quickgelu", "quick_gelu", 28),
    ],
)
def test_logits_are_openclips(name, theirs, activation, size):
    model, network, head = clip(theirs, size)
    check_clip(build(name, 7, activation=activation), model.state_dict(), network, head, "openclip", size)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_logits_are_those_of_hugging_face(activation):
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    import pytorch_packages

    transformers = pytorch_packages.package("transformers")
    vision = transformers.CLIPVisionConfig(patch_size=32, image_size=64, hidden_act=activation, projection_dim=512)
    text = transformers.CLIPTextConfig(num_hidden_layers=1, projection_dim=512)
    config = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=512)
    model = pytorch_packages.randomised(transformers.CLIPModel(config))
    head = torch.nn.Linear(512, 7)

    def network(images):
        return head(model.visual_projection(model.vision_model(pixel_values=images).pooler_output))

    module = build("clip_b32", 7, activation=activation)
    check_clip(module, model.state_dict(), network, head, "huggingface", 64)
