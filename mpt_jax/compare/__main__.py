"""The release gate for any two models' predictions: `python -m mpt_jax.compare OLD NEW [--max-nfr 0.01 ...]`."""

import argparse
import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

from mpt_jax.cli import command
from mpt_jax.cli.arguments import new_parser, output_file, positive_int
from mpt_jax.errors import InputError
from mpt_jax.files import storage


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 pass, 1 regression, 2 bad input, 3 disk full, 130 interrupted."""
    return command.run(lambda: run(parse(sys.argv[1:] if argv is None else argv)))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace."""
    parser = new_parser(
        "mpt_jax.compare",
        "Compare two models' predictions on the same examples, matched by id. Exit status: 0 within all "
        "limits, 1 regression, 2 bad input.",
        epilog="OLD and NEW: .npz, .csv, .tsv, .parquet or .jsonl (text also .gz, .bz2, .zst) with id, label, and "
        "prediction, or scores (also logits, probabilities) with a number per class, or a column per class such as "
        "score_cat. The predictions/NAME.npz of a run will do. Rates are fractions: 0.01 is 1 %.",
    )
    option = parser.add_argument
    option("old", metavar="OLD", help="predictions of the deployed model")
    option("new", metavar="NEW", help="predictions of the model that is to replace it, on the same examples")
    option(
        "--max-nfr", type=float, metavar="RATE", help="negative flips / rows of the classes that the old model knows"
    )
    option("--max-relative-nfr", type=float, metavar="RATIO", help="the same / that of models with unrelated errors")
    option("--max-class-nfr", type=float, metavar="RATE", help="negative flips / rows, of every class")
    option("--min-accuracy", type=float, metavar="RATE", help="of the new model on all rows")
    option("--confident", action="store_true", help="hold the interval's worse end to the limits: too few rows fail")
    option("--confidence", type=float, default=0.95, metavar="P", help="of the intervals (default: 0.95)")
    option("--classes", metavar="NAMES", help="in the order of the indices: a,b,c, or a file with a name per line")
    option(
        "--old-classes",
        type=_number_or_names,
        metavar="N|NAMES",
        help="what the old model knows: the first N, or names like --classes, which are then also its indices' order "
        "(default: class_names or scores in OLD, else every class that it ever answers)",
    )
    option("--examples", type=int, default=1000, metavar="N", help="flipped ones in --json and --html (default: 1000)")
    option("--json", metavar="FILE", help="the result; - prints it in place of the tables")
    option("--html", metavar="FILE", help="the result as one page that opens offline")
    option("--junit", metavar="FILE", help="a test case per limit, for CI")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> int:
    """Compare, write what is asked for, print."""
    from rich.console import Console

    from mpt_jax.compare import compare, show

    start = time.perf_counter()
    options = vars(arguments).copy()
    outputs = {kind: options.pop(kind) for kind in ("json", "html", "junit")}
    inputs = {"old": "the predictions", "new": "the predictions", "classes": "the names", "old_classes": "the names"}
    taken = {os.path.realpath(options[key]): what for key, what in inputs.items() if isinstance(options[key], str)}
    files = _files(outputs, taken)
    options |= {key: _names(options[key]) for key in ("classes", "old_classes")}
    result = compare(options.pop("old"), options.pop("new"), **options)
    in_json = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    writers = {"json": lambda: in_json, "html": lambda: show.page(result)}
    writers["junit"] = lambda: show.junit(result, time.perf_counter() - start)
    texts = {path: writers[kind]() for kind, path in files.items()}  # all of them before the first is written
    for path, text in texts.items():
        storage.write_bytes(path, text.encode("utf-8", "backslashreplace"))
    if outputs["json"] == "-":
        command.print_text(in_json)
    else:
        console = Console()
        with console.capture() as captured:
            console.print(show.terminal(result))
        command.print_text(captured.get())
    return 0 if result["passed"] else 1


def _files(outputs: Mapping[str, str | None], taken: Mapping[str, str]) -> dict[str, pathlib.Path]:
    """Where each output goes, links followed, as a new file takes the place of the one there.

    Args:
      outputs: what was given for each kind.
      taken: files that are read, and what is in them.

    Raises:
      InputError: no file can be written there, or the one there is to stay.
    """
    files, taken = {}, dict(taken)
    for kind, name in outputs.items():
        if name is None or (kind, name) == ("json", "-"):
            continue
        path = output_file(f"--{kind}", pathlib.Path(name))
        if name == "-" or (path.exists() and not path.is_file()):
            raise InputError(f"--{kind} {name} is no file; expected one, or --json - to print the result")
        files[kind] = pathlib.Path(os.path.realpath(path))
        if str(files[kind]) in taken:
            raise InputError(f"--{kind} {name} would replace {taken[str(files[kind])]}; expected another file")
        taken[str(files[kind])] = f"what --{kind} writes"
    return files


def _number_or_names(text: str) -> int | str:
    return positive_int(text) if text.isdecimal() else text


def _names(text: int | str | None) -> int | list[str] | None:
    """The names in a text, or in the file that it names; a number and None stay."""
    if not isinstance(text, str):
        return text
    path = pathlib.Path(text)
    if "," not in text and not path.is_file():
        raise InputError(f"{text!r} is no file; expected names such as cat,dog, or a file with one in each line")
    try:
        names = text.split(",") if "," in text else path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{text} is not UTF-8; expected a class name in each line") from error
    return [name.strip() for name in names if name.strip()]


if __name__ == "__main__":
    sys.exit(main())
