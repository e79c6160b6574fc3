"""The command `python -m mpt_jax.export RELEASE OUTPUT_DIR`, and weights of PyTorch as a release."""

import argparse
import logging
import pathlib
import sys
from collections.abc import Sequence

from mpt_jax.cli import command
from mpt_jax.cli.arguments import comma_separated, new_parser, positive_int

PLATFORMS = ("cpu", "cuda", "tpu")
INTERPOLATIONS = ("bicubic", "bilinear")  # those of `mpt_jax.data`, which takes seconds to import
OF_RELEASE = ("model", "image-size", "classes", "resize", "interpolation", "mean", "std", "stem", "strip")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 2 bad input, 3 disk full, 130 SIGINT, 143 SIGTERM."""
    return command.run(
        lambda: run(parse(sys.argv[1:] if argv is None else argv)), when_interrupted="stopped; nothing was written"
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(
        "mpt_jax.export",
        "Write a released model as a StableHLO program and as safetensors weights, or as weights for a network of a "
        "PyTorch package, with a README that shows how to run them without this package. All are compared with the "
        "release first. Or write a weight file of PyTorch with its own head as a released model.",
    )
    option = parser.add_argument
    option(
        "release",
        metavar="RELEASE",
        help="released model: a folder in WORKDIR/releases; with --format release: a weight file, or package:NAME",
    )
    option("output", metavar="OUTPUT_DIR", help="a new or empty folder")
    option("--format", choices=("stablehlo", "torch", "release"), default="stablehlo", help="(default: stablehlo)")
    option(
        "--names",
        default="",
        metavar="PACKAGE",
        help="with --format torch: timm, torchvision, openclip, huggingface or efficientnet_lite_pytorch (default: the "
        "one that the pretrained weights came from, else the first that has the network)",
    )
    option(
        "--platforms",
        type=comma_separated,
        metavar="NAMES",
        help="platforms of the program, besides that of this machine: some of cpu,cuda,rocm,tpu "
        "(default: cpu,cuda,tpu)",
    )
    group = parser.add_argument_group("with --format release")
    group.add_argument("--model", metavar="NAME", help="the network, such as efficientnet_lite0")
    group.add_argument("--image-size", type=_sides, metavar="S", help="side of its inputs, or HEIGHT,WIDTH")
    group.add_argument("--classes", metavar="FILE", help="names of the classes, one in each line (default: 0, 1, ...)")
    group.add_argument("--resize", type=positive_int, metavar="S", help="as dataset.resize (default: just covers S)")
    group.add_argument("--interpolation", choices=INTERPOLATIONS, help="of --resize (default: bicubic)")
    group.add_argument("--mean", type=_numbers, metavar="R,G,B", help="as dataset.mean (default: the package's)")
    group.add_argument("--std", type=_numbers, metavar="R,G,B", help="as dataset.std (default: the package's)")
    group.add_argument("--stem", metavar="NAME", help="of a ResNet: imagenet or cifar (default: the network's)")
    group.add_argument("--strip", metavar="PREFIX", help="prefix of the names in the file (default: found)")
    arguments = parser.parse_args(argv)
    if arguments.platforms and arguments.format != "stablehlo":
        parser.error("--platforms is for --format stablehlo; PyTorch's weights run on any platform")
    if arguments.names and arguments.format != "torch":
        parser.error("--names is for --format torch; expected that format too")
    given = [name for name in OF_RELEASE if getattr(arguments, name.replace("-", "_")) is not None]
    if given and arguments.format != "release":
        parser.error(f"--{given[0]} is for --format release; expected that format too")
    if missing := [name for name in ("model", "image-size") if name not in given and arguments.format == "release"]:
        parser.error(f"--format release needs --{missing[0]}")
    if arguments.resize and arguments.resize < min(arguments.image_size):
        parser.error(f"--resize {arguments.resize} is less than --image-size, which is cropped from it")
    return arguments


def _sides(text: str) -> tuple[int, ...]:
    sides = tuple(positive_int(part.strip()) for part in text.split(","))
    if len(sides) > 2 or max(sides) > 2**14:
        raise argparse.ArgumentTypeError(f"{text!r}; expected HEIGHT,WIDTH or one side, up to 2**14 pixels")
    return sides


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected numbers, separated by commas") from error


def run(arguments: argparse.Namespace) -> None:
    """Export the release and print the result of the comparison."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax logs errors that we report ourselves
    from mpt_jax.export import artifact, pytorch
    from mpt_jax.files import storage

    if arguments.format == "release":
        return _to_release(arguments)
    release, output = storage.path(arguments.release), pathlib.Path(arguments.output)
    if arguments.format == "torch":
        metadata = pytorch.write(release, output, names=arguments.names)
        command.print_line(f"{metadata['name']}: {len(metadata['classes'])} classes, names of {metadata['names']}")
        command.print_line(f"ok: {output}, with exactly the weights of the release; see {output / 'README.md'}")
        return
    metadata = artifact.write(release, output, platforms=arguments.platforms or PLATFORMS)
    inputs = metadata["input"]
    shape = f"{inputs['dtype']} {inputs['shape']}"
    command.print_line(f"{metadata['name']}: inputs {shape}, {len(metadata['classes'])} classes")
    tolerance = metadata["compared"]["tolerance"]
    for name, difference in metadata["compared"]["largest_difference"].items():
        compared = f"logits differ by at most {difference:.1e} of the largest (tolerance {tolerance:g})"
        command.print_line(f"{name}: {compared}")
    command.print_line(f"ok: {output}, for {', '.join(metadata['platforms'])}; see {output / 'README.md'}")


def _to_release(arguments: argparse.Namespace) -> None:
    from mpt_jax.data import Resizing
    from mpt_jax.export import readme, release

    card = release.write(
        arguments.release,
        pathlib.Path(arguments.output),
        model=arguments.model,
        image_size=arguments.image_size,
        classes=arguments.classes or "",
        options={"stem": arguments.stem} if arguments.stem else {},
        strip=arguments.strip or "",
        **{"mean": arguments.mean or (), "std": arguments.std or ()},
        resizing=Resizing(arguments.resize or 0, arguments.interpolation or "bicubic"),
    )
    names, values = card["pretrained"]["names"], card["normalization"]
    mean, std = ([round(value, 6) for value in values[name]] for name in ("mean", "std"))
    preparation = readme.preparation(card["image_shape"], readme.resizing_of(card))
    command.print_line(f"{arguments.release}: {arguments.model} under {names}'s names, {len(card['classes'])} classes")
    command.print_line(f"{' '.join(preparation.split())} Pixels / 255 are normalised with mean {mean} and std {std}.")
    command.print_line(f"ok: {arguments.output}, a released model for predict, export and update.old")


if __name__ == "__main__":
    sys.exit(main())
