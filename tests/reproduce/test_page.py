"""The pages: which there are, their links, the summary, and the committed ones."""

import json
import pathlib
import re
import shutil

import pytest

from mpt_jax.reproduce import __main__ as command
from mpt_jax.reproduce import page, plots, results, tables


def test_results_have_every_row_and_the_page_every_figure(made):
    folder, _ = made
    found = results.read(folder / "results/features-cpu.json")
    assert [run["seeds"] for run in found["runs"]] == [[0], [1]]
    for run in found["runs"]:
        assert [row["method"] for row in run["rows"]] == [
            *("independent", "no_treatment", "mpt_kl@bias=1", "mpt_kl@bias=2", "posthoc_bias")
        ]
        base = next(row for row in run["rows"] if row["method"] == "no_treatment")
        assert base["at_equal_accuracy"][0] == base["at_equal_accuracy"][1]  # compared with itself
        assert run["command"].startswith("python -m mpt_jax.train --config ")
    first, second = found["runs"]  # the figures need the margins and the learning curves of the first run
    assert first["history"]["mpt_kl@bias=1"][0][0] > 0 and first["flips"]["mpt_kl@bias=1"]["margins"]["edges"]
    assert second["history"] == {} and {of["margins"] for of in second["flips"].values()} == {None}
    assert second["flips"]["mpt_kl@bias=1"]["per_class"] and second["curves"]
    drawn = {path.stem.removeprefix("features-cpu-") for path in (folder / "results/plots").iterdir()}
    assert drawn == plots.FIGURES.keys() - {"bias", "sequence", "epochs"}  # of three values of b, updates, snapshots
    assert "docs/results/features-cpu.md" in (folder / "REPRODUCIBILITY.md").read_text()
    text = (folder / "docs/results/features-cpu.md").read_text()
    assert "| `mpt_kl@bias=2` | 2 |" in text
    assert all(f"](../../results/plots/features-cpu-{name}.png)" in text for name in drawn)


@pytest.fixture
def copied(made, tmp_path):
    """A folder with a copy of the results and some texts, and a function that writes its pages."""
    shutil.copytree(made[0] / "results", tmp_path / "kept")
    for name, text in {
        "introduction": "# First",
        "judgement": "## It holds",
        "choose": "## Choose",
        "speed": "# Speed\n\nFast.",
        "features-cpu": "This is ours.",
        "splits-cpu": "Its results do not exist yet.",
    }.items():
        (tmp_path / "kept" / f"{name}.md").write_text(text + "\n")
    return tmp_path, lambda: command.main(["page", f"--results={tmp_path / 'kept'}"])


def test_each_table_and_each_other_text_has_a_page_that_the_documentation_lists(copied):
    folder, write = copied
    assert write() == 0
    pages = {path.stem: path.read_text() for path in (folder / "docs/results").iterdir()}
    assert pages.keys() == {"index", "overview", "speed", "features-cpu"}
    assert "This is ours." in pages["features-cpu"] and "# Speed\n\nFast.\n" in pages["speed"]
    assert "\n\nfeatures-cpu\noverview\nspeed\n```" in pages["index"]
    first = (folder / "REPRODUCIBILITY.md").read_text()
    assert [line for line in first.splitlines() if line.startswith("#")] == [
        *("# First", "## Summary", "## It holds", "## Choose", "## More")
    ]
    assert "- [Speed](docs/results/speed.md)" in first and "Its results" not in "".join(pages.values())


def test_figures_and_pages_of_removed_runs_are_removed_and_those_of_others_kept(copied):
    folder, write = copied
    assert write() == 0
    plots_of, pages = folder / "kept/plots", folder / "docs/results"
    drawn = {path.name for path in plots_of.iterdir()}
    for name in ("features-cpu-sequence.png", "splits-cpu-bias.png", "mine.png"):
        (plots_of / name).write_bytes(b"")
    (folder / "kept/speed.md").unlink()
    (pages / "splits-cpu.md").write_text((pages / "speed.md").read_text())
    (pages / "mine.md").write_text("# My own page\n")
    assert write() == 0
    assert {path.name for path in plots_of.iterdir()} == {*drawn, "mine.png"}
    assert {path.stem for path in pages.iterdir()} == {"index", "overview", "features-cpu", "mine"}
    text = (pages / "features-cpu.md").read_text()
    assert "](../../kept/plots/features-cpu-" in text and "features-cpu-sequence" not in text


def _table(table, budget="cpu"):
    return {"table": table, "budget": budget, "runs": []}


def test_a_table_is_an_earlier_one_once_a_better_one_has_results(monkeypatch):
    better = tables.Table("Better", "", tables.TABLES["splits"].plans)
    earlier = tables.Table("Earlier", "", tables.TABLES["splits"].plans, replaced_by="better")
    monkeypatch.setattr(page, "TABLES", {"earlier": earlier, "better": better})
    names = lambda *found: [(t["table"], t["budget"]) for t in page.current(found)]  # noqa: E731
    assert names(_table("earlier")) == [("earlier", "cpu")]
    assert names(_table("earlier"), _table("better")) == [("better", "cpu")]
    assert names(_table("earlier"), _table("earlier", "gpu")) == [("earlier", "gpu")]
    assert names(_table("better"), _table("better", "gpu")) == [("better", "gpu")]


def test_the_summary_has_a_row_per_headline_and_puts_single_seeds_last(monkeypatch):
    """Three seeds of one table, and one seed of a table before it whose validation images choose nothing."""

    def run(seeds, validation):
        nfr = {"no_treatment": 0.10, "mpt_kl@bias=1": 0.05, "mpt_kl@bias=4": 0.02, "pct_kl": 0.09, "independent": 0.1}
        rows = [
            {"method": m, "seed": s, **dict.fromkeys(results.RATES, 0.8), "nfr": rate + s / 1000 * (m != "pct_kl")}
            | {"at_equal_accuracy": [rate * (1 + s / 10), 0.1 * (1 + s / 10)]}
            for m, rate in nfr.items()
            for s in seeds
        ]
        return {
            **{"scenario": "by b", "seeds": seeds, "rows": rows, "validation": validation, "tolerance": 0.01},
            "protocol": {"bias": "published", "start": "random"},
        }

    chosen = {m: {"numbers": {}, "accuracy": 0.8, "nfr": n} for m, n in (("no_treatment", 0.1), ("mpt_kl@bias=1", 0.0))}
    plans = tables.TABLES["splits"].plans
    monkeypatch.setattr(
        *(page, "TABLES"),
        {
            "one": tables.Table("One", "", plans, headline={"by b": "", "not trained yet": "x"}),
            "three": tables.Table("Three", "", plans, headline={"by b": "three seeds"}),
            "none": tables.Table("None", "", plans, headline={}),
        },
    )
    found = [{"table": name, "budget": "cpu", "runs": [run([0], {})]} for name in ("one", "none")]
    text = page.summary([*found, {"table": "three", "budget": "cpu", "runs": [run([0, 1, 2], chosen)]}])
    three, one = (
        [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in line.strip("| ").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| [")
    )
    assert three[:4] == ["[three seeds](docs/results/three-cpu.md)", "3", "80.0, 10.1", "`mpt_kl`, b = 1"]
    assert three[4].startswith("-50 % [-") and three[5] == "+0.0 [+0.0, +0.0]"
    assert three[6].startswith("-50 %") and three[7:] == ["**-10 %**", "+0 %"]
    assert one == [
        *("[One](docs/results/one-cpu.md)", "1", "80.0, 10.0", "`mpt_kl`, b = 4 (fixed)"),
        *("-80 %", "+0.0", "-80 %", "-10 %", "+0 %"),
    ]


def test_every_link_of_the_committed_pages_leads_somewhere():
    for path in (command.ROOT / "REPRODUCIBILITY.md", *(command.ROOT / "docs/results").glob("*.md")):
        for link in re.findall(r"\]\(([^)]*)\)", path.read_text(encoding="utf-8")):
            if "://" not in link:
                name, _, anchor = link.partition("#")
                target = path.parent / name if name else path
                assert target.exists(), f"{path}: {link}"
                headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE) if anchor else []
                slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
                assert not anchor or anchor in slugs, f"{path}: {link}"


def test_the_committed_pages_agree_with_the_committed_results():
    root = command.ROOT
    rendered = page.render(root / "results", root / "REPRODUCIBILITY.md")
    committed = [root / "REPRODUCIBILITY.md", *(root / "docs/results").glob("*.md")]
    assert {path: path.read_text(encoding="utf-8") for path in committed} == rendered


def test_committed_results_are_small_and_contain_no_absolute_paths():
    for path in (command.ROOT / "results").glob("*.json"):
        assert path.stat().st_size < 1_000_000
        for run in json.loads(path.read_text())["runs"]:
            assert not any(word.startswith("/") for word in run["command"].replace("=", " ").split()), path


def test_the_first_page_is_short():
    """It is read in five minutes, at 240 words a minute."""
    text = (command.ROOT / "REPRODUCIBILITY.md").read_text(encoding="utf-8")
    assert len([word for word in text.split() if word != "|"]) < 1200


def test_the_texts_of_the_committed_results_are_all_used():
    stems = {path.stem for path in (command.ROOT / "results").glob("*.md")}
    pages = {path.stem for path in pathlib.Path(command.ROOT, "docs/results").glob("*.md")}
    assert stems <= pages | {"introduction", "judgement", "choose"}
