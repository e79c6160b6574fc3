"""Train an update and report its flips: `python -m mpt_jax.train --config configs/x.py [--config.key=value ...]`."""

import argparse
import dataclasses
import pathlib
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpt_jax.cli import command as commands
from mpt_jax.cli.arguments import new_parser
from mpt_jax.errors import InputError, one_line, printable
from mpt_jax.files import storage


def main(argv: Sequence[str] | None = None, *, on_metrics: Callable[[Mapping[str, Any]], None] | None = None) -> int:
    """Run the command and return its exit status.

    The status is 0 after success, 2 for bad input, 3 for a full disk, 130 after SIGINT and 143 after SIGTERM. If a run
    of several processes loses one, the others end with 4, or with 134 if JAX notices first and aborts.

    Args:
      argv: the arguments; None: those of the process.
      on_metrics: called with every line of `metrics.jsonl` after it is written, for other loggers. After a resume,
        repeated steps are reported again.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    command = "python -m mpt_jax.train " + shlex.join(argv)
    distributed: list[bool] = []  # whether the command line asks for several processes

    def work() -> int:
        options = parse(argv)
        distributed.append(options.processes is not None)
        try:
            run(options, command=command, on_metrics=on_metrics)
        except Exception as error:
            if not any(distributed) or isinstance(error, InputError | OSError) or storage.is_failure(error):
                raise
            return _fail_of_several(error, command)
        return 0

    status = commands.run(
        work,
        when_interrupted=f"stopped; to resume from the last checkpoint: {command}",
        when_disk_full="the last checkpoint is intact: free some space, then run the same command to resume from it",
    )
    if any(distributed):
        from mpt_jax.runtime import processes

        processes.leave(status)
    return status


def _fail_of_several(error: Exception, command: str) -> int:
    """Print why one of several processes cannot continue, and return its exit status."""
    import jax

    from mpt_jax.runtime import processes

    if isinstance(error, jax.errors.JaxRuntimeError):  # a device or the connection failed
        commands.print_line(f"error: {one_line(error)}: {processes.lost_message(command)}", to_stderr=True)
        return processes.LOST
    traceback.print_exception(error)
    return 1


@dataclasses.dataclass(frozen=True)
class Options:
    """The parsed command line."""

    config: str
    workdir: pathlib.Path | None
    overrides: tuple[str, ...]  # as `key=value`
    cached: bool = True
    new_run: bool = False
    plan: bool = False
    tensorboard: bool = False
    processes: tuple[str, int, int] | tuple[()] | None = None  # coordinator, number, index; empty: JAX finds them


def parse(argv: Sequence[str]) -> Options:
    """Parse the command line; overrides may be `--config.KEY=VALUE` or `--config.KEY VALUE`."""
    parser = new_parser(
        "mpt_jax.train",
        "Train the models of an update and report the negative flips of each method.",
        epilog="--config.KEY=VALUE sets any key of the config, such as --config.update.methods=mpt_kl,mpt_lm. "
        "Run the same command again to resume a run.",
        shared=["--no-compilation-cache"],
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="CONFIG[:VARIANT]",
        help="name of a shipped config, such as digits, or path of a config file, such as configs/digits.py",
    )
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
        if argument.startswith("--config.") and "=" not in argument:
            raise InputError(f"{argument} has no value; expected {argument}=VALUE")
        if not argument.startswith("--config."):
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
    """Return how this process finds the others; None if there are none."""
    given = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    if arguments.distributed or given == (None, None, None):
        if given != (None, None, None):
            raise InputError(
                "--distributed finds the processes itself; expected it alone, or --coordinator, --num-processes and "
                "--process-id"
            )
        return () if arguments.distributed else None
    coordinator, number, which = given
    if coordinator is None or number is None or which is None:
        raise InputError("one of --coordinator, --num-processes and --process-id is missing; expected all three")
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        raise InputError(f"--coordinator={coordinator}; expected HOST:PORT, such as 10.0.0.1:8476")
    if not 0 <= which < number:
        raise InputError(f"--process-id={which} of --num-processes={number}; expected 0 to {number - 1}")
    return coordinator, number, which


def _join_values(argv: Sequence[str]) -> list[str]:
    """Write `--config.key value` as `--config.key=value`."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1].startswith("--config.") and "=" not in joined[-1] and not argument.startswith("--"):
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def run(options: Options, *, command: str, on_metrics: Callable[[Mapping[str, Any]], None] | None = None) -> None:
    """Join the other processes, if any, train what is missing, and print the report."""
    from rich.console import Console

    from mpt_jax import api
    from mpt_jax import config as configs
    from mpt_jax.runtime import processes

    config = configs.load(options.config, options.overrides)
    if options.processes is not None:
        processes.join(command, *options.processes)
        processes.require_same(configs.to_dict(config), "the config")
    folder = options.workdir or api.default_workdir(options.config)
    console = Console(quiet=not processes.is_first())
    report = api.train(
        config,
        api.new_run_folder(folder, config) if options.new_run else folder,
        command=command,
        console=console,
        plan_only=options.plan,
        tensorboard=options.tensorboard,
        compile_cache=options.cached,
        on_metrics=on_metrics,
    )
    if report is not None:
        console.print(report)
        text = printable(f"report: {report.paths['html']} (as text: report.md)")
        console.print(f"\n{text}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
