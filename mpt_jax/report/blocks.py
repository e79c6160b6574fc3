"""The building blocks of a report, as data that `markdown` and `page` render, and numbers as text.

Texts are this project's own, with `code` in backticks. Names from a data set or a command line (of classes, files and
data sets) appear only in cells, captions and commands, where both renderers escape them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `tone` is "good", "open" or "bad" for the headline of the report."""

    text: str
    tone: str = ""


@dataclasses.dataclass(frozen=True)
class Points:
    """A list of sentences."""

    texts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of plain text; the first `left` columns are words, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    meanings: Mapping[str, str] = dataclasses.field(default_factory=dict)  # heading -> explanation


@dataclasses.dataclass(frozen=True)
class Plot:
    """A picture by name, its description, and a caption that explains how to read it."""

    name: str
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Flipped images of a method: id, class, new prediction, both confidences.

    `drawn` says whether the plots have a picture of them; features have none.
    """

    method: str
    images: Sequence[Mapping[str, Any]]
    classes: Sequence[str]
    drawn: bool = False


@dataclasses.dataclass(frozen=True)
class Command:
    """A line for a shell."""

    text: str


@dataclasses.dataclass(frozen=True)
class Folded:
    """Details for some readers: collapsed on the page, under a heading in markdown."""

    title: str
    blocks: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and the blocks below it."""

    title: str
    blocks: Sequence[Any]


def percent(value: float | None) -> str:
    """Return a fraction in percent, with two digits.

    Examples:
      >>> percent(0.12345), percent(None)
      ('12.35', '-')
    """
    return "-" if value is None else f"{100 * value:.2f}"


def interval(ends: Sequence[float] | None, sign: str = "") -> str:
    """Return an interval in percent behind a space, or nothing.

    Examples:
      >>> interval([0.1, 0.2]), interval([-0.1, 0.2], sign="+"), interval(None)
      (' [10.00, 20.00]', ' [-10.00, +20.00]', '')
    """
    return f" [{100 * ends[0]:{sign}.2f}, {100 * ends[1]:{sign}.2f}]" if ends else ""


def points(difference: float) -> str:
    """Return a difference of rates in percentage points.

    Examples:
      >>> points(0.01), points(0.005)
      ('1 percentage point', '0.5 percentage points')
    """
    return f"{100 * difference:g} percentage point{'s' * (difference != 0.01)}"
