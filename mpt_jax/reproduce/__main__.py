"""Make a table again: `python -m mpt_jax.reproduce TABLE [--budget cpu|gpu]`."""

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
    """Run the command; returns its exit status, as `mpt_jax.train` does for what it trains."""
    argv = sys.argv[1:] if argv is None else list(argv)

    def work() -> int:
        options = parse(argv)
        kept = pathlib.Path(options.results)
        page = output_file("--page", pathlib.Path(options.page or kept.parent / "REPRODUCIBILITY.md"))
        if kept.exists() and not kept.is_dir():
            raise InputError(f"--results {kept} is a file; expected a folder")
        status = 0 if options.table == "page" else _make(options, argv)
        if not status:
            _write_page(kept, page)
        return status

    return commands.run(work)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace."""
    parser = new_parser(
        "mpt_jax.reproduce",
        "Train what a table is made of, keep its numbers in results/ and set them into REPRODUCIBILITY.md. "
        "The same command goes on where it was stopped.",
        epilog="Tables: " + "; ".join(f"{name}: {table.title}" for name, table in TABLES.items()),
    )
    parser.add_argument(
        "table", choices=[*TABLES, "page"], metavar="TABLE", help="a table's name, or `page`: no training"
    )
    parser.add_argument("--budget", choices=BUDGETS, default="cpu", help="what is to be had within (default: cpu)")
    parser.add_argument(
        "--seeds", metavar="N,...", default="", help="these in place of the table's own; what stands of others stays"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="TFDS data folder, for tables on CIFAR-100")
    parser.add_argument(
        "--workdir", metavar="DIR", default="runs/reproduce", help="where the runs lie (default: %(default)s)"
    )
    parser.add_argument(
        "--results", metavar="DIR", default=str(ROOT / "results"), help="what is kept (default: results)"
    )
    parser.add_argument("--page", metavar="FILE", default="", help="(default: REPRODUCIBILITY.md beside the results)")
    return parser.parse_args(argv)


def _make(options: argparse.Namespace, argv: Sequence[str]) -> int:
    """Train run after run, and keep the numbers after each, beside those that stand of other seeds."""
    from mpt_jax import config as configs
    from mpt_jax import train
    from mpt_jax.reproduce import results

    table, done = TABLES[options.table], []
    runs = table.runs(options.budget, _seeds(options.seeds))
    name = configs.load(_config_file(table.plans[options.budget].config)).dataset.name
    takes_folder = name == "cifar100"  # the others prepare themselves, and not in a folder of somebody's data sets
    kept = pathlib.Path(options.results) / f"{options.table}-{options.budget}.json"
    _check_what_is_lost(kept, _standing(kept, table, options.budget), runs)
    for number, run in enumerate(runs, 1):
        scenario, seeds, config, _ = run
        folder = storage.path(options.workdir) / kept.stem / _folder_name(scenario, seeds)
        here = ["--workdir", str(folder)]
        if options.data_dir and takes_folder:
            here.append(f"--config.dataset.data_dir={options.data_dir}")
        print(f"run {number} of {len(runs)}: {scenario or options.table}, seeds {', '.join(map(str, seeds))}")
        status = train.main(["--config", _config_file(config), *_values(run), *here])
        if status:
            print(f"to go on: python -m mpt_jax.reproduce {shlex.join(argv)}", file=sys.stderr)
            return status
        done.append(results.collect(folder, scenario, command=_command(run)))
        # Read again: another process may have added other seeds meanwhile.
        together = results.join(_standing(kept, table, options.budget), done)
        command = f"python -m mpt_jax.reproduce {options.table} --budget {options.budget}"
        made = sorted({seed for run in together for seed in run["seeds"]})
        if made != sorted(table.plans[options.budget].seeds):
            command += f" --seeds {','.join(map(str, made))}"
        results.write(kept, options.table, options.budget, command + " --data-dir DIR" * takes_folder, together)
    return 0


def _standing(kept: pathlib.Path, table: Table, budget: str) -> list[Mapping[str, Any]]:
    """The runs in a file of results that the table, as it is now, has too; none where it is of another version."""
    from mpt_jax.reproduce import results

    try:
        found = results.read(kept)["runs"] if kept.exists() else []
    except InputError as error:
        print(f"{error}: it is replaced")
        return []
    return [run for run in found if run["command"] in _commands(table, budget, run["seeds"])]


def _check_what_is_lost(kept: pathlib.Path, standing: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> None:
    """Seeds that were trained together are replaced together: nobody wants one seed in place of twenty."""
    for run in standing:
        asked = {seed for scenario, seeds, *_ in runs if scenario == run["scenario"] for seed in seeds}
        if asked & set(run["seeds"]) and set(run["seeds"]) - asked:
            raise InputError(
                f"{kept} holds the seeds {', '.join(map(str, run['seeds']))} as one run, which would be replaced by "
                f"fewer; give another --results, or --seeds with all or none of them"
            )


def _commands(table: Table, budget: str, seeds: Sequence[int]) -> set[str]:
    """What runs of these seeds are made by, as the table is now."""
    return {_command(run) for run in table.runs(budget, tuple(seeds))}


def _command(run: Run) -> str:
    """What makes this run alone."""
    return f"python -m mpt_jax.train --config configs/{run[2]} {shlex.join(_values(run))}"


def _values(run: Run) -> list[str]:
    _, seeds, _, overrides = run
    return [f"--config.{value}" for value in (*overrides, f"seeds={','.join(map(str, seeds))}")]


def _write_page(folder: pathlib.Path, page: pathlib.Path) -> None:
    """The figures of every table, and the page."""
    from mpt_jax.reproduce import page as pages
    from mpt_jax.reproduce import plots, results

    found = {path.stem: results.read(path) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise InputError(f"--results {folder} has no table; expected a folder with files such as digits-cpu.json")
    drawn = {
        folder / "plots" / f"{name}-{figure}.png": picture
        for name, table in found.items()
        for figure, picture in plots.draw(table["runs"]).items()
    }
    (folder / "plots").mkdir(exist_ok=True)
    for path in (folder / "plots").glob("*.png"):
        if path not in drawn and path.stem.rpartition("-")[2] in plots.FIGURES:
            path.unlink()  # of runs that are no longer there
    for path, picture in drawn.items():
        storage.write_bytes(path, picture)
    storage.write_text(page, pages.render(folder))
    print(f"{len(found)} tables: {page}")


def _seeds(text: str) -> tuple[int, ...]:
    seeds = [seed.strip() for seed in text.split(",")] if text else []
    if not all(seed.isascii() and seed.isdigit() and len(seed) < 20 for seed in seeds) or len({*seeds}) < len(seeds):
        raise InputError(f"--seeds {text}: expected integers from 0 on, each once, such as --seeds 0,1,2")
    return tuple(map(int, seeds))


def _config_file(spec: str) -> str:
    folder = ROOT / "configs"
    if not folder.is_dir():
        raise InputError(f"{folder} is not there: the tables are made from a clone of the repository, run it in one")
    return os.path.relpath(folder / spec)


def _folder_name(scenario: str, seeds: Sequence[int]) -> str:
    """Of letters, digits and hyphens.

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
