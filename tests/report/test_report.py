"""The report of crafted cards: numbers, order, what is said where something is missing."""

import json
import pathlib

import pytest
from rich.console import Console
from workdirs import make_workdir

from mpt_jax import report
from mpt_jax.report import table

ROOT = pathlib.Path(__file__).resolve().parents[2]


def text_of(renderable, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_rows_are_in_the_order_of_the_config_and_the_summary_is_over_seeds(tmp_path):
    result = report.write(make_workdir(tmp_path))
    assert json.loads((tmp_path / "report.json").read_text()) == result
    names = [(row["method"], row["seed"]) for row in result["rows"]]
    assert names == [(m, s) for m in ("independent", "no_treatment", "mpt_kl") for s in (0, 7)]
    nfr = result["summary"]["mpt_kl"]["nfr"]
    assert nfr == {"mean": pytest.approx(0.025), "std": pytest.approx(0.01 / 2**0.5), "count": 2}
    assert list(result["selection"]) == ["no_treatment", "mpt_kl"]


def test_the_report_names_every_machine_and_commit_that_a_run_was_taken_up_at(tmp_path):
    result = report.write(make_workdir(tmp_path))
    assert result["hardware"] == ["4 cores of Neoverse-N1", "1 x cpu"]
    assert result["git_revisions"] == ["first", "later"]
    page = (tmp_path / "report.md").read_text()
    assert "| commit | first, then later |" in page and "| made on | 4 cores of Neoverse-N1, then 1 x cpu |" in page


def test_flips_at_equal_accuracy_are_read_off_each_front(tmp_path):
    result = report.write(make_workdir(tmp_path))
    fronts = result["fronts"]
    assert fronts["no_treatment"]["nfr_at_baseline_accuracy"] == pytest.approx(0.1)
    # half way from (0.80, 0.06) to (0.90, 0.10)
    assert fronts["mpt_kl"]["nfr_at_baseline_accuracy"] == pytest.approx(0.08)
    assert [point["numbers"] for point in fronts["mpt_kl"]["points"]] == [{"bias": 2.0}, {"bias": 0.0}]
    page = (tmp_path / "report.md").read_text()
    assert "| mpt_kl | 8.00 | -20 % | 80.00 / 6.00 | 90.00 / 10.00 | 2 |" in page
    for folder, options in (("alone", {"methods": ("mpt_kl",)}), ("none", {"methods": ("pct_kl",)})):
        result = report.write(make_workdir(tmp_path / folder, **options))
        assert result["fronts"] == {} and "equal accuracy" not in (tmp_path / folder / "report.md").read_text()


def test_the_terminal_shows_every_method_its_change_and_its_margin_in_80_columns(tmp_path):
    result = report.build(make_workdir(tmp_path))
    text = text_of(report.terminal(result))
    assert max(map(len, text.splitlines())) <= 80
    row = next(line.split() for line in text.splitlines() if line.strip().startswith("mpt_kl"))
    assert row == ["mpt_kl", *["50.0", "±", "0.0"] * 3, "2.5", "±", "0.7", "-44", "%", "2"]  # 2.5 against 4.5
    assert "…" not in text
    legend = text_of(report.legend(result))
    for heading, _ in table.columns():
        assert heading in legend or heading == "positive flips"


def test_one_seed_shows_no_deviation_and_missing_numbers_a_dash(tmp_path):
    result = report.build(make_workdir(tmp_path, seeds=(3,), new_classes=False))
    assert result["summary"]["mpt_kl"]["nfr"]["std"] == 0.0
    assert "accuracy_new_classes" not in result["summary"]["mpt_kl"]
    rows = {row[0]: row for row in table.cells(result)[1]}
    assert rows["mpt_kl"] == ["mpt_kl", "50.0", "50.0", "-", "2.0", "50.0", "-50 %", "2"]


def test_without_a_baseline_or_without_flips_there_is_no_change_to_state(tmp_path):
    for name, options in (("none", {"methods": ("mpt_kl",)}), ("zero", {"nfr": 0.0, "seeds": (0,)})):
        result = report.build(make_workdir(tmp_path / name, **options))
        assert all(row[-2] == "-" for row in table.cells(result)[1])


def test_markdown_escapes_bars_and_says_how_b_was_chosen(tmp_path):
    report.write(make_workdir(tmp_path))
    page = (tmp_path / "report.md").read_text()
    assert "| b = 2 (chosen) |" in page and "80.00 %" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_the_readme_has_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    quick_start = readme.split("## Quick start")[1].split("\n## ")[0]
    blocks = [block.split("```")[0].strip().splitlines() for block in quick_start.split("```bash\n")[1:]]
    assert [len(block) for block in blocks] == [1, 1]
    assert "mpt_jax.train --config configs/digits.py" in blocks[0][0] and "pytest" in blocks[1][0]


def test_a_row_that_a_config_had_added_may_be_unknown_to_the_program_that_writes_the_report():
    report = {"summary": {"mine": {}, "mpt_kl@bias=2": {}}}
    (_, own), (_, known) = table.methods(report)
    assert own == "added by the config of the run" and "with bias = 2 (Ricci et al." in known
