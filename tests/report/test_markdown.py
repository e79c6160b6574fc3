"""Markdown shows names unchanged."""

import re
import shutil

from workdirs import make_workdir

from mpt_jax import report
from mpt_jax.report import markdown


def test_markdown_escapes_hostile_names(written):
    text = (written[0] / "report.md").read_text()
    assert "\\<script\\>" in text and not re.search(r"(?<!\\)(<|\]\(http)", text)
    assert not re.search(r"(?m)^# heading", text)
    for line in text.splitlines():
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert line.endswith("|") and cells > 2
    tables = re.findall(r"(?m)(?:^\|.*\n)+", text)
    assert all(len({len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}) == 1 for rows in tables)


def test_escaped_text_has_no_markup_left():
    assert markdown.escape("*a* `b` ~c~ <d> [e] &amp; $f$") == r"\*a\* \`b\` \~c\~ \<d\> \[e\] \&amp; \$f\$"


def test_bars_in_names_are_escaped_in_tables(tmp_path):
    report.write(make_workdir(tmp_path))
    rows = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("|")]
    assert "| data set | made\\|up |" in rows and all(line.endswith("|") for line in rows)


def test_flipped_images_without_thumbnails_are_a_table(written, tmp_path):
    folder = shutil.copytree(written[0], tmp_path / "run")
    (folder / "gallery.npz").unlink()
    report.write(folder)
    text = (folder / "report.md").read_text()
    linked = set(re.findall(r"\]\(plots/(\w+\.png)\)", text))
    assert linked == {path.name for path in (folder / "plots").iterdir()} and "gallery.png" not in linked
    assert "| test image | old prediction | new prediction |" in text
