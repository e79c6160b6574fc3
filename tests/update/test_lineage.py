"""Which populations are trained for which releases."""

import dataclasses

from mpt_jax.config import Config, UpdateConfig
from mpt_jax.objectives import METHODS
from mpt_jax.update import lineage


def config(*methods, schedule=(5, 10)):
    return dataclasses.replace(Config(), update=UpdateConfig(methods=methods, schedule=schedule))


def test_the_first_update_trains_all_methods_together_and_later_ones_each_alone():
    two = config("mpt_kl", "no_treatment", "posthoc_bias", schedule=(5, 7, 10))
    assert list(map(str, lineage.stages(two, 0))) == ["r0-old"]
    assert list(map(str, lineage.stages(two, 1))) == ["r1-independent", "r1-students"]
    assert list(map(str, lineage.stages(two, 2))) == ["r2-independent", "r2-mpt_kl", "r2-no_treatment"]
    assert lineage.made(two, 2) == ["independent", "mpt_kl", "no_treatment", "posthoc_bias"]
    assert lineage.made(two, 0) == ["old"]


def test_an_ensemble_is_trained_if_a_method_learns_from_one_or_is_made_from_one():
    for method in ("elodi", "mpt_kl_ensemble", "ensemble", "soup", "bcwi_soup"):
        stages = lineage.stages(config(method), 1)
        assert [stage.name for stage in stages[:2]] == ["independent", "ensemble"], method
    assert not any(lineage.needs_ensemble(config(method)) for method in ("mpt_kl", "bct", "bcwi", "posthoc_bias"))


def test_interpolation_trains_its_parent():
    assert lineage.trained(config("bcwi")) == lineage.trained(config("bcwi", "bcwi_fisher")) == ["no_treatment"]
    assert lineage.trained(config("no_treatment", "bcwi")) == ["no_treatment"]
    assert lineage.trained(config("bcwi_soup")) == []


def test_methods_with_their_own_batches_are_trained_alone():
    sampled = [name for name, objective in METHODS.items() if objective.sampler_rate]
    stages = lineage.stages(config("no_treatment", *sampled), 1)
    assert sampled and [stage.methods for stage in stages[1:]] == [("no_treatment",), *((m,) for m in sampled)]


def test_the_old_model_of_a_method_is_its_own_previous_release():
    assert lineage.previous(1, "mpt_kl") == (0, "old")
    assert lineage.previous(3, "mpt_kl") == (2, "mpt_kl")


def test_populations_have_independent_random_numbers_but_students_share_theirs():
    everything = config("no_treatment", "mpt_kl", "elodi", "balanced_meta_softmax", schedule=(2, 4, 6, 8))
    streams = {stage: lineage.stream(stage) for r in range(4) for stage in lineage.stages(everything, r)}
    students = {stage: number for stage, number in streams.items() if stage.has_students}
    others = [number for stage, number in streams.items() if not stage.has_students]
    assert len(set(others)) == len(others) == 7
    assert not set(others) & set(students.values())
    of_release = {stage.release: set() for stage in students}
    for stage, number in students.items():
        of_release[stage.release].add(number)
    assert [len(numbers) for numbers in of_release.values()] == [1, 1, 1]
    assert len(set.union(*of_release.values())) == 3
