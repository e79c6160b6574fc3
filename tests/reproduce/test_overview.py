"""All tables at a glance."""

from mpt_jax.reproduce import overview, results
from mpt_jax.reproduce.cells import solid


def _cells(text):
    return [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]


def test_a_row_shows_changes_at_equal_accuracy_and_the_choice(made):
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
    table = found | {"runs": [first]}
    name, of_row = "[`features`](features-cpu.md)", ["3", "90.0", "5.0"]
    # the plain `mpt_kl` is the one at b = 1, as in this run's config
    changes = [solid(cell) for cell in ("-0 %", "-", "-", "**-50 %**", "**-75 %**", "-", "-", "-")]
    assert _cells(overview.render([table])) == [name, *of_row, *changes, "`mpt_kl`: -58 %, +1.0"]
    first["protocol"]["bias"] = "auto"
    changes[3], changes[5] = changes[5], changes[3]
    assert _cells(overview.render([table])) == [name, *of_row, *changes, "`mpt_kl`: -58 %, +1.0"]
    first["protocol"] |= {"bias": "2", "start": "old"}  # then `independent` is another training
    first["validation"]["mpt_no_distillation"]["nfr"] = 0.05
    gpu = found | {"budget": "gpu", "runs": [first | {"scenario": "small"}]}
    name = "[`features`](features-gpu.md) (gpu), small"
    assert _cells(overview.render([gpu])) == [name, *of_row, *["-"] * 4, solid("**-75 %**"), *["-"] * 4]


def test_a_row_without_a_baseline_has_empty_cells(made):
    found = results.read(made[0] / "results/features-cpu.json")
    for run in found["runs"]:
        run["rows"] = [row | {"diverged": True} for row in run["rows"]]
    assert {*_cells(overview.render([found]))[2:]} == {"-"}
