"""The lines that construct a network in PyTorch are Python, and refuse images that it does not take."""

import ast

import pytest

from mpt_jax.errors import InputError
from mpt_jax.models import build, registry, twins

CASES = [(name, dialect) for name in registry.WITH_WEIGHTS for dialect in registry.NETWORKS[name].twins]


@pytest.mark.parametrize(("name", "dialect"), CASES)
def test_the_lines_are_a_program_with_the_number_of_classes(name, dialect):
    network = registry.NETWORKS[name]
    assert dialect in network.dialects
    text = twins.code(network.twins[dialect], build(name, 37), (224, 224, 3))
    assert {"net"} <= {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    assert "37" in text


def test_every_network_with_names_has_a_twin():
    assert all(registry.NETWORKS[name].twins for name in registry.WITH_WEIGHTS)


@pytest.mark.parametrize(
    ("name", "dialect", "shape", "message"),
    [
        (
            "resnet18",
            "torchvision",
            (8, 8, 1),
            "the network of torchvision takes images of 3 channels, and the release 1",
        ),
        (
            "vit_b16",
            "torchvision",
            (32, 64, 3),
            "the network of torchvision takes square images, and the release 32x64",
        ),
    ],
)
def test_images_that_a_package_does_not_take_are_refused(name, dialect, shape, message):
    with pytest.raises(InputError, match=message):
        twins.code(registry.NETWORKS[name].twins[dialect], build(name, 3), shape)


def test_the_stem_and_the_activation_of_the_release_are_in_the_lines():
    stem = twins.code(registry.NETWORKS["resnet18"].twins["timm"], build("resnet18", 3, stem="cifar"), (32, 32, 1))
    assert "in_chans=1" in stem and "Conv2d(1, 64, 3, padding=1, bias=False)" in stem and "maxpool" in stem
    for activation, name in (("gelu", '"ViT-B-32"'), ("quick_gelu", '"ViT-B-32-quickgelu"')):
        module = build("clip_b32", 3, activation=activation)
        assert name in twins.code(registry.NETWORKS["clip_b32"].twins["openclip"], module, (64, 32, 3))
