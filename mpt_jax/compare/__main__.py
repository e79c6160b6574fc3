"""The release gate for any two models' predictions: `python -m mpt_jax.compare OLD NEW [--max-nfr 0.01 ...]`."""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mpt_jax.cli import command
from mpt_jax.cli.arguments import new_parser, output_file, positive_int
from mpt_jax.compare.options import (
    CHOICE,
    COLUMNS,
    COUNT,
    FILE,
    FILES,
    FLAG,
    MAPS,
    NAMES,
    OLD_CLASSES,
    RATE,
    SAME,
    SEVERAL,
    TEXT,
    Options,
)
from mpt_jax.errors import InputError, describe, one_line
from mpt_jax.files import storage
from mpt_jax.files.predictions import packed
from mpt_jax.runtime import regular_file

_OUTPUTS = {
    "json": "write the result as JSON; - prints it instead of the tables",
    "html": "write the result as one page that opens offline",
    "markdown": "write a short summary for a pull request's comment or a CI job",
    "junit": "write a test case per limit, for CI",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 pass, 1 regression, 2 bad input, 3 disk full, 130 interrupted.

    A fault of the program itself is status 2 too, after the traceback: CI must not take it for a regression.
    """
    try:
        return command.run(lambda: run(sys.argv[1:] if argv is None else argv))
    except Exception as error:
        traceback.print_exc()
        command.print_line(f"error: {_of_program(error)}", to_stderr=True)
        return command.BAD_INPUT


class _Once(argparse.Action):
    """An option that is refused when it is given again: the first value would be dropped without a word."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if option and getattr(namespace, self.dest, None) is not None:
            parser.error(f"{option} is given twice; expected one value")
        setattr(namespace, self.dest, values)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(
        "mpt_jax.compare",
        "Compare two models' predictions on the same examples, matched by id, and check limits. Exit status: 0 within "
        "all limits, 1 regression, 2 bad input.",
        epilog="OLD and NEW: .npz, .csv, .tsv, .parquet, .arrow, .jsonl or .json (text also .gz, .bz2, .xz, .zst, "
        ".zip), a folder of part-* files, or - for standard input, with the columns id, "
        "label, and prediction, or scores (also logits, probabilities) with a number per class, or a column per class "
        "such as score_cat. A run's predictions/NAME.npz has this form. Rates are fractions: 0.01 is 1 %.",
    )
    parser.register("action", None, _Once)
    option = parser.add_argument
    option("old", metavar="OLD", help="predictions of the deployed model")
    option("new", metavar="NEW", help="predictions of the model that is to replace it, on the same examples")
    # With a default, argparse does not name it among the files that are missing.
    option(
        "more",
        metavar="V3",
        nargs="*",
        action="store",
        default=[],
        help="further versions: each is compared with the next and with the last",
    )
    option("--policy", metavar="FILE", help="options in a TOML file; those of the command line override it")
    for each in dataclasses.fields(Options):
        flag = "slice" if each.name == "slices" else each.name.replace("_", "-")
        option(f"--{flag}", dest=each.name, **_argument(each.metadata))
    option(
        "--suggest-class-map",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print a proposal for --class-map, from the names and predictions of OLD and NEW; compare nothing",
    )
    for kind, text in _OUTPUTS.items():
        option(f"--{kind}", metavar="FILE", help=text)
    return parser.parse_intermixed_args(_with_value(argv))  # files may stand between options


def _argument(option: Mapping[str, Any]) -> dict[str, Any]:
    """Return how argparse reads an option; it is absent from the result unless given."""
    kind, shared = option["kind"], {"help": option["help"].replace("%", "%%"), "default": argparse.SUPPRESS}
    if kind == FLAG:
        return shared | {"action": "store_true"}
    if kind == CHOICE:
        return shared | {"choices": option["choices"]}
    return shared | {"metavar": option["metavar"], **_READERS[kind]}


def _with_value(argv: Sequence[str]) -> list[str]:
    """Give a bare --unlabelled its value, so that it does not take the file that follows.

    Examples:
      >>> _with_value(["--unlabelled", "old.csv", "new.csv"]), _with_value(["--unlabelled", "skip"])
      (['--unlabelled=only', 'old.csv', 'new.csv'], ['--unlabelled', 'skip'])
    """
    following = [*argv[1:], ""]
    return [
        "--unlabelled=only" if word == "--unlabelled" and after not in ("skip", "only") else word
        for word, after in zip(argv, following, strict=True)
    ]


def run(argv: Sequence[str]) -> int:
    """Compare, write the requested files, print, and return the exit status."""
    from rich.console import Console

    from mpt_jax.compare import markdown, show

    start = time.perf_counter()
    options: dict[str, Any] = {}
    try:
        options = vars(parse(argv)).copy()
        outputs = {kind: options.pop(kind) for kind in _OUTPUTS}
        files = _output_files(outputs, _read(options))
        suggest = options.pop("suggest_class_map", False)
        if suggest and (files or outputs["json"] or options["more"]):
            raise InputError(
                "--suggest-class-map prints a class map for two files; expected no third file and no output"
            )
        result = _compare(options, suggest)
        if suggest:
            command.print_text(result)
            return 0
        result["created"] = _now()
        render = {
            "json": lambda: _json(result),
            "html": lambda: show.page(result),
            "markdown": lambda: markdown.summary(result),
            "junit": lambda: show.junit(result, time.perf_counter() - start),
        }
        rendered = {path: render[kind]() for kind, path in files.items()}  # all of them before the first is written
    except Exception as error:
        is_known = isinstance(error, InputError | OSError) or storage.is_failure(error)
        reason = one_line(error) if is_known else _of_program(error)
        _write_error(_given_outputs(argv), reason, options, time.perf_counter() - start)
        raise
    for path, content in rendered.items():
        storage.write_bytes(path, content.encode("utf-8", "backslashreplace"))
    if outputs["json"] == "-":
        command.print_text(_json(result))
    else:
        console = Console()
        with console.capture() as captured:
            console.print(show.terminal(result))
        command.print_text(captured.get())
    return 0 if result["passed"] else 1


def _of_program(error: Exception) -> str:
    return f"a fault of mpt_jax itself, nothing was compared: {describe(error)}; please report it with the traceback"


def _read(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the files that are read, with links resolved, and what they hold."""
    inputs = {"old": "the predictions", "new": "the predictions", "policy": "the policy"}
    inputs |= dict.fromkeys(("classes", "old_classes"), "the names") | {name: f"the {name}" for name in FILES}
    read = {options[key]: what for key, what in inputs.items() if isinstance(options.get(key), str)}
    read |= dict.fromkeys(options["more"], "the predictions")
    read |= dict.fromkeys(options.get("class_map", ()), "a class map")
    return {os.path.realpath(name): what for name, what in read.items()}


def _compare(given: Mapping[str, Any], suggest: bool) -> Any:
    """Return the result of the comparison that the command line asks for, or the text of a class map."""
    from mpt_jax.compare import chain, compare, suggest_class_map

    options = {**given, **{key: _names(given[key]) for key in ("classes", "old_classes") if key in given}}
    if "same" in options:
        options["same"] = dict(options["same"])
    with _standard_input(options) as options:
        versions = [options.pop("old"), options.pop("new"), *options.pop("more")]
        options = {key: value for key, value in options.items() if value is not None}
        if suggest:
            return suggest_class_map(*versions, **options)
        return chain(versions, **options) if len(versions) > 2 else compare(*versions, **options)


@contextlib.contextmanager
def _standard_input(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the options with the content of standard input as a file where one of them is "-"."""
    given = [key for key in ("old", "new", *FILES) if options.get(key) == "-"]
    if len(given) + options["more"].count("-") > 1:
        raise InputError("- is given twice; expected one file at most from standard input")
    with contextlib.ExitStack() as stack:

        def opened(name: str) -> Any:
            return stack.enter_context(packed.spooled(sys.stdin.buffer, "stdin")) if name == "-" else name

        yield options | {key: opened("-") for key in given} | {"more": list(map(opened, options["more"]))}


def _write_error(
    outputs: Mapping[str, pathlib.Path | None], reason: str, options: Mapping[str, Any], seconds: float
) -> None:
    """Write the reason into every output, also over an earlier result, which CI could publish for this one."""
    from mpt_jax.compare import markdown, record, show

    result = {
        **{"schema": 1, "passed": False, "verdict": "error", "error": reason},
        **{"inputs": record.of_command(options), "versions": record.versions(), "created": _now()},
    }
    contents = {
        "json": _json(result),
        "html": show.error_page(reason),
        "markdown": markdown.error(reason),
        "junit": show.junit_error(reason, seconds),
    }
    for kind, path in outputs.items():
        if path is None:
            command.print_text(contents[kind])
        else:
            storage.write_bytes(path, contents[kind].encode("utf-8", "backslashreplace"))


def _given_outputs(argv: Sequence[str]) -> dict[str, pathlib.Path | None]:
    """Return the outputs of a command line, None for standard output.

    The command line may be wrong otherwise; a file that another word of it names too is not among them.
    """
    parser = new_parser("mpt_jax.compare", "")
    for kind in _OUTPUTS:
        parser.add_argument(f"--{kind}", action="append", default=[])
    try:
        named, others = parser.parse_known_args(argv)
    except InputError:
        return {}
    given = {kind: names[0] for kind, names in vars(named).items() if len(names) == 1}
    others += [word.partition("=")[2] for word in others]
    taken = [os.path.realpath(name) for name in (*others, *given.values())]
    files: dict[str, pathlib.Path | None] = {"json": None} if given.get("json") == "-" else {}
    for kind, name in given.items():
        with contextlib.suppress(InputError):
            if taken.count(os.path.realpath(name)) == 1:
                files |= _output_files({kind: name}, {})
    return files


def _json(result: Mapping[str, Any]) -> str:
    r"""Return the result as JSON that a terminal can show: what it would act on is escaped, and readers undo that.

    Examples:
      >>> print(_json({"a": "é" + chr(0x9B) + "2J"}), end="")
      {
       "a": "é\u009b2J"
      }
    """
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    visible = re.sub(r"[^\n -~]", lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1], text)
    return visible + "\n"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _output_files(outputs: Mapping[str, str | None], inputs: Mapping[str, str]) -> dict[str, pathlib.Path]:
    """Return the path of each output with links resolved, since a new file replaces the old one.

    Args:
      outputs: the argument for each kind of output.
      inputs: files that are read, and what they hold.

    Raises:
      InputError: a path that cannot be written, or that is another input or output.
    """
    files, taken = {}, dict(inputs)
    for kind, name in outputs.items():
        if name is None or (kind, name) == ("json", "-"):
            continue
        path = output_file(f"--{kind}", pathlib.Path(name))
        if name == "-" or (path.exists() and not path.is_file()):
            raise InputError(f"--{kind} {name} is not a file; expected one, or --json - to print the result")
        files[kind] = pathlib.Path(os.path.realpath(path))
        if str(files[kind]) in taken:
            raise InputError(f"--{kind} {name} would overwrite {taken[str(files[kind])]}; expected another file")
        taken[str(files[kind])] = f"the output of --{kind}"
    return files


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:50]!r}; expected a number, such as 0.01 for 1 %") from None


def _alias(text: str) -> tuple[str, str]:
    name, equals, meaning = text.partition("=")
    if not (name and equals and meaning):
        raise argparse.ArgumentTypeError(f"{text[:50]!r}; expected NAME=NAME, such as car=automobile")
    return name, meaning


def _columns(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    names = {usual.strip(): name.strip() for usual, _, name in pairs}
    if not all(name for name in names.values()) or len(names) < len(pairs):
        raise argparse.ArgumentTypeError(
            f"{text[:50]!r}; expected a name for each usual column once, such as id=uid,label=y_true"
        )
    return names


def _number_or_names(text: str) -> int | str:
    return positive_int(text) if text.isdecimal() else text


_READERS: Mapping[str, dict[str, Any]] = {
    RATE: {"type": _number},
    COUNT: {"type": int},
    TEXT: {},
    FILE: {},
    NAMES: {},
    OLD_CLASSES: {"type": _number_or_names},
    SAME: {"type": _alias, "action": "append"},
    COLUMNS: {"type": _columns},
    SEVERAL: {"action": "append"},
    MAPS: {"action": "append"},
}


def _names(text: int | str | None) -> int | list[str] | None:
    """Return the names in a text or in the file that it names; return a number or None unchanged."""
    if not isinstance(text, str):
        return text
    path = pathlib.Path(text)
    if "," not in text and not path.is_file():
        raise InputError(f"{text!r} is not a file; expected names such as cat,dog, or a file with one name per line")
    try:
        names = text.split(",") if "," in text else regular_file.read_text(path, "utf-8-sig").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{text} is not UTF-8; expected one class name per line") from error
    names = [name.strip() for name in names]
    if "" in names:
        place = f"line {names.index('') + 1} of {text} is empty" if "," not in text else f"{text!r} has an empty name"
        raise InputError(f"{place}, and would shift the indices after it; expected a name for each class")
    return names


if __name__ == "__main__":
    sys.exit(main())
