"""Which folders a run may use, and what it keeps there."""

import datetime
import json
import pathlib

import numpy as np
import pytest
import strange_files

from mpt_jax.errors import InputError
from mpt_jax.files import sealed
from mpt_jax.update import workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = {
    "seeds": [0],
    "update": {"schedule": [5, 10], "methods": ["mpt_kl"]},
    "optimizer": {"epochs": 3},
    "dataset": {"data_dir": "here"},
    "training": {"steps_per_dispatch": 5},
}


def facts(**changes):
    made_with = {
        "versions": {"jax": "0"},
        "device": {"platform": "cpu", "kind": "cpu", "count": 1},
        "git_revision": None,
    }
    return {"config": CONFIG, "images": {"train": 1, "validation": 0, "test": 1}, "command": "", **made_with, **changes}


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


def test_every_session_is_recorded(tmp_path):
    settings = {"jax_enable_x64": False}
    workdir.claim(tmp_path, facts(command="first", settings=settings))
    workdir.claim(tmp_path, facts(command="second", versions={"jax": "1"}))
    first, second = workdir.read_facts(tmp_path)["sessions"]
    assert first["settings"] == settings and first["versions"] == {"jax": "0"} and first["command"] == "first"
    assert second["versions"] == {"jax": "1"} and second["command"] == "second"
    started = [datetime.datetime.fromisoformat(session["started"]) for session in (first, second)]
    assert started[0] <= started[1] <= datetime.datetime.now(datetime.UTC)
    kept = workdir.read_facts(tmp_path)
    assert workdir.other_versions(kept, {"jax": "1", "flax": "2"}) == {"jax": ["0"]}
    assert workdir.other_versions(kept, {"jax": "2"}) == {"jax": ["0", "1"]}
    assert workdir.other_versions({**kept, "sessions": []}, {"jax": "0"}) == {}


def test_a_run_of_a_version_without_sessions_gets_them(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(sealed.sealed(facts())))
    workdir.claim(tmp_path, facts(command="second"))
    assert [session["command"] for session in workdir.read_facts(tmp_path)["sessions"]] == ["second"]


@pytest.mark.parametrize(
    ("before", "now", "remedy"),
    [
        ({"jax_enable_x64": False}, {"jax_enable_x64": True}, "set JAX_ENABLE_X64=False"),
        ({"XLA_FLAGS": ""}, {"XLA_FLAGS": "--xla_a=1"}, "unset XLA_FLAGS"),
        ({"XLA_FLAGS": "--xla_a=1 --xla_b"}, {"XLA_FLAGS": ""}, "set XLA_FLAGS='--xla_a=1 --xla_b'"),
        ({"jax_default_matmul_precision": None}, {"jax_default_matmul_precision": "high"}, "unset JAX_DEFAULT_MATMUL"),
    ],
)
def test_another_setting_that_changes_numbers_is_refused_with_what_to_set(tmp_path, before, now, remedy):
    workdir.check_settings(tmp_path / "missing", now)
    workdir.claim(tmp_path, facts(settings={**before, "jax_gone": 1}))
    workdir.check_settings(tmp_path, {**before, "jax_new": 1})
    (name,) = before
    with pytest.raises(InputError, match=f"started with {name}=.*, which changes the results; {remedy}") as error:
        workdir.check_settings(tmp_path, now)
    assert repr(before[name]) in str(error.value) and repr(now[name]) in str(error.value)


def test_an_unreadable_config_is_not_overwritten(tmp_path):
    workdir.claim(tmp_path / "run", facts())
    other = (tmp_path / "run/config.json").read_text().replace('"epochs": 3', '"epochs": 4')
    bare = json.dumps(sealed.sealed({"config": []}))
    strange = json.dumps(sealed.sealed(facts(config={**CONFIG, "optimizer": {"epochs": "3"}})))
    for text, word in (
        *(("{", "unreadable"), ("[]", "damaged"), ('{"config": []}', "damaged")),
        *((other, "damaged"), (bare, r"config is \[\]; expected an object")),
        *((strange, r"config\.json: config key 'optimizer\.epochs'='3'; expected an integer; restore it"),),
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


@pytest.mark.parametrize(
    "damage", [b"\xff", b"\0", b"[" * 10**5, b"null", b'{"step": 3}', b'{"step": 1e999, "release": 0}']
)
def test_a_damaged_line_of_the_metrics_is_dropped_and_no_other(tmp_path, damage):
    line = {"step": 1, "release": 0, "stage": "old", "member": "a", "values": {"loss": None}}
    workdir.append_metrics(tmp_path, [line, {**line, "step": 2}])
    path = tmp_path / "metrics.jsonl"
    content = path.read_bytes()
    path.write_bytes(damage + b"\n" + content)
    assert [found["step"] for found in workdir.read_metrics(tmp_path)] == [1, 2]
    workdir.drop_metrics_after(tmp_path, "r1-students", 0)
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "sparse"])
def test_metrics_that_are_no_file_are_refused_with_a_remedy(tmp_path, kind):
    strange_files.put(tmp_path / "metrics.jsonl", kind)
    for read in (workdir.read_metrics, lambda folder: workdir.drop_metrics_after(folder, "r0-old", 0)):
        with pytest.raises(InputError, match=r"metrics\.jsonl cannot be read \(.*\); .*: remove it"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("images", "ids"),
    [((2, 3, 3, 2), 2), ((2, 3, 3), 2), ((2, 3, 3, 1), 3), ((0,), 0)],
)
def test_thumbnails_of_other_shapes_are_refused(tmp_path, images, ids):
    workdir.write_gallery(tmp_path, images=np.zeros(images, np.uint8), ids=np.arange(ids).astype(str))
    with pytest.raises(InputError, match=r"gallery\.npz is damaged: images uint8 .*; run the same command again"):
        workdir.read_gallery(tmp_path)
    workdir.write_gallery(tmp_path, images=np.zeros((2, 3, 3, 3), np.uint8), ids=np.array(["a", "b"]))
    assert workdir.read_gallery(tmp_path).keys() == {"a", "b"}


def test_a_key_that_is_newer_than_the_run_counts_as_its_default(tmp_path):
    workdir.claim(tmp_path / "run", facts())  # its `optimizer` has only `epochs`
    grown = {**CONFIG, "optimizer": {**CONFIG["optimizer"], "skip_nonfinite": False}}
    workdir.check(tmp_path / "run", grown)
    grown["optimizer"]["skip_nonfinite"] = True
    with pytest.raises(InputError, match=r"optimizer\.skip_nonfinite=False, now it is True"):
        workdir.check(tmp_path / "run", grown)
