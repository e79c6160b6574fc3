"""The report as a markdown page."""

import re
from collections.abc import Sequence

from mpt_jax.report import contents
from mpt_jax.report.contents import Section
from mpt_jax.report.plots import printable

_ROWS = 60  # of a table; the page has the rest


def render(sections: Sequence[Section]) -> str:
    """`report.md`: every section, with its plots as files beside it."""
    parts = ["# Negative flips of an update"]
    for section in sections:
        parts += [f"## {section.title}"] if section.title else []
        parts += [part for block in section.blocks for part in _block(block)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that markdown takes as it is, also within a cell of a table.

    Examples:
      >>> escape("a|b <i> _c_ d_e")
      'a\\\\|b \\\\<i\\\\> \\\\_c\\\\_ d_e'
    """
    text = re.sub(r"([\\`*|<>\[\]&~$])", r"\\\1", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)  # one between letters is no emphasis
    return re.sub(r"^([#+-]) ", r"\\\1 ", text)


def _block(block: object) -> list[str]:
    match block:
        case contents.Text(text, tone):
            return [f"**{text}**" if tone else text]
        case contents.Points(texts):
            return ["\n".join(f"- {text}" for text in texts)]
        case contents.Table(headings, rows, left):
            more = [f"{len(rows) - _ROWS} more rows are in `report.html`."] if len(rows) > _ROWS else []
            return [_table(headings, rows[:_ROWS], left), *more]
        case contents.Plot(name, alt, caption):
            return [f"![{escape(alt)}](plots/{name}.png)", *([caption] if caption else [])]
        case contents.Gallery(method, images):
            return [f"![{len(images)} flipped images of {method}](plots/gallery.png)"]
        case contents.Command(text):
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            return [f"{fence}bash\n{text}\n{fence}"]
        case contents.Folded(title, blocks):
            # Of the galleries only the first is a picture.
            parts = [p for inner in blocks if not isinstance(inner, contents.Gallery) for p in _block(inner)]
            return [f"### {title}", *parts] if parts else []
    raise TypeError(f"{type(block).__name__} is no block of a report")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    align = ["---"] * left + ["---:"] * (len(headings) - left)
    lines = [map(escape, headings), align, *(map(escape, map(printable, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
