"""Derived methods: how their models are computed and their number is chosen."""

import jax
import numpy as np
import pytest

from mpt_jax import posttraining, report
from mpt_jax.files import released_model
from mpt_jax.methods import DERIVED, Derived, Number
from mpt_jax.update import stages


@pytest.fixture
def fine_tuned(executed):
    return executed(
        "update.methods=no_treatment,bcwi,bcwi_fisher,bcwi_soup",
        *("update.start=old", "update.ensemble_size=3", "update.tolerance=0.05"),
    )


def test_interpolations_lie_between_the_old_model_and_the_fine_tuned_one(fine_tuned, monkeypatch):
    run, result = fine_tuned, report.write(fine_tuned.workdir)
    for method, made_from in (("bcwi", "no_treatment"), ("bcwi_fisher", "no_treatment"), ("bcwi_soup", "ensemble")):
        choice = result["selection"][method]
        shares = [tried["numbers"]["share_of_old"] for tried in choice["candidates"]]
        assert shares == [i / 10 for i in range(11)]
        share = shares[choice["chosen"]]
        for seed in (0, 1):
            models = {
                name: released_model.read(run.folder(release, name, seed))[0]
                for release, name in ((0, "old"), (1, made_from), (1, method))
            }
            new = models[made_from]
            if made_from == "ensemble":
                new = posttraining.soup(new.replace(ensemble=False))
            found = models[method].params["hidden"]["kernel"]
            if method != "bcwi_fisher":
                expected = (
                    share * models["old"].params["hidden"]["kernel"] + (1 - share) * new.params["hidden"]["kernel"]
                )
                np.testing.assert_allclose(found, expected, atol=1e-6)
            np.testing.assert_array_equal(
                models[method].params["head"]["kernel"][:, 5:], new.params["head"]["kernel"][:, 5:]
            )
            parents = released_model.read_card(run.folder(1, method, seed))["parents"]
            assert parents.keys() == {f"r0-old-seed{seed}", f"r1-{made_from}-seed{seed}"}
        # the ends of the grid are the two models: the first candidate is the fine-tuned one
        if made_from == "no_treatment":
            first, plain = choice["candidates"][0], result["selection"]["no_treatment"]["candidates"][0]
            assert (first["accuracy"], first["nfr"]) == (plain["accuracy"], plain["nfr"])
        assert choice["required_accuracy"] == choice["candidates"][0]["accuracy"] - 0.05


@pytest.mark.slow
def test_a_soup_is_the_mean_of_fine_tuned_models_with_its_own_running_statistics(executed, digits_dir):
    run = executed(
        *("dataset.name=digits", f"dataset.data_dir={digits_dir}", "model.name=convnet", "dataset.train_per_class=0"),
        *("update.methods=soup", "update.start=old", "update.ensemble_size=2", "seeds=0"),
    )
    for seed in (0,):
        soup, _ = released_model.read(run.folder(1, "soup", seed))
        members, _ = released_model.read(run.folder(1, "ensemble", seed))
        mean = posttraining.soup(members.replace(ensemble=False))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), soup.params, mean.params)
        assert not np.allclose(soup.batch_stats["norm1"]["mean"], mean.batch_stats["norm1"]["mean"], atol=1e-4)


def test_posthoc_bias_records_its_front_and_the_chosen_point(executed):
    run = executed("update.methods=posthoc_bias,no_treatment")
    choice = report.write(run.workdir)["selection"]["posthoc_bias"]
    tried = choice["candidates"]
    cs = [t["numbers"]["posthoc_bias"] for t in tried]
    assert cs[0] == 0 and cs == sorted(cs) and choice["chosen"] == cs.index(cs[choice["chosen"]])
    good = [t for t in tried if t["accuracy"] >= choice["required_accuracy"] - 1e-12]
    assert tried[choice["chosen"]]["nfr"] == min(t["nfr"] for t in good)
    before, after = (run.predict(run.read(1, m), run.dataset.test) for m in ("independent", "posthoc_bias"))
    expected = before - cs[choice["chosen"]] * (np.arange(10) >= 5)
    np.testing.assert_allclose(after, expected, atol=1e-4)


def test_posthoc_bias_of_another_method(executed):
    run = executed("update.methods=no_treatment,posthoc_bias", "update.posthoc_of=no_treatment")
    choice = report.write(run.workdir)["selection"]["posthoc_bias"]
    c = choice["candidates"][choice["chosen"]]["numbers"]["posthoc_bias"]
    before, after = (run.predict(run.read(1, m), run.dataset.test) for m in ("no_treatment", "posthoc_bias"))
    np.testing.assert_allclose(after, before - c * (np.arange(10) >= 5), atol=1e-4)
    parents = released_model.read_card(run.folder(1, "posthoc_bias", 1))["parents"]
    assert parents.keys() == {"r0-old-seed1", "r1-no_treatment-seed1"}


@pytest.mark.parametrize(
    ("method", "override", "lost"),
    [
        ("posthoc_bias", "update.posthoc_of=no_treatment", (0,)),
        pytest.param("posthoc_bias", "update.posthoc_of=no_treatment", (0, 1), marks=pytest.mark.slow),
        pytest.param("bcwi", "update.start=old", (0,), marks=pytest.mark.slow),
        ("bcwi", "update.start=old", (0, 1)),
    ],
)
def test_models_derived_from_a_diverged_one_are_marked_and_the_other_seeds_choose(
    method, override, lost, executed, monkeypatch
):
    train = stages._train

    def diverging(run, stage, members):
        classifiers, cost = train(run, stage, members)
        if stage.has_students:
            spoilt = jax.tree.map(np.array, classifiers.params)
            for leaf in jax.tree.leaves(spoilt):
                leaf[list(lost)] = np.nan
            classifiers = classifiers.replace(params=spoilt)
        return classifiers, cost

    monkeypatch.setattr(stages, "_train", diverging)
    run = executed(f"update.methods=no_treatment,{method}", override)
    rows = {(row["method"], row["seed"]): row for row in report.write(run.workdir)["rows"]}
    assert [seed for seed in (0, 1) if rows[method, seed].get("diverged")] == list(lost)
    choice = released_model.read_card(run.folder(1, method, 1))["selection"]
    if lost == (0, 1):
        assert choice is None
    else:  # the first candidate does not change the model
        held_out = run.known(run.dataset.validation, 1)
        predictions = run.predict(run.read(1, "no_treatment"), held_out)[1].argmax(-1)
        assert choice["candidates"][0]["accuracy"] == pytest.approx(np.mean(predictions == held_out.labels))


def shrunk(models, factor):
    (classifier,) = models.parents
    head = classifier.params["head"]
    is_old = np.arange(len(head["bias"])) < models.num_old_classes
    kernel = head["kernel"] * np.where(is_old, 1, np.float32(factor))
    return classifier.replace(params={**classifier.params, "head": {**head, "kernel": kernel}})


def half_way(models):
    first, second = models.parents
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first.params, second.params)
    return models.refresh(first.replace(params=mean))


def test_a_derived_method_needs_nothing_but_its_row(executed, monkeypatch):
    number = Number("factor", "f", candidates=(1.0, 0.5))
    rows = {
        "shrunk": Derived("no_treatment, f times new", shrunk, made_from=("no_treatment",), number=number),
        "half_way": Derived("mean weights", half_way, made_from=("pct_kl", "independent"), papers=("soup", "a blog")),
    }
    for name, row in rows.items():
        monkeypatch.setitem(DERIVED, name, row)
    run = executed("update.methods=pct_kl,shrunk,half_way")
    result = report.write(run.workdir)
    assert list(result["summary"]) == ["independent", "pct_kl", "shrunk", "half_way"]
    choice = result["selection"]["shrunk"]
    assert [tried["numbers"] for tried in choice["candidates"]] == [{"factor": 1.0}, {"factor": 0.5}]
    assert choice["required_accuracy"] == choice["candidates"][0]["accuracy"] - run.config.update.tolerance
    factor = number.candidates[choice["chosen"]]
    plain, scaled, mean, first, second = (
        run.read(1, method).params["head"]["kernel"]
        for method in ("no_treatment", "shrunk", "half_way", "pct_kl", "independent")
    )
    np.testing.assert_allclose(scaled[..., :5], plain[..., :5])
    np.testing.assert_allclose(scaled[..., 5:], factor * plain[..., 5:], rtol=1e-6)
    np.testing.assert_allclose(mean, (first + second) / 2, rtol=1e-6)
    card = released_model.read_card(run.folder(1, "half_way", 1))
    assert card["parents"].keys() == {"r0-old-seed1", "r1-pct_kl-seed1", "r1-independent-seed1"}
    page = (run.workdir / "report.md").read_text()
    assert "f = 1" in page and "no_treatment, f times new" in page
    assert "mean weights (Wortsman et al., Model Soups, 2022; a blog)" in page
