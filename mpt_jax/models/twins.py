"""The same networks in PyTorch's packages, as lines of Python that construct them."""

from collections.abc import Mapping
from typing import NamedTuple

from flax import linen as nn

from mpt_jax.errors import InputError


class Twin(NamedTuple):
    """A network of a PyTorch package.

    Attributes:
        package: its name on the index.
        code: lines that import the package and assign ``net``, with the fields ``{classes}``, ``{height}``,
            ``{width}``, ``{channels}``, ``{activation}`` and ``{quick}``; ``{side}`` is for square images alone.
        logits: expression of the logits of ``images``.
    """

    package: str
    code: str
    logits: str = "net(images)"


_CIFAR_STEM = """
net.conv1 = torch.nn.Conv2d({channels}, 64, 3, padding=1, bias=False)
net.maxpool = torch.nn.Identity()"""


def timm(name: str, *, sized: bool = False) -> Twin:
    """Return timm's network of a name; a sized one is constructed for images of one size."""
    size = ", img_size=({height}, {width})" if sized else ""
    code = f"import timm\n\nnet = timm.create_model({name!r}, num_classes={{classes}}, in_chans={{channels}}{size})"
    return Twin("timm", code)


def torchvision(name: str, *, sized: bool = False) -> Twin:
    """Return torchvision's network of a name; a sized one is constructed for square images of one size."""
    size = ", image_size={side}" if sized else ""
    return Twin("torchvision", f"import torchvision\n\nnet = torchvision.models.{name}(num_classes={{classes}}{size})")


def efficientnet_lite_pytorch(name: str) -> Twin:
    """Return a network of the package ``efficientnet-lite-pytorch``."""
    constructor = f"EfficientNet.from_name({name!r}, num_classes={{classes}}, image_size={{side}})"
    return Twin(
        "efficientnet-lite-pytorch", f"from efficientnet_lite_pytorch import EfficientNet\n\nnet = {constructor}"
    )


def clip(name: str, embedding: int, **config: int) -> Mapping[str, Twin]:
    """Return CLIP's image tower with a head, in OpenCLIP and in transformers.

    Args:
        name: in OpenCLIP, without the suffix for the activation.
        embedding: features of the projection.
        **config: of ``CLIPVisionConfig``.
    """
    arguments = ", ".join(f"{key}={value}" for key, value in config.items())
    return {
        "openclip": Twin(
            "open_clip_torch",
            f"""import collections
import open_clip

tower = open_clip.create_model("{name}{{quick}}", force_image_size=({{height}}, {{width}})).visual
head = torch.nn.Linear({embedding}, {{classes}})
net = torch.nn.Sequential(collections.OrderedDict(visual=tower, head=head))""",
        ),
        "huggingface": Twin(
            "transformers",
            f"""import transformers

config = transformers.CLIPVisionConfig(
    {arguments},
    image_size={{side}}, projection_dim={embedding}, hidden_act="{{activation}}",
)
net = transformers.CLIPVisionModelWithProjection(config)
net.head = torch.nn.Linear({embedding}, {{classes}})""",
            "net.head(net(pixel_values=images).image_embeds)",
        ),
    }


def code(twin: Twin, module: nn.Module, image_shape: tuple[int, ...]) -> str:
    """Return the lines that construct a network's twin.

    Args:
        twin: of the network.
        module: the network, whose number of classes, stem and activation the twin has.
        image_shape: ``(height, width, channels)``.

    Raises:
        InputError: images that the package's network does not take.

    Examples:
        >>> from mpt_jax.models import build
        >>> print(code(torchvision("vit_b_16", sized=True), build("vit_b16", 5), (160, 160, 3)))
        import torchvision
        <BLANKLINE>
        net = torchvision.models.vit_b_16(num_classes=5, image_size=160)
    """
    height, width, channels = image_shape
    cifar = getattr(module, "stem", "") == "cifar"
    text = twin.code + (_CIFAR_STEM if cifar else "")
    if channels != 3 and "{channels}" not in text:
        raise InputError(f"the network of {twin.package} takes images of 3 channels, and the release {channels}")
    if height != width and "{side}" in text:
        raise InputError(f"the network of {twin.package} takes square images, and the release {height}x{width}")
    activation = getattr(module, "activation", "")
    quick = "-quickgelu" if activation == "quick_gelu" else ""
    fields = {"height": height, "width": width, "channels": channels, "side": height}
    return text.format(**fields, classes=module.num_classes, activation=activation, quick=quick)
