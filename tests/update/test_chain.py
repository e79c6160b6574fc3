"""Files of a work directory that are whole, but not those that belong there, are found before they are used."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from interrupted import Interrupted, InterruptedAt, never

from mpt_jax import report
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint, released_model, sealed
from mpt_jax.files.predictions import released
from mpt_jax.update import chain, execute

OPTIONS = ("update.methods=no_treatment,mpt_kl", "training.checkpoint_every=5")


def outcome(folder):
    """Return the digests of all releases, their metrics, and the bytes of all predictions."""
    cards = [released_model.read_card(path) for path in sorted((folder / "releases").iterdir())]
    predictions = {path.name: path.read_bytes() for path in (folder / "predictions").iterdir()}
    return [(card["name"], card["digest"], card["metrics"]) for card in cards], predictions


def swap(one, other):
    """Exchange two files or folders."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def test_a_checkpoint_under_the_name_of_another_step_is_not_resumed_from(executed, tmp_path):
    whole = executed(*OPTIONS, folder=tmp_path / "whole")
    with contextlib.suppress(Interrupted):
        executed(*OPTIONS, folder=tmp_path / "run", progress=InterruptedAt("students", 11))
    assert checkpoint.saved_steps(tmp_path / "run/checkpoints/r1-students") == [10, 5]

    copy, progress = tmp_path / "copied", never()
    shutil.copytree(tmp_path / "run", copy)
    states = copy / "checkpoints/r1-students"
    shutil.copytree(states / "10", states / "9999")
    executed(*OPTIONS, folder=copy, progress=progress)
    text = f"{states / '9999'} was copied or renamed: it is the checkpoint of step 10: trying an older checkpoint"
    assert text in progress.output.getvalue() and progress.starts == [("students", 10)]
    assert outcome(copy) == outcome(whole.workdir)

    states = tmp_path / "run/checkpoints/r1-students"
    swap(states / "5", states / "10")
    with pytest.raises(InputError, match=f"no checkpoint in {states} can be used; remove that folder to train"):
        executed(*OPTIONS, folder=tmp_path / "run")


def test_a_checkpoint_of_a_run_with_another_config_is_not_resumed_from(executed, tmp_path):
    """The other run has the same shapes, and the same teacher: none."""
    for name, rate in (("one", "0.01"), ("other", "0.02")):
        with contextlib.suppress(Interrupted):
            options = (*OPTIONS, f"optimizer.learning_rate={rate}")
            executed(*options, folder=tmp_path / name, progress=InterruptedAt("old", 8))
    states = [tmp_path / name / "checkpoints/r0-old/5" for name in ("one", "other")]
    shutil.rmtree(states[0])
    shutil.copytree(states[1], states[0])
    with pytest.raises(InputError, match=r"no checkpoint in .*one/checkpoints/r0-old can be used"):
        executed(*OPTIONS, "optimizer.learning_rate=0.01", folder=tmp_path / "one")


def test_predictions_of_two_seeds_that_were_swapped_before_the_students_are_compared(executed, tmp_path):
    whole = executed(*OPTIONS, folder=tmp_path / "whole")
    with contextlib.suppress(Interrupted):
        executed(*OPTIONS, folder=tmp_path / "run", progress=InterruptedAt("students", 1))
    files = [tmp_path / f"run/predictions/r0-old-seed{seed}.npz" for seed in (0, 1)]
    swap(*files)
    progress = never()
    executed(*OPTIONS, folder=tmp_path / "run", progress=progress)
    assert (
        f"{files[0]} holds other predictions, those of r0-old-seed1; computed again\n"
        f"{files[1]} holds other predictions, those of r0-old-seed0; computed again\n"
    ) in progress.output.getvalue()
    assert outcome(tmp_path / "run") == outcome(whole.workdir)


@pytest.fixture
def run(executed):
    return executed(*OPTIONS)


def test_predictions_of_two_methods_that_were_swapped_are_not_reported(run):
    before, expected = report.build(run.workdir), outcome(run.workdir)
    files = [run.predictions(run.folder(1, method, 0)) for method in ("no_treatment", "mpt_kl")]
    swap(*files)
    with pytest.raises(InputError, match="holds other predictions, those of r1-mpt_kl-seed0; run the same command"):
        report.write(run.workdir)
    assert execute(run, "command")  # the same command once more
    assert outcome(run.workdir) == expected and report.build(run.workdir) == before


def test_predictions_on_other_test_data_or_of_other_weights_are_not_reported(run):
    folder = run.folder(1, "mpt_kl", 1)
    arrays, card = run.read_predictions(folder), run.card(folder)
    for about, words in (
        (chain.about(folder.name, "0" * 64, run.contents), "of other weights"),
        (chain.about(folder.name, card["digest"], {**run.contents, "test images": "0"}), "of other test data"),
    ):
        released.write(run.predictions(folder), **arrays, about=about)
        with pytest.raises(InputError, match=words):
            report.build(run.workdir)


def test_release_folders_that_were_swapped_or_linked_are_refused(run, executed):
    one, other = (run.folder(1, "mpt_kl", seed) for seed in (0, 1))
    message = "r1-mpt_kl-seed0 holds the release r1-mpt_kl-seed1, because .*; move it to its own name, or remove"

    def refused():
        for use in (lambda: executed(*OPTIONS), lambda: report.build(run.workdir)):
            with pytest.raises(InputError, match=message):
                use()

    swap(one, other)
    refused()
    swap(one, other)
    assert report.build(run.workdir)["rows"]
    one.rename(run.workdir / "aside")
    one.symlink_to(other)  # the other seed would be counted twice
    refused()
    one.unlink()
    shutil.copytree(other, one)
    refused()
    shutil.rmtree(one)
    elsewhere = run.workdir.parent / one.name
    (run.workdir / "aside").rename(elsewhere)
    one.symlink_to(elsewhere)  # the release itself, on another disk
    assert report.build(run.workdir)["rows"] and not execute(run, "command")


def test_a_release_of_a_run_with_another_config_is_refused(run, executed, tmp_path):
    """Its name and its parents are the right ones: the other run has adopted them."""
    teachers = (
        f"update.old={run.workdir}/releases/r0-old-seed{{seed}}",
        f"update.independent={run.workdir}/releases/r1-independent-seed{{seed}}",
    )
    other = executed(*OPTIONS, *teachers, "optimizer.learning_rate=0.02", folder=tmp_path / "other")
    ours, theirs = (each.folder(1, "mpt_kl", 0) for each in (run, other))
    assert run.card(ours)["parents"] == other.card(theirs)["parents"]
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    for use in (lambda: executed(*OPTIONS), lambda: report.build(run.workdir)):
        with pytest.raises(InputError, match="r1-mpt_kl-seed0 is a release of another run; restore the one of this"):
            use()


def test_a_missing_or_changed_model_is_refused_though_the_run_is_finished(run, executed):
    model = run.folder(1, "mpt_kl", 0) / "model"
    largest = max((path for path in model.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size, but later than the card
    with pytest.raises(InputError, match=f"{largest} is damaged; restore it from a copy, or remove .*-seed0 to train"):
        executed(*OPTIONS)
    largest.write_bytes(content)
    executed(*OPTIONS)
    shutil.rmtree(model)
    with pytest.raises(InputError, match="is missing; restore it from a copy"):
        executed(*OPTIONS)
    assert report.build(run.workdir)["rows"]  # which needs no weights


def test_a_report_needs_every_parent(run):
    shutil.rmtree(run.folder(0, "old", 1))
    with pytest.raises(InputError, match=r"no released model at .*r0-old-seed1"):
        report.build(run.workdir)


def test_a_run_of_a_version_whose_files_did_not_name_their_place_is_read_with_a_line(run, executed):
    expected = report.build(run.workdir)
    for folder in run.all_released():
        card = json.loads((folder / "card.json").read_text())
        arrays = run.read_predictions(folder)
        del card["run"], card["sizes"]
        (folder / "card.json").write_text(json.dumps(sealed.sealed(card)))
        released.write(run.predictions(folder), **arrays)
    progress = never()
    executed(*OPTIONS, progress=progress)
    assert f"{2 * 4} releases were made before cards named their run" in progress.output.getvalue()
    assert report.build(run.workdir) == expected and not progress.starts
    swap(run.folder(1, "mpt_kl", 0), run.folder(1, "mpt_kl", 1))
    with pytest.raises(InputError, match="holds the release r1-mpt_kl-seed1"):
        executed(*OPTIONS)


def test_links_are_checked_by_digest():
    cards = {"a": {"digest": "1", "parents": {}}, "b": {"digest": "2", "parents": {"a": "1", "c": "3"}}}
    assert [*chain.broken_links("b", cards, complete=False)] == []
    assert [*chain.broken_links("b", cards, complete=True)] == ["was made with c, which is missing"]
    cards["c"] = {"digest": "4", "parents": {}}
    assert [*chain.broken_links("b", cards, complete=True)] == [
        "was made with another c than the one in the work directory"
    ]


def test_predictions_depend_on_the_test_data_alone():
    contents = {"train images": "1", "test images": "2", "test labels and ids": "3"}
    base = chain.about("r0-old-seed0", "ff", contents)
    assert base == chain.about("r0-old-seed0", "ff", {**contents, "train images": "4"})
    assert base != chain.about("r0-old-seed0", "ff", {**contents, "test images": "4"})
    assert chain.about("r0-old-seed0", "ff", {}) == {"release": "r0-old-seed0", "weights": "ff"}
    assert np.unique([*base.values()]).size == 3
