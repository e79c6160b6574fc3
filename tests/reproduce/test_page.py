"""The page: its sections and overview, its figures, and the committed page."""

import json
import shutil

from mpt_jax.reproduce import __main__ as command
from mpt_jax.reproduce import page, plots, results


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
        assert run["history"]["mpt_kl@bias=1"][0][0] > 0
    drawn = {path.stem.removeprefix("features-cpu-") for path in (folder / "results/plots").iterdir()}
    assert drawn == plots.FIGURES.keys() - {"bias", "sequence", "epochs"}  # of three values of b, updates, snapshots
    text = (folder / "REPRODUCIBILITY.md").read_text()
    assert "| `mpt_kl@bias=2` | 2 |" in text
    assert all(f"features-cpu-{name}.png" in text for name in drawn)


def test_a_sequence_of_updates_has_its_own_table_and_figure(made, tmp_path):
    found = results.read(made[0] / "results/features-cpu.json")
    assert "lost from any release" not in page.section(found, tmp_path)
    for run in found["runs"]:
        lineage = {
            "accuracy_of_release": [0.9, 0.8, 0.7],
            "nfr_against_previous": [None, 0.125, 0.25],
            "cumulative_nfr": [None, 0.125, 0.375],
            "forgetting": [None, 0.05, 0.06],
            "average_incremental_accuracy": 0.8,
        }
        run |= {"classes": [5, 7, 10], "sequences": {method: lineage for method in run["flips"]}}
    text = page.section(found, tmp_path)
    assert "| method | 5 -> 7 | 7 -> 10 | lost from any release | forgetting | mean accuracy |" in text
    assert "| `posthoc_bias` | 12.5 | 25.0 | 37.5 | 6.0 | 80.0 |" in text
    accuracy, nfr = plots._sequence(found["runs"]).axes
    assert [list(line.get_xdata()) for line in accuracy.lines] == [[0, 1, 2]] * 5
    assert [list(line.get_ydata()) for line in nfr.lines] == [[12.5, 25.0]] * 5


def test_a_section_describes_protocol_and_choice(made, tmp_path):
    found = results.read(made[0] / "results/features-cpu.json")
    text = page.section(found, tmp_path)
    assert "`linear`, 1 epoch, batches of 48, learning rate 0.05 (cosine, by step); students start from random" in text
    assert "the published b unless the row gives one." in text and "no validation images" not in text
    for run in found["runs"]:
        run["validation"] = {}
        run["protocol"] |= {"bias": "1", "start": "old", "memory": "per_class:2", "memory_by": "herding"}
        run["protocol"] |= {"old_model": "mlp", "model": "resnet18", "stem": "cifar"}
    text = page.section(found, tmp_path)
    assert "`mlp` -> `resnet18` (cifar stem), 1 epoch," in text and "students start from the previous release" in text
    assert "b = 1 unless the row gives one; old images kept: per_class:2, by herding." in text
    assert "There are no validation images to choose with." in text and "Chosen on validation" not in text


def test_the_overview_shows_changes_at_equal_accuracy_and_the_choice(made, tmp_path):
    def row(method, seed, nfr, equal, accuracy=0.9):
        rates = {"accuracy": accuracy, "accuracy_old_classes": 0.9, "accuracy_new_classes": 0.9, "nfr": nfr}
        return {"method": method, "seed": seed, **rates, "nfr_all_classes": nfr, "at_equal_accuracy": equal}

    found = results.read(made[0] / "results/features-cpu.json")
    (first, *_) = found["runs"]
    first |= {"seeds": [0, 1, 2], "tolerance": 0.0}
    first["protocol"] |= {"bias": "1", "start": "random"}
    first["rows"] = [
        row(method, seed, nfr + seed / 1000, equal and [equal * 0.04, 0.04 + seed / 1e4], accuracy)
        for method, nfr, equal, accuracy in (
            *(("independent", 0.05, 1.001, 0.9), ("no_treatment", 0.049, None, 0.9), ("pct_kl", 0.04, None, 0.9)),
            *(("mpt_kl", 0.02, 0.5, 0.91), ("mpt_kl@bias=4", 0.01, 0.25, 0.8), ("mpt_no_distillation", 0.03, 1, 0.9)),
        )
        for seed in (0, 1, 2)
    ]
    first["validation"] = {
        m: {"numbers": {}, "accuracy": 0.9, "nfr": 0.1} for m in ("no_treatment", "mpt_no_distillation")
    }
    first["validation"]["mpt_kl"] = {"numbers": {}, "accuracy": 0.9, "nfr": 0.05}
    line = page.overview([found | {"runs": [first]}]).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    # the plain `mpt_kl` is the one at b = 1, as in this run's config
    changes = ["-0 %", "-", "-", "**-50 %**", "**-75 %**", "-", "-"]
    assert cells == ["`features`", "3", "90.0", "5.0", *changes, "`mpt_kl`: -58 %, +1.0"]
    first["protocol"] |= {"bias": "2", "start": "old"}  # then `independent` is another training
    first["validation"]["mpt_no_distillation"]["nfr"] = 0.05
    line = page.overview([found | {"budget": "gpu", "runs": [first | {"scenario": "small"}]}]).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["`features` (gpu), small", "3", "90.0", "5.0", *["-"] * 4, "**-75 %**", "-", "-", "-"]


def test_the_overview_without_a_baseline_has_empty_cells(made):
    found = results.read(made[0] / "results/features-cpu.json")
    for run in found["runs"]:
        run["rows"] = [row | {"diverged": True} for row in run["rows"]]
    assert set(page.overview([found]).splitlines()[-1].split("|")[3:-1]) == {" - "}


def test_figures_of_removed_runs_are_removed(made, tmp_path):
    folder, _ = made
    shutil.copytree(folder / "results", tmp_path / "kept")
    plots_of = tmp_path / "kept/plots"
    drawn = {path.name for path in plots_of.iterdir()}
    for name in ("features-cpu-sequence.png", "splits-cpu-bias.png", "mine.png"):
        (plots_of / name).write_bytes(b"")
    assert command.main(["page", f"--results={tmp_path / 'kept'}"]) == 0
    assert {path.name for path in plots_of.iterdir()} == {*drawn, "mine.png"}
    text = (tmp_path / "REPRODUCIBILITY.md").read_text()
    assert "](kept/plots/features-cpu-" in text and "features-cpu-sequence" not in text


def test_the_committed_page_agrees_with_the_committed_results():
    folder = command.ROOT / "results"
    assert page.render(folder) == (command.ROOT / "REPRODUCIBILITY.md").read_text(encoding="utf-8")


def test_committed_results_are_small_and_contain_no_absolute_paths():
    for path in (command.ROOT / "results").glob("*.json"):
        assert path.stat().st_size < 1_000_000
        for run in json.loads(path.read_text())["runs"]:
            assert not any(word.startswith("/") for word in run["command"].replace("=", " ").split()), path
