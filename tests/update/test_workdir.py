"""Which folders a run may use, and what it keeps there."""

import json
import pathlib

import pytest

from mpt_jax.errors import InputError
from mpt_jax.files import sealed
from mpt_jax.update import workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = {
    "seeds": [0],
    "optimizer": {"epochs": 3},
    "dataset": {"data_dir": "here"},
    "training": {"steps_per_dispatch": 5},
}


def facts(**changes):
    made_with = {"versions": {"jax": "0"}, "device": {"platform": "cpu"}, "git_revision": None}
    return {"config": CONFIG, "images": {"train": 1}, "command": "", **made_with, **changes}


def test_a_new_run_may_start_in_a_missing_or_an_empty_folder(tmp_path):
    workdir.check(tmp_path / "missing", CONFIG)
    workdir.check(tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_only_the_training_section_may_change(tmp_path):
    workdir.claim(tmp_path / "run", facts())
    workdir.check(tmp_path / "run", CONFIG)
    workdir.check(tmp_path / "run", {**CONFIG, "training": {"steps_per_dispatch": 7}})
    workdir.check(tmp_path / "run", {**CONFIG, "dataset": {"data_dir": "there"}})  # the same data elsewhere
    workdir.check(tmp_path / "run", {**CONFIG, "dataset": {"data_dir": "here", "workers": 4}})
    with pytest.raises(InputError, match=r"optimizer\.epochs=3, now it is 4"):
        workdir.check(tmp_path / "run", {**CONFIG, "optimizer": {"epochs": 4}})
    with pytest.raises(InputError, match="new=None, now it is 1"):
        workdir.check(tmp_path / "run", {**CONFIG, "new": 1})


def test_the_error_lists_every_difference_with_both_values(tmp_path):
    workdir.claim(tmp_path / "run", facts())
    with pytest.raises(InputError) as refused:
        workdir.check(tmp_path / "run", {**CONFIG, "optimizer": {"epochs": 4}, "seeds": [1, 2]})
    assert "optimizer.epochs=3, now it is 4" in str(refused.value) and "--new-run" in str(refused.value)
    assert "seeds=[0], now it is [1, 2]" in str(refused.value)
    with pytest.raises(InputError, match="epochs=3, now it is 4"):  # another process began after the check
        workdir.claim(tmp_path / "run", facts(config={**CONFIG, "optimizer": {"epochs": 4}}))


def test_a_run_resumes_only_with_the_data_that_it_was_started_with(tmp_path):
    workdir.check_contents(tmp_path / "run", {"test images": "a"})
    workdir.claim(tmp_path / "old", facts())  # written by a version without digests
    workdir.check_contents(tmp_path / "old", {"test images": "a"})
    workdir.claim(tmp_path / "run", facts(contents={"train images": "a", "test images": "a"}))
    workdir.check_contents(tmp_path / "run", {"train images": "a", "test images": "a", "more": "b"})
    with pytest.raises(InputError, match="run was started with other test images; restore those, or give another"):
        workdir.check_contents(tmp_path / "run", {"train images": "a", "test images": "b"})


def test_the_next_free_folder_skips_runs_of_other_configs_and_finds_its_own_again(tmp_path):
    run, other = tmp_path / "run", {**CONFIG, "seeds": [1]}
    assert workdir.next_free(run, CONFIG) == run
    workdir.claim(run, facts())
    (tmp_path / "run-2").write_text("a file")
    assert workdir.next_free(run, CONFIG) == run and workdir.next_free(run, other) == tmp_path / "run-3"
    workdir.claim(tmp_path / "run-3", facts(config=other))
    assert workdir.next_free(run, other) == tmp_path / "run-3"
    assert workdir.next_free(run, {**CONFIG, "seeds": [2]}) == tmp_path / "run-4"


def test_an_unreachable_bucket_is_not_an_occupied_folder(tmp_path, monkeypatch):
    def check_access(path):
        assert path == tmp_path / "run"  # no other candidate is tried
        raise InputError("cannot reach it")

    monkeypatch.setattr(workdir.storage, "check_access", check_access)
    with pytest.raises(InputError, match="cannot reach it"):
        workdir.next_free(tmp_path / "run", CONFIG)


def test_a_second_claim_keeps_the_facts_of_the_first(tmp_path):
    workdir.claim(tmp_path, facts(command="first"))
    workdir.claim(tmp_path, facts(command="second"))
    kept = workdir.read_facts(tmp_path)
    assert kept["command"] == "first" and kept["versions"] == {"jax": "0"}


def test_an_unreadable_config_is_not_overwritten(tmp_path):
    workdir.claim(tmp_path / "run", facts())
    other = (tmp_path / "run/config.json").read_text().replace('"epochs": 3', '"epochs": 4')
    bare = json.dumps(sealed.sealed({"config": []}))
    for text, word in (
        *(("{", "unreadable"), ("[]", "damaged"), ('{"config": []}', "damaged")),
        *((other, "damaged"), (bare, "has no 'config'")),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=word):
            workdir.check(tmp_path, CONFIG)
        assert (tmp_path / "config.json").read_text() == text


def test_a_path_below_a_file_cannot_be_claimed(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        workdir.claim(tmp_path / "file/run", facts())


def test_metrics_of_repeated_steps_and_truncated_lines_are_dropped(tmp_path):
    stages = ((0, "old"), (1, "students"), (2, "students"))
    lines = [{"step": s, "release": r, "stage": stage, "values": {"loss": 1.0}} for r, stage in stages for s in (2, 4)]
    workdir.append_metrics(tmp_path, lines)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('garbage}}\n{"step": 8, "stage": "students", "val')
    workdir.drop_metrics_after(tmp_path, "r1-students", 2)
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kept == lines[:3] + lines[4:]


def test_a_key_that_is_newer_than_the_run_counts_as_its_default(tmp_path):
    workdir.claim(tmp_path / "run", facts())  # its `optimizer` has only `epochs`
    grown = {**CONFIG, "optimizer": {**CONFIG["optimizer"], "skip_nonfinite": False}}
    workdir.check(tmp_path / "run", grown)
    grown["optimizer"]["skip_nonfinite"] = True
    with pytest.raises(InputError, match=r"optimizer\.skip_nonfinite=False, now it is True"):
        workdir.check(tmp_path / "run", grown)
