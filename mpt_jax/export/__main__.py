"""The command `python -m mpt_jax.export RELEASE OUTPUT_DIR`."""

import argparse
import logging
import pathlib
import sys
from collections.abc import Sequence

from mpt_jax.cli import command
from mpt_jax.cli.arguments import comma_separated, new_parser

PLATFORMS = ("cpu", "cuda", "tpu")


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
        "release first.",
        shared=["release"],
    )
    option = parser.add_argument
    option("output", metavar="OUTPUT_DIR", help="a new or empty folder")
    option("--format", choices=("stablehlo", "torch"), default="stablehlo", help="(default: stablehlo)")
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
    arguments = parser.parse_args(argv)
    if arguments.format == "torch" and arguments.platforms:
        parser.error("--platforms is for --format stablehlo; PyTorch's weights run on any platform")
    if arguments.format == "stablehlo" and arguments.names:
        parser.error("--names is for --format torch; expected that format too")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Export the release and print the result of the comparison."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax logs errors that we report ourselves
    from mpt_jax.export import artifact, pytorch
    from mpt_jax.files import storage

    release, output = storage.path(arguments.release), pathlib.Path(arguments.output)
    if arguments.format == "torch":
        metadata = pytorch.write(release, output, names=arguments.names)
        print(f"{metadata['name']}: {len(metadata['classes'])} classes, names of {metadata['names']}")
        print(f"ok: {output}, with exactly the weights of the release; see {output / 'README.md'}")
        return
    metadata = artifact.write(release, output, platforms=arguments.platforms or PLATFORMS)
    inputs = metadata["input"]
    print(f"{metadata['name']}: inputs {inputs['dtype']} {inputs['shape']}, {len(metadata['classes'])} classes")
    tolerance = metadata["compared"]["tolerance"]
    for name, difference in metadata["compared"]["largest_difference"].items():
        print(f"{name}: logits differ by at most {difference:.1e} of the largest (tolerance {tolerance:g})")
    print(f"ok: {output}, for {', '.join(metadata['platforms'])}; see {output / 'README.md'}")


if __name__ == "__main__":
    sys.exit(main())
