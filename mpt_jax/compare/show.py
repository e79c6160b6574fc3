"""The result of `compare` on a terminal, as one page of HTML, and as JUnit for CI."""

import html
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mpt_jax.compare import report, text
from mpt_jax.compare.evidence import PASS, REGRESSION, UNDECIDED
from mpt_jax.compare.report import Report
from mpt_jax.compare.text import Result
from mpt_jax.errors import printable, printable_lines

_TEMPLATE = pathlib.Path(__file__).with_name("page.html")
_WORDS = {PASS: "PASS", REGRESSION: "FAIL", UNDECIDED: "UNDECIDED"}
_COLOURS = {PASS: "green", REGRESSION: "red", UNDECIDED: "yellow"}
_MOST_CLASSES, _MOST_EXAMPLES = 10, 10  # on the terminal


def terminal(result: Result) -> Group:
    """Return rates, worst classes, some flipped examples and checks; ids and names are not parsed as markup."""
    if "kind" in result:
        return _short(report.of(result))
    parts: list[RenderableType] = [
        _line(text.title(result)),
        *map(_line, text.notes(result)),
        _table(text.rate_headings(result), text.rate_cells(result)),
    ]
    worst = [row for row in text.class_cells(result) if row[2] != "0"][:_MOST_CLASSES]
    if worst:
        parts += [Text("Worst classes"), _table(text.CLASS_HEADINGS, worst)]
    if cells := text.split_cells(result)[:_MOST_CLASSES]:
        parts += [Text("Split classes"), _table(text.SPLIT_HEADINGS, cells, left=2)]
    if cells := text.slice_cells(result)[:_MOST_CLASSES]:
        parts += [Text("Worst slices, of rows of old classes"), _table(text.SLICE_HEADINGS, cells)]
    if cells := text.combination_cells(result):
        parts += [Text("Weak combinations of slices"), _table(text.COMBINATION_HEADINGS, cells)]
    if examples := text.flip_cells(result)[:_MOST_EXAMPLES]:
        parts += [_line(text.flips_title(result, _MOST_EXAMPLES)), _table(text.FLIP_HEADINGS, examples, left=4)]
    if examples := text.correction_cells(result)[:_MOST_EXAMPLES]:
        parts += [Text("Flips that corrected labels explain or reveal")]
        parts += [_table(text.CORRECTION_HEADINGS, examples, left=6)]
    parts += [_line(text.interval_note(result)), Text()]
    for check in result["checks"]:
        parts.append(_checked(check["verdict"], text.said(check, result)))
    return Group(*parts, _line(text.verdict(result), style="bold"))


def _short(shown: Report) -> Group:
    """Return a report with the first rows of its tables."""
    parts: list[RenderableType] = [_line(shown.title), *map(_line, shown.notes)]
    for each in shown.tables:
        if rows := each.rows[: each.most]:
            of_all = f", {len(rows):,} of {len(each.rows):,} rows" if len(rows) < len(each.rows) else ""
            parts += [_line(f"{each.title}{of_all}"), _table(each.headings, rows, left=each.left)]
    parts += [_line(shown.interval_note), Text(), *(_checked(line.verdict, line.sentence) for line in shown.lines)]
    return Group(*parts, _line(shown.verdict, style="bold"))


def _checked(verdict: str, sentence: str) -> Text:
    return Text(f"{_WORDS[verdict]} ", style=f"bold {_COLOURS[verdict]}") + _line(sentence)


def _line(words: str, style: str = "") -> Text:
    return Text(printable(words), style=style)


def page(result: Result) -> str:
    """Return one HTML file that opens offline; the template escapes every text."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.finalize = lambda value: printable_lines(value) if type(value) is str else value  # not of markup
    shown = report.of(result)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=shown.title,
        notes=shown.notes,
        verdict=shown.verdict,
        tone=shown.tone,
        checks=[(line.verdict, _WORDS[line.verdict], line.sentence) for line in shown.lines],
        tables=shown.tables,
        interval_note=shown.interval_note,
        inputs=(text.INPUT_HEADINGS, text.input_cells(result)),
        record=text.record(result),
        meanings=shown.meanings,
    )


def junit(result: Result, seconds: float) -> str:
    """Return a JUnit file with a test case per limit; an undecided one that is allowed passes with a note."""
    shown = report.of(result)
    lines = shown.lines
    counts = {"tests": len(lines) or 1, "failures": sum(not line.passed for line in lines), "errors": 0}
    counts |= {"skipped": int(not lines)}
    values = {"name": "mpt_jax.compare", "time": f"{seconds:.3f}"} | {key: str(n) for key, n in counts.items()}
    root = ElementTree.Element("testsuites", values)
    suite = ElementTree.SubElement(root, "testsuite", values)
    for line in lines:
        case = ElementTree.SubElement(suite, "testcase", classname="mpt_jax.compare", name=line.name, time="0")
        if not line.passed:
            failure = ElementTree.SubElement(case, "failure", type=line.verdict, message=line.sentence)
            failure.text = line.details
        elif line.verdict == UNDECIDED:
            ElementTree.SubElement(case, "system-out").text = f"undecided: {line.sentence}"
    if not lines:
        case = ElementTree.SubElement(suite, "testcase", classname="mpt_jax.compare", name="no limit", time="0")
        ElementTree.SubElement(case, "skipped", message=shown.verdict)
    ElementTree.SubElement(suite, "system-out").text = "\n".join([shown.title, *shown.notes])
    return _xml(root)


def junit_error(reason: str, seconds: float) -> str:
    """Return a JUnit file for a comparison that was not possible."""
    values = {"name": "mpt_jax.compare", "time": f"{seconds:.3f}", "tests": "1", "failures": "0", "errors": "1"}
    root = ElementTree.Element("testsuites", values)
    suite = ElementTree.SubElement(root, "testsuite", values)
    case = ElementTree.SubElement(suite, "testcase", classname="mpt_jax.compare", name="input", time="0")
    ElementTree.SubElement(case, "error", message=printable(reason))
    return _xml(root)


def _xml(root: ElementTree.Element) -> str:
    """Return the file. XML has no way to write a control character, so names show theirs escaped."""
    for element in root.iter():
        element.text = element.text and printable_lines(element.text)
        element.attrib.update({key: printable_lines(value) for key, value in element.attrib.items()})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def error_page(reason: str) -> str:
    """Return one HTML file that says why there is no comparison."""
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Release gate</title></head>\n<body>\n'
        "<h1>Release gate</h1>\n<p><b>ERROR: nothing was compared.</b></p>\n"
        f"<p>{html.escape(printable(reason))}</p>\n</body>\n</html>\n"
    )


def _table(headings: Iterable[str], rows: Iterable[Sequence[str]], left: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for i, heading in enumerate(headings):
        # On a narrow terminal names and counts wrap first, so that a rate and its interval stay on one line.
        table.add_column(
            Text(heading), justify="left" if i < left else "right", overflow="fold", no_wrap=i >= max(left, 4)
        )
    for row in rows:
        table.add_row(*map(_line, row))
    return table
