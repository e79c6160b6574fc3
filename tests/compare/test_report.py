"""Results of every kind in words: what each shows, for every output."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console

from mpt_jax.compare import chain, compare, markdown, report, show

NASTY = "<b>[red]x\x1b[31m\u202e"
FIRST = {"id": ["a", "b", "c", "d"], "label": ["cat", "dog", NASTY, "owl"], "prediction": ["cat", "dog", NASTY, "cat"]}
SECOND = FIRST | {"prediction": ["cat", "cat", NASTY, "owl"]}
THIRD = FIRST | {"prediction": ["dog", "cat", "cat", "owl"]}
LISTS = FIRST | {"label": [["cat"], ["dog"], [], [NASTY]], "prediction": [["cat"], ["dog"], [], [NASTY]]}


def results():
    lost = LISTS | {"prediction": [["cat", "owl"], [], ["dog"], [NASTY]]}
    return {
        "pair": compare(FIRST, SECOND, max_nfr=0.1, max_class_nfr=0.1),
        "chain": chain([FIRST, SECOND, THIRD], max_nfr=0.1),
        "agreement": compare(FIRST, THIRD, unlabelled="only", max_churn=0.1),
        "multi-label": compare(LISTS, lost, multi_label="list", max_nfr=0.1, max_class_nfr=0.1),
    }


WORDS = {
    "pair": ["Flipped examples (1)", "New to the old model"],
    "chain": ["3 versions, 4 rows", "Right in an earlier version and wrong in the last: 3 of 4 rows", "right in"],
    "agreement": [
        "4 rows, 4 classes, compared without labels",
        "were ignored",
        "Changes from class to class (4 kinds)",
    ],
    "multi-label": [
        "several labels a row",
        "Flipped rows (3)",
        "false alarms alone make 1 of the 3",
        "F1 on all classes",
    ],
}


@pytest.mark.parametrize("kind", WORDS)
def test_every_output_says_what_was_found_and_shows_no_name_as_markup(kind):
    result = results()[kind]
    console = Console(width=250, force_terminal=True, color_system="truecolor")
    with console.capture() as caught:
        console.print(show.terminal(result))
    terminal = re.sub(r"\x1b\[[0-9;]*m", "", caught.get())
    page, comment, junit = show.page(result), markdown.summary(result), show.junit(result, 1.0)
    for words in WORDS[kind]:
        for output in (terminal, page):
            assert words in output
    for output in (terminal, page, comment, junit):
        assert "\x1b" not in output and "\u202e" not in output
    assert "<b>[red]" not in page and "&lt;b&gt;[red]" in page and "<b>[red]" not in re.sub("`[^`]*`", "", comment)
    assert "url(" not in page and "<script" not in page
    suite = ElementTree.fromstring(junit).find("testsuite")
    lines = report.of(result).lines
    assert [case.get("name") for case in suite.findall("testcase")] == [line.name for line in lines]
    assert suite.get("failures") == str(sum(not line.passed for line in lines)) and len(lines) >= 1
    for failure in suite.iter("failure"):
        assert "max_" in failure.get("message") and "such as id" in failure.text


def test_tables_are_short_on_a_terminal_and_whole_on_the_page():
    ids = list(range(300))
    old = {"id": ids, "prediction": [f"c{i % 20}" for i in ids]}
    result = compare(old, old | {"prediction": [f"c{(i + i // 20) % 20}" for i in ids]}, unlabelled="only")
    console = Console(width=120)
    with console.capture() as caught:
        console.print(show.terminal(result))
    changed = result["all_rows"]["changed"]
    assert f"Changed examples ({changed:,}), 10 of {changed:,} rows" in caught.get() and caught.get().count("\n") < 60
    assert show.page(result).count("<tr>") > changed
    assert report.of(result).verdict.startswith("No limits given")


def test_files_are_named_without_folders_where_that_tells_them_apart():
    named = {"models": ["x/a.csv", "y/b.csv", "z/c.csv"]}
    result = results()["chain"]
    ages = {"steps": [(0, 1), (1, 2)], "against_ancestors": [(0, 2), (1, 2)]}
    compared = {
        key: [
            each | {"old": named["models"][old], "new": named["models"][new]}
            for each, (old, new) in zip(result[key], places, strict=True)
        ]
        for key, places in ages.items()
    }
    lost = result["lost_from_any"] | {"examples": []}
    found = result | named | compared | {"lost_from_any": lost}
    assert [line.name for line in report.of(found).lines][::2] == [
        "a.csv -> b.csv: max_nfr 0.1",
        "a.csv -> c.csv: max_nfr 0.1",
    ]
    assert report.of(found).title.startswith("x/a.csv -> y/b.csv -> z/c.csv")


def test_the_page_of_a_chain_has_the_slices_of_each_comparison():
    first, second = (each | {"site": ["x", "y", "y", "y"]} for each in (FIRST, SECOND))
    page = show.page(chain([first, second, first], slices=["site"]))
    assert page.count("<h2>Slices, ") == 3 and "site = y" in page
