"""The command line: `python -m mpt_jax.benchmark MEASUREMENT [--json [FILE]]`; `COMMANDS` has the measurements."""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.cli import command
from mpt_jax.cli.arguments import comma_separated, new_parser, non_negative_int, output_file, positive_int
from mpt_jax.errors import printable

Options = Mapping[str, Mapping[str, Any]]  # option -> arguments of argparse's add_argument


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 done, 2 bad input, 3 disk full, 130 interrupted."""
    return command.run(lambda: run(parse(sys.argv[1:] if argv is None else argv)))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; `command` is the name of the measurement."""
    parser = new_parser(
        "mpt_jax.benchmark",
        "Measure the train step: time, memory, compilation and model FLOP utilisation. "
        "Everything that is compared runs in alternating rounds; the median round is reported.",
    )
    added = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    for name, (text, options) in COMMANDS.items():
        measurement = added.add_parser(name, help=text, description=text, allow_abbrev=False)
        for option, arguments in options.items():
            measurement.add_argument(option, **arguments)
    return parser.parse_args(argv)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number above 0")
    return value


def _counts(text: str) -> tuple[int, ...]:
    return tuple(positive_int(part) for part in comma_separated(text))


def _count(text: str, default: int = 0) -> dict[str, Any]:
    return {"type": positive_int, "default": default, "help": text}


def _some_counts(text: str, *default: int) -> dict[str, Any]:
    listed = ",".join(map(str, default))
    return {"type": _counts, "default": default, "help": f"{text} (default: {listed})"}


_DATA: Options = {
    "--model": {"default": "resnet18", "help": "a network of mpt_jax.models (default: resnet18)"},
    "--stem": {"default": "", "help": "stem of a ResNet: imagenet (default) or cifar"},
    "--batch": _count("images per step (default: 128; convnet 48; input, network 64)"),
    "--image-size": _count("side of an image in pixels (default: as in the model's data set; input 224, network 160)"),
    "--images": _count("number of images (default: 50000; convnet 320; input 256; network four batches)"),
    "--json": {"nargs": "?", "const": "-", "metavar": "FILE", "help": "print one JSON object, or write it to FILE"},
}
_ROUNDS: Options = {
    "--steps": _count("steps per timed call (default: about three seconds of them)"),
    "--rounds": _count("alternating rounds of measurements (default: 3)", 3),
}
_STEP: Options = {
    "--accumulate": _count("micro-batches per step (default: 1)", 1),
    "--remat": {"action": "store_true", "help": "recompute the activations of each block in the backward pass"},
    "--fsdp": {"type": non_negative_int, "default": 1, "help": "devices that share parameters; 0: all (default: 1)"},
}
_METHOD: Options = {"--method": {"default": "mpt_kl", "help": "a row of objectives.METHODS (default: mpt_kl)"}}
_PEAK: Options = {
    "--peak-tflops": {"type": _positive, "default": 0.0, "help": "peak rate for utilisation (default: measured)"}
}
_DTYPE: Options = {
    "--dtype": {
        "default": "float32",
        "choices": ("float32", "bfloat16", "float16"),
        "help": "dtype of the computation (default: float32)",
    }
}
_MEMBERS: Options = {"--members-at-once": _count("students trained side by side (default: the fastest number)")}

# Measurement -> its description and its options.
COMMANDS: Mapping[str, tuple[str, Options]] = {
    "step": (
        "measure one student, alone or against another program",
        {
            **_DATA,
            **_ROUNDS,
            **_STEP,
            **_METHOD,
            **_PEAK,
            **_DTYPE,
            "--against": {
                "default": "",
                "metavar": "COMMAND",
                "help": "compare with a command whose last line is a JSON object with median_ms",
            },
            "--memory": {"action": "store_true", "help": "compile only, and predict the memory that a device needs"},
            "--students": _count("with --memory: size of the population (default: 1)", 1),
            "--device-memory": {
                "type": _positive,
                "default": 0.0,
                "metavar": "GIB",
                "help": "with --memory: memory of an accelerator to predict for (default: the devices here)",
            },
        },
    ),
    "population": (
        "measure the time per student of populations that share data and teachers",
        {
            **_DATA,
            **_ROUNDS,
            **_METHOD,
            **_PEAK,
            **_DTYPE,
            **_MEMBERS,
            "--sizes": _some_counts("numbers of students", 1, 2, 4, 8),
        },
    ),
    "table": (
        "measure all methods as one population against a separate run of each",
        {
            **_DATA,
            **_ROUNDS,
            **_DTYPE,
            **_MEMBERS,
            "--methods": {
                "type": comma_separated,
                "default": (),
                "help": "rows of objectives.METHODS (default: the nine of Margin Preserving Training)",
            },
        },
    ),
    "device": (
        "measure an accelerator: both dtypes, populations, another program, an epoch",
        {
            **_DATA,
            **_ROUNDS,
            **_METHOD,
            **_MEMBERS,
            "--sizes": _some_counts("numbers of students", 1, 2, 4, 8, 16, 32),
            "--peer": {
                "default": "",
                "metavar": "COMMAND",
                "help": "as step --against, with --dtype DTYPE appended to the command",
            },
            "--data-dir": {
                "default": "",
                "metavar": "DIR",
                "help": "TFDS data folder with CIFAR-100 (default: random images)",
            },
            "--toy": {"action": "store_true", "help": "try the command: the small network, a few steps"},
        },
    ),
    "scaling": (
        "predict a step on many devices from its compiled program, without running it",
        {
            **_DATA,
            **_STEP,
            **_METHOD,
            **_DTYPE,
            "--devices": _some_counts("numbers of devices", 1, 2, 4, 8, 16, 32, 64),
            "--weak": {"action": "store_true", "help": "weak scaling: --batch is the batch of one device"},
        },
    ),
    "input": (
        "compare streamed images per second with PyTorch's loader, and measure how long a step waits for them",
        {
            **_DATA,
            **_ROUNDS,
            "--data": {
                "dest": "folder",
                "default": "",
                "metavar": "DIR",
                "help": "folder of JPEG files *.jpg (default: generated files)",
            },
            "--batches": _count("batches per timed epoch (default: 4)", 4),
            "--workers": _count("worker processes that decode (default: threads)"),
            "--train-steps": {
                "type": non_negative_int,
                "default": 8,
                "help": "timed train steps; 0: none (default: 8)",
            },
        },
    ),
    "network": (
        "compare inference and a training step of a network with the same one in PyTorch",
        {
            **_DATA,
            **_ROUNDS,
            **_DTYPE,
            "--names": {
                "default": "",
                "metavar": "PACKAGE",
                "help": "package with the network, such as timm (default: the first one of its row in models.NETWORKS)",
            },
        },
    ),
}


def run(arguments: argparse.Namespace) -> None:
    """Measure, then print or write the result. Progress is printed on stderr."""
    from rich.console import Console

    from mpt_jax.benchmark.measurements import MEASUREMENTS
    from mpt_jax.benchmark.rendering import render
    from mpt_jax.benchmark.workload import Setup

    options = vars(arguments).copy()
    name, target = options.pop("command"), options.pop("json")
    if name == "step" and options.pop("memory"):
        name = "memory"
        del options["against"]
    elif name == "step":
        del options["students"], options["device_memory"]
    setup = Setup(**{key: options.pop(key) for key in list(options) if key in Setup.__dataclass_fields__})
    if target and target != "-":
        output_file("--json", pathlib.Path(target))  # before the measurement, which takes minutes
    progress = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    result = MEASUREMENTS[name](setup, lambda line: progress.print(printable(line)), **options)
    text = json.dumps(result, allow_nan=False)
    if target == "-":
        command.print_text(f"{text}\n")
        return
    if target:
        pathlib.Path(target).write_text(text + "\n", encoding="utf-8")
    Console().print(render(result))


if __name__ == "__main__":
    sys.exit(main())
