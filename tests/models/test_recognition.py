"""Weights that do not fit are recognised as those of another network."""

import numpy as np
import pytest
from random_weights import TIMM_VIT_TINY, drawn, timm_vit

from mpt_jax.models import build, pytorch_weights, recognition


@pytest.fixture(scope="module")
def small():
    """Weights of vit_s16, under a prefix and beside others."""
    return {f"net.{name}": array for name, array in timm_vit(9, 224, patch=16, width=384, depth=12).items()}


@pytest.mark.slow
def test_a_network_is_recognised_by_its_names_and_shapes(small):
    assert recognition.network_of(small | {"loss.weight": np.ones(3, np.float32)}) == {"name": "vit_s16"}
    assert recognition.network_of(timm_vit(9, 224, patch=16, width=100, depth=12)) == {}
    assert recognition.network_of({"some.weight": np.ones(3, np.float32)}) == {}


def test_weights_fit_whatever_their_head(small):
    assert recognition.fits(small, build("vit_s16", 5), (224, 224, 3))
    assert not recognition.fits(small, build("vit_s16", 5), (224, 224, 1))
    tiny = timm_vit(9, 8, **TIMM_VIT_TINY)
    assert recognition.fits({name: tiny[name] for name in tiny if "head" not in name}, build("vit_tiny", 5), (8, 8, 3))
    assert not recognition.fits(tiny, build("vit_tiny", 5), (8, 8, 3), prefix="net")
    assert "head.bias" in pytorch_weights.names(build("vit_tiny", 5), (8, 8, 3))


def test_a_stem_is_part_of_what_is_recognised():
    module = build("resnet18", 4, stem="cifar")
    params, batch_stats = drawn(module, (32, 32, 3))
    state = pytorch_weights.back(params, batch_stats, module, (32, 32, 3), "torchvision")
    floats = {name: array for name, array in state.items() if array.dtype == np.float32}
    assert recognition.network_of(floats) == {"name": "resnet18", "stem": "cifar"}
