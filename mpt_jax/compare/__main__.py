"""The release gate for any two models' predictions: `python -m mpt_jax.compare OLD NEW [--max-nfr 0.01 ...]`."""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Sequence

from mpt_jax import command
from mpt_jax.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 pass, 1 regression, 2 bad input, 3 disk full, 130 interrupted."""
    return command.ended(lambda: run(parse(sys.argv[1:] if argv is None else argv)))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace."""
    parser = command.Parser(
        prog="python -m mpt_jax.compare",
        description="Compare two models' predictions on the same examples, matched by id. Exit status: 0 within all "
        "limits, 1 regression, 2 bad input.",
        epilog="OLD and NEW: .npz, .csv, .tsv, .parquet or .jsonl (text also .gz, .bz2, .zst) with id, label, and "
        "prediction, or scores (also logits, probabilities) with a number per class, or a column per class such as "
        "score_cat. The predictions/NAME.npz of a run will do. Rates are fractions: 0.01 is 1 %.",
        allow_abbrev=False,
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
    files = {kind: pathlib.Path(name) for kind, name in outputs.items() if name not in (None, "-")}
    for kind, path in files.items():
        command.output_file(f"--{kind}", path)
        if path.resolve() in (pathlib.Path(options[side]).resolve() for side in ("old", "new")):
            raise InputError(f"--{kind} {path} would replace the predictions; expected another file")
    options["classes"] = _names(options["classes"])
    text = options["old_classes"]
    options["old_classes"] = int(text) if text and text.isdecimal() else _names(text)
    result = compare(options.pop("old"), options.pop("new"), **options)
    in_json = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    writers = {"json": lambda: in_json, "html": lambda: show.page(result)}
    writers["junit"] = lambda: show.junit(result, time.perf_counter() - start)
    for kind, path in files.items():
        path.write_text(writers[kind](), encoding="utf-8", errors="backslashreplace")
    if outputs["json"] == "-":
        print(in_json, end="")
    else:
        Console().print(show.terminal(result))
    return 0 if result["passed"] else 1


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    path = pathlib.Path(text)
    if "," not in text and not path.is_file():
        raise InputError(f"{text!r} is no file; expected names such as cat,dog, or a file with one in each line")
    try:
        names = text.split(",") if "," in text else path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{text} is not UTF-8; expected a class name in each line") from error
    return [name.strip() for name in names if name.strip()]


if __name__ == "__main__":
    sys.exit(main())
