"""The table of methods on a terminal of 80 columns."""

from rich.console import Console
from workdirs import make_workdir

from mpt_jax import methods, report
from mpt_jax.report import table


def text_of(renderable, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


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


def test_without_a_baseline_or_without_flips_the_change_is_a_dash(tmp_path):
    for name, options in (("none", {"methods": ("mpt_kl",)}), ("zero", {"nfr": 0.0, "seeds": (0,)})):
        result = report.build(make_workdir(tmp_path / name, **options))
        assert all(row[-2] == "-" for row in table.cells(result)[1])


def test_the_legend_reads_the_rows_of_the_methods(monkeypatch):
    monkeypatch.setitem(methods.DERIVED, "mine", methods.Derived("2 z", None, made_from=("ensemble",), papers=("pct",)))
    names = ("independent", "no_treatment", "mpt_kl@bias=2", "mine", "unknown")
    assert table.methods({"summary": dict.fromkeys(names)}) == [
        ("independent", table.INDEPENDENT),
        ("no_treatment", methods.describe(methods.rows()["no_treatment"])),
        (
            "mpt_kl@bias=2",
            "CE(b on new classes) + FD-KL(old) + FD-KL(new), with bias = 2 "
            "(Ricci et al., Mitigating Negative Flips via Margin Preserving Training, 2026)",
        ),
        ("mine", "2 z (Yan et al., Positive-Congruent Training, 2021)"),
        ("unknown", "added by the config of the run"),
    ]
