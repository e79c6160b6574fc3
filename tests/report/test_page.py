"""The pages of a run whose names are out to break them."""

import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from workdirs import make_workdir

from mpt_jax import report
from mpt_jax.files import sealed, storage
from mpt_jax.files.predictions import released
from mpt_jax.report import markdown, page
from mpt_jax.update import workdir

HOSTILE = [
    '<script>alert("x")</script>',
    "a|b`c` $x_{ [l](http://evil.test) ![i](http://evil.test/i.png)",
    "'\"><img src=http://evil.test/x onerror=alert(1)>\n# heading\u202e{{ 7*7 }} " + "long" * 20,
]
LABELS = np.repeat([0, 1, 2], 20)
IDS = np.array([f"{i} <b>&{'|`$' if i % 2 else ''}.png" for i in range(60)])


def make_run(folder, *, classes=HOSTILE, seeds=(0, 7, 8), gallery=True, channels=1, **options):
    """A finished run with predictions and thumbnails; `mpt_kl` flips half as many images as the others."""
    make_workdir(folder, seeds=seeds, **options)
    rng = np.random.default_rng(0)
    (folder / "predictions").mkdir()
    for path in (folder / "releases").iterdir():
        card = json.loads((path / "card.json").read_text()) | {"classes": list(classes)}
        storage.write_text(path / "card.json", json.dumps(sealed.sealed(card)))
        known = 2 if card["release"] == 0 else 3
        logits = rng.normal(size=(60, known)).astype(np.float32)
        wrong = rng.random(60) < {"old": 0.05, "mpt_kl": 0.2}.get(card["method"], 0.4)
        logits[np.arange(60), np.where(wrong, (LABELS + 1) % known, np.minimum(LABELS, known - 1))] += 6
        released.write(folder / f"predictions/{path.name}.npz", labels=LABELS, logits=logits, ids=IDS)
    if gallery:
        images = rng.integers(0, 256, (60, 8, 8, channels), np.uint8)
        workdir.write_gallery(folder, images=images, ids=IDS)
    return folder


class Reader(html.parser.HTMLParser):
    """Collects tags, and checks that they are closed in order."""

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


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a reported run, and its report."""
    folder = make_run(tmp_path_factory.mktemp("run"))
    return folder, report.write(folder)


def test_the_page_needs_nothing_but_itself_and_names_do_nothing(written):
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


def test_sections_come_in_the_order_of_the_questions(written):
    questions = ["May I ship it?", "What did it cost?", "Where are the flips?", "Why?", "How was it made?"]
    for name, pattern in (("report.html", r"<h2>(.*?)</h2>"), ("report.md", r"(?m)^## (.*)$")):
        assert re.findall(pattern, (written[0] / name).read_text()) == questions


def test_every_flip_of_the_gallery_is_shown_with_both_answers(written):
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


def test_plots_are_drawn_and_written_alike_twice(written, tmp_path):
    folder, _ = written
    text = (folder / "report.md").read_text()
    linked = re.findall(r"(?m)^!\[.*\]\(plots/(\w+\.png)\)$", text)
    files = {path.name: path.read_bytes() for path in (folder / "plots").iterdir()}
    assert set(linked) == set(files) and len(linked) == len(files)
    assert {"tradeoff.png", "classes.png", "confusion.png", "margins.png", "gallery.png"} <= set(files)
    for name, content in files.items():
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        assert (pixels < 128).mean() > 0.002, f"{name} is blank"
        assert (pixels[[0, -1]] > 250).mean() > 0.5  # nothing is cut off along whole edges
    before = {name: (folder / name).read_bytes() for name in ("report.html", "report.md", "report.json")}
    report.write(folder)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert {path.name: path.read_bytes() for path in (folder / "plots").iterdir()} == files


def test_markdown_takes_names_as_they_are(written):
    text = (written[0] / "report.md").read_text()
    assert "\\<script\\>" in text and not re.search(r"(?<!\\)(<|\]\(http)", text)
    assert not re.search(r"(?m)^# heading", text)
    for line in text.splitlines():
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert line.endswith("|") and cells > 2
    tables = re.findall(r"(?m)(?:^\|.*\n)+", text)
    assert all(len({len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}) == 1 for rows in tables)


@pytest.mark.parametrize("options", [{"gallery": False}, {"seeds": (3,)}, {"channels": 3}, {"methods": ("pct_kl",)}])
def test_a_report_does_with_less(options, tmp_path):
    folder = make_run(tmp_path / "run", **options)
    result = report.write(folder)
    page = (folder / "report.html").read_text()
    Reader(page)
    assert (folder / "plots/gallery.png").exists() == options.get("gallery", True)
    images = next(iter(result["flips"].values()))["images"]
    assert images and images[0]["id"].split()[0] in page  # without thumbnails they are listed all the same
    if "seeds" in options:
        assert result["comparison"]["interval_over"] == "images" and "only three seeds" in page


def test_without_predictions_there_is_no_where_and_no_why(tmp_path):
    result = report.write(make_workdir(tmp_path))
    assert result["flips"] == {}
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "Where are the flips?" not in text and "Why?" not in text and "May I ship it?" in text
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == {"tradeoff", "fronts"}


def test_columns_are_sorted_by_their_number():
    orders = [page._order(cell) for cell in ("92.0 ± 0.6", "-", "+12 %", "-24 %", "1,281", "diverged", "0.341")]
    assert orders == ["92.0", "", "+12", "-24", "1281", "", "0.341"]


def test_escaped_text_has_no_markup_left():
    assert markdown.escape("*a* `b` ~c~ <d> [e] &amp; $f$") == r"\*a\* \`b\` \~c\~ \<d\> \[e\] \&amp; \$f\$"
