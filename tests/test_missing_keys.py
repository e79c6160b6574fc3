"""A file of a run that lacks a key is read or refused in one line, although its digest fits: no reader needs a key
that the check of the file does not require."""

import copy
import json
import os
import shutil

import chaos
import jax
import numpy as np
import pytest
from releases import release
from workdirs import make_workdir_with_predictions

from mpt_jax import predict, report, verify
from mpt_jax.errors import InputError
from mpt_jax.files import released_model, sealed
from mpt_jax.training import sharding

CARDS = ("r0-old-seed0", "r1-no_treatment-seed0", "r1-mpt_kl-seed0")
# Keys that a reader needed and no check required, each in one of the files that have it.
NEEDED = {
    "config.json": [("config", "update", "methods"), ("images", "test"), ("device", "count"), ("config", "dataset")],
    "releases/r1-mpt_kl-seed0/card.json": [
        *[("metrics", "nfr"), ("objective", "bias"), ("made_with", "device", "kind"), ("selection", "chosen")],
        *[("selection", "validation_images"), ("selection", "required_accuracy")],
    ],
}


def keys(value, above=()):
    """Yield the path of every key in a JSON value, in lists those of the first item."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value[:1] if value else ()):
        if isinstance(value, dict):
            yield (*above, key)
        if isinstance(inner, dict | list):
            yield from keys(inner, (*above, key))


def drop(path, key):
    """Remove a key from a sealed file, and seal it again; return its text before."""
    before = path.read_text()
    contents = copy.deepcopy(json.loads(before))
    *above, last = key
    inner = contents
    for each in above:
        inner = inner[each]
    del inner[last]
    path.write_text(json.dumps(sealed.sealed(contents)))
    return before


def outcome(act):
    """Return what an action did; any exception but an `InputError` in one line fails the test."""
    try:
        return act()
    except InputError as error:
        assert "\n" not in str(error)
        return 2


def check(folder, name, key, readers):
    path = folder / name
    before = drop(path, key)
    for act in readers:
        try:
            outcome(act)
        except Exception as error:
            raise AssertionError(f"{name} without {'.'.join(map(str, key))}") from error
    path.write_text(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of crafted cards with choices on validation images."""
    return make_workdir_with_predictions(tmp_path_factory.mktemp("crafted") / "run", seeds=(0,))


def readers(folder):
    return [lambda: report.build(folder), lambda: verify.main([str(folder), "--quick"])]


def test_what_readers_needed(finished, capsys):
    for name, found in NEEDED.items():
        for key in found:
            check(finished, name, key, readers(finished)[:1])
    assert report.build(finished)["rows"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", *(f"releases/{card}/card.json" for card in CARDS)])
def test_every_key_of_a_finished_run(finished, capsys, name):
    found = [*keys(json.loads((finished / name).read_text()))]
    assert len(found) > 30
    for key in found:
        check(finished, name, key, readers(finished))


@pytest.mark.slow
def test_every_key_of_a_release_that_predicts(tmp_path, capsys):
    folder = tmp_path / "one"
    release(folder, "linear", (8,))
    np.savez(tmp_path / "some.npz", features=np.zeros((2, 8), np.float32))
    line = [str(folder), str(tmp_path / "some.npz"), "--output", str(tmp_path / "out.npz"), "--no-compilation-cache"]
    for key in keys(json.loads((folder / "card.json").read_text())):
        acts = [lambda: predict.main(line), lambda: released_model.read(folder), lambda: verify.main([str(folder)])]
        check(folder, "card.json", key, acts)
        (tmp_path / "out.npz").unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_every_key_of_what_a_session_reads(tmp_path, monkeypatch):
    """The command itself, on a finished run and on one with checkpoints."""
    make_mesh = sharding.make_mesh
    monkeypatch.setattr("mpt_jax.report.plots.draw", lambda report, thumbnails: {})
    monkeypatch.setattr(sharding, "make_mesh", lambda devices=None, **layout: make_mesh(jax.devices()[:1], **layout))
    world = chaos.World(tmp_path)
    assert world.session().status == 0
    world.save("finished")
    shutil.rmtree(world.run)
    assert world.interrupted(3).status == 143
    world.save("interrupted")
    count = 0
    for start, pattern in (
        ("finished", "config.json"),
        ("finished", "*-seed0/card.json"),
        ("interrupted", "notes.json"),
    ):
        world.restore(start)
        for name in sorted(path.relative_to(world.run) for path in world.run.rglob(pattern)):
            for key in [*keys(json.loads((world.copies / start / name).read_text()))]:
                if key[0] == "config" and len(key) > 2:
                    continue  # a section counts as its defaults
                world.restore(start)
                drop(world.run / name, key)
                assert world.session().status in (0, 2), (name, key)  # `chaos.Session.check`: one line
                count += 1
    print(count, "keys")
    assert count > 100
