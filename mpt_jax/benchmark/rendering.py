"""Results as tables for a terminal."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mpt_jax.errors import printable, printable_lines
from mpt_jax.runtime import hardware

Result = Mapping[str, Any]
Column = tuple[str, Callable[[Mapping[str, Any]], str]]


def _number(key: str, form: str = ",.1f", scale: float = 1.0) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: "-" if row.get(key) is None else format(scale * row[key], form)


STUDENTS: tuple[Column, ...] = (
    ("students", lambda row: str(row["students"])),
    ("ms/step", _number("median_ms", ",.2f")),
    ("images/s", _number("examples_per_second", ",.0f")),
    ("share of one", lambda row: f"{row['share_of_one']['ratio']:.2f}"),
    ("MFU %", _number("utilisation", ".1f", 100)),
    ("on data %", _number("utilisation_on_data", ".1f", 100)),
    ("compile s", _number("compile_seconds")),
    ("program MiB", _number("program_bytes", ",.0f", 2**-20)),
    ("peak MiB", _number("peak_bytes", ",.0f", 2**-20)),
)
METHODS: tuple[Column, ...] = (
    ("method", lambda row: row["method"]),
    ("teachers", lambda row: ", ".join(row["teachers"]) or "-"),
    ("ms/step", _number("median_ms", ",.2f")),
    ("compile s", _number("compile_seconds")),
    ("program MiB", _number("program_bytes", ",.0f", 2**-20)),
    ("peak MiB", _number("peak_bytes", ",.0f", 2**-20)),
)
USES: tuple[Column, ...] = (("use", lambda row: row["use"]), ("MiB", _number("bytes", ",.1f", 2**-20)))
DEVICES: tuple[Column, ...] = (
    ("devices", lambda row: str(row["devices"])),
    ("images each", _number("images_per_device", ",.0f")),
    ("GFLOP each", _number("gflop_per_device", ",.2f")),
    ("MiB each", _number("bytes_per_device", ",.0f", 2**-20)),
    ("collec- tives", lambda row: str(sum(each["count"] for each in row["collectives"]))),
    ("MiB sent", lambda row: f"{sum(each['bytes'] for each in row['collectives']) / 2**20:,.2f}"),
)
READERS: tuple[Column, ...] = (
    ("reader", lambda row: row["name"]),
    ("images/s", _number("images_per_second", ",.0f")),
    ("per core", _number("images_per_second_per_core", ",.0f")),
    ("ms/image", _number("ms_per_image", ".2f")),
)
PASSES: tuple[Column, ...] = (
    ("pass", lambda row: row["work"]),
    ("ms", _number("median_ms", ",.1f")),
    ("PyTorch ms", _number("peer_median_ms", ",.1f")),
    ("ratio", _number("ratio", ".2f")),
)
# A column for the dtype takes the place of another one, so that the table fits into 80 columns.
DTYPES: tuple[Column, ...] = (
    ("dtype", lambda row: row["dtype"]),
    *(column for column in STUDENTS if column[0] != "on data %"),
)
TIMES_PEER: Column = ("x peer", _number("times_peer", ".2f"))
LEGEND = {
    "images/s": "all students together",
    "share of one": "time per student / time of one student alone",
    "MFU %": "model FLOPs per second / peak rate: every tap of every kernel, students three times, teachers once",
    "on data %": "the same without the taps that only meet zero padding",
    "compile s": "to trace, lower and compile",
    "program MiB": "one call of the compiled program: state, inputs, temporaries",
    "peak MiB": "most memory in use so far",
    "x peer": "images/s of all students / images/s of the peer",
}


def render(result: Result) -> RenderableType:
    """Render the result of any benchmark: a title, a table of rows, and notes."""
    title, columns, rows, notes = _CONTENTS.get(result["benchmark"], _students)(result)
    return Group(Text(printable_lines(title), style="bold"), Text(), grid(columns, rows), Text(), _pairs(notes))


Contents = tuple[str, Sequence[Column], Sequence[Mapping[str, Any]], list[tuple[str, str]]]


def _title(result: Result, how: str = "") -> str:
    stem = result["stem"]
    what = [
        result["model"],
        stem and f"{stem} stem",
        result.get("method"),
        result.get("dtype"),
        f"batch {result['batch']}",
    ]
    where = f"{hardware.in_words(result['device'])}, jax {result['versions']['jax']}"
    how = how or f"median of {result['rounds']} rounds"
    return f"{result['benchmark']}: {', '.join(filter(None, what))}\n{where}, {how}"


def _students(result: Result) -> Contents:
    """Render `step`, `population` and `device`: a row per population, and notes on what it was compared with."""
    found = result.get("dtypes") or {"": result}
    rows = [row for values in found.values() for row in values.get("rows", [values])]
    shown = DTYPES if "dtypes" in result else STUDENTS
    columns = (*shown, *((TIMES_PEER,) if "times_peer" in rows[0] else ()))
    notes = [("at once", ", ".join(f"{row['members_at_once']} of {row['students']}" for row in rows))]
    for dtype, values in found.items():
        notes.append((f"{dtype} peak".strip(), f"{values['peak']['tflops']:,.3g} TFLOP/s, {values['peak']['source']}"))
        for row in values.get("rows", []):
            if row["students"] > 1:
                notes.append((f"share of one at {row['students']}", _ratios(row["share_of_one"])))
        if against := values.get("against"):
            notes.append(("peer", f"{against['command']}: {against['median_ms']:,.2f} ms"))
            notes.append(("ours / peer", _ratios(against)))
        if epoch := values.get("epoch"):
            notes.append(("epoch", f"{epoch['images']:,} images in {epoch['seconds']:.2f} s, {epoch['steps']} steps"))
    if "call_ms" in result:
        notes.append(("call", f"{result['steps_per_call']} steps; a call of 0 steps takes {result['call_ms']:.2f} ms"))
    if result["device"]["platform"] == "gpu" and result["float32_products"] == "default":
        notes.append(("float32", "products may use TF32"))
    return _title(result), columns, rows, [*notes, *_legend(columns, result)]


def _table(result: Result) -> Contents:
    count, seconds = len(result["rows"]), (result["compile_seconds"], result["separate_compile_seconds"])
    notes = [
        (
            "one population",
            f"{result['median_ms']:,.2f} ms per step of all {count}, {result['members_at_once']} at once",
        ),
        ("separate runs", f"{result['separate_ms']:,.2f} ms per step of all {count}"),
        ("ratio", _ratios(result)),
        ("compile s", f"{seconds[0]:.1f} and {seconds[1]:.1f}: ratio {result['compile_ratio']:.3f}"),
    ]
    rows = [*result["rows"], {**result, "method": "all as one", "teachers": []}]
    return _title(result), METHODS, rows, [*notes, *_legend(METHODS, result)]


def _memory(result: Result) -> Contents:
    limit, total = result["limit_bytes"], result["bytes"]["total"]
    has = f"{limit / 2**30:.1f} GiB: {'does not fit' if total > limit else 'fits'}" if limit else "no limit known"
    notes = [("students", str(result["students"])), ("device memory", has)]
    notes += [("advice" if i == 0 else "", line) for i, line in enumerate(result["advice"])]
    if result["form"] == "own" and result["device"]["platform"] == "cpu":
        notes.append(("", "Convolutions on a CPU need more memory than on an accelerator: see --device-memory."))
    rows = [{"use": use, "bytes": size} for use, size in result["bytes"].items()]
    return _title(result, "compiled, not run"), USES, rows, notes


def _scaling(result: Result) -> Contents:
    names = list(dict.fromkeys(name for row in result["rows"] for name in row["predicted"]))
    columns = list(DEVICES)
    for name in names:
        for heading, key, form in (("ms", "ms", ".2f"), ("%", "efficiency", ".0%")):
            columns.append((f"{name}\n{heading}", functools.partial(_predicted, name=name, key=key, form=form)))
    first = result["rows"][0] if result["rows"] else {"gradient_bytes": 0, "statistics_bytes": 0}
    notes = [
        ("teachers", f"{', '.join(result['teachers']) or 'none'}; they send nothing"),
        ("gradient", f"{first['gradient_bytes'] / 2**20:.1f} MiB"),
        ("BatchNorm", f"{first['statistics_bytes'] / 2**20:.3f} MiB of statistics"),
        ("MiB sent", "results of the collectives of a step on one device"),
        ("ms", "FLOPs at the published peak, then bytes at the published bandwidth in a ring, without latency"),
        ("%", "efficiency: share of that time in which a device computes"),
    ]
    return _title(result, "compiled for other devices, not run"), columns, result["rows"], notes


def _predicted(row: Mapping[str, Any], *, name: str, key: str, form: str) -> str:
    return format(row["predicted"][name][key], form) if name in row["predicted"] else "-"


def _input(result: Result) -> Contents:
    title = (
        f"input: {result['files']} JPEG files of {result['bytes_per_file'] / 1024:.0f} KiB to "
        f"{result['image_size']}x{result['image_size']}, batch {result['batch']}, {result['cores']} cores, "
        f"{result['workers'] or 'no'} worker processes, median of {result['rounds']} rounds"
    )
    notes = []
    if "ratio" in result:
        rounds = ", ".join(f"{ratio:.2f}" for ratio in result["ratios"])
        notes += [("peer", result["peer"]), ("ours / peer", f"{result['ratio']:.2f} in images/s (by round: {rounds})")]
    if "training" in result:
        found = result["training"]
        share = 100 * found["waiting_share"]
        notes += [
            ("step", f"{found['model']}: {found['device_ms']:,.0f} ms with the images on the device"),
            ("", f"{found['streamed_ms']:,.0f} ms streamed"),
            ("waiting", f"{share:.1f} % of the time (on a CPU readers and steps share the cores)"),
        ]
    return title, READERS, result["rows"], notes


def _network(result: Result) -> Contents:
    notes = [
        ("images", f"{result['image_size']} x {result['image_size']} pixels"),
        ("PyTorch", f"the network of {result['peer']}"),
        ("step", "of AdamW on the cross-entropy"),
        *((f"ratio, {row['work']}", _ratios(row)) for row in result["rows"]),
        ("compile s", f"{result['compile_seconds']:.1f}"),
        ("peak MiB", f"{(result['peak_bytes'] or 0) / 2**20:,.0f}, of this process, the compiler included"),
    ]
    return _title(result), PASSES, result["rows"], notes


_CONTENTS: Mapping[str, Callable[[Result], Contents]] = {
    "table": _table,
    "memory": _memory,
    "scaling": _scaling,
    "input": _input,
    "network": _network,
}


def grid(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> Table:
    """Build a table with a line for each row; a column is a heading and a function from a row to its text."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 0), pad_edge=False, show_edge=False)
    for heading, _ in columns:
        left = heading in ("dtype", "method", "teachers", "use", "reader", "pass")
        table.add_column(heading.replace(" ", "\n", 1), justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell(row))) for _, cell in columns))
    return table


def _pairs(notes: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in notes:
        table.add_row(Text(printable(name)), Text(printable(value)))
    return table


def _legend(columns: Sequence[Column], result: Result) -> list[tuple[str, str]]:
    whose = "of the device" if result["peak_bytes_of"] == "device" else "of this process, the compiler included"
    notes = {"peak MiB": f", {whose}", "compile s": ", with a compilation cache" if result["compilation_cache"] else ""}
    lines = [(heading, LEGEND[heading] + notes.get(heading, "")) for heading, _ in columns if heading in LEGEND]
    return [("", ""), *lines]


def _ratios(compared: Mapping[str, Any]) -> str:
    return f"{compared['ratio']:.3f}  (by round: {', '.join(f'{ratio:.3f}' for ratio in compared['ratios'])})"
