"""A whole run: compilation, resuming, ensembles, sequences, fine-tuning, and divergence."""

import contextlib
import io
import json

import jax
import numpy as np
import pytest
from interrupted import Interrupted, InterruptedAt
from rich.console import Console

from mpt_jax import metrics, models, posttraining, report
from mpt_jax.cli.progress import Progress
from mpt_jax.files import released_model
from mpt_jax.files.predictions import released
from mpt_jax.objectives import METHODS, Objective
from mpt_jax.training import inference
from mpt_jax.update.lineage import Stage


@pytest.mark.slow
@pytest.mark.ci
def test_every_stage_is_compiled_once_also_if_it_resumes(executed, monkeypatch, compiled):
    overrides = ["update.methods=no_treatment,mpt_kl", "update.tune.bias=0,2"]
    overrides += ["training.checkpoint_every=5"]
    predictions, predict = set(), inference._predict

    def predicted(*args):
        predictions.add(str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), args[1:])))
        return predict(*args)

    monkeypatch.setattr(inference, "_predict", predicted)
    starts = []
    for stage, step in (("students", 7), ("", 0)):
        progress = InterruptedAt(stage, step)
        with contextlib.suppress(Interrupted):
            executed(*overrides, progress=progress)
        starts += progress.starts
    assert starts == [("old", 0), ("independent", 0), ("students", 0), ("students", 5)]
    assert compiled["train_steps"] == compiled["init_state"] == 3
    assert compiled["_predict"] == len(predictions) == 5  # old and new alone and as stacks, and the students as one


def logits(run, release, method, seed):
    return released.read(run.predictions(run.folder(release, method, seed)))["logits"]


def test_an_ensemble_predicts_the_mean_of_its_models_and_teaches(executed):
    run = executed("update.methods=mpt_kl_ensemble,ensemble", "update.ensemble_size=3", "update.bias=1")
    test = run.dataset.test
    for seed in (0, 1):
        ensemble, card = released_model.read(run.folder(1, "ensemble", seed))
        stack = ensemble.replace(ensemble=False)
        members = np.asarray(jax.vmap(models.logits, in_axes=(0, None))(stack, test.images))
        assert members.shape[0] == 3 and not np.allclose(members[0], members[1], atol=0.1)
        np.testing.assert_allclose(logits(run, 1, "ensemble", seed), posttraining.logit_mean(members), atol=1e-4)
        assert card["architecture"]["ensemble"] is True and card["parents"].keys() == {f"r0-old-seed{seed}"}
        taught = released_model.read_card(run.folder(1, "mpt_kl_ensemble", seed))
        assert taught["parents"].keys() == {f"r0-old-seed{seed}", f"r1-ensemble-seed{seed}"}
        assert taught["parents"][f"r1-ensemble-seed{seed}"] == card["digest"]
    lines = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    assert {line["member"] for line in lines if line["stage"] == "ensemble"} == {
        f"ensemble seed={seed} model={model}" for seed in (0, 1) for model in range(3)
    }


def test_a_sequence_compares_every_release_with_the_previous_one_of_its_method(executed):
    run = executed(
        *("update.schedule=[5,7,10]", "update.methods=pct_kl,posthoc_bias"),
    )
    result = report.write(run.workdir)
    labels = run.dataset.test.labels
    assert len(result["rows"]) == 2 * 3 * 2
    for row in result["rows"]:
        release, method, seed = (row[key] for key in ("release", "method", "seed"))
        before = logits(run, release - 1, "old" if release == 1 else method, seed)
        known, schedule = labels < run.num_classes(release), run.config.update.schedule
        assert before.shape[1] == schedule[release - 1]
        expected = metrics.class_growth_metrics(
            before[known].argmax(-1),
            logits(run, release, method, seed)[known].argmax(-1),
            labels[known],
            num_old_classes=schedule[release - 1],
        )
        assert {key: row[key] for key in expected} == expected
        parents = released_model.read_card(run.folder(release, method, seed))["parents"]
        if method == "pct_kl":
            assert list(parents) == [f"r{release - 1}-{'old' if release == 1 else method}-seed{seed}"]
    lineage = result["sequences"]["pct_kl"]
    of_seeds = [
        metrics.sequence_metrics(
            [logits(run, r, "pct_kl" if r else "old", seed).argmax(-1) for r in range(3)],
            labels,
            schedule=[5, 7, 10],
        )
        for seed in (0, 1)
    ]
    for key in ("accuracy_of_release", "task_accuracy"):
        mean = [np.mean(values, axis=0) for values in zip(*(seed[key] for seed in of_seeds), strict=True)]
        assert all(np.allclose(a, b) for a, b in zip(lineage[key], mean, strict=True))
    assert lineage["forgetting"][0] is None
    page = (run.workdir / "report.md").read_text()
    right = np.mean([row["accuracy_previous"] for row in result["rows"] if row["release"] == 2])
    assert f"The previous releases predict {100 * right:.2f} % of the old classes' test images correctly" in page
    assert (
        "| pct_kl |" in page.split("How do they develop over the releases?")[1]
        and r"| classes | 5 -\> 7 -\> 10 |" in page
    )


@pytest.mark.parametrize("schedule", [(5, 10), pytest.param((5, 8, 10), marks=pytest.mark.slow)])
def test_fine_tuning_starts_from_the_weights_of_the_previous_release(executed, schedule):
    overrides = ("update.methods=no_treatment", "optimizer.learning_rate=0", "update.start=old")
    run = executed(*overrides, f"update.schedule={[*schedule]}")
    for release, before in ((1, "old"), (2, "no_treatment"))[: len(schedule) - 1]:
        (old, _), (new, _) = (
            released_model.read(run.folder(r, method, 1))
            for r, method in ((release - 1, before), (release, "no_treatment"))
        )
        known = old.module.num_classes
        jax.tree.map(
            np.testing.assert_array_equal,
            old.params,
            jax.tree.map(lambda a, b: b[tuple(map(slice, a.shape))], old.params, new.params),
        )
        fresh = new.params["head"]["kernel"][:, known:]
        assert fresh.shape[1] == new.module.num_classes - known and np.std(fresh) > 0.01
    independent, _ = released_model.read(run.folder(1, "independent", 1))
    old, _ = released_model.read(run.folder(0, "old", 1))
    assert not np.allclose(independent.params["hidden"]["kernel"], old.params["hidden"]["kernel"])


@pytest.mark.slow
def test_an_update_may_change_only_the_network_or_only_the_images(executed, tmp_path):
    run = executed("old_model.name=linear", "model.name=mlp", "update.methods=pct_kl")
    architectures = [
        released_model.read_card(run.folder(*r, 0))["architecture"]["name"] for r in ((0, "old"), (1, "pct_kl"))
    ]
    assert architectures == ["linear", "mlp"]
    more = executed(
        *("update.schedule=[10,10]", "update.old_fraction=0.5", "update.methods=pct_kl"), folder=tmp_path / "more"
    )
    row = report.write(more.workdir)["rows"][-1]
    assert row["accuracy_new_classes"] is None and row["accuracy"] == row["accuracy_old_classes"]
    scenario = released_model.read_card(more.folder(1, "pct_kl", 0))["scenario"]
    assert scenario["old_fraction"] == 0.5 and scenario["schedule"] == [10, 10]
    assert "old model trained on 50 % of the images" in (more.workdir / "report.md").read_text()


def test_a_diverged_student_is_marked_and_the_others_continue(executed, prepared, monkeypatch, tmp_path):
    monkeypatch.setitem(METHODS, "wild", Objective(cross_entropy=1e30, doc="too much"))
    monkeypatch.setitem(METHODS, "tuned", Objective(cross_entropy=1.0, doc="too much, or not"))
    output = io.StringIO()
    progress = Progress(Console(file=output, width=200), None)
    run = executed("update.methods=no_treatment,wild,tuned", "update.tune.cross_entropy=1,1e30", progress=progress)
    assert "wild b=0 cross_entropy=1e+30 seed=0 diverged by step" in output.getvalue()
    result = report.write(run.workdir)
    by_method = {row["method"]: row for row in result["rows"]}
    assert "diverged" not in by_method["no_treatment"] and "diverged" not in by_method["tuned"]
    assert result["selection"]["tuned"]["candidates"][1]["diverged"] and result["selection"]["tuned"]["chosen"] == 0
    text = (run.workdir / "report.md").read_text()
    assert "| tuned | cross_entropy = 1e+30 | diverged | diverged |" in text
    alone = executed("update.methods=wild,no_treatment", folder=tmp_path / "alone")
    row = next(row for row in report.write(alone.workdir)["rows"] if row["method"] == "wild")
    assert row["diverged"] and row["nfr"] is None and row["accuracy"] is None
    assert "diverged" in next(
        line for line in (alone.workdir / "report.md").read_text().splitlines() if line.startswith("| wild ")
    )


def test_stage_names_are_those_of_their_checkpoints():
    assert str(Stage(2, "mpt_kl", ("mpt_kl",))) == "r2-mpt_kl"
