"""Check that files are whole, in their place, and what was signed: `python -m mpt_jax.verify PATH [--key PUBLIC]`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt_jax.cli import command
from mpt_jax.cli.arguments import new_parser
from mpt_jax.errors import InputError, one_line
from mpt_jax.files import storage

if TYPE_CHECKING:
    from mpt_jax.update.verification import Row

BROKEN = 1  # exit status if something does not hold


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 if everything holds, 1 if not, 2 for bad input."""
    return command.run(lambda: run(parse(sys.argv[1:] if argv is None else argv)))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(
        "mpt_jax.verify",
        "Check every digest of a work directory, and that each file is the one that belongs in its place.",
        epilog="The exit status is 0 if everything holds, 1 if something does not, and 2 if PATH is none of these.",
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        help="folder of a run, also gs://BUCKET/DIR; or a released model; or, with --key, the JSON of mpt_jax.compare",
    )
    parser.add_argument(
        "--key",
        type=pathlib.Path,
        metavar="PUBLIC",
        help="also check that each released model, or the JSON, is what mpt_jax.sign signed with the key of this "
        "public key, in PEM",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="do not read models and predictions: compare the sizes of the models' files, and digests only of files "
        "that were changed after the release",
    )
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> int:
    """Check what is at a path, print the result, and return the exit status.

    Raises:
      InputError: it is neither a work directory, nor a released model, nor a record; or the key cannot be used.
    """
    path = storage.path(options.path)
    if not path.is_dir() and path.exists():
        from mpt_jax.files import signature

        if options.key is None:
            raise InputError(f"{path} is a file, which only a signature can verify; expected --key, or a folder")
        signature.require_record(path)
        rows, signed = [], [path]
    else:
        from mpt_jax.update import verification

        one = (path / "card.json").exists()
        check = verification.verify_release if one else verification.verify
        rows = check(path, digests=not options.quick)
        signed = [path] if one else verification.releases(path)
    if options.key is not None:
        rows = [*rows, _signatures(signed, options.key)]
    command.print_text(text(rows))
    return BROKEN if any(row.faults for row in rows) else 0


def _signatures(paths: Sequence[pathlib.Path], key: pathlib.Path) -> "Row":
    from mpt_jax.files import signature
    from mpt_jax.update.verification import Row

    if paths and storage.is_remote(paths[0]):
        raise InputError(f"{paths[0]} is in a bucket; expected a local copy, whose signature can be verified")
    problems = {path: signature.problem(path, key) for path in paths}
    return Row("signatures", len(paths), [f"{path}: {problem}" for path, problem in problems.items() if problem])


def text(rows: "Sequence[Row]") -> str:
    """Return the table of what was checked, and below it a line for each file that does not hold."""
    width = max(len(row.what) for row in rows)
    lines = [f"{'':{width}}  checked  do not hold"]
    lines += [f"{row.what:{width}}  {row.checked:7,}  {len(row.faults):11,}" for row in rows]
    faults = [fault for row in rows for fault in row.faults]
    lines += ["", *(f"does not hold: {one_line(fault)}" for fault in faults)] if faults else ["", "everything holds"]
    for row in rows:
        if row.unnamed:
            lines.append(
                f"{row.unnamed:,} of the {row.what} were made before such files recorded their run: checked by their "
                "digests and names"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
