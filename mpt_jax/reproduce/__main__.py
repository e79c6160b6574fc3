"""The command line: `python -m mpt_jax.reproduce TABLE [--budget cpu|gpu]`."""

import argparse
import os
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.cli import command as commands
from mpt_jax.cli.arguments import new_parser, output_file
from mpt_jax.errors import InputError
from mpt_jax.files import storage
from mpt_jax.reproduce.tables import BUDGETS, TABLES, Run, Table

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, which for training is that of `mpt_jax.train`."""
    argv = sys.argv[1:] if argv is None else list(argv)

    def work() -> int:
        options = parse(argv)
        folder = pathlib.Path(options.results)
        page = output_file("--page", pathlib.Path(options.page or folder.parent / "REPRODUCIBILITY.md"))
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--results {folder} is a file; expected a folder")
        status = 0 if options.table == "page" else _train_table(options, argv)
        if not status:
            from mpt_jax.reproduce import page as pages

            commands.print_line(f"{pages.write(folder, page)} tables: {page}")
        return status

    return commands.run(work)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(
        "mpt_jax.reproduce",
        "Train the runs of a table, keep their numbers in results/ and write REPRODUCIBILITY.md with docs/results/. "
        "Run the same command again to resume.",
        epilog="Tables: " + "; ".join(f"{name}: {table.title}" for name, table in TABLES.items()),
        shared=["--data-dir"],
    )
    parser.add_argument(
        "table",
        choices=[*TABLES, "page"],
        metavar="TABLE",
        help="name of a table, or `page` to draw the figures and write the pages without training",
    )
    parser.add_argument("--budget", choices=BUDGETS, default="cpu", help="hardware to plan for (default: cpu)")
    parser.add_argument(
        "--seeds", metavar="N,...", default="", help="seeds to train (default: the table's); results of others are kept"
    )
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        default="runs/reproduce",
        help="folder of the work directories (default: %(default)s)",
    )
    parser.add_argument(
        "--results", metavar="DIR", default=str(ROOT / "results"), help="folder of the result files (default: results)"
    )
    parser.add_argument(
        "--page",
        metavar="FILE",
        default="",
        help="first page to write; the others go to docs/results/ next to it (default: REPRODUCIBILITY.md next to the "
        "results)",
    )
    return parser.parse_args(argv)


def _train_table(options: argparse.Namespace, argv: Sequence[str]) -> int:
    """Train the runs of a table part by part; after each, add the results to the existing ones of other seeds."""
    from mpt_jax import config as configs
    from mpt_jax import train
    from mpt_jax.reproduce import collection, results

    table = TABLES[options.table]
    runs = table.runs(options.budget, _seeds(options.seeds))
    name = configs.load(_config_file(table.plans[options.budget].config)).dataset.name
    takes_folder = name == "cifar100"  # the other data sets are generated or part of a dependency
    file = pathlib.Path(options.results) / f"{options.table}-{options.budget}.json"
    _check_no_seed_is_lost(file, _existing(file, table, options.budget), runs)
    workdir = storage.path(options.workdir)
    trainings = [(run, part) for run in runs for part in range(len(run.parts))]
    for number, (run, part) in enumerate(trainings, 1):
        folder = str(workdir / file.stem / _folder_name(run.scenario, run.seeds))
        parts = [_part(folder, run, i) for i in range(part + 1)]
        paths = ["--workdir", parts[-1], f"--config.training.features_dir={workdir / 'features'}"]
        if options.data_dir and takes_folder:
            paths.append(f"--config.dataset.data_dir={options.data_dir}")
        what = f"{run.scenario or options.table}, seeds {', '.join(map(str, run.seeds))}"
        commands.print_line(f"run {number} of {len(trainings)}: {what}")
        status = train.main(["--config", _config_file(run.config), *_overrides(run, part, folder), *paths])
        if status:
            commands.print_line(f"to resume: python -m mpt_jax.reproduce {shlex.join(argv)}", to_stderr=True)
            return status
        made_by = _commands(run)
        done = collection.collect([storage.path(each) for each in parts], run.scenario, command=made_by[part])
        # Read the file again, because another process may have added other seeds meanwhile.
        existing = _existing(file, table, options.budget)
        if any(found["command"] in made_by[part + 1 :] for found in existing):
            continue  # it has the rows of later parts too
        joined = results.join(existing, [done])
        command = f"python -m mpt_jax.reproduce {options.table} --budget {options.budget}"
        made = sorted({seed for run in joined for seed in run["seeds"]})
        if made != sorted(table.plans[options.budget].seeds):
            command += f" --seeds {','.join(map(str, made))}"
        results.write(file, options.table, options.budget, command + " --data-dir DIR" * takes_folder, joined)
    return 0


def _existing(file: pathlib.Path, table: Table, budget: str) -> list[Mapping[str, Any]]:
    """Read the runs in a file of results that the present table would make too; none from another version's file."""
    from mpt_jax.reproduce import results

    try:
        found = results.read(file)["runs"] if file.exists() else []
    except InputError as error:
        commands.print_line(f"{error}: it is replaced")
        return []
    return [
        run
        for run in found
        if run["command"] in {command for own in table.runs(budget, tuple(run["seeds"])) for command in _commands(own)}
    ]


def _check_no_seed_is_lost(file: pathlib.Path, existing: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> None:
    """Refuse to replace seeds that were trained together by some of them."""
    for run in existing:
        requested = {seed for own in runs if own.scenario == run["scenario"] for seed in own.seeds}
        if requested & set(run["seeds"]) and set(run["seeds"]) - requested:
            raise InputError(
                f"{file} holds the seeds {', '.join(map(str, run['seeds']))} as one run, which would be replaced by "
                f"fewer; give another --results, or --seeds with all or none of them"
            )


def _commands(run: Run) -> list[str]:
    """Return the command that trains this run alone, up to each of its parts."""
    train = f"python -m mpt_jax.train --config configs/{run.config}"
    folder = "runs/reproduced"
    lines = [f"{train} {shlex.join(_overrides(run, part, folder))}" for part in range(len(run.parts))]
    if len(lines) > 1:
        lines = [f"{line} --workdir {_part(folder, run, part)}" for part, line in enumerate(lines)]
    return [" && ".join(lines[: part + 1]) for part in range(len(lines))]


def _overrides(run: Run, part: int, folder: str) -> list[str]:
    """Return the arguments of a part; later ones take their teachers from the first, in this folder of the run."""
    values = [*run.overrides, *run.parts[part], f"seeds={','.join(map(str, run.seeds))}"]
    if part:
        releases = f"{_part(folder, run, 0)}/releases"
        teachers = {"old": "r0-old", "independent": "r1-independent"}
        values += [f"update.{key}={releases}/{name}-seed{{seed}}" for key, name in teachers.items()]
    return [f"--config.{value}" for value in values]


def _part(folder: str, run: Run, part: int) -> str:
    """Return the work directory of a part of a run: the run's own folder if there is only one."""
    return folder if len(run.parts) == 1 else f"{folder}-part{part + 1}"


def _seeds(text: str) -> tuple[int, ...]:
    seeds = [seed.strip() for seed in text.split(",")] if text else []
    if not all(seed.isascii() and seed.isdigit() and len(seed) < 20 for seed in seeds) or len({*seeds}) < len(seeds):
        raise InputError(f"--seeds {text}: expected integers of 0 or more, each once, such as --seeds 0,1,2")
    return tuple(map(int, seeds))


def _config_file(spec: str) -> str:
    folder = ROOT / "configs"
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist: the tables need the configs; run this in a clone of the repository")
    return os.path.relpath(folder / spec)


def _folder_name(scenario: str, seeds: Sequence[int]) -> str:
    """Name a work directory with letters, digits and hyphens.

    Examples:
      >>> _folder_name("10 -> 100", (0, 1, 2)), _folder_name("", (3,)), _folder_name("", (0, 2))
      ('10-100-seeds0-2', 'seeds3', 'seed0-seed2')
    """
    words = "".join(c if c.isalnum() else " " for c in scenario).split()
    span = f"seeds{seeds[0]}" + (f"-{seeds[-1]}" if len(seeds) > 1 else "")
    if list(seeds) != list(range(seeds[0], seeds[-1] + 1)):
        span = "-".join(f"seed{seed}" for seed in seeds)
    return "-".join([*words, span])


if __name__ == "__main__":
    sys.exit(main())
