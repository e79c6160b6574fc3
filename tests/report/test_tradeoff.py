"""The comparison of methods in a report."""

from workdirs import make_workdir

from mpt_jax import report
from mpt_jax.report import tradeoff


def test_the_report_says_how_numbers_were_chosen(tmp_path):
    report.write(make_workdir(tmp_path))
    text = (tmp_path / "report.md").read_text()
    assert "| b = 2 (chosen) |" in text and "at least 80.00 % accuracy" in text
    assert "minus the tolerance of 1 percentage point)" in text and "One image is 17 percentage points" in text


def test_flips_at_equal_accuracy_are_a_table(tmp_path):
    report.write(make_workdir(tmp_path))
    text = (tmp_path / "report.md").read_text()
    assert "| mpt_kl | 8.00 | -20 % | 80.00 / 6.00 | 90.00 / 10.00 | 2 |" in text
    assert "| no_treatment | 10.00 | - | 85.00 / 10.00 | 85.00 / 10.00 | 1 |" in text
    for folder, options in (("alone", {"methods": ("mpt_kl",)}), ("none", {"methods": ("pct_kl",)})):
        report.write(make_workdir(tmp_path / folder, **options))
        assert "equal accuracy" not in (tmp_path / folder / "report.md").read_text()


def test_a_method_without_tuned_numbers_is_as_published():
    assert tradeoff.tuned_numbers({}) == "as published" and tradeoff.tuned_numbers({"posthoc_bias": 0.25}) == "c = 0.25"
