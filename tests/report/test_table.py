"""The table of methods: the meaning of each row."""

from mpt_jax import methods
from mpt_jax.report import table


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
