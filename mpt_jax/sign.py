"""Sign releases and gate records: `python -m mpt_jax.sign RELEASE_OR_RECORD --key KEY`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from mpt_jax.cli import command
from mpt_jax.cli.arguments import new_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 2 bad input, 3 disk full, 130 SIGINT, 143 SIGTERM."""
    return command.run(lambda: run(parse(sys.argv[1:] if argv is None else argv)))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(
        "mpt_jax.sign",
        "Sign released models and gate records with a key of your team; python -m mpt_jax.verify --key checks them.",
        epilog="The signature of a release is model.sig in it, that of a record is NAME.sig next to it, in the format "
        "of OpenSSF Model Signing. The password of an encrypted key: MPT_JAX_KEY_PASSWORD.",
    )
    option = parser.add_argument
    option(
        "paths",
        metavar="RELEASE_OR_RECORD",
        nargs="+",
        type=pathlib.Path,
        help="a folder in WORKDIR/releases, or the JSON of mpt_jax.compare",
    )
    option("--key", required=True, type=pathlib.Path, metavar="KEY", help="private key in PEM, of an elliptic curve")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Check that each path is whole, then sign it, and print where the signature is."""
    from mpt_jax.files import signature

    for path in arguments.paths:
        require_whole(path)
        signed = signature.sign(path, arguments.key)
        command.print_line(f"signed: {path}: {signed}")


def require_whole(path: pathlib.Path) -> None:
    """Check that a folder is a release whose files have the digests in its card, or that a file is a gate's record.

    Raises:
      InputError: it is not, so that its signature would vouch for damage.
    """
    from mpt_jax.files import signature

    if not path.is_dir():
        signature.require_record(path)
        return
    from mpt_jax.files import released_model

    released_model.check(path, released_model.read_card(path), digests=True)


if __name__ == "__main__":
    sys.exit(main())
