"""The result of `compare` on a terminal, as one page of HTML, and as JUnit for CI."""

import html
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mpt_jax.compare import text
from mpt_jax.compare.evidence import PASS, REGRESSION, UNDECIDED
from mpt_jax.compare.text import Result

_TEMPLATE = pathlib.Path(__file__).with_name("page.html")
_WORDS = {PASS: "PASS", REGRESSION: "FAIL", UNDECIDED: "UNDECIDED"}
_COLOURS = {PASS: "green", REGRESSION: "red", UNDECIDED: "yellow"}
_MOST_CLASSES, _MOST_EXAMPLES = 10, 10  # on the terminal


def terminal(result: Result) -> Group:
    """Return rates, worst classes, some flipped examples and checks; ids and names are not parsed as markup."""
    parts: list[RenderableType] = [
        Text(text.title(result)),
        *map(Text, text.notes(result)),
        _table(text.rate_headings(result), text.rate_cells(result)),
    ]
    worst = [row for row in text.class_cells(result) if row[2] != "0"][:_MOST_CLASSES]
    if worst:
        parts += [Text("Worst classes"), _table(text.CLASS_HEADINGS, worst)]
    if cells := text.slice_cells(result)[:_MOST_CLASSES]:
        parts += [Text("Worst slices, of rows of old classes"), _table(text.SLICE_HEADINGS, cells)]
    if cells := text.combination_cells(result):
        parts += [Text("Weak combinations of slices"), _table(text.COMBINATION_HEADINGS, cells)]
    if examples := text.flip_cells(result)[:_MOST_EXAMPLES]:
        parts += [Text(text.flips_title(result, _MOST_EXAMPLES)), _table(text.FLIP_HEADINGS, examples, left=4)]
    parts += [Text(text.interval_note(result)), Text()]
    for check in result["checks"]:
        word = Text(f"{_WORDS[check['verdict']]} ", style=f"bold {_COLOURS[check['verdict']]}")
        parts.append(word + Text(text.said(check, result), style=""))
    return Group(*parts, Text(text.verdict(result), style="bold"))


def page(result: Result) -> str:
    """Return one HTML file that opens offline; the template escapes every text."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    flips = text.flip_cells(result)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=text.title(result),
        notes=text.notes(result),
        verdict=text.verdict(result),
        tone=result["verdict"] or "",
        checks=[(check["verdict"], _WORDS[check["verdict"]], text.said(check, result)) for check in result["checks"]],
        rates=(text.rate_headings(result), text.rate_cells(result)),
        interval_note=text.interval_note(result),
        classes=(text.CLASS_HEADINGS, text.class_cells(result)),
        slices=(text.SLICE_HEADINGS, text.slice_cells(result)),
        combinations=(text.COMBINATION_HEADINGS, text.combination_cells(result)),
        flips_title=text.flips_title(result, len(flips)),
        flips=(text.FLIP_HEADINGS, flips),
        inputs=(text.INPUT_HEADINGS, text.input_cells(result)),
        record=text.record(result),
        meanings=text.MEANINGS,
    )


def junit(result: Result, seconds: float) -> str:
    """Return a JUnit file with a test case per limit; an undecided one that is allowed passes with a note."""
    checks = result["checks"]
    counts = {"tests": len(checks) or 1, "failures": sum(not c["passed"] for c in checks), "errors": 0}
    counts |= {"skipped": int(not checks)}
    values = {"name": "mpt_jax.compare", "time": f"{seconds:.3f}"} | {key: str(n) for key, n in counts.items()}
    root = ElementTree.Element("testsuites", values)
    suite = ElementTree.SubElement(root, "testsuite", values)
    for check in checks:
        name = check["limit"] if check["allowed"] is None else f"{check['limit']} {check['allowed']:g}"
        case = ElementTree.SubElement(suite, "testcase", classname="mpt_jax.compare", name=name, time="0")
        if not check["passed"]:
            failure = ElementTree.SubElement(case, "failure", type=check["verdict"], message=text.said(check, result))
            failure.text = text.failure(result)
        elif check["verdict"] == UNDECIDED:
            ElementTree.SubElement(case, "system-out").text = f"undecided: {text.said(check, result)}"
    if not checks:
        case = ElementTree.SubElement(suite, "testcase", classname="mpt_jax.compare", name="no limit", time="0")
        ElementTree.SubElement(case, "skipped", message=text.verdict(result))
    ElementTree.SubElement(suite, "system-out").text = "\n".join([text.title(result), *text.notes(result)])
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def junit_error(reason: str, seconds: float) -> str:
    """Return a JUnit file for a comparison that was not possible."""
    values = {"name": "mpt_jax.compare", "time": f"{seconds:.3f}", "tests": "1", "failures": "0", "errors": "1"}
    root = ElementTree.Element("testsuites", values)
    suite = ElementTree.SubElement(root, "testsuite", values)
    case = ElementTree.SubElement(suite, "testcase", classname="mpt_jax.compare", name="input", time="0")
    ElementTree.SubElement(case, "error", message=text.printable(reason))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def error_page(reason: str) -> str:
    """Return one HTML file that says why there is no comparison."""
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Release gate</title></head>\n<body>\n'
        "<h1>Release gate</h1>\n<p><b>ERROR: nothing was compared.</b></p>\n"
        f"<p>{html.escape(text.printable(reason))}</p>\n</body>\n</html>\n"
    )


def _table(headings: Iterable[str], rows: Iterable[Sequence[str]], left: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for i, heading in enumerate(headings):
        # On a narrow terminal names and counts wrap first, so that a rate and its interval stay on one line.
        table.add_column(
            Text(heading), justify="left" if i < left else "right", overflow="fold", no_wrap=i >= max(left, 4)
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table
