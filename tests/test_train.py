"""The command from end to end on the digits: what it writes, how it resumes, what it adopts, and its errors."""

import errno
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import commands
import jax
import numpy as np
import pytest
import tiny_network

from mpt_jax import train
from mpt_jax.cli import compilation_cache
from mpt_jax.files import checkpoint, released_model, sealed, storage
from mpt_jax.training import sharding
from mpt_jax.update import lock
from mpt_jax.update import workdir as workdirs

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIGITS = str(ROOT / "configs/digits.py")
pytestmark = pytest.mark.usefixtures("without_plots")
METHODS = ("independent", "no_treatment", "pct_kl", "mpt_kl", "posthoc_bias")
SMALL = (
    *("--config.seeds=0,1", "--config.optimizer.epochs=6", "--config.update.tune={'bias': (0, 2)}"),
    f"--config.model.name={tiny_network.NAME}",
    f"--config.update.methods={','.join(METHODS[1:])}",
)
RATES = (
    *("accuracy", "accuracy_old_classes", "accuracy_new_classes", "accuracy_previous"),
    *("nfr", "relative_nfr", "pfr", "nfi", "churn", "btc", "nfr_all_classes"),
)


def arguments(digits_dir, workdir, *more):
    return ["--config", DIGITS, f"--workdir={workdir}", f"--config.dataset.data_dir={digits_dir}", *SMALL, *more]


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module", autouse=True)
def two_devices():
    """Two of the eight devices: a real mesh with fewer threads that wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, jax.devices()[:2]))
        yield


@pytest.fixture(scope="module")
def finished(digits_dir, tmp_path_factory):
    """The work directory of a small run."""
    workdir = tmp_path_factory.mktemp("run") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpt_jax.report.plots.draw", lambda report, thumbnails: {})
        assert train.main(arguments(digits_dir, workdir)) == 0
    return workdir


def test_the_work_directory_has_its_documented_layout(finished):
    assert {p.name for p in finished.iterdir()} == {
        *("config.json", "releases", "predictions", "checkpoints", "metrics.jsonl", "lock"),
        *("gallery.npz", "plots", "report.json", "report.md", "report.html"),
    }
    names = {"r0-old-seed0", "r0-old-seed1"} | {f"r1-{method}-seed{seed}" for method in METHODS for seed in (0, 1)}
    assert {p.name for p in (finished / "releases").iterdir()} == names
    assert {p.name for p in (finished / "predictions").iterdir()} == {f"{name}.npz" for name in names}
    assert list((finished / "checkpoints").iterdir()) == []
    facts = json.loads((finished / "config.json").read_text())
    assert facts["config"]["update"]["schedule"] == [5, 10] and facts["versions"]["jax"] == jax.__version__
    steps = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in steps} == {"old", "independent", "students"}
    assert all(np.isfinite(line["values"]["loss"]) for line in steps)
    assert {line["member"] for line in steps if line["stage"] == "students"} == {
        f"{label} seed={seed}"
        for label in ("no_treatment b=0", "pct_kl b=0", "mpt_kl b=0", "mpt_kl b=2")
        for seed in (0, 1)
    }


def test_the_report_keeps_its_contract_and_agrees_with_the_predictions(finished):
    report = json.loads((finished / "report.json").read_text())
    assert report["schema"] == 1
    assert report["classes"] == {"order": [str(i) for i in range(10)], "schedule": [5, 10], "not_new": 5}
    assert [(row["method"], row["seed"]) for row in report["rows"]] == [(m, s) for m in METHODS for s in (0, 1)]
    for row in report["rows"]:
        assert set(row) == {"method", "seed", "release", "objective", *RATES, "steps", "seconds", "examples_per_second"}
        new, old = (
            np.load(finished / "predictions" / f"{name}-seed{row['seed']}.npz", allow_pickle=False)
            for name in (f"r1-{row['method']}", "r0-old")
        )
        assert new["logits"].dtype == np.float32 and new["logits"].shape == (len(new["labels"]), 10)
        assert old["logits"].shape[1] == 5
        np.testing.assert_array_equal(new["ids"], old["ids"])
        known = new["labels"] < 5
        right_before = old["logits"][known].argmax(-1) == new["labels"][known]
        right_now = new["logits"][known].argmax(-1) == new["labels"][known]
        assert row["nfr"] == np.mean(right_before & ~right_now)
        assert row["pfr"] == np.mean(~right_before & right_now)
        assert row["accuracy_previous"] == np.mean(right_before)
        assert row["accuracy"] == np.mean(new["logits"].argmax(-1) == new["labels"])
        assert row["nfr_all_classes"] == pytest.approx(np.mean(right_before & ~right_now) * known.mean())
    for method in METHODS:
        rows = [row for row in report["rows"] if row["method"] == method]
        for key in RATES:
            values = [row[key] for row in rows]
            assert report["summary"][method][key] == {
                "mean": pytest.approx(np.mean(values)),
                "std": pytest.approx(np.std(values, ddof=1)),
                "count": 2,
            }
        assert f"| {method} |" in (finished / "report.md").read_text()


def test_b_is_the_best_candidate_on_validation(finished):
    selection = json.loads((finished / "report.json").read_text())["selection"]["mpt_kl"]
    assert [tried["numbers"] for tried in selection["candidates"]] == [{"bias": 0.0}, {"bias": 2.0}]
    assert selection["validation_images"] == 200
    good = [t for t in selection["candidates"] if t["accuracy"] >= selection["required_accuracy"]]
    if good:
        expected = min(good, key=lambda t: (t["nfr"], -t["accuracy"]))
    else:
        expected = max(selection["candidates"], key=lambda t: t["accuracy"])
    assert selection["candidates"][selection["chosen"]] == expected
    card = released_model.read_card(finished / "releases/r1-mpt_kl-seed1")
    assert card["objective"]["bias"] == expected["numbers"]["bias"]


def test_posthoc_bias_subtracts_a_constant_from_the_independent_model(finished):
    report = json.loads((finished / "report.json").read_text())
    selection = report["selection"]["posthoc_bias"]
    chosen = selection["candidates"][selection["chosen"]]["numbers"]["posthoc_bias"]
    assert selection["validation_images"] == 200
    for seed in (0, 1):
        before, after = (
            np.load(finished / f"predictions/r1-{method}-seed{seed}.npz")["logits"]
            for method in ("independent", "posthoc_bias")
        )
        expected = before - chosen * (np.arange(10) >= 5)
        np.testing.assert_allclose(after, expected.astype(np.float32), atol=1e-5)
        card = released_model.read_card(finished / f"releases/r1-posthoc_bias-seed{seed}")
        assert set(card["parents"]) == {f"r0-old-seed{seed}", f"r1-independent-seed{seed}"}
        assert card["objective"]["posthoc_bias"] == chosen


@pytest.mark.slow
def test_frozen_features_with_a_linear_head(features_file, tmp_path):
    overrides = (f"--config.dataset.name={features_file}", "--config.dataset.data_dir=", "--config.model.name=linear")
    few = ("--config.update.memory=per_class:20", "--config.update.methods=mpt_kl,balanced_softmax_kd,muscle")
    assert train.main([*("--config", DIGITS), f"--workdir={tmp_path / 'run'}", *SMALL, *overrides, *few]) == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert [row["method"] for row in report["rows"][::2]] == ["independent", "mpt_kl", "balanced_softmax_kd", "muscle"]
    assert min(row["accuracy"] for row in report["rows"]) > 0.8
    assert report["classes"]["order"][0] == "digit 0"


def test_a_card_names_its_parents_by_digest(finished):
    card = released_model.read_card(finished / "releases/r1-mpt_kl-seed1")
    old, independent = (released_model.read_card(finished / f"releases/r{n}-seed1") for n in ("0-old", "1-independent"))
    assert card["parents"] == {"r0-old-seed1": old["digest"], "r1-independent-seed1": independent["digest"]}
    assert released_model.read_card(finished / "releases/r1-pct_kl-seed1")["parents"] == {"r0-old-seed1": old["digest"]}
    assert old["parents"] == {} and old["classes"] == [str(i) for i in range(5)]
    digests = [released_model.read_card(path)["digest"] for path in (finished / "releases").iterdir()]
    assert len(set(digests)) == len(digests)  # no two models are the same, `independent` and `no_treatment` included


def test_the_same_command_again_trains_nothing(finished, digits_dir, capsys):
    before, starts = files(finished), workdirs.read_facts(finished)
    (finished / "report.md").unlink()
    assert train.main(arguments(digits_dir, finished)) == 0
    assert "nothing to train" in capsys.readouterr().out
    config, after, facts = pathlib.Path("config.json"), files(finished), workdirs.read_facts(finished)
    assert {**after, config: b""} == {**before, config: b""}
    assert len(facts.pop("sessions")) == len(starts.pop("sessions", [])) + 1  # each start is recorded
    assert facts | {"seal": ""} == starts | {"seal": ""}


def test_a_missing_release_is_trained_again_to_the_same_weights(finished, digits_dir, tmp_path):
    workdir = tmp_path / "digits"
    shutil.copytree(finished, workdir)
    lost = workdir / "releases/r1-mpt_kl-seed0"
    digest = released_model.read_card(lost)["digest"]
    shutil.rmtree(lost)
    assert train.main(arguments(digits_dir, workdir)) == 0
    assert released_model.read_card(lost)["digest"] == digest


@pytest.mark.slow
def test_a_released_model_is_adopted_as_the_old_one(finished, digits_dir, tmp_path):
    old = finished / "releases/r0-old-seed{seed}"
    more = (f"--config.update.old={old}", "--config.update.methods=pct_kl", "--config.seeds=1")
    assert train.main(arguments(digits_dir, tmp_path / "run", *more)) == 0
    card = released_model.read_card(tmp_path / "run/releases/r0-old-seed1")
    assert card["digest"] == released_model.read_card(finished / "releases/r0-old-seed1")["digest"]
    assert card["adopted_from"] == str(finished / "releases/r0-old-seed1")
    report, before = (json.loads((w / "report.json").read_text()) for w in (tmp_path / "run", finished))
    assert [row["method"] for row in report["rows"]] == ["independent", "pct_kl"]
    again = next(r for r in before["rows"] if (r["method"], r["seed"]) == ("independent", 1))
    assert {k: report["rows"][0][k] for k in RATES} == {k: again[k] for k in RATES}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--config.update.method=mpt_kl"], ["update.method", "methods"]),
        (["--config.update.methods=mpt"], ["mpt", "valid", "mpt_kl"]),
        (["--config.dataset.name=digit"], ["digit", "digits"]),
        (["--config.dataset.data_dir=/nowhere/at/all"], ["/nowhere/at/all"]),
        (["--config.dataset.name=cifar100"], ["cifar100", "prepare", "data_dir"]),
        (["--config.update.schedule=[5,11]"], ["11", "10"]),
        (["--config.update.schedule=[5,5]"], ["update.schedule"]),
        (["--config.dataset.class_order=[0,1,2,2,3,4,5,6,7,8,9]"], ["class_order", "2"]),
        (["--config.dataset.validation_per_class=60"], ["validation_per_class"]),
        (["--config.optimizer.batch_size=1000"], ["batch_size"]),
        (["--config.optimizer.batch_size=13"], ["batch_size", "devices"]),
        (["--config.dataset.mean=1,2,3", "--config.dataset.std=1,2,3"], ["dataset.mean", "channel"]),
        (["--config.model.stem=imagenet"], ["stem"]),
        (["--config.dataset.crop_padding=99999999999999999999"], ["crop_padding"]),
        (["--config.dataset.flip"], ["--config.dataset.flip has no value; expected --config.dataset.flip=VALUE"]),
        (["--config.optimizer.epochs=" + "9" * 30], ["optimizer.epochs"]),
        (["--workdir=" + "a" * 300], ["a" * 300]),
        (["--workdir="], ["--workdir is empty; expected a folder"]),
        (["--config.update.old=/nowhere/at/all"], ["/nowhere/at/all"]),
        (["--verbose"], ["--verbose", "--config"]),
        (["extra"], ["extra"]),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(more, words, digits_dir, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert train.main(arguments(digits_dir, workdir, *more)) == 2
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1 and captured.err.startswith("error: ")
    for word in words:
        assert word in captured.err
    assert not workdir.exists()


def test_no_or_unknown_config_file(capsys):
    assert train.main([]) == 2
    assert "--config" in capsys.readouterr().err
    assert train.main(["--config", str(ROOT / "configs/digit.py")]) == 2
    assert "digits.py" in capsys.readouterr().err


def test_a_teacher_with_another_class_order_is_an_error(finished, digits_dir, tmp_path, capsys):
    more = (f"--config.update.old={finished}/releases/r0-old-seed0", "--config.dataset.class_order=seed:1")
    assert train.main(arguments(digits_dir, tmp_path / "run", *more)) == 2
    error = capsys.readouterr().err
    assert "class order" in error and len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    more = (f"--config.update.independent={finished}/releases/r0-old-seed0",)
    assert train.main(arguments(digits_dir, tmp_path / "run", *more)) == 2
    assert "5 classes, not 10" in capsys.readouterr().err


def test_an_unsuitable_work_directory_is_an_error_and_is_not_changed(finished, digits_dir, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert train.main(arguments(digits_dir, tmp_path / "file")) == 2
    assert "is a file" in capsys.readouterr().err
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine").write_text("mine")
    assert train.main(arguments(digits_dir, tmp_path / "folder")) == 2
    assert "not empty" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["mine"]
    before = files(finished)
    assert train.main(arguments(digits_dir, finished, "--config.optimizer.epochs=7")) == 2
    error = capsys.readouterr().err
    assert "optimizer.epochs=6" in error and "7" in error
    with lock.hold(finished):
        assert train.main(arguments(digits_dir, finished)) == 2
    assert f"in use by process {os.getpid()} " in capsys.readouterr().err
    assert files(finished) == before


def test_new_run_uses_a_folder_next_to_an_existing_run(finished, digits_dir, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    before = files(finished)
    teachers = [f"--config.update.{n}={finished}/releases/{r}-seed0" for n, r in (("old", "r0-old"),)]
    teachers += [f"--config.update.independent={finished}/releases/r1-independent-seed0"]
    other = arguments(digits_dir, tmp_path / "run", "--new-run", "--config.update.methods=posthoc_bias", *teachers)
    assert train.main(other) == 0 and train.main(other) == 0
    assert "nothing to train" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]
    assert (tmp_path / "run-2/report.json").is_file() and files(tmp_path / "run") == before


def test_a_full_disk_is_one_line_and_status_3(digits_dir, tmp_path, capsys, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(storage, "write_bytes", full)
    assert train.main(arguments(digits_dir, tmp_path / "run")) == 3
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "No space left on device" in error and "free some space" in error


def test_arguments_in_either_form():
    assert train.parse(["--config", "c.py", "--workdir", "there"]) == train.Options("c.py", pathlib.Path("there"), ())
    assert train.parse(["--config=c.py:smoke", "--new-run", "--config.a.b", "3", "--config.c=d=e"]) == train.Options(
        "c.py:smoke", None, ("a.b=3", "c=d=e"), cached=True, new_run=True
    )


def test_the_compilation_cache_is_on_unless_the_flag_turns_it_off(digits_dir, tmp_path, monkeypatch):
    enabled = []
    monkeypatch.setattr(compilation_cache, "enable", lambda log: enabled.append(1))
    stopped = arguments(digits_dir, tmp_path / "run", "--config.update.schedule=[5,11]")  # before anything compiles
    assert train.main([*stopped, "--no-compilation-cache"]) == 2 and enabled == []
    assert train.main(stopped) == 2 and enabled == [1]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_work_directory_that_others_may_write_to_is_named(digits_dir, tmp_path, capsys):
    line = arguments(digits_dir, tmp_path / "run", "--config.update.schedule=[5,11]")  # before anything compiles
    for mode, named in ((0o700, False), (0o777, True)):
        tmp_path.chmod(mode)
        assert train.main(line) == 2
        warned = f"everyone may write to {tmp_path}: a change that others make in {tmp_path / 'run'} changes what"
        assert (warned in capsys.readouterr().out) == named


def test_the_default_work_directory_is_named_after_the_config(digits_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/digits").write_text("in the way")
    assert train.main(["--config", DIGITS, f"--config.dataset.data_dir={digits_dir}"]) == 2
    assert "runs/digits is a file" in capsys.readouterr().err


def test_lost_predictions_are_written_again(finished, digits_dir, tmp_path):
    workdir = tmp_path / "digits"
    shutil.copytree(finished, workdir)
    (workdir / "predictions/r0-old-seed0.npz").write_bytes(b"damaged")
    (workdir / "predictions/r1-mpt_kl-seed1.npz").unlink()
    assert train.main(arguments(digits_dir, workdir)) == 0
    for path in (finished / "predictions").iterdir():
        with np.load(path) as before, np.load(workdir / "predictions" / path.name) as now:
            np.testing.assert_array_equal(before["labels"], now["labels"])
            np.testing.assert_allclose(before["logits"], now["logits"], rtol=1e-5, atol=1e-5)


def test_students_of_another_teacher_are_an_error(finished, digits_dir, tmp_path, capsys):
    workdir = tmp_path / "digits"
    shutil.copytree(finished, workdir)
    path = workdir / "releases/r0-old-seed0/card.json"
    card = {**json.loads(path.read_text()), "digest": "0" * 64}
    path.write_text(json.dumps(card))
    assert train.main(arguments(digits_dir, workdir)) == 2
    assert "card.json is damaged or was edited" in capsys.readouterr().err
    path.write_text(json.dumps(sealed.sealed(card)))
    assert train.main(arguments(digits_dir, workdir)) == 2
    assert "another r0-old-seed0" in capsys.readouterr().err


def test_a_damaged_teacher_is_an_error_before_anything_is_written(finished, digits_dir, tmp_path, capsys):
    old = tmp_path / "old"
    shutil.copytree(finished / "releases/r0-old-seed0", old)
    card = json.loads((old / "card.json").read_text())
    for change in ({"digest": "0" * 64}, {"classes": 3}, {"architecture": {"name": "vit", "options": {}}}):
        (old / "card.json").write_text(json.dumps(sealed.sealed({**card, **change})))
        assert train.main(arguments(digits_dir, tmp_path / "run", f"--config.update.old={old}")) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert not (tmp_path / "run").exists()


def test_divergence_ends_in_one_line_that_names_the_member(digits_dir, tmp_path, capsys):
    assert train.main(arguments(digits_dir, tmp_path / "run", "--config.optimizer.learning_rate=1e20")) == 2
    error = capsys.readouterr().err
    assert re.search(r"old b=0 seed=0 of stage old diverged by step \d+.*there is no checkpoint; lower", error)
    assert "learning_rate" in error
    assert not (tmp_path / "run/report.json").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_an_error_in_one_line(digits_dir, tmp_path, capsys):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert train.main(arguments(digits_dir, tmp_path / "closed/run")) == 2
    assert "cannot write" in capsys.readouterr().err


def command(digits_dir, workdir, *more):
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    # The processes of a test run the same programs: the first one compiles them for all.
    environment |= {"JAX_ENABLE_COMPILATION_CACHE": "true", "XDG_CACHE_HOME": str(workdir.parent / "cache")}
    environment |= {"HOME": str(workdir.parent), "LOCALAPPDATA": str(workdir.parent / "cache")}
    code = (
        "import sys; from mpt_jax import train; status = train.main(); "
        "print('imported', sorted({'tensorflow', 'torch'} & set(sys.modules))); sys.exit(status)"
    )
    line = [sys.executable, "-c", code, *arguments(digits_dir, workdir, *more)]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.ci
@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_bit_identical(digits_dir, tmp_path):
    often = ("--config.training.checkpoint_every=3", "--config.training.steps_per_dispatch=2")
    often += ("--config.model.name=convnet",)
    whole = command(digits_dir, tmp_path / "whole", *often)
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output
    assert "reading digits" in output and "report.md" in output and "Traceback" not in output
    assert output.strip().endswith("imported []")  # neither TensorFlow nor PyTorch, however indirectly
    compiled = {path for path in tmp_path.rglob("*-cache") if "compiled" in path.parts}
    assert sum("train_steps" in path.name for path in compiled) == 3

    for stage in ("r0-old", "r1-students"):  # killed in the first population, then in the last
        process = command(digits_dir, tmp_path / "killed", *often)
        deadline = time.monotonic() + 240
        while not checkpoint.saved_steps(tmp_path / "killed/checkpoints" / stage):
            assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    resumed = command(digits_dir, tmp_path / "killed", *often)
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, output
    assert "resumed from step" in output and "WARNING" not in output
    assert {path for path in tmp_path.rglob("*-cache") if "compiled" in path.parts} == compiled  # nothing new

    cards = [
        {p.name: released_model.read_card(p)["digest"] for p in (tmp_path / name / "releases").iterdir()}
        for name in ("whole", "killed")
    ]
    assert cards[0] == cards[1]
    rows = [json.loads((tmp_path / name / "report.json").read_text())["rows"] for name in ("whole", "killed")]
    for a, b in zip(*rows, strict=True):
        timing = {"seconds", "examples_per_second"}
        assert {k: v for k, v in a.items() if k not in timing} == {k: v for k, v in b.items() if k not in timing}
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_members_on_one_core_each_learn_the_same_as_on_all_cores(digits_dir, tmp_path):
    # Three objectives of one seed: on two cores they do not divide.
    uneven = ("--config.seeds=3", "--config.update.methods=no_treatment,pct_kl,mpt_kl", "--config.update.tune={}")
    uneven += ("--config.training.steps_per_dispatch=5", "--config.model.name=convnet")
    lines = []
    for cores in (0, 1):
        process = command(digits_dir, tmp_path / f"{cores}", *uneven, f"--config.training.cores={cores}")
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        text = (tmp_path / f"{cores}/metrics.jsonl").read_text()
        lines.append(
            {
                (line["stage"], line["member"], line["step"]): line["values"]
                for line in map(json.loads, text.splitlines())
            }
        )
    assert lines[0].keys() == lines[1].keys() and len({member for _, member, _ in lines[0]}) == 5
    for key, values in lines[0].items():
        assert values["loss"] == pytest.approx(lines[1][key]["loss"], rel=1e-3), key


def test_help_lists_the_options_without_importing_jax():
    code = (
        "import sys, mpt_jax.train as t\ntry: t.main(['--help'])\nexcept SystemExit: pass\nprint('jax' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert "--config" in output and "--workdir" in output
    assert output.strip().endswith("False")


@pytest.mark.ci
@pytest.mark.slow
def test_mpt_has_fewer_flips_at_comparable_accuracy_on_the_digits(digits_dir, tmp_path):
    line = ["--config", DIGITS, f"--workdir={tmp_path}/run", f"--config.dataset.data_dir={digits_dir}"]
    status, _, errors = commands.run(tmp_path, "train", *line)  # with a user's flags: those of the tests compute slowly
    assert status == 0, errors
    summary = json.loads((tmp_path / "run/report.json").read_text())["summary"]
    assert summary["mpt_kl"]["nfr"]["count"] >= 8
    assert summary["mpt_kl"]["nfr"]["mean"] < summary["no_treatment"]["nfr"]["mean"]
    assert summary["mpt_kl"]["accuracy"]["mean"] > summary["no_treatment"]["accuracy"]["mean"] - 0.01
    assert summary["no_treatment"]["nfr"]["mean"] > 0.01  # the split is hard enough for flips to be measured


@pytest.mark.slow
def test_the_smoke_variant_of_cifar100_runs(cifar_dir, tmp_path):
    line = ["--config", str(ROOT / "configs/cifar100.py:smoke"), f"--workdir={tmp_path}/run"]
    assert train.main([*line, f"--config.dataset.data_dir={cifar_dir}"]) == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert {row["method"] for row in report["rows"]} == set(METHODS) - {"posthoc_bias"}
