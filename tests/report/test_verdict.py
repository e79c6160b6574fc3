"""The headline of a report claims no more than its numbers support."""

import re

import pytest

from mpt_jax.report import verdict
from mpt_jax.report.blocks import Command, Points, Table, Text


def make_report(nfr=(0.05, 0.02), seeds=3, **comparison):
    """Return a report in which `mpt_kl` has the second negative flip rate and the baseline the first."""
    methods = ("no_treatment", "mpt_kl")
    summary = {m: {"nfr": {"mean": n}} for m, n in zip(methods, nfr, strict=True)}
    ends = {"interval": [0.01, 0.03], "difference": {"mean": nfr[1] - nfr[0], "interval": [-0.04, -0.02]}}
    for rates in summary.values():
        rates |= {key: {"mean": 0.5} for key in ("pfr", "accuracy", "accuracy_old_classes")}
    compared = {"best": "mpt_kl", "baseline": "no_treatment", "candidates": 1, "confidence": 0.95, "answer": "better"}
    compared |= {"interval_over": "seeds", "methods": {m: {"nfr": ends, "accuracy": ends} for m in methods}}
    return {
        "rows": [
            {"method": m, "seed": s, "release": 1, "accuracy_previous": 0.9} for m in methods for s in range(seeds)
        ],
        "summary": summary,
        "classes": {"schedule": [2, 3]},
        "config": {"update": {"tolerance": 0.01}},
        "comparison": compared | comparison,
    }


@pytest.mark.parametrize(
    ("comparison", "tone", "headline"),
    [
        ({}, "good", "Ship `mpt_kl`: 60 % fewer negative flips than `no_treatment` (significant over 3 seeds)"),
        ({"answer": "unclear"}, "open", "`mpt_kl` may be better: 60 % fewer .* [(]not significant over 3 seeds[)]"),
        (
            {"answer": "unclear", "interval_over": "images"},
            "open",
            "`mpt_kl` may be better: 60 % fewer .* [(]significance needs at least three seeds[)]",
        ),
        ({"best": None}, "bad", "No method improves on `no_treatment`: none of 1 candidates has fewer negative flips"),
        ({"best": None, "candidates": 0}, "bad", "No method improves on `no_treatment`: each loses more accuracy"),
        ({"methods": {}}, "bad", "No recommendation: `no_treatment`, the baseline of the comparison, diverged"),
    ],
)
def test_the_headline(comparison, tone, headline):
    found = verdict.blocks(make_report(**comparison))[0]
    assert isinstance(found, Text) and found.tone == tone
    if tone == "good":
        assert found.text == headline
    else:
        assert re.match(headline, found.text)


def test_the_numbers_are_beside_the_baseline_with_intervals():
    _, table, notes, _, command = verdict.blocks(make_report(candidates=4))
    assert isinstance(table, Table) and table.headings == ["", "mpt_kl", "no_treatment", "difference"]
    flips = ["negative flips", "2.00 [1.00, 3.00]", "5.00 [1.00, 3.00]", "-3.00 [-4.00, -2.00]"]
    assert table.rows[0] == flips and table.rows[1] == ["positive flips", "50.00", "50.00", "+0.00"]
    assert isinstance(notes, Points) and "predicts 90.00 % correctly" in notes.texts[0]
    assert "95 % intervals over seeds" in notes.texts[1] and "fewest negative flips of 4" in notes.texts[2]
    files = "predictions/r0-old-seed0.npz predictions/r1-mpt_kl-seed0.npz"
    assert command == Command(f"python -m mpt_jax.compare {files} --max-nfr 0.02")


def test_without_intervals_and_without_a_best_method_there_is_less_to_say():
    bare = {
        m: {key: {"interval": None, "difference": {"interval": None}} for key in ("nfr", "accuracy")}
        for m in ("no_treatment", "mpt_kl")
    }
    _, table, notes = verdict.blocks(make_report(best=None, interval_over=None, methods=bare))
    assert (
        table.headings == ["", "no_treatment"] and table.rows[0] == ["negative flips", "5.00"] and len(notes.texts) == 2
    )


def test_an_update_with_a_class_map_is_checked_with_the_map_in_the_card_of_the_release():
    made = make_report()
    made["config"]["update"]["class_map"] = "classes.toml"
    files = "predictions/r0-old-seed0.npz predictions/r1-mpt_kl-seed0.npz"
    assert verdict.blocks(made)[-1] == Command(
        f"python -m mpt_jax.compare {files} --class-map releases/r1-mpt_kl-seed0/card.json --max-nfr 0.02"
    )
