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
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
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
    ("efficientnet_lite0", "tf_efficientnet_lite0", (64, 64)),
    ("efficientnet_lite4", "tf_efficientnet_lite4", (64, 64)),
]
TORCHVISION = [
    ("resnet101", "resnet101", (64, 64)),
    ("vit_b32", "vit_b_32", (64, 64)),
    ("vit_b16", "vit_b_16", (32, 32)),
]


@pytest.mark.parametrize(("name", "theirs", "size"), TIMM)
def test_logits_are_timms(name, theirs, size):
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    import pytorch_packages

    options = {"img_size": size} if "vit" in theirs else {}
    network = pytorch_packages.timm().create_model(theirs, num_classes=7, **options)
    # timm's ResNets have torchvision's names
    dialect = "torchvision" if "resnet" in name else "timm"
    check(build(name, 7), pytorch_packages.randomised(network), dialect, size)


@pytest.mark.parametrize(("name", "theirs", "size"), TORCHVISION)
def test_logits_are_torchvisions(name, theirs, size):
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    import pytorch_packages

    options = {"image_size": size[0]} if "vit" in theirs else {}
    network = getattr(pytorch_packages.package("torchvision").models, theirs)(num_classes=7, **options)
    check(build(name, 7), pytorch_packages.randomised(network), "torchvision", size)


def test_logits_are_efficientnet_lite_pytorchs():
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    import pytorch_packages

    package = pytorch_packages.package("efficientnet_lite_pytorch")
    network = package.EfficientNet.from_name("efficientnet-lite0", override_params={"num_classes": 7, "image_size": 64})
    check(
        build("efficientnet_lite0", 7),
        pytorch_packages.randomised(network),
        "efficientnet_lite_pytorch",
        (64, 64),
    )
