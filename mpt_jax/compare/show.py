"""The result of `compare` for people and for CI: terminal, one page of HTML, JUnit."""

import html
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

Result = dict[str, Any]

WORST, EXAMPLES = 10, 10  # on the terminal
ROWS = (
    ("accuracy_old", "accuracy, old model"),
    ("accuracy_new", "accuracy, new model"),
    ("nfr", "negative flips (NFR)"),
    ("relative_nfr", "relative NFR"),
    ("pfr", "positive flips (PFR)"),
    ("churn", "answers changed"),
)
MEANINGS = (
    ("negative flip", "an example that the old model has right and the new one wrong"),
    ("NFR", "negative flips as a share of the rows; the headline is that of the old classes' rows, the left column"),
    ("relative NFR", "NFR over that of two models whose errors are unrelated: below 1 is better than chance"),
    ("positive flip", "an example that the old model has wrong and the new one right"),
    ("McNemar's test", "exact, two-sided: how likely models of equal accuracy are to differ by as much or more"),
)
KNOWN_FROM = {
    "answers": "every class that it ever answers",
    "old_classes": "as given",
    "class_names or scores": "by the classes in its file",
}


def terminal(result: Result) -> Group:
    """Numbers, worst classes, a few flipped examples, limits; nothing in an id or a name is taken as markup."""
    parts = [Text(title(result)), _table(["", *_headings(result)], _numbers(result))]
    worst = [row for row in _class_cells(result) if row[2] != "0"][:WORST]
    if worst:
        parts += [Text("Worst classes"), _table(CLASS_HEADINGS, worst)]
    if examples := _flip_cells(result)[:EXAMPLES]:
        parts += [Text(_flips_title(result, EXAMPLES)), _table(FLIP_HEADINGS, examples, left=4)]
    parts += [Text(f"In brackets: {result['interval']} ({100 * result['confidence']:g} %)."), Text()]
    for check in result["checks"]:
        word = Text("PASS " if check["passed"] else "FAIL ", style="bold green" if check["passed"] else "bold red")
        parts.append(word + Text(sentence(check, result), style=""))
    return Group(*parts, Text(verdict(result), style="bold"))


def title(result: Result) -> str:
    """What is compared, in one line."""
    classes, rows = result["classes"], result["all_rows"]["count"]
    known = f"the old model knows {len(classes['old']):,} ({KNOWN_FROM[classes['known_from']]})"
    return f"{clean(result['old'])} -> {clean(result['new'])}: {rows:,} rows, {classes['count']:,} classes, {known}"


def verdict(result: Result) -> str:
    """Pass, regression, or that nothing was asked."""
    broken = sum(not check["passed"] for check in result["checks"])
    if not result["checks"]:
        return "no limit given: nothing to pass or fail"
    return f"REGRESSION: {broken} of {len(result['checks'])} limits broken" if broken else "PASS: within all limits"


def sentence(check: dict[str, Any], result: Result) -> str:
    """A limit, what was found and what is allowed."""
    broken = "holds" if check["passed"] else "is broken"
    least = "at least" if check["limit"].startswith("min_") else "at most"
    bound = " for the interval's worse end" if result["confident"] else ""
    if check["held"] is None:
        bound += ", of which there is none"
    number, scale, unit = (_ratio, 1, "") if check["limit"] == "max_relative_nfr" else (_percent, 100, " %")
    found = number(check["value"], check["interval"], digits=_telling_apart(check, scale))
    allowed = f"{scale * check['allowed']:.12g}{unit}"
    return f"{check['limit']} {broken}: {found} on {clean(check['where'])}, allowed is {least} {allowed}{bound}"


def _telling_apart(check: dict[str, Any], scale: float) -> Callable[[float], str]:
    """Numbers in as many digits as show that the one held to the limit is beyond it, or is not."""
    held, limit, least = check["held"], round(scale * check["allowed"], 12), check["limit"].startswith("min_")
    ways = [_digits, *(partial(_significant, count) for count in range(3, 17))]
    for way in ways if held is not None else []:
        shown = float(way(scale * held))
        if check["passed"] == (shown >= limit if least else shown <= limit):
            return way
    return _digits


def failure(result: Result) -> str:
    """What a failed test says."""
    lines = [sentence(check, result) for check in result["checks"] if not check["passed"]]
    count, examples = result["flips"]["count"], result["flips"]["examples"][:5]
    if examples:
        named = "; ".join(
            f"id {clean(e['id'])!r} (label {clean(e['label'])!r}, old {clean(e['old'])!r}, new {clean(e['new'])!r})"
            for e in examples
        )
        lines.append(f"{count:,} negative {'flip' if count == 1 else 'flips'}, such as {named}")
    return "\n".join(lines)


def junit(result: Result, seconds: float) -> str:
    """A test case per limit, as CI systems read it."""
    checks = result["checks"]
    counts = {"tests": len(checks) or 1, "failures": sum(not c["passed"] for c in checks), "errors": 0}
    counts |= {"skipped": int(not checks)}
    values = {"name": "mpt_jax.compare", "time": f"{seconds:.3f}"} | {key: str(n) for key, n in counts.items()}
    root = ElementTree.Element("testsuites", values)
    suite = ElementTree.SubElement(root, "testsuite", values)
    for check in checks:
        name = f"{check['limit']} {check['allowed']:g}"
        case = ElementTree.SubElement(suite, "testcase", classname="mpt_jax.compare", name=name, time="0")
        if not check["passed"]:
            ElementTree.SubElement(case, "failure", message=sentence(check, result)).text = failure(result)
    if not checks:
        case = ElementTree.SubElement(suite, "testcase", classname="mpt_jax.compare", name="no limit", time="0")
        ElementTree.SubElement(case, "skipped", message=verdict(result))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def page(result: Result) -> str:
    """One file of HTML that needs nothing else: light and dark, for a phone as well; the same in more rows."""
    passed = "pass" if result["passed"] else "fail"
    limits = [[_mark(check["passed"]), sentence(check, result)] for check in result["checks"]]
    flips = _flip_cells(result)
    body = [
        f'<p class="verdict {passed if result["checks"] else ""}">{_escape(verdict(result))}</p>',
        f"<p>{_escape(title(result))}</p>",
        _html_table(["", "limit"], limits, left=2) if limits else "",
        "<h2>Numbers</h2>",
        _html_table(["", *_headings(result)], _numbers(result)),
        f"<p>In brackets: {_escape(result['interval'])} ({100 * result['confidence']:g} %).</p>",
        f"<h2>Classes</h2>{_html_table(CLASS_HEADINGS, _class_cells(result))}",
        f"<h2>{_escape(_flips_title(result, len(flips)))}</h2>",
        _html_table(FLIP_HEADINGS, flips, left=4) if flips else "",
        "<h2>What the words mean</h2>",
        f"<dl>{''.join(f'<dt>{_escape(word)}</dt><dd>{_escape(text)}</dd>' for word, text in MEANINGS)}</dl>",
    ]
    return PAGE.format(style=STYLE, body="\n".join(part for part in body if part))


def clean(text: str) -> str:
    """The text with what cannot be printed (control characters, changes of direction) written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


CLASS_HEADINGS = ("class", "rows", "negative", "positive", "NFR", "old", "new")
FLIP_HEADINGS = ("id", "label", "old", "new")


def _headings(result: Result) -> list[str]:
    return [
        f"old classes' rows ({result['old_classes_rows']['count']:,})",
        f"all rows ({result['all_rows']['count']:,})",
    ]


def _numbers(result: Result) -> list[list[str]]:
    parts = [result["old_classes_rows"], result["all_rows"]]
    rows = []
    for key, name in ROWS:
        number = _ratio if key == "relative_nfr" else _percent
        rows.append([name, *(number(part[key], part["intervals"][key]) for part in parts)])
    counts = [f"{part['negative_flips']:,} / {part['positive_flips']:,}" for part in parts]
    p_values = [f"{part['mcnemar_p']:.2g}" if part["mcnemar_p"] else "< 1e-300" for part in parts]
    return [*rows, ["flips, negative / positive", *counts], ["McNemar's test, p", *p_values]]


def _class_cells(result: Result) -> list[list[str]]:
    return [
        [
            clean(row["class"]) + ("" if row["known"] else " (new)"),
            *(f"{row[key]:,}" for key in ("count", "negative_flips", "positive_flips")),
            _percent(row["nfr"], row["interval"]),
            *(_percent(row[key]) for key in ("accuracy_old", "accuracy_new")),
        ]
        for row in result["per_class"]
    ]


def _flip_cells(result: Result) -> list[list[str]]:
    return [[clean(example[key]) for key in FLIP_HEADINGS] for example in result["flips"]["examples"]]


def _flips_title(result: Result, most: int) -> str:
    count = result["flips"]["count"]
    shown = min(most, len(result["flips"]["examples"]))
    return f"Flipped examples ({f'{shown:,} of ' if shown < count else ''}{count:,})"


def _digits(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.2g}"


def _significant(count: int, value: float) -> str:
    return f"{value:.{count}g}"


def _percent(value: float, interval: Sequence[float] | None = None, digits: Callable[[float], str] = _digits) -> str:
    ends = f" [{', '.join(digits(100 * end) for end in interval)}]" if interval else ""
    return f"{digits(100 * value)} %{ends}"


def _ratio(value: float, interval: Sequence[float] | None = None, digits: Callable[[float], str] = _digits) -> str:
    ends = f" [{', '.join(map(digits, interval))}]" if interval else ""
    return f"{digits(value)}{ends}"


def _table(headings: Iterable[str], rows: Iterable[Sequence[str]], left: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for i, heading in enumerate(headings):
        justify = "left" if i < left else "right"
        # on a narrow terminal names and counts break before a rate is torn from its interval
        table.add_column(Text(heading), justify=justify, overflow="fold", no_wrap=i >= max(left, 4))
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _html_table(headings: Iterable[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    def line(tag: str, cells: Iterable[str]) -> str:
        sides = ("l" if i < left else "r" for i in range(100))
        return (
            "<tr>"
            + "".join(f'<{tag} class="{s}">{_escape(c)}</{tag}>' for c, s in zip(cells, sides, strict=False))
            + "</tr>"
        )

    body = "\n".join(line("td", row) for row in rows)
    return f'<div class="wide"><table><thead>{line("th", headings)}</thead><tbody>\n{body}\n</tbody></table></div>'


def _escape(text: str) -> str:
    return html.escape(text)


def _mark(passed: bool) -> str:
    return "✓" if passed else "✗"


STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --page: #fff; --line: #ddd; --pass: #0a6b2d; --fail: #b3150d }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --page: #161616; --line: #3a3a3a; --pass: #4cc276; --fail: #ff7a70 }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 1rem auto;
  max-width: 60rem; padding: 0 1rem; overflow-wrap: anywhere }
.verdict { font-size: 1.4rem; font-weight: 700; margin: .5rem 0 }
.pass { color: var(--pass) }
.fail { color: var(--fail) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: normal }
.l { text-align: left }
.r { text-align: right; white-space: nowrap }
dt { font-weight: 600 }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Release gate</title>
<style>{style}</style>
</head>
<body>
<h1>Release gate</h1>
{body}
</body>
</html>
"""
