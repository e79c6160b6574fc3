"""Measure: `python -m mpt_jax.benchmark step|population|table|device|scaling|input [--json [FILE]]`."""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from mpt_jax.cli import command

SIZES, DEVICE_SIZES = (1, 2, 4, 8), (1, 2, 4, 8, 16, 32)
SCALES = (1, 2, 4, 8, 16, 32, 64)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, 3 disk full, 130 interrupted."""
    return command.ended(lambda: run(parse(sys.argv[1:] if argv is None else argv)))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace: what is measured under `command`, its options beside it."""
    parser = command.Parser(
        prog="python -m mpt_jax.benchmark",
        description="Measure the train step: time, memory, compilation and model FLOP utilisation. "
        "Whatever is compared runs in alternating rounds, of which the median counts.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="step|population|table|device|scaling|input"
    )

    def measuring(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        option = added.add_argument
        option("--model", default="resnet18", help="a network of mpt_jax.models (default: resnet18)")
        option("--stem", default="", help="of a ResNet: imagenet (default) or cifar")
        option("--batch", type=command.natural, default=0, help="images per step (default: 128; convnet 48)")
        option("--image-size", type=command.natural, default=0, help="pixels a side (default: the data's; input 224)")
        option("--images", type=command.natural, default=0, help="how many (default: 50000; convnet 320; input 256)")
        if name != "scaling":
            option("--steps", type=command.natural, default=0, help="per timed call (default: about three seconds)")
            option("--rounds", type=command.natural, default=3, help="(default: 3)")
        if name in ("step", "scaling"):
            option("--accumulate", type=command.natural, default=1, help="micro-batches of a step (default: 1)")
            option("--remat", action="store_true", help="blocks compute their activations again for the gradient")
            option("--fsdp", type=_from_zero, default=1, help="devices that share parameters; 0: all (default: 1)")
        option("--json", nargs="?", const="-", metavar="FILE", help="the result as one JSON object, printed or in FILE")
        if name not in ("table", "input"):
            option("--method", default="mpt_kl", help="a row of objectives.METHODS (default: mpt_kl)")
        if name in ("step", "population"):
            option("--peak-tflops", type=_positive, default=0.0, help="what utilisation is of (default: measured)")
        if name not in ("device", "input"):
            option("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
        if name not in ("step", "scaling", "input"):
            option("--members-at-once", type=command.natural, default=0, help="side by side (default: the fastest)")
        return added

    step = measuring("step", "one student, alone or against a peer")
    step.add_argument("--against", default="", metavar="COMMAND", help="prints a JSON line with median_ms")
    step.add_argument("--memory", action="store_true", help="predict the memory of a device instead; nothing is run")
    step.add_argument("--students", type=command.natural, default=1, help="with --memory: so many (default: 1)")
    step.add_argument(
        "--device-memory",
        type=_positive,
        default=0.0,
        metavar="GIB",
        help="with --memory: of an accelerator with so much (default: the devices that are here)",
    )
    population = measuring("population", "time per student of several that share data and teachers")
    population.add_argument("--sizes", type=_sizes, default=SIZES, help="numbers of students (default: 1,2,4,8)")
    table = measuring("table", "all methods as one population against a separate run of each")
    table.add_argument(
        "--methods",
        type=command.names,
        default=(),
        help="rows of objectives.METHODS (default: the nine of Margin Preserving Training)",
    )
    device = measuring("device", "everything at once, for an accelerator: dtypes, populations, a peer, an epoch")
    device.add_argument("--sizes", type=_sizes, default=DEVICE_SIZES, help="(default: 1,2,4,8,16,32)")
    device.add_argument("--peer", default="", metavar="COMMAND", help="as --against; gets --dtype DTYPE appended")
    device.add_argument(
        "--data-dir", default="", metavar="DIR", help="TFDS folder of CIFAR-100 (default: random images)"
    )
    scaling = measuring("scaling", "what a step would do on many devices, from its compiled program; nothing is run")
    scaling.add_argument("--devices", type=_sizes, default=SCALES, help="(default: 1,2,4,8,16,32,64)")
    scaling.add_argument("--weak", action="store_true", help="--batch is that of one device")
    device.add_argument("--toy", action="store_true", help="the small network, a few steps: to see that it works")
    reading = measuring("input", "streamed images: per second against PyTorch's loader, and what a step waits for them")
    reading.add_argument(
        "--data", dest="folder", default="", metavar="DIR", help="folder of JPEG files *.jpg (default: made here)"
    )
    reading.add_argument("--batches", type=command.natural, default=4, help="per timed epoch (default: 4)")
    reading.add_argument("--workers", type=command.natural, default=0, help="processes that decode (default: threads)")
    reading.add_argument("--train-steps", type=_from_zero, default=8, help="timed; 0: none (default: 8)")
    return parser.parse_args(argv)


def _from_zero(text: str) -> int:
    return 0 if text == "0" else command.natural(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number above 0")
    return value


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(command.natural(part) for part in command.names(text))


def run(arguments: argparse.Namespace) -> None:
    """Measure, then print or write the result; what goes on meanwhile is said on stderr."""
    from rich.console import Console

    from mpt_jax.benchmark import reading, show, suites
    from mpt_jax.benchmark.program import Setup

    options = vars(arguments).copy()
    name, target = options.pop("command"), options.pop("json")
    if name == "step" and options.pop("memory"):
        name = "memory"
        del options["against"]
    elif name == "step":
        del options["students"], options["device_memory"]
    fields = Setup.__dataclass_fields__
    setup = Setup(**{key: options.pop(key) for key in list(options) if key in fields})
    if target and target != "-":
        command.output_file("--json", pathlib.Path(target))  # not after all that measuring
    progress = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    suite, render = (reading.measure, reading.render) if name == "input" else (getattr(suites, name), show.render)
    result = suite(setup, progress.print, **options)
    text = json.dumps(result, allow_nan=False)
    if target == "-":
        print(text)
        return
    if target:
        pathlib.Path(target).write_text(text + "\n", encoding="utf-8")
    Console().print(render(result))


if __name__ == "__main__":
    sys.exit(main())
