"""The result of `compare` as Markdown for a comment on a pull request or a summary of a CI job.

Names of files, classes and examples are foreign text. In tables they are code, which no renderer searches for HTML,
links or mentions. In sentences they are escaped for Markdown, and an invisible word joiner separates what GitHub and
GitLab turn into mentions, references, emoji and links only after rendering.
"""

import re
from collections.abc import Iterable, Sequence

from mpt_jax.compare import report, text
from mpt_jax.compare.evidence import PASS, REGRESSION, UNDECIDED
from mpt_jax.compare.report import Report
from mpt_jax.compare.text import Result
from mpt_jax.errors import printable

_MARKS = {PASS: "✅", REGRESSION: "❌", UNDECIDED: "⚠️", None: "⚪"}
_MOST_CHECKS, _MOST_ROWS = 12, 5
_LONGEST_NAME, _LONGEST_SENTENCE = 60, 500  # a comment on GitHub has at most 65,536 characters
_WORD_JOINER = "\u2060"
_MENTIONS = re.compile(r"""([@#!~%&$^](?=[\w"'(])|:(?=[\w+/-])|www(?=\.)|gh(?=-))""", re.IGNORECASE)


def summary(result: Result) -> str:
    """Return verdict, checks, rates, the worst classes and slices, and flipped examples, in about 40 lines."""
    if "kind" in result:
        return _of_report(report.of(result))
    tables = (
        ("Worst classes", text.CLASS_HEADINGS, _flipped(text.class_cells(result))),
        ("Split classes", text.SPLIT_HEADINGS, text.split_cells(result)),
        ("Worst slices", text.SLICE_HEADINGS, _flipped(text.slice_cells(result))),
        ("Weak combinations of slices", text.COMBINATION_HEADINGS, text.combination_cells(result)),
    )
    parts = [
        [f"### {_MARKS[result['verdict']]} Release gate: {_prose(text.verdict(result))}"],
        [_prose(text.title(result))],
        *([_prose(note)] for note in text.notes(result)),
        _bullets(
            (f"{_MARKS[check['verdict']]} {_prose(text.said(check, result))}" for check in _worst_first(result)),
            _MOST_CHECKS,
            "checks",
        ),
        _table(text.rate_headings(result), text.rate_cells(result)[:6], names=0),
        [_prose(text.interval_note(result))],
    ]
    for title, headings, rows in tables:
        if rows:
            parts += [[f"**{title}**"], _table(headings, rows[:_MOST_ROWS])]
    if examples := text.flip_cells(result)[:_MOST_ROWS]:
        title = text.flips_title(result, _MOST_ROWS)
        parts += [[f"<details><summary>{title}</summary>"], _table(text.FLIP_HEADINGS, examples, names=4)]
        parts += [["</details>"]]
    if examples := text.correction_cells(result)[:_MOST_ROWS]:
        parts += [["**Flips that corrected labels explain or reveal**"]]
        parts += [_table(text.CORRECTION_HEADINGS, examples, names=5)]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _of_report(shown: Report) -> str:
    """Return verdict, checks and the first rows of the tables of a report."""
    lines = sorted(shown.lines, key=lambda line: (REGRESSION, UNDECIDED, PASS).index(line.verdict))
    parts = [
        [f"### {_MARKS[shown.tone or None]} Release gate: {_prose(shown.verdict)}"],
        [_prose(shown.title)],
        *([_prose(note)] for note in shown.notes[:_MOST_CHECKS]),
        _bullets((f"{_MARKS[line.verdict]} {_prose(line.sentence)}" for line in lines), _MOST_CHECKS, "checks"),
        [_prose(shown.interval_note)],
    ]
    for each in shown.tables:
        if rows := each.rows[: min(each.most, 2 * _MOST_ROWS)]:
            parts += [
                [f"**{_prose(each.title)}**"],
                _table(each.headings, rows, names=each.left if each.headings[0] else 0),
            ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def error(reason: str) -> str:
    """Return why there is no comparison."""
    return f"### {_MARKS[REGRESSION]} Release gate: ERROR, nothing was compared\n\n{_prose(reason)}\n"


def _flipped(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    return [row for row in rows if row[2] != "0"]


def _worst_first(result: Result) -> list[Result]:
    return sorted(result["checks"], key=lambda check: (REGRESSION, UNDECIDED, PASS).index(check["verdict"]))


def _bullets(sentences: Iterable[str], most: int, what: str) -> list[str]:
    lines = [f"- {sentence}" for sentence in sentences]
    return lines if len(lines) <= most else [*lines[:most], f"- and {len(lines) - most:,} more {what}"]


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> list[str]:
    """Return a table whose first `names` columns are names; the numbers after them are aligned to the right."""
    left = max(names, 1)
    lines = [
        [_prose(heading.replace("\n", " ")) for heading in headings],
        ["---" if column < left else "---:" for column in range(len(headings))],
        *([_code(cell) if column < names else _prose(cell) for column, cell in enumerate(row)] for row in rows),
    ]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _code(name: str) -> str:
    """Return a name as code; in a table no delimiter and no escape protects a backtick and a pipe everywhere.

    Examples:
      >>> _code("a|b"), _code("@all <b>")
      ('`a\\\\x7cb`', '`@all <b>`')
    """
    shown = printable(name, _LONGEST_NAME).replace("`", r"\x60").replace("|", r"\x7c")
    return f"`{shown}`" if shown.strip() else "(empty)"


def _prose(sentence: str) -> str:
    r"""Return a sentence that Markdown shows as it is.

    Examples:
      >>> _prose("max_nfr: 50.00 %"), _prose("a | b"), _prose("1. x")
      ('max\\_nfr: 50.00 %', 'a \\| b', '1\\. x')
    """
    shown = printable(sentence, _LONGEST_SENTENCE).strip()
    # Later steps of a renderer see the text without its escapes: only another character within a mention stops them.
    shown = _MENTIONS.sub(rf"\1{_WORD_JOINER}", shown)
    shown = re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", shown)
    return re.sub(r"^(\d*)([-+#=]|[.)](?=\s|$))", r"\1\\\2", shown)  # which would begin a list or a heading
