"""Command-line arguments that several commands share: the parser, types of values, options, output files."""

import argparse
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NoReturn

from mpt_jax.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `InputError` where argparse would exit."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def new_parser(module: str, description: str, *, shared: Sequence[str] = (), epilog: str | None = None) -> Parser:
    """Return a parser of `python -m MODULE` with some of the arguments in `SHARED`.

    Examples:
      >>> parser = new_parser("mpt_jax.predict", "Run a model.", shared=["release", "--data-dir"])
      >>> parser.parse_args(["runs/digits/releases/mpt_kl-seed0"]).data_dir
      ''
    """
    parser = Parser(prog=f"python -m {module}", description=description, epilog=epilog, allow_abbrev=False)
    for name in shared:
        parser.add_argument(name, **SHARED[name])
    return parser


def positive_int(text: str) -> int:
    """Convert an argument to an integer from 1 to 2**31 - 1.

    Examples:
      >>> positive_int("12")
      12
    """
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) < 2**31):
        raise argparse.ArgumentTypeError(f"{text[:50]!r}; expected a positive integer")
    return int(text)


def non_negative_int(text: str) -> int:
    """Convert an argument to an integer from 0 to 2**31 - 1.

    Examples:
      >>> non_negative_int("0")
      0
    """
    return 0 if text == "0" else positive_int(text)


def comma_separated(text: str) -> tuple[str, ...]:
    """Split an argument at its commas and drop repeated words.

    Examples:
      >>> comma_separated("cpu, tpu,cpu")
      ('cpu', 'tpu')
    """
    if not (words := tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))):
        raise argparse.ArgumentTypeError(f"{text!r}; expected at least one word, separated by commas")
    return words


def output_file(option: str, path: pathlib.Path) -> pathlib.Path:
    """Return the path after checking, before any work, that a file can be written there.

    Raises:
      InputError: the path is a folder, is in a bucket, or its folder is missing or not writable.
    """
    problems = {
        "is in a bucket": str(path).startswith("gs:/"),
        "is a folder": path.is_dir(),
        "is in a folder that does not exist": not path.parent.is_dir(),
        "is in a folder that is not writable": not os.access(path.parent, os.W_OK),
    }
    for problem in (problem for problem, found in problems.items() if found):
        raise InputError(f"{option} {path} {problem}; expected a file in an existing, writable folder")
    return path


SHARED: dict[str, dict[str, Any]] = {
    "release": {"metavar": "RELEASE", "help": "released model: a folder in WORKDIR/releases"},
    "--data-dir": {"default": "", "metavar": "DIR", "help": "TFDS data folder (default: TFDS's own)"},
    "--no-compilation-cache": {
        "action": "store_true",
        "help": "do not use the cache of compiled programs in your cache folder",
    },
}
"""Arguments with the same meaning in every command, as the keywords of `add_argument`."""
