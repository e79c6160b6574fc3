"""List the commands: `python -m mpt_jax`."""

import argparse
import sys
from collections.abc import Sequence

import mpt_jax
from mpt_jax.cli import command
from mpt_jax.cli.arguments import new_parser
from mpt_jax.errors import InputError

COMMANDS = {
    "train": "train an update and report the negative flips of each method",
    "compare": "compare the predictions of two models; gate a release in CI",
    "predict": "run a released model on images and write its predictions",
    "verify": "check that the files of a work directory are whole and in their place, or that they are signed",
    "sign": "sign released models and gate records with a key of your team",
    "export": "write a released model for use without this package",
    "benchmark": "measure the speed and memory of training",
    "reproduce": "regenerate the tables of REPRODUCIBILITY.md",
}


def main(argv: Sequence[str] | None = None) -> int:
    """List the commands and return the exit status: 0, or 2 for unknown arguments."""
    return command.run(lambda: run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> None:
    """Print the commands.

    Raises:
      InputError: unknown arguments.
    """
    width = max(map(len, COMMANDS))
    lines = [f"  python -m mpt_jax.{name:<{width}}  {text}" for name, text in COMMANDS.items()]
    parser = new_parser("mpt_jax", mpt_jax.__doc__, epilog="\n".join(["commands:", *lines]))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "python -m mpt_jax.COMMAND [--help] ..."
    parser.add_argument("--version", action="version", version=f"mpt_jax {mpt_jax.__version__}")
    _, unknown = parser.parse_known_args(argv)
    if unknown:
        module = unknown[0].removeprefix("mpt_jax.")
        remedy = f"run python -m mpt_jax.{module}" if module in COMMANDS else f"commands: {', '.join(COMMANDS)}"
        raise InputError(f"unknown argument {unknown[0]!r}; {remedy}")
    parser.print_help()


if __name__ == "__main__":
    sys.exit(main())
