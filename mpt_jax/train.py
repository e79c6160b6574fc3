"""Train an update and report its flips: `python -m mpt_jax.train --config configs/x.py [--config.key=value ...]`."""

import argparse
import dataclasses
import errno
import io
import logging
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from mpt_jax import interruption
from mpt_jax.errors import InputError, one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, 3 disk full, 130 SIGINT, 143 SIGTERM."""
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± or box lines must not end a finished run
    command = "python -m mpt_jax.train " + shlex.join(argv)
    goodbye = f"stopped; to go on from the last checkpoint: {command}"
    try:
        with interruption.watched(goodbye):
            run(parse(argv), command=command)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(
                f"error: {error.filename or 'disk'}: {error.strerror}; what was saved before is whole: make room, and "
                f"the same command goes on from there",
                file=sys.stderr,
            )
            return 3
        print(
            f"error: {error.filename or 'disk'}: {error.strerror}; give paths that exist and can be written",
            file=sys.stderr,
        )
        return 2
    except interruption.Interrupted as error:
        print(goodbye, file=sys.stderr)
        return error.status
    return 0


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line."""

    config: str
    workdir: pathlib.Path | None
    overrides: tuple[str, ...]  # as `key=value`
    cached: bool = True
    new_run: bool = False


def parse(argv: Sequence[str]) -> Options:
    """The arguments, overrides in either form."""
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
    parser.add_argument(
        "--new-run",
        action="store_true",
        help="where the work directory holds a run of another config, work in DIR-2 (-3, ...) beside it",
    )
    try:
        arguments, rest = parser.parse_known_args(_join_values(argv))
    except argparse.ArgumentError as error:
        raise InputError(f"{error}; see --help") from error
    overrides = []
    for argument in rest:
        if not (argument.startswith("--config.") and "=" in argument):
            raise InputError(
                f"unknown argument {argument!r}; expected --config, --workdir, --new-run, --no-compilation-cache or "
                "--config.KEY=VALUE"
            )
        overrides.append(argument.removeprefix("--config."))
    workdir = pathlib.Path(arguments.workdir) if arguments.workdir else None
    cached = not arguments.no_compilation_cache
    return Options(arguments.config, workdir, tuple(overrides), cached, arguments.new_run)


def _join_values(argv: Sequence[str]) -> list[str]:
    """`--config.key value` as `--config.key=value`."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1].startswith("--config.") and "=" not in joined[-1] and not argument.startswith("--"):
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def run(options: Options, *, command: str) -> None:
    """Load, train what is missing, write and print the report."""
    # What orbax says of half-written files, which it clears away, and of damaged ones, which we report ourselves.
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    from rich.console import Console

    from mpt_jax import compilation_cache, report, update, workdir
    from mpt_jax import config as configs
    from mpt_jax.progress import progress

    config = configs.load(options.config, options.overrides)
    if options.cached:
        compilation_cache.enable()
    folder = options.workdir
    if folder is None:
        path, variant = configs.split_spec(options.config)
        folder = pathlib.Path("runs") / "-".join(part for part in (path.stem, variant) if part)
    if options.new_run:
        folder = workdir.beside(folder, configs.to_dict(config))
    console = Console()
    with progress(console) as shown:
        prepared = update.prepare(config, folder, shown)
        with workdir.locked(folder):
            worked = update.execute(prepared, command)
            result = report.write(folder)
    if not worked:
        shown.say(f"nothing left to train: all releases of {folder} exist")
    console.print(report.terminal(result))
    console.print(report.legend(result))
    shown.say(f"\nreport: {folder / 'report.html'} (as text: report.md)")


if __name__ == "__main__":
    sys.exit(main())
