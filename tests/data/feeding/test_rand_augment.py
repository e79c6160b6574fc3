"""Each operation equals torchvision's, images are independent of each other, and operations are drawn evenly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpt_jax.data.feeding import rand_augment
from mpt_jax.data.feeding.rand_augment import OPERATIONS

RANDOM = np.random.default_rng(0)
# A smooth image with few values, one of all values, and one of a single value.
IMAGES = np.stack(
    [
        np.add.outer(np.arange(16) * 9, np.arange(16) * 3)[..., None] + np.array([20, 0, 5]),
        RANDOM.integers(0, 256, (16, 16, 3)),
        np.full((16, 16, 3), 77),
    ]
).astype(np.uint8)
SIZES = (0.0, 0.3, 1.0)
apply = jax.jit(rand_augment.apply)  # compiles faster than operation by operation


def applied(name, strength):
    choice = jnp.full(3, OPERATIONS.index(name))
    return np.asarray(apply(jnp.asarray(IMAGES), choice, jnp.full(3, strength, jnp.float32)))


def by_torchvision(name, strength):
    torch = pytest.importorskip("torch")
    from pytorch_packages import package

    package("torchvision")
    from torchvision.transforms.v2 import functional as f

    x, size = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()), abs(strength)
    result = {
        "identity": lambda: x,
        "auto_contrast": lambda: f.autocontrast(x),
        "equalize": lambda: f.equalize(x),
        "solarize": lambda: f.solarize(x, 255 * (1 - size)) if size else x,  # it inverts white at size 0
        "posterize": lambda: f.posterize(x, 8 - round(4 * size)),
        "contrast": lambda: f.adjust_contrast(x, 1 + 0.9 * strength),
        "brightness": lambda: f.adjust_brightness(x, 1 + 0.9 * strength),
        "color": lambda: f.adjust_saturation(x, 1 + 0.9 * strength),
        "sharpness": lambda: f.adjust_sharpness(x, 1 + 0.9 * strength),
        "rotate": lambda: f.affine(x, angle=30 * strength, translate=[0, 0], scale=1.0, shear=[0.0, 0.0]),
    }[name]()
    return result.numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if not name.startswith(("shear", "translate"))])
@pytest.mark.parametrize("strength", [*SIZES, -0.5])
def test_torchvision_agrees(name, strength):
    expected, found = by_torchvision(name, strength).astype(int), applied(name, strength).astype(int)
    if name == "rotate":  # pixels on the edge between two others may go to either
        expected = max((expected, by_torchvision(name, -strength).astype(int)), key=lambda e: (e == found).mean())
        assert (np.abs(expected - found).max(-1) <= 1).mean() > 0.93
    else:
        assert np.abs(expected - found).max() <= 2


@pytest.mark.parametrize("axis", ["x", "y"])
def test_translations_and_shears_move_rows_and_columns(axis):
    images = IMAGES if axis == "x" else IMAGES.swapaxes(1, 2)
    applied_to = lambda name, s: np.asarray(  # noqa: E731
        apply(jnp.asarray(images), jnp.full(3, OPERATIONS.index(f"{name}_{axis}")), jnp.full(3, s))
    )
    turned = (lambda x: x) if axis == "x" else (lambda x: x.swapaxes(1, 2))
    pixels = round(150 / 331 * 16 * 0.5)
    moved = turned(applied_to("translate", 0.5))
    np.testing.assert_array_equal(moved[:, :, :-pixels], IMAGES[:, :, pixels:])
    assert not moved[:, :, -pixels:].any()
    sheared = turned(applied_to("shear", 1.0))
    for row in (0, 7, 15):
        shift = round(0.3 * (row - 7.5))
        kept = slice(max(0, -shift), 16 - max(0, shift))
        np.testing.assert_array_equal(sheared[:, row, kept], IMAGES[:, row, kept.start + shift : kept.stop + shift])


def test_magnitude_0_changes_nothing_but_the_range_of_values():
    for name in set(OPERATIONS) - {"auto_contrast", "equalize"}:
        np.testing.assert_array_equal(applied(name, 0.0), IMAGES, err_msg=name)


def test_an_image_does_not_depend_on_the_others():
    choice, strength = jnp.array([3, 7, 13]), jnp.array([0.4, -0.9, 0.7], jnp.float32)
    together = apply(jnp.asarray(IMAGES), choice, strength)
    for i in range(3):
        one = slice(i, i + 1)
        alone = apply(jnp.asarray(IMAGES[one]), choice[one], strength[one])
        np.testing.assert_array_equal(together[one], alone)


def test_operations_are_drawn_evenly(monkeypatch):
    seen = []
    monkeypatch.setattr(
        rand_augment, "apply", lambda images, choice, strength: seen.append((choice, strength)) or images
    )
    rand_augment.rand_augment(jax.random.key(0), jnp.zeros((7000, 1, 1, 3), jnp.uint8), operations=2, magnitude=15.0)
    counts = np.bincount(np.concatenate([choice for choice, _ in seen]), minlength=len(OPERATIONS))
    assert len(seen) == 2 and counts.sum() == 14_000 and ((counts - 1000) ** 2 / 1000).sum() < 40  # 1 in 10,000
    assert {float(value) for _, strength in seen for value in np.unique(strength)} == {-0.5, 0.5}
