"""Train an update and report its flips: `python -m mpt_jax.train --config configs/x.py [--config.key=value ...]`."""

import argparse
import contextlib
import dataclasses
import logging
import pathlib
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpt_jax.cli import command as commands
from mpt_jax.cli.arguments import new_parser
from mpt_jax.errors import InputError, one_line
from mpt_jax.files import storage


def main(argv: Sequence[str] | None = None, *, on_metrics: Callable[[Mapping[str, Any]], None] | None = None) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, 3 disk full, 130 SIGINT, 143 SIGTERM.

    Of several processes: also 4, another one was lost. JAX may be the first to know of that, and then aborts (134).

    Args:
      argv: the arguments; None: those of the process.
      on_metrics: told every line of `metrics.jsonl` when it is written, for a logger of your own. A run that was killed
        and goes on tells again of the steps that it does again.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    command = "python -m mpt_jax.train " + shlex.join(argv)
    joined: list[bool] = []  # whether this is to be one of several processes

    def work() -> int:
        options = parse(argv)
        joined.append(options.processes is not None)
        try:
            run(options, command=command, on_metrics=on_metrics)
        except Exception as error:
            if not any(joined) or isinstance(error, InputError | OSError) or storage.is_failure(error):
                raise
            return _fell_out(error, command)
        return 0

    status = commands.run(
        work,
        when_interrupted=f"stopped; to resume from the last checkpoint: {command}",
        when_disk_full="the last checkpoint is intact: free some space, then run the same command to resume from it",
    )
    if any(joined):
        from mpt_jax.runtime import processes

        processes.leave(status)
    return status


def _fell_out(error: Exception, command: str) -> int:
    """The exit status of one of several processes that cannot go on; says why."""
    import jax

    from mpt_jax.runtime import processes

    if isinstance(error, jax.errors.JaxRuntimeError):  # what is between the processes has failed, or the device
        print(f"error: {one_line(error)}: {processes.lost_message(command)}", file=sys.stderr)
        return processes.LOST
    traceback.print_exception(error)
    return 1


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line."""

    config: str
    workdir: pathlib.Path | None
    overrides: tuple[str, ...]  # as `key=value`
    cached: bool = True
    new_run: bool = False
    plan: bool = False
    tensorboard: bool = False
    processes: tuple[str, int, int] | tuple[()] | None = None  # coordinator, number, this one; empty: found by JAX


def parse(argv: Sequence[str]) -> Options:
    """Parse the command line; overrides may be `--config.KEY=VALUE` or `--config.KEY VALUE`."""
    parser = new_parser(
        "mpt_jax.train",
        "Train the models of an update and report the negative flips of each method.",
        epilog="--config.KEY=VALUE sets any key of the config, such as --config.update.methods=mpt_kl,mpt_lm. "
        "Run the same command again to resume a run.",
        shared=["--no-compilation-cache"],
    )
    parser.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="config file, e.g. configs/digits.py")
    parser.add_argument("--workdir", metavar="DIR", help="output folder, also gs://BUCKET/DIR (default: runs/CONFIG)")
    parser.add_argument(
        "--new-run",
        action="store_true",
        help="if the work directory holds a run of another config, use DIR-2 (-3, ...) next to it",
    )
    parser.add_argument(
        "--plan", action="store_true", help="print what would be trained and what already exists, then exit"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard events to DIR/tensorboard; needs tensorboardX"
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0 of a multi-process run")
    parser.add_argument("--num-processes", metavar="N", type=int, help="number of processes")
    parser.add_argument("--process-id", metavar="I", type=int, help="index of this process, starting at 0")
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="multi-process run whose processes find each other: TPU hosts, Slurm, Open MPI, Kubernetes",
    )
    arguments, rest = parser.parse_known_args(_join_values(argv))
    overrides = []
    for argument in rest:
        if not (argument.startswith("--config.") and "=" in argument):
            raise InputError(
                f"unknown argument {argument!r}; expected --config, --workdir, --new-run, --plan, --tensorboard, "
                "--no-compilation-cache, --config.KEY=VALUE, --distributed, or --coordinator, --num-processes and "
                "--process-id"
            )
        overrides.append(argument.removeprefix("--config."))
    if arguments.workdir == "":
        raise InputError("--workdir is empty; expected a folder, or no --workdir")
    workdir = storage.path(arguments.workdir) if arguments.workdir else None
    cached = not arguments.no_compilation_cache
    flags = {name: getattr(arguments, name) for name in ("new_run", "plan", "tensorboard")}
    return Options(arguments.config, workdir, tuple(overrides), cached, **flags, processes=_processes(arguments))


def _processes(arguments: argparse.Namespace) -> tuple[str, int, int] | tuple[()] | None:
    """How this process finds the others; None: there are none."""
    given = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    if arguments.distributed or given == (None, None, None):
        if given != (None, None, None):
            raise InputError("--distributed finds the processes by itself; leave it out, or --coordinator and the like")
        return () if arguments.distributed else None
    coordinator, number, which = given
    if coordinator is None or number is None or which is None:
        raise InputError("--coordinator, --num-processes and --process-id go together; one of them is missing")
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        raise InputError(f"--coordinator={coordinator}; expected HOST:PORT, such as 10.0.0.1:8476")
    if not 0 <= which < number:
        raise InputError(f"--process-id={which} of --num-processes={number}; expected 0 to the number less one")
    return coordinator, number, which


def _join_values(argv: Sequence[str]) -> list[str]:
    """`--config.key value` as `--config.key=value`."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1].startswith("--config.") and "=" not in joined[-1] and not argument.startswith("--"):
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def run(options: Options, *, command: str, on_metrics: Callable[[Mapping[str, Any]], None] | None = None) -> None:
    """Load, say what will be done, train what is missing, write and print the report."""
    # What orbax says of half-written files, which it clears away, and of damaged ones, which we report ourselves.
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    from rich.console import Console

    from mpt_jax import config as configs
    from mpt_jax import report, update
    from mpt_jax.cli import compilation_cache
    from mpt_jax.cli.progress import progress
    from mpt_jax.runtime import processes
    from mpt_jax.update import loggers, workdir

    config = configs.load(options.config, options.overrides)
    if options.processes is not None:
        processes.join(command, *options.processes)
        processes.require_same(configs.to_dict(config), "the config")
    if options.cached:
        compilation_cache.enable()
    folder = options.workdir
    if folder is None:
        path, variant = configs.split_spec(options.config)
        folder = pathlib.Path("runs") / "-".join(part for part in (path.stem, variant) if part)
    if options.tensorboard:
        loggers.require_tensorboard(folder)
    if options.new_run:
        given = folder
        folder = storage.path(processes.from_first(lambda: str(workdir.beside(given, configs.to_dict(config)))))
    first = processes.is_first()
    console = Console(quiet=not first)
    with progress(console) as shown, contextlib.ExitStack() as stack:
        with processes.synchronized():
            prepared = update.prepare(config, folder, shown)
        for line in update.plan(prepared):
            shown.log(line)
        if options.plan:
            return
        told = []
        with processes.synchronized():
            if first:
                stack.enter_context(workdir.locked(folder, shown.log))
                told = [on_metrics] if on_metrics else []
                if options.tensorboard:
                    told.append(stack.enter_context(loggers.tensorboard(folder)))
        workdir.require_shared(folder)
        worked = update.execute(dataclasses.replace(prepared, on_metrics=tuple(told)), command)
        with processes.synchronized():
            result = report.write(folder) if first else None
    if result is None:
        return
    if not worked:
        shown.log(f"nothing left to train: all releases of {folder} exist")
    console.print(report.terminal(result))
    console.print(report.legend(result))
    shown.log(f"\nreport: {folder / 'report.html'} (as text: report.md)")


if __name__ == "__main__":
    sys.exit(main())
