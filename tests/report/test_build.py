"""The numbers of a report against crafted cards."""

import json

import pytest
from workdirs import make_workdir

from mpt_jax import report


def test_rows_are_in_the_order_of_the_config_and_the_summary_is_over_seeds(tmp_path):
    result = report.write(make_workdir(tmp_path))
    assert json.loads((tmp_path / "report.json").read_text()) == result
    names = [(row["method"], row["seed"]) for row in result["rows"]]
    assert names == [(m, s) for m in ("independent", "no_treatment", "mpt_kl") for s in (0, 7)]
    nfr = result["summary"]["mpt_kl"]["nfr"]
    assert nfr == {"mean": pytest.approx(0.025), "std": pytest.approx(0.01 / 2**0.5), "count": 2}
    assert list(result["selection"]) == ["no_treatment", "mpt_kl"]


def test_the_report_names_every_machine_and_commit_that_a_run_was_started_or_resumed_with(tmp_path):
    result = report.write(make_workdir(tmp_path))
    assert result["hardware"] == ["4 cores of Neoverse-N1", "1 x cpu"]
    assert result["git_revisions"] == ["first", "later"]
    assert result["versions"] == {"jax": "0"} and result["other_versions"] == {"jax": ["1"]}
    page = (tmp_path / "report.md").read_text()
    assert "| versions | jax 0, then 1 |" in page
    assert "| commit | first, then later |" in page and "| hardware | 4 cores of Neoverse-N1, then 1 x cpu |" in page


def test_flips_at_equal_accuracy_are_interpolated_on_each_front(tmp_path):
    result = report.build(make_workdir(tmp_path))
    fronts = result["fronts"]
    assert fronts["no_treatment"]["nfr_at_baseline_accuracy"] == pytest.approx(0.1)
    # halfway from (0.80, 0.06) to (0.90, 0.10)
    assert fronts["mpt_kl"]["nfr_at_baseline_accuracy"] == pytest.approx(0.08)
    assert [point["numbers"] for point in fronts["mpt_kl"]["points"]] == [{"bias": 2.0}, {"bias": 0.0}]
    for folder, options in (("alone", {"methods": ("mpt_kl",)}), ("none", {"methods": ("pct_kl",)})):
        result = report.build(make_workdir(tmp_path / folder, **options))
        assert result["fronts"] == {}
