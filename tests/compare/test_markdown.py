"""The summary for a pull request: a parser of Markdown finds what was meant, whatever names the files have."""

import json
import re

import hypothesis
import pytest
from hypothesis import strategies
from markdown_it import MarkdownIt

from mpt_jax.compare import compare, markdown, text
from mpt_jax.compare.__main__ import main
from mpt_jax.errors import printable

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NASTY = [
    "<img src=x onerror=alert(1)>",
    "@octocat",
    "a|b",
    "a\\|b",
    "`` ` ``",
    "[x](http://a.b)",
    "www.example.com",
    "mail@example.com",
    "#1",
    "owner/repo#1",
    "GH-1",
    "!2",
    ":tada:",
    "**b** _i_ ~~s~~",
    "</details>",
    "<!--",
    "&lt;b&gt;",
    "$x$",
    " ",
    "\\",
    "line\nbreak",
    "\u202e\x1b[31m",
    "1. x",
    "- x",
    "é" * 100_000,
]
TITLES = ("**Worst classes**", "**Worst slices**", "**Weak combinations of slices**")
# What GitHub and GitLab turn into mentions, references, emoji and links in text that they have already rendered.
REFERENCE = re.compile(r"[@#!~%&$^][\w\"'(]|:[\w+-]+:|://|www\.|GH-\d|\w@\w", re.IGNORECASE)


def found(names, **options):
    """Compare models whose class names and ids are these names; the second one of each two flips."""
    old = {"id": [f"{name}{i}" for i, name in enumerate(names)], "label": names, "prediction": names}
    new = [names[i - 1] if i % 2 else name for i, name in enumerate(names)]
    return compare(old, old | {"prediction": new}, classes=names, **options)


def parsed(shown):
    """Return the cells of each table row, and all other text; fail on HTML, links, or text that is a reference."""
    rows, prose, in_cell = [], [], False
    for token in PARSER.parse(shown):
        if token.type == "html_block":
            assert re.fullmatch(r"<details><summary>[\w ,()]+</summary>|</details>", token.content.strip())
        if token.type == "tr_open":
            rows.append([])
        in_cell = {"th_open": True, "td_open": True, "th_close": False, "td_close": False}.get(token.type, in_cell)
        if token.type == "inline":
            kinds = {child.type for child in token.children}
            bold = {"strong_open", "strong_close"} if token.content in TITLES else set()
            assert kinds <= {"text", "code_inline", "softbreak", "text_special", *bold}
            texts = [child.content for child in token.children if child.type != "code_inline"]
            assert not [part for part in texts if REFERENCE.search(part)]
            content = "".join(child.content for child in token.children)
            (rows[-1] if in_cell else prose).append(content.replace("\u2060", ""))
    return rows, prose


def test_the_verdict_comes_first_and_all_parts_fit_in_40_lines():
    old = {"id": range(300), "label": [f"class {i % 10}" for i in range(300)]}
    old |= {"prediction": old["label"]}
    new = old | {"prediction": ["class 0"] * 30 + old["label"][30:]}
    result = compare(old, new, max_nfr=0.01, max_class_nfr=0.05, min_accuracy=0.5, max_relative_nfr=2)
    shown = markdown.summary(result)
    assert shown.startswith("### ❌ Release gate: REGRESSION: ")
    rows, prose = parsed(shown)
    assert len(shown.splitlines()) <= 45 and text.title(result) in prose
    assert [line[:1] for line in prose if line[1:].startswith(" m")][-1:] == ["✅"]
    for check in result["checks"]:
        assert any(text.said(check, result) in line for line in prose)
    assert ["accuracy, new model", *text.rate_cells(result)[1][1:]] in rows
    assert text.class_cells(result)[0] in rows and text.class_cells(result)[5] not in rows
    assert text.flip_cells(result)[0] in rows and "Flipped examples (5 of 27)" in shown


def test_a_pass_and_a_comparison_without_limits_are_marked():
    old = {"id": range(4), "label": [0, 1, 0, 1], "prediction": [0, 1, 0, 1]}
    assert markdown.summary(compare(old, old)).startswith("### ⚪ Release gate: No limits")
    shown = markdown.summary(compare(old, old | {"prediction": [0, 1, 0, 0]}, max_nfr=0.2))
    assert shown.startswith("### ⚠️ Release gate: UNDECIDED") and "more rows would decide" in shown
    shown = markdown.summary(compare(old, old, min_accuracy=0.1))
    assert shown.startswith("### ✅ Release gate: PASS") and "Worst" not in shown and "<details>" not in shown


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_never_markup_a_link_or_a_mention(name):
    names = [name, "other"] if name != " " else ["x y", "other"]
    rows, _ = parsed(markdown.summary(found([*names, "third", name + "2"], max_nfr=0.1, max_class_nfr=0.1)))
    shown = printable(name + "2", 60).replace("`", r"\x60").replace("|", r"\x7c")
    assert shown in {row[0] for row in rows if len(row) == 7}
    assert all(len(row) in (3, 4, 7) for row in rows)
    result = found(["a", "b"]) | {"old": name}
    assert re.sub(" +", " ", printable(text.title(result), 500)).strip() in parsed(markdown.summary(result))[1]


@hypothesis.given(strategies.lists(strategies.text("a1 |`\\<>@#:*_[]()!~-+=\n$&www.\u202e", min_size=1), min_size=4))
@hypothesis.settings(max_examples=100, deadline=None)
def test_any_text_is_shown_as_it_is(names):
    names = [name for name in names if name.strip()]
    _, prose = parsed("\n\n".join(map(markdown._prose, names)))
    expected = [re.sub(" +", " ", printable(name).strip()) for name in names]
    assert [re.sub(" +", " ", line) for line in prose] == expected
    rows, _ = parsed("\n".join(markdown._table(["a", "b"], [[name, "1"] for name in names])))
    assert [row[1] for row in rows] == ["b", *"1" * len(names)]


@pytest.mark.parametrize("name", ["@night", "a|b"])
def test_the_worst_slices_are_named(name):
    places = range(4000)
    old = {"id": places, "label": [i % 3 for i in places], "prediction": [i % 3 for i in places]}
    old |= {"light": [("day", name)[i // 7 % 2] for i in places], "camera": [f"c{i % 8}" for i in places]}
    is_weak = [a == name and b == "c1" for a, b in zip(old["light"], old["camera"], strict=True)]
    new = old | {"prediction": [(i + (weak and i % 10 > 1)) % 3 for i, weak in zip(places, is_weak, strict=True)]}
    result = compare(old, new, slices=["light", "camera"], max_slice_nfr=0.05)
    shown = markdown.summary(result)
    rows, _ = parsed(shown)
    code = name.replace("|", r"\x7c")
    assert f"light = {code}" in {row[0] for row in rows} and "light = day" not in {row[0] for row in rows}
    assert f"light = {code} and camera = c1" in {row[0] for row in rows if len(row) == 6}
    assert "Worst slices" in shown and "❌ max\\_slice\\_nfr" in shown and len(shown.splitlines()) < 60
    assert "Worst slices" not in markdown.summary(compare(old, old))


def test_its_size_is_bounded():
    names = [f"{i}" + "\U0010ffff|" * 500 for i in range(50)]
    result = found(names, max_nfr=0.1, max_class_nfr=0.1)
    result["checks"] *= 20
    shown = markdown.summary(result)
    assert len(shown.encode()) < 65_000 and len(shown.splitlines()) < 60 and "and 28 more checks" in shown
    assert len(markdown.error(names[0]).encode()) < 65_000


def test_an_error_is_escaped_and_written(files, tmp_path):
    (tmp_path / "bad.csv").write_text("id,label,prediction\n1,@all,<b>\n")
    out = tmp_path / "gate.md"
    assert main([str(tmp_path / "bad.csv"), files[1], f"--markdown={out}", f"--json={tmp_path / 'x.json'}"]) == 2
    shown = out.read_text()
    assert shown.startswith("### ❌ Release gate: ERROR, nothing was compared\n")
    parsed(shown)
    assert main([*files, "--max-nfr=0.1", f"--markdown={out}", f"--json={tmp_path / 'x.json'}"]) == 0
    assert out.read_text() == markdown.summary(json.loads((tmp_path / "x.json").read_text()))
