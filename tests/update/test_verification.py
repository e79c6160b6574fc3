"""Every file of a run is checked, and what does not hold is named in the row of its kind."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from damage import damaged_copies
from interrupted import Interrupted, InterruptedAt
from releases import release
from workdirs import make_workdir

from mpt_jax import report
from mpt_jax.errors import InputError
from mpt_jax.files import checkpoint, released_model, sealed, storage
from mpt_jax.files.predictions import released
from mpt_jax.update import chain, workdir
from mpt_jax.update.verification import verify

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPTIONS = ("update.methods=mpt_kl", "seeds=0,1")


def faults(folder, **options):
    """Return the lines of each kind of file that does not hold."""
    return {row.what: list(row.faults) for row in verify(folder, **options) if row.faults}


def counts(folder, **options):
    return {row.what: row.checked for row in verify(folder, **options)}


@pytest.fixture
def run(executed):
    run = executed(*OPTIONS)
    report.write(run.workdir)
    return run


def test_a_finished_run_holds(run):
    assert counts(run.workdir) == {
        **{"config": 1, "cards": 6, "links to parents": 2 * 3, "models": 6, "predictions": 6},
        **{"checkpoints": 0, "backbones": 0, "gallery": 0, "report": 1},
    }
    before = storage.listing(run.workdir)
    for digests in (True, False):
        assert faults(run.workdir, digests=digests) == {}
        assert not any(row.unnamed for row in verify(run.workdir, digests=digests))
    assert storage.listing(run.workdir) == before


def test_a_damaged_release_is_found(run, tmp_path):
    release, count = run.folder(1, "mpt_kl", 0), 0
    files = [path for path in release.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size).relative_to(
        release
    )  # the tests of releases damage every file
    for copy, name in damaged_copies(release, tmp_path / "damaged"):
        if name not in (largest, pathlib.Path("card.json")):
            continue
        aside = tmp_path / "aside"
        release.rename(aside)
        copy.rename(release)
        found = faults(run.workdir)
        assert found.keys() & {"cards", "models"}, name
        assert any(str(release / name) in line or str(release) in line for lines in found.values() for line in lines)
        shutil.rmtree(release)
        aside.rename(release)
        count += 1
    assert count == 2 * 4 and faults(run.workdir) == {}


def test_a_bit_that_flipped_on_the_disk_is_found_by_digests_alone(run):
    model = run.folder(0, "old", 1) / "model"
    path = max((path for path in model.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content, written = path.read_bytes(), path.stat().st_mtime
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, (written, written))
    assert faults(run.workdir, digests=False) == {}
    (line,) = faults(run.workdir)["models"]
    assert line.startswith(f"{path} is damaged; restore it from a copy")


def test_weights_that_are_not_those_of_the_card_are_found(run):
    """The card names the files that are there, but the digest of other weights."""
    path = run.folder(1, "mpt_kl", 0) / "card.json"
    card = json.loads(path.read_text()) | {"digest": "0" * 64}
    path.write_text(json.dumps(sealed.sealed(card)))
    found = faults(run.workdir)
    assert "does not match the digest in its card.json" in found["models"][0]
    assert "holds other predictions, of other weights" in found["predictions"][0]


def test_predictions_that_do_not_belong_are_found(run):
    one, other = (run.predictions(run.folder(1, "mpt_kl", seed)) for seed in (0, 1))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    for digests in (True, False):
        (line,) = faults(run.workdir, digests=digests)["predictions"]
        assert line.startswith(f"{one} holds other predictions, those of r1-mpt_kl-seed1")
    one.write_bytes(content)
    shutil.copy(one, one.with_name("r9-mpt_kl-seed0.npz"))
    (line,) = faults(run.workdir)["predictions"]
    assert "r9-mpt_kl-seed0.npz belongs to no release" in line
    one.with_name("r9-mpt_kl-seed0.npz").unlink()
    one.with_name(f".{one.name}.unfinished").write_bytes(b"left by a process that was killed")
    assert faults(run.workdir) == {}
    arrays = released.read(one)
    about = chain.about("r1-mpt_kl-seed0", run.card(run.folder(1, "mpt_kl", 0))["digest"], run.contents)
    released.write(one, **arrays | {"labels": arrays["labels"][::-1]}, about=about)
    (line,) = faults(run.workdir)["predictions"]
    assert "has other labels or ids than the test data of the run" in line
    one.unlink()
    (line,) = faults(run.workdir)["predictions"]
    assert "is missing or damaged" in line


def test_releases_out_of_place_and_missing_ones_are_found(run):
    one, other = (run.folder(0, "old", seed) for seed in (0, 1))
    one.rename(run.workdir / "aside")
    one.symlink_to(other)
    found = faults(run.workdir)
    assert "r0-old-seed0 holds the release r0-old-seed1" in found["cards"][0]
    assert len(found["links to parents"]) == 2 and "was made with r0-old-seed0, which is missing" in str(found)
    one.unlink()
    assert faults(run.workdir)["cards"] == [f"{one} is missing"]
    (run.workdir / "report.json").unlink()  # not finished: a release that nothing was made from may be missing
    shutil.rmtree(run.folder(1, "mpt_kl", 0))
    assert "cards" not in faults(run.workdir)


def test_a_report_of_other_numbers_is_found(run):
    path = run.workdir / "report.json"
    result = json.loads(path.read_text())
    result["rows"][0]["nfr"] += 0.001
    path.write_text(json.dumps(result))
    (line,) = faults(run.workdir)["report"]
    assert "has other numbers than the card of r1-independent-seed0; run the same command again" in line
    for content in ("", "[]", '{"rows": [1]}', '{"rows": []}'):
        path.write_text(content)
        assert len(faults(run.workdir)["report"]) == 1


def test_checkpoints_are_checked_while_a_run_is_not_finished(executed, tmp_path):
    with contextlib.suppress(Interrupted):
        executed("update.methods=mpt_kl", "training.checkpoint_every=5", progress=InterruptedAt("students", 11))
    folder = tmp_path / "run"
    states = folder / "checkpoints/r1-students"
    assert counts(folder)["checkpoints"] == 2 and faults(folder) == {}
    shutil.copytree(states / "10", states / "99")
    shutil.copytree(states / "10", folder / "checkpoints/r1-other/10")
    found = faults(folder, digests=False)["checkpoints"]
    assert len(found) == 2 and "r1-other/10 is the checkpoint of another stage" in found[0]
    assert f"{checkpoint.step_folder(states, 99)} was copied or renamed" in found[1]


@pytest.mark.slow
def test_the_check_of_a_hundred_releases_without_digests_takes_less_than_two_seconds(tmp_path):
    folder = make_workdir(tmp_path / "run", seeds=tuple(range(25)))
    run, model, paths = workdir.identity(workdir.read_facts(folder)), release(tmp_path / "one"), []
    labels, logits = np.arange(2000) % 10, np.zeros((2000, 10), np.float32)
    (folder / "predictions").mkdir()
    for path in (folder / "releases").iterdir():
        card = json.loads((path / "card.json").read_text())
        for key in ("files", "digest", "seal"):
            del card[key]
        shutil.rmtree(path)
        card |= {"run": run, "classes": list("0123456789"), "architecture": {"name": "convnet", "options": {}}}
        released_model.write(path, model, card)
        about = chain.about(path.name, released_model.identity(model), {})
        released.write(chain.predictions_path(folder, path.name), labels=labels, logits=logits, ids=labels, about=about)
        paths.append(path)
    seconds = {}
    for digests in (False, True):
        started = time.perf_counter()
        assert faults(folder, digests=digests) == {}
        seconds[digests] = time.perf_counter() - started
    count, commands = len(storage.listing(folder / "releases")), []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mpt_jax.verify", str(folder), "--quick"], cwd=ROOT, check=True)
        commands.append(time.perf_counter() - started)
    print(f"{len(paths)} releases, {count} files: {seconds[False]:.2f} s, with digests {seconds[True]:.1f} s")
    print(f"the whole command without digests, five times: {', '.join(f'{each:.2f}' for each in sorted(commands))} s")
    assert len(paths) == 100 and seconds[False] < 2 and min(commands) < 2


def test_the_config_is_part_of_the_chain(run, tmp_path):
    path = run.workdir / "config.json"
    text = path.read_text()
    path.write_text(text.replace('"epochs": 2', '"epochs": 3'))
    (line,) = faults(run.workdir)["config"]
    assert "is damaged or was edited" in line
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(sealed.sealed(facts)))  # by someone who knows how
    found = faults(run.workdir)["cards"]
    assert len(found) == 6 and all("is a release of another run" in line for line in found)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="is not a work directory of mpt_jax: it has no config"):
            verify(folder)


def test_a_gallery_is_read(run):
    sealed.write_arrays(
        run.workdir / "gallery.npz", {"images": np.zeros((1, 2, 2, 1), np.uint8), "ids": np.array(["a"])}
    )
    assert counts(run.workdir)["gallery"] == 1 and faults(run.workdir) == {}
    content = (run.workdir / "gallery.npz").read_bytes()
    (run.workdir / "gallery.npz").write_bytes(content[: len(content) // 2])
    assert "gallery.npz is missing or damaged" in faults(run.workdir)["gallery"][0]
