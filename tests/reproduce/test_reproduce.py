"""The command, on a table small enough for a test, and the committed page."""

import json
import re
import shutil

import pytest

from mpt_jax import train
from mpt_jax.reproduce import __main__ as command
from mpt_jax.reproduce import page, plots, results, tables

SMALL = tables.Plan(
    "features.py:digits",
    (0, 1),
    seeds_of_a_run=1,
    overrides=(
        *("optimizer.epochs=1", "update.tune={}", "dataset.train_per_class=25"),
        "update.methods=no_treatment,mpt_kl@bias=1,mpt_kl@bias=2,posthoc_bias",
    ),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in which the command has made a table, and a function that makes it again."""
    folder = tmp_path_factory.mktemp("reproduce")
    arguments = [f"--{name}={folder / name}" for name in ("workdir", "results")]

    def make(*more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(tables.TABLES, "features", tables.Table("Small", "Why?", {"cpu": SMALL, "gpu": SMALL}))
            return command.main(["features", *arguments, *more])

    assert make() == 0
    return folder, make


def test_the_same_command_again_gives_the_same_files(made):
    folder, make = made
    files = [folder / "REPRODUCIBILITY.md", *(folder / "results").rglob("*.*")]
    before = {path: path.read_bytes() for path in files}
    assert make() == 0
    assert {path: path.read_bytes() for path in files} == before


def test_a_table_can_be_made_seed_by_seed_without_the_folders_of_the_others(made, tmp_path, capsys):
    folder, make = made
    whole, kept = folder / "results/features-cpu.json", tmp_path / "features-cpu.json"
    elsewhere = (f"--results={tmp_path}", f"--page={tmp_path / 'page.md'}")
    first, _ = results.read(whole)["runs"]
    results.write(kept, "features", "cpu", "", [first])
    assert make("--seeds=1", *elsewhere) == 0
    assert kept.read_bytes() == whole.read_bytes()
    table = tables.Table("Small", "Why?", {"cpu": SMALL})
    assert command._standing(kept, table, "cpu") == results.read(whole)["runs"]
    results.write(kept, "features", "cpu", "", [first | {"command": "python -m mpt_jax.train of another protocol"}])
    assert command._standing(kept, table, "cpu") == []
    kept.write_text("{")
    capsys.readouterr()
    assert command._standing(kept, table, "cpu") == []
    assert "is no result of this version" in capsys.readouterr().out


def test_what_is_kept_has_every_row_and_every_figure(made):
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
    assert drawn == plots.FIGURES.keys() - {"bias", "sequence"}  # these take three values of b, or updates
    text = (folder / "REPRODUCIBILITY.md").read_text()
    assert "| `mpt_kl@bias=2` | 2 |" in text
    assert all(f"features-cpu-{name}.png" in text for name in drawn)


def test_a_figure_has_a_panel_for_each_scenario_and_no_other(made):
    runs = results.read(made[0] / "results/features-cpu.json")["runs"]
    several = [{**run, "scenario": f"scenario {i}"} for i in range(5) for run in runs]
    panels = plots._tradeoff(several).axes
    assert [axes.get_title() for axes in panels] == [f"scenario {i}" for i in range(5)]
    assert all(axes.get_visible() and len(axes.lines) > 3 for axes in panels)


def test_what_b_does_is_drawn_for_each_scenario_that_has_three_values_of_it(made):
    run, *_ = results.read(made[0] / "results/features-cpu.json")["runs"]
    third = [{**row, "method": "mpt_kl@bias=4"} for row in run["rows"] if row["method"] == "mpt_kl@bias=2"]
    longer = [{**run, "scenario": scenario, "rows": [*run["rows"], *third]} for scenario in ("one", "two")]
    assert plots._bias([run]) is None  # two values
    figure = plots._bias([run, *longer])
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {
        *("mpt_kl, one", "no_treatment, one", "mpt_kl, two", "no_treatment, two")
    }
    lines = [container.lines[0] for container in figure.axes[0].containers]
    assert [list(line.get_xdata()) for line in lines] == [[1, 2, 4]] * 2
    assert lines[0].get_linestyle() != lines[1].get_linestyle()


def test_several_updates_have_a_table_and_a_figure_of_their_own(made, tmp_path):
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


def test_a_section_says_how_its_rows_were_trained_and_chosen(made, tmp_path):
    found = results.read(made[0] / "results/features-cpu.json")
    text = page.section(found, tmp_path)
    assert (
        "`linear`, 1 epochs of batches of 48, learning rate 0.05 (cosine, by step); students start from random" in text
    )
    assert "the published b where a row names none." in text and "No images are held out" not in text
    for run in found["runs"]:
        run["validation"] = {}
        run["protocol"] |= {"bias": "1", "start": "old", "memory": "per_class:2", "memory_by": "herding"}
        run["protocol"] |= {"old_model": "mlp", "model": "resnet18", "stem": "cifar"}
    text = page.section(found, tmp_path)
    assert "`mlp` -> `resnet18` (cifar stem), 1 epochs" in text and "students start from the release before" in text
    assert "b = 1 where a row names none; old images kept: per_class:2, by herding." in text
    assert "No images are held out to choose by." in text and "Chosen on the validation images" not in text


def test_the_tables_in_one_say_what_each_method_is_worth_and_which_was_chosen(made, tmp_path):
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
    first["protocol"] |= {"bias": "2", "start": "old"}  # `independent` is another training then
    first["validation"]["mpt_no_distillation"]["nfr"] = 0.05
    line = page.overview([found | {"budget": "gpu", "runs": [first | {"scenario": "small"}]}]).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["`features` (gpu), small", "3", "90.0", "5.0", *["-"] * 4, "**-75 %**", "-", "-", "-"]


def test_tables_in_one_without_a_row_to_compare_with_are_drawn_all_the_same(made):
    found = results.read(made[0] / "results/features-cpu.json")
    for run in found["runs"]:
        run["rows"] = [row | {"diverged": True} for row in run["rows"]]
    assert set(page.overview([found]).splitlines()[-1].split("|")[3:-1]) == {" - "}


def test_figures_of_runs_that_are_gone_go_too(made, tmp_path):
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["features", "--seeds=0,0"], "--seeds 0,0: expected integers from 0 on, each once"),
        (["features", "--seeds=,"], "--seeds ,: expected integers"),
        (["features", "--seeds=-1"], "--seeds -1: expected integers"),
        (["page", "--results={folder}/nothing"], "nothing has no table; expected a folder with files such as"),
        (["page", "--results={folder}/file"], "file is a file; expected a folder"),
        (["features", "--page={folder}/missing/page.md"], "--page .*page.md is in a folder that does not exist"),
        (["features", "--workdir=gs://"], "names no folder of a bucket"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_trained_or_written(
    arguments, message, made, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(train, "main", None)
    (tmp_path / "file").touch()
    folder, _ = made
    given = [f"--workdir={folder}/workdir", f"--results={folder}/results", *arguments[1:]]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert command.main([arguments[0], *(word.format(folder=tmp_path) for word in given)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_seeds_that_were_trained_together_are_not_replaced_by_a_few_of_them(made, capsys, tmp_path):
    folder, make = made
    kept = tmp_path / "features-cpu.json"
    found = results.read(folder / "results/features-cpu.json")["runs"]
    results.write(kept, "features", "cpu", "", [{**found[0], "seeds": [0, 1]}])
    before = kept.read_bytes()
    assert make(f"--results={tmp_path}", "--seeds=1") == 2
    assert "holds the seeds 0, 1 as one run" in capsys.readouterr().err
    assert kept.read_bytes() == before


def test_a_run_that_fails_ends_the_command_with_its_status(made, capsys):
    _, make = made
    assert make("--seeds=x") == 2
    assert capsys.readouterr().err.startswith("error: --seeds x: expected integers")
    assert make("--seeds=4294967296") == 2  # more than a seed may be, which the run finds out
    assert "to go on: python -m mpt_jax.reproduce" in capsys.readouterr().err


def test_the_committed_page_is_made_of_the_committed_results():
    folder = command.ROOT / "results"
    assert page.render(folder) == (command.ROOT / "REPRODUCIBILITY.md").read_text(encoding="utf-8")


def test_committed_results_are_small_and_name_no_folder_of_the_machine_they_were_made_on():
    for path in (command.ROOT / "results").glob("*.json"):
        assert path.stat().st_size < 1_000_000
        for run in json.loads(path.read_text())["runs"]:
            assert not any(word.startswith("/") for word in run["command"].replace("=", " ").split()), path
