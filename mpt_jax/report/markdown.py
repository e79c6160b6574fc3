"""The report as a markdown page."""

import re
from collections.abc import Sequence

from mpt_jax.errors import printable, printable_lines
from mpt_jax.report import blocks
from mpt_jax.report.blocks import Section

_MOST_ROWS = 60  # of a table; the HTML page has the rest


def render(sections: Sequence[Section]) -> str:
    """Return `report.md`: every section, with plots as files next to it."""
    parts = ["# Negative flips of an update"]
    for section in sections:
        parts += [f"## {section.title}"] if section.title else []
        parts += [part for block in section.blocks for part in _block(block)]
    return printable_lines("\n\n".join(parts)) + "\n"


def escape(text: str) -> str:
    """Escape text so that markdown shows it unchanged, also within a cell of a table.

    Examples:
      >>> escape("a|b <i> _c_ d_e")
      'a\\\\|b \\\\<i\\\\> \\\\_c\\\\_ d_e'
    """
    text = re.sub(r"([\\`*|<>\[\]&~$])", r"\\\1", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)  # between letters it is no emphasis
    return re.sub(r"^([#+-]) ", r"\\\1 ", text)


def _block(block: object) -> list[str]:
    match block:
        case blocks.Text(text, tone):
            return [f"**{text}**" if tone else text]
        case blocks.Points(texts):
            return ["\n".join(f"- {text}" for text in texts)]
        case blocks.Table(headings, rows, left):
            more = [f"{len(rows) - _MOST_ROWS} more rows are in `report.html`."] if len(rows) > _MOST_ROWS else []
            return [_table(headings, rows[:_MOST_ROWS], left), *more]
        case blocks.Plot(name, alt, caption):
            return [f"![{escape(alt)}](plots/{name}.png)", *([caption] if caption else [])]
        case blocks.Gallery(method, images, drawn=True):
            return [f"![{len(images)} flipped images of {method}](plots/gallery.png)"]
        case blocks.Gallery(_, images, classes):
            rows = [[image["id"], classes[image["label"]], classes[image["answer"]]] for image in images]
            return [_table(["test image", "old prediction", "new prediction"], rows, 3)]
        case blocks.Command(text):
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            return [f"{fence}bash\n{text}\n{fence}"]
        case blocks.Folded(title, inner):
            # Only the first gallery is a picture.
            parts = [part for one in inner if not isinstance(one, blocks.Gallery) for part in _block(one)]
            return [f"### {title}", *parts] if parts else []
    raise TypeError(f"{type(block).__name__} is not a block of a report")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    align = ["---"] * left + ["---:"] * (len(headings) - left)
    lines = [map(escape, headings), align, *(map(escape, map(printable, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
