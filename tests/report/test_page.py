"""The HTML page opens offline, and hostile names do nothing."""

import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image
from workdirs import HOSTILE, make_workdir_with_predictions

from mpt_jax import report
from mpt_jax.report import page
from mpt_jax.update import workdir


class Reader(html.parser.HTMLParser):
    """Collects tags and texts; fails if tags do not nest."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)


def test_the_page_loads_nothing_and_escapes_hostile_names(written):
    text = (written[0] / "report.html").read_text()
    found = Reader(text)
    tags = [tag for tag, _ in found.tags]
    assert tags.count("script") == 1 and "b" in tags and "iframe" not in tags
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes[name][:80])
    assert sum(tag == "img" for tag in tags) > 6
    outside = re.sub(r'"data:[^"]*"', '""', text)
    assert "@import" not in outside and "url(" not in outside and "49" not in outside.split("heading")[1][:12]
    shown = "".join(found.texts)
    assert HOSTILE[0] in shown and "\\n# heading\\u202e{{ 7*7 }}" in shown and "\u202e" not in text


def test_every_flip_of_the_gallery_is_shown_with_both_predictions(written):
    folder, result = written
    best = result["comparison"]["best"]
    assert best == "mpt_kl"
    text = (folder / "report.html").read_text()
    gallery = text.split('<ul class="gallery">')[1].split("</ul>")[0]
    images = result["flips"][best]["images"]
    assert images and gallery.count("<li>") == gallery.count("<img") == len(images)
    thumbnails = workdir.read_gallery(folder)
    for image, uri in zip(images, re.findall(r'src="data:image/png;base64,([^"]*)"', gallery), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))))
        np.testing.assert_array_equal(pixels, thumbnails[image["id"]].squeeze(-1))
        assert f"{100 * image['confidence_new']:.0f} %" in gallery


def test_columns_are_sorted_by_their_number():
    orders = [page._order(cell) for cell in ("92.0 ± 0.6", "-", "+12 %", "-24 %", "1,281", "diverged", "0.341")]
    assert orders == ["92.0", "", "+12", "-24", "1281", "", "0.341"]


@pytest.mark.parametrize("options", [{"gallery": False}, {"seeds": (3,)}, {"channels": 3}, {"methods": ("pct_kl",)}])
def test_tags_nest_whatever_a_run_lacks(options, tmp_path):
    report.write(make_workdir_with_predictions(tmp_path / "run", **options))
    Reader((tmp_path / "run/report.html").read_text())
