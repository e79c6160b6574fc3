"""The command `python -m mpt_jax.export RELEASE OUTPUT_DIR`."""

import argparse
import logging
import pathlib
import sys
from collections.abc import Sequence

from mpt_jax.cli import command
from mpt_jax.cli.arguments import comma_separated, new_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 2 bad input, 3 disk full, 130 SIGINT, 143 SIGTERM."""
    return command.run(
        lambda: run(parse(sys.argv[1:] if argv is None else argv)), when_interrupted="stopped; nothing was written"
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(
        "mpt_jax.export",
        "Write a released model as a StableHLO program and as safetensors weights, with a README that shows how to run "
        "them without this package. Both are compared with the release first.",
        shared=["release"],
    )
    option = parser.add_argument
    option("output", metavar="OUTPUT_DIR", help="a new or empty folder")
    option(
        "--platforms",
        type=comma_separated,
        default=("cpu", "cuda", "tpu"),
        metavar="NAMES",
        help="platforms of the program, besides that of this machine: some of cpu,cuda,rocm,tpu "
        "(default: cpu,cuda,tpu)",
    )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Export the release and print the result of the comparison."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax logs errors that we report ourselves
    from mpt_jax.export import artifact
    from mpt_jax.files import storage

    output = pathlib.Path(arguments.output)
    metadata = artifact.write(storage.path(arguments.release), output, platforms=arguments.platforms)
    inputs = metadata["input"]
    print(f"{metadata['name']}: inputs {inputs['dtype']} {inputs['shape']}, {len(metadata['classes'])} classes")
    tolerance = metadata["compared"]["tolerance"]
    for name, difference in metadata["compared"]["largest_difference"].items():
        print(f"{name}: logits differ by at most {difference:.1e} of the largest (tolerance {tolerance:g})")
    print(f"ok: {output}, for {', '.join(metadata['platforms'])}; see {output / 'README.md'}")


if __name__ == "__main__":
    sys.exit(main())
