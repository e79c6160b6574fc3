"""What a population learns from: its keys, teachers, weights to start from, and b per class."""

import jax
import numpy as np
import pytest

from mpt_jax import metrics
from mpt_jax.files import released_model
from mpt_jax.update import lineage, selection, stage_inputs


def test_every_seed_and_stage_has_its_own_random_numbers():
    seeds = np.arange(5, dtype=np.uint32)
    keys = [stage_inputs.stage_keys(seeds, stream) for stream in range(4)]
    keys.append(stage_inputs.ensemble_keys(keys[3], 3))
    assert len({tuple(key.tolist()) for stage in keys for key in np.asarray(jax.random.key_data(stage))}) == 20 + 15
    again = stage_inputs.stage_keys(seeds[3:], 1)  # a seed has the same keys alone and among others
    np.testing.assert_array_equal(jax.random.key_data(again), jax.random.key_data(keys[1])[3:])
    alone = stage_inputs.ensemble_keys(stage_inputs.stage_keys(seeds[3:], 3), 3)
    np.testing.assert_array_equal(jax.random.key_data(alone), jax.random.key_data(keys[4])[9:])


def assemble(run, release, name):
    stage = next(stage for stage in lineage.stages(run.config, release) if stage.name == name)
    return stage_inputs.assemble(run, stage, selection.members_of(run.config, stage))


def test_a_population_has_a_row_of_members_per_seed_and_the_teachers_they_name(executed):
    run = executed("update.methods=no_treatment,mpt_kl", "update.tune.bias=0,2")
    students = assemble(run, 1, "students")
    assert students.shape == (2, 1 + 2) and students.start is None
    assert students.inputs.teachers.keys() == {"old", "new"} and not students.inputs.precomputed_logits
    cards = [run.card(run.folder(*release, seed)) for release in ((0, "old"), (1, "independent")) for seed in (0, 1)]
    assert len({card["digest"] for card in cards}) == 4 and len(students.teacher_digests) == 2
    for source, (release, method) in {"old": (0, "old"), "new": (1, "independent")}.items():
        for i, seed in enumerate(run.config.seeds):
            expected = released_model.read(run.folder(release, method, seed))[0].params
            found = jax.tree.map(lambda leaf: leaf[i], students.inputs.teachers[source].params)  # noqa: B023
            jax.tree.map(np.testing.assert_array_equal, found, expected)
    independent = assemble(run, 1, "independent")
    assert independent.shape == (2, 1) and not independent.inputs.teachers and not independent.teacher_digests
    assert independent.total_steps == students.total_steps


def test_every_model_of_a_fine_tuned_ensemble_starts_from_its_seeds_old_model(executed):
    run = executed("update.methods=ensemble", "update.ensemble_size=3", "update.start=old")
    ensemble = assemble(run, 1, "ensemble")
    assert ensemble.shape == (2 * 3, 1) and len(ensemble.teacher_digests) == 1
    kernels = ensemble.start.params["head"]["kernel"]
    for replica in range(6):
        old = released_model.read(run.folder(0, "old", replica // 3))[0]
        np.testing.assert_array_equal(kernels[replica], old.params["head"]["kernel"])


@pytest.mark.slow
def test_b_per_class_is_larger_if_the_old_model_has_a_small_margin(executed):
    run = executed("update.methods=mpt_kl_per_class", "optimizer.epochs=4")
    scale = stage_inputs.label_scale(run, 1, (0, "old"))
    held_out = run.known(run.dataset.validation, 0)
    for i in range(2):
        before = run.predict(run.read(0, "old"), held_out)[i]
        margin = [np.mean(metrics.margins(before, held_out.labels)[held_out.labels == k]) for k in range(5)]
        np.testing.assert_allclose(scale[i, :5], np.clip(np.mean(margin) / margin, 0.25, 4), rtol=1e-5)
        assert np.all(scale[i, 5:] == 1) and np.argmax(scale[i, :5]) == np.argmin(margin)
