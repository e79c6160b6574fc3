"""What people see: nothing in a name is taken as markup, pages are whole, and CI can read the verdict."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from mpt_jax.compare import compare, show

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
    """Tags in the order they open, with their attributes; fails where they do not nest."""

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
    text = printed(result(max_nfr=0.1, min_accuracy=0.5), width=200)
    assert "3 rows, 3 classes, the old model knows 2 (every class that it ever answers)" in text
    assert "old classes' rows (2)" in text and "50.00 % [9.45, 90.55]" in text and "33.33 % [6.15, 79.23]" in text
    assert re.search(r"McNemar's test, p +1 +1 ", text)
    assert "FAIL max_nfr is broken: 50.00 % [9.45, 90.55] on 2 rows of old classes, allowed is at most 10 %" in text
    assert "PASS min_accuracy holds: 66.67 %" in text and "REGRESSION: 1 of 2 limits broken" in text
    assert "Wilson's score interval" in text and "(95 %)" in text
    assert "no limit given" in printed(result())


@pytest.mark.parametrize(
    ("wrong", "limits", "found", "allowed"),
    [
        (1004, {"max_nfr": 0.01}, "is broken: 1.004 %", "at most 1 %"),
        (124, {"max_nfr": 0.00123}, "is broken: 0.124 %", "at most 0.123 %"),
        (125, {"max_nfr": 0.00125}, "holds: 0.12 %", "at most 0.125 %"),
        (2, {"min_accuracy": 0.99999}, "is broken: 99.998 %", "at least 99.999 %"),
        (1004, {"max_relative_nfr": 1 / 3}, "is broken: 1.00 [", "at most 0.333333333333"),
        (1000, {"max_nfr": 0.0106, "confident": True}, "is broken: 1 % [0.9402, 1.064]", "at most 1.06 %"),
    ],
)
def test_the_numbers_show_what_the_verdict_says(wrong, limits, found, allowed):
    labels = np.zeros(100_000, int)
    old = {"id": np.arange(100_000), "label": labels, "prediction": labels}
    result = compare(old, old | {"prediction": (np.arange(100_000) < wrong).astype(int)}, **limits)
    said = show.sentence(result["checks"][0], result)
    assert found in said and f"allowed is {allowed}" in said


def test_a_limit_that_no_row_can_be_held_to_is_said():
    wrong = {"id": [1, 2], "label": ["a", "b"], "prediction": ["b", "a"]}
    found = compare(wrong, wrong, max_relative_nfr=0.5, confident=True)
    assert not found["passed"] and "of which there is none" in show.sentence(found["checks"][0], found)
    assert json.loads(json.dumps(found, allow_nan=False))["checks"][0]["held"] is None


@pytest.mark.parametrize("width", [20, 80])
def test_names_are_neither_markup_nor_escapes_on_a_terminal(width):
    console = Console(width=width, force_terminal=True, color_system="truecolor")
    with console.capture() as caught:
        console.print(show.terminal(result(max_nfr=0.1)))
    bare = re.sub(r"\x1b\[[0-9;]*m", "", caught.get())
    assert "\x1b[31m" not in caught.get() and not set("\x1b\u202e\x00") & set(bare)
    if width == 80:
        assert "[red]" in bare and "\\x1b" in bare


def test_a_bounded_number_of_examples_is_shown_and_all_are_counted():
    old = {"id": range(2000), "label": [0, 1] * 1000, "prediction": [0, 1] * 1000}
    found = compare(old, old | {"prediction": [1, 0] * 1000}, examples=1500)
    assert found["flips"]["count"] == 2000 and len(found["flips"]["examples"]) == 1500
    assert "Flipped examples (10 of 2,000)" in printed(found) and printed(found).count("\n") < 60
    assert "(1,500 of 2,000)" in show.page(found)
    assert "Flipped examples" not in printed(compare(old, old))


def test_the_page_is_whole_needs_nothing_else_and_escapes_every_name():
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
    assert "url(" not in show.STYLE and "prefers-color-scheme: dark" in show.STYLE
    assert show.clean(NASTY) in page.text and "\x1b" not in page.text and "\u202e" not in page.text
    assert "REGRESSION" in page.text and "✗" in page.text


def test_junit_has_a_case_per_limit():
    root = ElementTree.fromstring(show.junit(result(max_nfr=0.1, min_accuracy=0.5), 1.5))
    suite = root.find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["max_nfr 0.1", "min_accuracy 0.5"]
    assert [len(case) for case in cases] == [1, 0]
    failure = cases[0].find("failure")
    assert "max_nfr is broken: 50.00 %" in failure.get("message") and "1 negative flip, such as id" in failure.text
    nothing = ElementTree.fromstring(show.junit(result(), 0)).find("testsuite")
    assert nothing.get("skipped") == "1" and nothing.find("testcase").find("skipped") is not None
    worst = ElementTree.fromstring(show.junit(result(max_class_nfr=0.1), 0))
    assert "img src" in worst.find(".//failure").get("message")
