"""Check that the files of a work directory are whole and in their place: `python -m mpt_jax.verify WORKDIR`."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt_jax.cli import command
from mpt_jax.cli.arguments import new_parser
from mpt_jax.errors import one_line
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
        epilog="The exit status is 0 if everything holds, 1 if something does not, and 2 if this is no work directory.",
    )
    parser.add_argument("workdir", metavar="WORKDIR", help="folder of a run, also gs://BUCKET/DIR")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="do not read models and predictions: compare the sizes of the models' files, and digests only of files "
        "that were changed after the release",
    )
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> int:
    """Check a work directory, print the result, and return the exit status.

    Raises:
      InputError: it is not a work directory.
    """
    folder = storage.path(options.workdir)
    from mpt_jax.update import verification

    rows = verification.verify(folder, digests=not options.quick)
    command.print_text(text(rows))
    return BROKEN if any(row.faults for row in rows) else 0


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
                f"{row.unnamed:,} of the {row.what} were made before version 0.2 recorded where they belong: only "
                "their digests were checked"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
