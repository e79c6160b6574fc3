"""The report as one HTML file that opens offline; its template `page.html` escapes every text."""

import base64
import io
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from mpt_jax.errors import printable, printable_lines
from mpt_jax.report.blocks import Section
from mpt_jax.report.plots import Picture

_TEMPLATE = pathlib.Path(__file__).with_name("page.html")
_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?")


def render(sections: Sequence[Section], pictures: Mapping[str, Picture], thumbnails: Mapping[str, np.ndarray]) -> str:
    """Return `report.html`, for light and dark themes and small screens; a click on a heading sorts its table."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"markup": _markup, "order": _order, "kind": lambda block: type(block).__name__}
    environment.filters |= {"printable": printable}
    environment.finalize = _visible
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        sections=sections,
        pictures={name: _uri("image/svg+xml", picture.svg.encode()) for name, picture in pictures.items()},
        thumbnails={name: _uri("image/png", _png(image)) for name, image in thumbnails.items()},
        small={name: max(image.shape) <= 32 for name, image in thumbnails.items()},
    )


def _visible(value: object) -> object:
    """Escape what is unprintable in a text that the template shows; markup is done already."""
    return printable_lines(value) if type(value) is str else value


def _markup(text: str) -> object:
    """Escape a text of the report and render its `code` and **strong**."""
    import markupsafe

    safe = str(markupsafe.escape(printable_lines(text)))
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return markupsafe.Markup(re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", safe))


def _order(cell: str) -> str:
    """Return the sort key of a cell: its number, or nothing."""
    found = _NUMBER.match(cell)
    return found[0].replace(",", "") if found else ""


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "png")
    return file.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
