"""A released model for use without this package: `python -m mpt_jax.export RELEASE OUTPUT_DIR`."""

import argparse
import logging
import pathlib
import sys
from collections.abc import Sequence

from mpt_jax.cli import command
from mpt_jax.cli.arguments import comma_separated, new_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, 3 disk full, 130 SIGINT, 143 SIGTERM."""
    return command.run(
        lambda: run(parse(sys.argv[1:] if argv is None else argv)), when_interrupted="stopped; nothing was written"
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace."""
    parser = new_parser(
        "mpt_jax.export",
        "Write a released model as a StableHLO program and as safetensors weights, both compared with the "
        "release, with a README that says how to run them without this package.",
        shared=["release"],
    )
    option = parser.add_argument
    option("output", metavar="OUTPUT_DIR", help="a new folder, or an empty one")
    option(
        "--platforms",
        type=comma_separated,
        default=("cpu", "cuda", "tpu"),
        metavar="NAMES",
        help="what the program runs on, besides this machine: some of cpu,cuda,rocm,tpu (default: cpu,cuda,tpu)",
    )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Export, compare, and say what was found."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # what orbax says of files that we report ourselves
    from mpt_jax.export import artifact
    from mpt_jax.files import storage

    folder = pathlib.Path(arguments.output)
    sheet = artifact.write(storage.path(arguments.release), folder, platforms=arguments.platforms)
    print(
        f"{sheet['name']}: inputs {sheet['input']['dtype']} {sheet['input']['shape']}, {len(sheet['classes'])} classes"
    )
    tolerance = sheet["compared"]["tolerance"]
    for name, difference in sheet["compared"]["largest_difference"].items():
        print(f"{name}: logits within {difference:.1e} of the largest of the release's, {tolerance:g} allowed")
    print(f"ok: {folder}, for {', '.join(sheet['platforms'])}; how to use it: {folder / 'README.md'}")


if __name__ == "__main__":
    sys.exit(main())
