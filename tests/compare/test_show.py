"""Terminal, page and JUnit: names are never parsed as markup, pages are complete, and CI can read the verdict."""

import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from mpt_jax.compare import compare, markdown, show
from mpt_jax.errors import printable

NASTY = "<img src=x onerror=alert(1)>[red]\x1b[31m\u202e\x00&\"'\n"
OLD = {"id": [NASTY, "b", "c"], "label": [NASTY, "b", "d"], "prediction": [NASTY, "b", "b"]}
NEW = OLD | {"prediction": ["b", "b", "d"]}
VOID = {"meta", "br", "img", "link", "input"}


def result(**options):
    return compare(OLD, NEW, **options)


def printed(found, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(show.terminal(found))
    return console.file.getvalue()


class Page(HTMLParser):
    """Tags in the order in which they open, with their attributes; fails if they do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_terminal_shows_numbers_limits_and_examples():
    shown = printed(result(max_nfr=0.1, min_accuracy=0.5), width=200)
    assert "3 rows, 3 classes; the old model knows 2 (those that it predicts)" in shown
    assert "rows of old classes (2)" in shown and "50.00 % [9.45, 90.55]" in shown and "33.33 % [6.15, 79.23]" in shown
    assert re.search(r"McNemar's test, p +1 +1 ", shown)
    assert "UNDECIDED max_nfr: 50.00 % [9.45, 90.55] on 2 rows of old classes exceeds the limit of 10 %" in shown
    assert "; chance may explain that; 107 more rows would decide" in shown
    assert "PASS min_accuracy: 66.67 %" in shown and "reaches the limit of 50 %" in shown
    assert "UNDECIDED, which counts as a REGRESSION: too few rows for 1 of 2 checks" in shown
    assert "95 % confidence intervals (Wilson's score interval" in shown
    assert "No limits given" in printed(result())


@pytest.mark.parametrize("width", [20, 80])
def test_names_are_neither_markup_nor_escapes_on_a_terminal(width):
    console = Console(width=width, force_terminal=True, color_system="truecolor")
    with console.capture() as caught:
        console.print(show.terminal(result(max_nfr=0.1)))
    bare = re.sub(r"\x1b\[[0-9;]*m", "", caught.get())
    assert "\x1b[31m" not in caught.get() and not set("\x1b\u202e\x00") & set(bare)
    if width == 80:
        assert "[red]" in bare and "\\x1b" in bare


NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=3, max_size=3, unique=True)


@settings(max_examples=15)
@given(NAMES, NAMES)
def test_no_name_puts_a_control_character_into_any_output(ids, names):
    classes = [f"{letter}{name}" for letter, name in zip("abc", names, strict=True)]  # not alike, which is refused
    old = {"id": ids, "label": classes, "prediction": classes}
    found = compare(old, old | {"prediction": classes[1:] + classes[:1]}, max_nfr=0.1, max_class_nfr=0.1)
    found |= {"old": classes[0], "new": classes[1]}
    for shown in (printed(found), show.page(found), show.junit(found, 1.0), markdown.summary(found)):
        assert {c for c in shown if not c.isprintable()} <= {"\n", "\u2060"}  # Markdown has word joiners
    ElementTree.fromstring(show.junit(found, 1.0))
    ElementTree.fromstring(show.junit_error(classes[0], 1.0))


def test_the_number_of_examples_shown_is_bounded_and_all_are_counted():
    old = {"id": range(2000), "label": [0, 1] * 1000, "prediction": [0, 1] * 1000}
    found = compare(old, old | {"prediction": [1, 0] * 1000}, examples=1500)
    assert found["flips"]["count"] == 2000 and len(found["flips"]["examples"]) == 1500
    assert "Flipped examples (10 of 2,000)" in printed(found) and printed(found).count("\n") < 60
    assert "(1,500 of 2,000)" in show.page(found)
    assert "Flipped examples" not in printed(compare(old, old))


def test_the_page_is_complete_opens_offline_and_escapes_every_name():
    found = result(max_nfr=0.1, max_relative_nfr=3, max_class_nfr=0.2)
    page = Page(show.page(found))
    names = {tag for tag, _ in page.tags}
    assert not names & {"img", "script", "link", "iframe"} and {"table", "style", "h1"} <= names
    assert not [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in ("src", "href") or key[:2] == "on"
    ]
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert "url(" not in show.page(found) and "prefers-color-scheme: dark" in show.page(found)
    assert printable(NASTY) in page.text and "\x1b" not in page.text and "\u202e" not in page.text
    assert "REGRESSION" in page.text and "? undecided" in page.text


def test_the_page_has_the_record_and_can_be_used_without_a_mouse(files):
    found = compare(*files, classes=["a", "b", "c", "d"]) | {"created": "2026-01-02T03:04:05+00:00"}
    page = Page(show.page(found))
    for each in found["inputs"]:
        assert each["sha256"] in page.text and f"{each['bytes']:,}" in page.text
    assert 'classes=["a", "b", "c", "d"]' in page.text and "2026-01-02" in page.text
    assert f"numpy {found['versions']['numpy']}" in page.text
    scrolled = [attributes for tag, attributes in page.tags if attributes.get("class") == "wide"]
    assert scrolled and all(each["tabindex"] == "0" and each["aria-label"] for each in scrolled)
    assert ("th", {"scope": "row", "class": "l"}) in page.tags and ("html", {"lang": "en"}) in page.tags


def test_junit_has_a_case_per_limit():
    root = ElementTree.fromstring(show.junit(result(max_nfr=0.1, min_accuracy=0.5), 1.5))
    suite = root.find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["max_nfr 0.1", "min_accuracy 0.5"]
    assert [len(case) for case in cases] == [1, 0]
    failure = cases[0].find("failure")
    assert "max_nfr: 50.00 %" in failure.get("message") and "1 negative flip, such as id" in failure.text
    nothing = ElementTree.fromstring(show.junit(result(), 0)).find("testsuite")
    assert nothing.get("skipped") == "1" and nothing.find("testcase").find("skipped") is not None
    worst = ElementTree.fromstring(show.junit(result(max_class_nfr=0.1), 0))
    assert "img src" in worst.find(".//failure").get("message")


def test_junit_tells_an_undecided_check_from_a_regression():
    old = {"id": range(100), "label": [0, 1] * 50, "prediction": [0, 1] * 50}
    new = old | {"prediction": [1 - i % 2 if i < 5 else i % 2 for i in range(100)]}
    limits = {"max_nfr": 0.04, "max_churn": 0.001}
    root = ElementTree.fromstring(show.junit(compare(old, new, **limits), 0))
    assert [found.get("type") for found in root.iter("failure")] == ["undecided", "regression"]
    assert "more rows would decide" in root.find(".//failure").get("message")
    allowed = ElementTree.fromstring(show.junit(compare(old, new, **limits, undecided="pass"), 0))
    cases = allowed.findall(".//testcase")
    assert [len(case.findall("failure")) for case in cases] == [0, 1] and allowed.get("failures") == "1"
    assert cases[0].find("system-out").text.startswith("undecided: max_nfr: 5.00 %")
    none = compare(old, new, max_class_nfr=0.1, min_rows=1000)
    none["checks"][0]["allowed"] = None  # only single classes have limits
    assert ElementTree.fromstring(show.junit(none, 0)).find(".//testcase").get("name") == "max_class_nfr"


@pytest.mark.parametrize(("limit", "verdict"), [(0.06, "pass"), (0.04, "undecided"), (0.001, "regression")])
def test_the_page_shows_each_verdict_in_its_colour(limit, verdict):
    old = {"id": range(100), "label": [0, 1] * 50, "prediction": [0, 1] * 50}
    new = old | {"prediction": [1 - i % 2 if i < 5 else i % 2 for i in range(100)]}
    shown = show.page(compare(old, new, max_nfr=limit))
    page = Page(shown)
    assert ("p", {"class": f"verdict {verdict}"}) in page.tags and ("b", {"class": verdict}) in page.tags
    assert f"\n.{verdict} {{ color: var(--" in shown and f"<title>{verdict.upper()}" in shown


def test_slices_and_confirmed_combinations_are_shown():
    random, rows = np.random.default_rng(0), 8000
    light, camera = random.integers(0, 4, (2, rows))
    flips = random.random(rows) < np.where((light == 1) & (camera == 2), 0.3, 0.02)
    old = {"id": np.arange(rows), "label": np.arange(rows) % 3, "prediction": np.arange(rows) % 3}
    old |= {"light": np.array(list("abcd"))[light], "camera": np.array(list("wxyz"))[camera]}
    found = compare(old, old | {"prediction": (old["label"] + flips) % 3}, slices=["light", "camera"])
    for shown in (printed(found, width=120), show.page(found)):
        assert "camera = y" in shown and "light = b and camera = y" in shown and "light = a and" not in shown
