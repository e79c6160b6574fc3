"""The page of a table: protocol, choice, rows, figures and text."""

import dataclasses

from lineages import LINEAGE

from mpt_jax.reproduce import results, table_page, tables


def test_a_page_has_every_row_its_text_and_its_figures(made):
    found = results.read(made[0] / "results/features-cpu.json")
    text = table_page.render(found, {"tradeoff": "a.png", "bias": "b.png"}, "## What it shows\n\nLittle.")
    assert text.startswith("# A linear head on frozen features\n")
    for method in ("independent", "no_treatment", "mpt_kl@bias=1", "mpt_kl@bias=2", "posthoc_bias"):
        assert f"| `{method}` | 2 |" in text
    assert "](a.png)\n\n*Accuracy against negative flips" in text and "![The effect of b](b.png)" in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## What it shows", "## Numbers", "## Figures"]
    for run in found["runs"]:
        run["scenario"] = "from scratch"
    headings = [line for line in table_page.render(found, {}, "").splitlines() if line.startswith("## ")]
    assert headings == ["## From scratch"]


def test_a_table_can_compare_two_rows_with_each_other(made, monkeypatch):
    found = results.read(made[0] / "results/features-cpu.json")
    table = tables.TABLES["features"]
    monkeypatch.setitem(tables.TABLES, "features", dataclasses.replace(table, versus=("mpt_kl", "independent")))
    text = table_page.render(found, {}, "")
    assert "`mpt_kl` against `independent`: change of the negative flips at equal accuracy" in text
    (heading,) = [line for line in text.splitlines() if line.startswith("|  |")]
    assert heading == "|  | `independent` |"
    assert sum(line.startswith("| `mpt_kl@bias=") and line.count("|") == 3 for line in text.splitlines()) == 2
    monkeypatch.setitem(tables.TABLES, "features", dataclasses.replace(table, versus=("mpt_kl", "elodi")))
    assert "against `elodi`" not in table_page.render(found, {}, "")


def test_a_sequence_of_updates_has_its_own_table(made):
    found = results.read(made[0] / "results/features-cpu.json")
    assert "lost from any release" not in table_page.render(found, {}, "")
    for run in found["runs"]:
        run |= {"classes": [5, 7, 10], "sequences": dict.fromkeys(run["flips"], LINEAGE)}
    text = table_page.render(found, {}, "")
    assert "| method | 5 -> 7 | 7 -> 10 | lost from any release | forgetting | mean accuracy |" in text
    assert "| `posthoc_bias` | 12.5 | 25.0 | 37.5 | 6.0 | 80.0 |" in text


def test_a_page_describes_protocol_and_choice(made):
    found = results.read(made[0] / "results/features-cpu.json")
    text = table_page.render(found, {}, "")
    assert "`linear`, 1 epoch, batches of 48, learning rate 0.05 (cosine, by step); students start from random" in text
    assert "the published b unless the row gives one." in text and "no validation images" not in text
    for run in found["runs"]:
        run["validation"] = {}
        run["protocol"] |= {"bias": "1", "start": "old", "memory": "per_class:2", "memory_by": "herding"}
        run["protocol"] |= {"old_model": "mlp", "model": "resnet18", "stem": "cifar"}
    text = table_page.render(found, {}, "")
    assert "`mlp` -> `resnet18` (cifar stem), 1 epoch," in text and "students start from the previous release" in text
    assert "b = 1 unless the row gives one; old images kept: per_class:2, by herding." in text
    assert "There are no validation images to choose with." in text and "Chosen on validation" not in text
