"""Brightness, contrast, saturation and hue equal float64 references, and torchvision's where it is installed."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax.data.feeding import color

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
FACTORS = np.array([0.3, 1.0, 1.8])


def blended(other, factors=FACTORS):
    return np.clip(factors[:, None, None, None] * IMAGES + (1 - factors[:, None, None, None]) * other, 0, 255)


def blend(other):
    x = jnp.asarray(IMAGES, jnp.float32)
    return color.blend(x, other(x), jnp.asarray(FACTORS, jnp.float32)[:, None, None, None])


def test_blends_equal_the_formulas():
    grey = IMAGES @ np.array(color.GREY)
    np.testing.assert_allclose(blend(jnp.zeros_like), blended(0), rtol=1e-5)
    np.testing.assert_allclose(blend(color.grey), blended(grey[..., None]), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(
        blend(color.mean_grey), blended(grey.mean((1, 2))[:, None, None, None]), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("turn", [0.0, 0.1, -0.5, 0.37])
def test_hue_equals_the_standard_library(turn):
    turns = jnp.full((3, 1, 1), turn, jnp.float32)
    found = np.asarray(color.shift_hue(jnp.asarray(IMAGES, jnp.float32), turns))
    for pixel, result in zip(IMAGES.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
        np.testing.assert_allclose(result / 255, expected, atol=2e-5)


def test_grey_pixels_have_no_hue():
    grey = jnp.broadcast_to(jnp.array([0.0, 7.0, 255.0])[:, None, None, None], (3, 2, 2, 3))
    np.testing.assert_array_equal(color.shift_hue(grey, jnp.full((3, 1, 1), 0.3)), grey)


def test_strengths_are_drawn_within_their_range():
    flat = jnp.full((2000, 1, 1, 1), 100, jnp.uint8)
    found = np.asarray(color.jitter(jax.random.key(0), flat, brightness=0.4, contrast=0.0, saturation=0.0, hue=0.0))
    assert found.min() in (60, 61) and found.max() in (139, 140) and 98 < found.mean() < 102


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_torchvision_agrees(name):
    torch = pytest.importorskip("torch")
    from pytorch_packages import package

    package("torchvision")
    from torchvision.transforms.v2 import functional

    tensor = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())
    x = jnp.asarray(IMAGES, jnp.float32)
    other = {"brightness": jnp.zeros_like, "contrast": color.mean_grey, "saturation": color.grey}
    for factor in (0.5, 1.7) if name != "hue" else (-0.3, 0.2):
        expected = getattr(functional, f"adjust_{name}")(tensor, factor).numpy().transpose(0, 2, 3, 1)
        if name == "hue":
            found = color.shift_hue(x, jnp.full((3, 1, 1), factor))
        else:
            found = color.blend(x, other[name](x), jnp.full((3, 1, 1, 1), factor))
        np.testing.assert_allclose(found, expected, atol=1.5)
