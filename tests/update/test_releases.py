"""Releases on disk: the card, its parents, lost predictions, and cards that are read once."""

import json

import numpy as np
import pytest

from mpt_jax import metrics
from mpt_jax.errors import InputError
from mpt_jax.files import released_model, sealed
from mpt_jax.files.predictions import released
from mpt_jax.objectives import METHODS
from mpt_jax.update import execute, releases
from mpt_jax.update.selection import Member


@pytest.fixture
def run(executed):
    return executed("update.methods=mpt_kl,posthoc_bias")


def logits(run, release, method):
    return released.read(run.predictions(run.folder(release, method, 0)))["logits"]


def test_a_card_has_the_rates_of_the_predictions_and_its_parents(run):
    card, labels = run.card(run.folder(1, "mpt_kl", 0)), run.dataset.test.labels
    old, new = (logits(run, *pair).argmax(-1) for pair in ((0, "old"), (1, "mpt_kl")))
    assert card["metrics"] == metrics.class_growth_metrics(old, new, labels, num_old_classes=5)
    assert card["parents"] == {
        name: released_model.read_card(run.workdir / "releases" / name)["digest"]
        for name in ("r0-old-seed0", "r1-independent-seed0")
    }
    assert run.card(run.folder(0, "old", 0))["metrics"] == {"accuracy": np.mean(old[labels < 5] == labels[labels < 5])}
    assert card["scenario"] == releases.scenario(run) and card["made_with"] == run.provenance


def test_an_existing_release_is_not_written_again(run):
    folder = run.folder(1, "mpt_kl", 0)
    before = folder.stat().st_mtime_ns
    other, _ = released_model.read(run.folder(1, "independent", 0))
    releases.write(run, 1, Member("mpt_kl", METHODS["mpt_kl"]), 0, other, {})
    assert folder.stat().st_mtime_ns == before


def test_cards_are_read_from_disk_once_in_a_session(prepared, run, monkeypatch):
    reads, read_card = [], released_model.read_card
    monkeypatch.setattr(released_model, "read_card", lambda folder: reads.append(folder.name) or read_card(folder))
    names = sorted(folder.name for folder in run.all_released())
    again = prepared(*overrides_of(run))
    assert not execute(again, "command")
    assert sorted(reads) == names and len(names) == 2 * 4


def overrides_of(run):
    """Return the overrides that prepare this run once more."""
    small = ("optimizer.epochs=2", "optimizer.batch_size=32", "dataset.validation_per_class=10", "model.name=mlp")
    features = (f"dataset.name={run.config.dataset.name}", "dataset.data_dir=", "dataset.train_per_class=30")
    return "seeds=0,1", "update.methods=mpt_kl,posthoc_bias", "training.steps_per_dispatch=3", *small, *features


def test_lost_and_damaged_predictions_are_written_again(run):
    paths = [run.predictions(folder) for folder in run.all_released()]
    before = [path.read_bytes() for path in paths]
    paths[0].unlink()
    paths[-1].write_bytes(before[-1][:-7])
    assert list(releases.lost_predictions(run)) == [run.all_released()[0], run.all_released()[-1]]
    assert releases.restore_predictions(run)
    assert [path.read_bytes() for path in paths] == before
    assert not releases.restore_predictions(run)


def test_a_release_of_another_teacher_is_an_error(run):
    path = run.folder(0, "old", 0) / "card.json"
    path.write_text(json.dumps(sealed.sealed({**json.loads(path.read_text()), "digest": "0" * 64})))
    run.cards.clear()
    message = r"r1-independent-seed0 was made with another r0-old-seed0 than .*; restore that one, or remove .*/r1-\*"
    with pytest.raises(InputError, match=message):
        releases.check_lineage(run)
