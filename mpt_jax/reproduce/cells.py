"""Cells and tables in Markdown: the statistics of `summary` as text, with spaces at which no line is broken."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a Markdown table: the first column to the left, the others to the right.

    Examples:
      >>> print(table(["method", "flips"], [["`mpt_kl`", "1.3"]]))
      | method | flips |
      |---|---:|
      | `mpt_kl` | 1.3 |
    """
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, *rows)]
    lines.insert(1, "|---|" + "---:|" * (len(headings) - 1))
    return "\n".join(lines)


def spread(found: Mapping[str, Any] | None) -> str:
    """Render a mean in % and its standard deviation over several seeds.

    Examples:
      >>> spread({"mean": 0.922, "std": 0.008}), spread({"mean": 0.429, "std": 0.0}), spread(None)
      ('92.2\\xa0±\\xa00.8', '42.9', '-')
    """
    if found is None:
        return "-"
    return solid(f"{100 * found['mean']:.1f}" + (f" ± {100 * found['std']:.1f}" if found["std"] else ""))


def difference(found: Mapping[str, Any] | None) -> str:
    """Render a difference in points, with its interval if it has one.

    Examples:
      >>> difference({"mean": -0.031, "interval": [-0.036, -0.026]}), difference({"mean": 0.017})
      ('-3.1\\xa0[-3.6,\\xa0-2.6]', '+1.7')
    """
    if found is None:
        return "-"
    ends = found.get("interval")
    return solid(f"{100 * found['mean']:+.1f}" + (f" [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]" if ends else ""))


def change(found: Mapping[str, Any] | None) -> str:
    """Render a relative change in %.

    Examples:
      >>> change({"change": -0.57, "p": 0.2}), change({"change": None})
      ('-57\\xa0%', '-')
    """
    value = (found or {}).get("change")
    return "-" if value is None else solid(f"{100 * value:+.0f} %")


def tested_change(found: Mapping[str, Any] | None) -> str:
    """Render a relative change in %, bold if its p is below 0.05.

    Examples:
      >>> tested_change({"change": -0.57, "p": 0.01}), tested_change({"change": 0.03, "p": 0.2}), tested_change(None)
      ('**-57\\xa0%**', '+3\\xa0%', '-')
    """
    return f"**{change(found)}**" if (found or {}).get("p", 1.0) < 0.05 else change(found)


def estimated_change(found: Mapping[str, Any] | None) -> str:
    """Render a relative change in %, with its interval if it has one.

    Examples:
      >>> estimated_change({"change": -0.57, "interval_of_change": [-0.65, -0.48]}), estimated_change({"change": 0.17})
      ('-57\\xa0%\\xa0[-65,\\xa0-48]', '+17\\xa0%')
    """
    ends = (found or {}).get("interval_of_change")
    return change(found) + (solid(f" [{100 * ends[0]:+.0f}, {100 * ends[1]:+.0f}]") if ends else "")


def p(found: Mapping[str, Any] | None) -> str:
    """Render a p-value.

    Examples:
      >>> p({"p": 0.0004}), p({"p": 0.0123}), p({})
      ('<\\xa00.001', '0.012', '-')
    """
    if found is None or "p" not in found:
        return "-"
    return solid("< 0.001") if found["p"] < 0.001 else f"{found['p']:.3f}"


def solid(text: str) -> str:
    """Replace spaces by ones at which no line is broken."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")
