"""Train an update and report its flips: `python -m mpt_jax.train --config configs/x.py [--config.key=value ...]`."""

import argparse
import io
import logging
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from mpt_jax.errors import InputError, one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± or box lines must not end a finished run
    try:
        spec, workdir, overrides, cached = parse(argv)
        run(spec, workdir, overrides, cached=cached, command="python -m mpt_jax.train " + shlex.join(argv))
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: {error.filename or 'disk'}: {error.strerror}; give paths that exist and can be written",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def parse(argv: Sequence[str]) -> tuple[str, pathlib.Path | None, list[str], bool]:
    """The config file, the work directory if one is given, the overrides as `key=value`, and whether to cache."""
    parser = _Parser(
        prog="python -m mpt_jax.train",
        description="Train the models of an update and report the negative flips that each method leaves.",
        epilog="Any key of the config is set by --config.KEY=VALUE, such as --config.update.methods=mpt_kl,mpt_lm. "
        "The same command again goes on where the last one stopped.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="config file, e.g. configs/digits.py")
    parser.add_argument("--workdir", metavar="DIR", help="where everything is written; default: runs/<config>")
    parser.add_argument(
        "--no-compilation-cache",
        action="store_true",
        help="neither read nor keep compiled programs in your cache folder",
    )
    try:
        arguments, rest = parser.parse_known_args(_join_values(argv))
    except argparse.ArgumentError as error:
        raise InputError(f"{error}; see --help") from error
    overrides = []
    for argument in rest:
        if not (argument.startswith("--config.") and "=" in argument):
            raise InputError(
                f"unknown argument {argument!r}; expected --config, --workdir, --no-compilation-cache or "
                "--config.KEY=VALUE"
            )
        overrides.append(argument.removeprefix("--config."))
    workdir = pathlib.Path(arguments.workdir) if arguments.workdir else None
    return arguments.config, workdir, overrides, not arguments.no_compilation_cache


def _join_values(argv: Sequence[str]) -> list[str]:
    """`--config.key value` as `--config.key=value`."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1].startswith("--config.") and "=" not in joined[-1] and not argument.startswith("--"):
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def run(spec: str, workdir: pathlib.Path | None, overrides: Sequence[str], *, cached: bool, command: str) -> None:
    """Load, train what is missing, write and print the report."""
    # What orbax says of half-written files, which it clears away, and of damaged ones, which we report ourselves.
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    from rich.console import Console

    from mpt_jax import compilation_cache, report, update
    from mpt_jax import config as configs
    from mpt_jax.progress import progress

    config = configs.load(spec, overrides)
    if cached:
        compilation_cache.enable()
    if workdir is None:
        path, variant = configs.split_spec(spec)
        workdir = pathlib.Path("runs") / "-".join(part for part in (path.stem, variant) if part)
    console = Console()
    with progress(console) as shown:
        prepared = update.prepare(config, workdir, shown)
        worked = update.execute(prepared, command)
    result = report.write(workdir)
    if not worked:
        shown.say(f"nothing left to train: all releases of {workdir} exist")
    console.print(report.terminal(result))
    console.print(report.legend(result))
    shown.say(f"\nreport: {workdir / 'report.html'} (as text: report.md)")


if __name__ == "__main__":
    sys.exit(main())
