"""Loaded files cannot execute code: no pickle is read or written."""

import ast
import io
import json
import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
import random_weights

from mpt_jax import models
from mpt_jax.data.own import arrays
from mpt_jax.errors import InputError
from mpt_jax.files import array_folder, checkpoint, released_model, sealed
from mpt_jax.files.predictions import released
from mpt_jax.models import Classifier

ROOT = pathlib.Path(__file__).resolve().parents[1]
CARD = {
    **{"name": "one", "method": "old", "release": 0, "seed": 0, "dataset": "made up", "image_shape": [8, 8, 1]},
    **{"architecture": {"name": "convnet", "options": {}}, "classes": ["a", "b", "c"]},
    **{"objective": {}, "parents": {}, "metrics": {}, "steps": 1, "seconds": 1.0, "examples_per_second": 1.0},
}
# What can run code that a file holds, and the one config file that is meant to.
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "msgpack"}
CALLS = {"eval", "exec", "compile", "__import__"}


class Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.fixture
def release(tmp_path):
    module = models.build("convnet", 3)
    params, batch_stats = random_weights.init(module, jax.random.key(0), (8, 8, 1))
    mean, std = np.float32([0.3]), np.float32([0.4])
    classifier = Classifier(module=module, params=params, batch_stats=batch_stats, mean=mean, std=std)
    released_model.write(tmp_path / "one", classifier, CARD)
    return tmp_path / "one"


def test_the_payload_works(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_the_package_has_no_way_to_load_objects():
    for path in sorted((ROOT / "mpt_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {name.partition(".")[0] for name in names} & FORBIDDEN, where
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert name not in CALLS, where
                if name in ("np.load", "numpy.load", "np.lib.format.read_array"):
                    assert given.get("allow_pickle") == "False", where
                if name == "torch.load":
                    assert given.get("weights_only") == "True", where


# Modules that print by themselves: the door itself, a thread that ends the process, and scripts for a peer's numbers.
PRINT = {"cli/command.py", "files/gcs_lock.py"}
PRINT |= {f"benchmark/{name}.py" for name in ("torch_network", "torch_loader", "scaling")}


def test_commands_print_through_doors_that_escape_names():
    for path in sorted((ROOT / "mpt_jax").rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        prints = [node.lineno for node in calls if ast.unparse(node.func) == "print"]
        assert not prints or path.relative_to(ROOT / "mpt_jax").as_posix() in PRINT, f"{path}:{prints[0]}"


READ = """
import json, pathlib, pickle, sys
import jax, jax.numpy as jnp
from mpt_jax.files import checkpoint, released_model
from mpt_jax.files.predictions import released
def hook(event, args):
    if event == "pickle.find_class":
        print("pickle", args)
sys.addaudithook(hook)
pickle.loads(pickle.dumps(pathlib.Path()))  # the hook works
release, states, predictions = map(pathlib.Path, sys.argv[1:])
classifier, card = released_model.read(release)
assert checkpoint.restore(states, {"w": jnp.zeros(4)}, print)[0] == 2
released.read(predictions)
print("read", card["name"])
"""


def test_what_a_run_writes_is_read_without_a_pickle(release, tmp_path):
    checkpoint.save(
        tmp_path / "states", 2, {"w": jax.numpy.arange(4.0)}, {"seconds": 1.0, "since": 0, "teachers": [], "sums": {}}
    )
    ids, logits = np.array(["a", "b"]), np.zeros((2, 3), np.float32)
    released.write(tmp_path / "one.npz", labels=np.arange(2), logits=logits, ids=ids)
    paths = [release, tmp_path / "states", tmp_path / "one.npz"]
    done = subprocess.run([sys.executable, "-c", READ, *map(str, paths)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and lines[0].startswith("pickle ('pathlib") and lines[1] == "read one"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not path.read_bytes().startswith(pickle.dumps(0)[:2])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's own, of a failed restore
def test_a_pickle_in_a_release_is_an_error_and_never_runs(release, tmp_path):
    payload = pickle.dumps(Payload(tmp_path / "ran"))
    for name in [path.relative_to(release) for path in release.rglob("*") if path.is_file()]:
        content = (release / name).read_bytes()
        (release / name).write_bytes(payload)
        with pytest.raises(InputError):
            released_model.read(release)
        if name.name != "card.json":  # even if an attacker has recomputed the digests
            card = json.loads((release / "card.json").read_text())
            crafted = sealed.sealed({**card, "files": array_folder.file_digests(release)})
            (release / "card.json").write_text(json.dumps(crafted))
            try:
                released_model.read(release)  # (a file that orbax does not read)
            except InputError as error:
                assert str(release) in str(error)
            (release / "card.json").write_text(json.dumps(card))
        (release / name).write_bytes(content)
    released_model.read(release)
    assert not (tmp_path / "ran").exists()


def test_objects_in_npz_files_are_an_error_and_never_run(tmp_path):
    payload = np.array([Payload(tmp_path / "ran")], dtype=object)
    file = io.BytesIO()
    np.savez(file, labels=payload, logits=payload, ids=payload, digest="0")
    (tmp_path / "one.npz").write_bytes(file.getvalue())
    (tmp_path / "two.npz").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    np.savez(tmp_path / "data.npz", train_features=payload, train_labels=payload)
    for name in ("one.npz", "two.npz"):
        with pytest.raises(InputError, match=name):
            released.read(tmp_path / name)
    for name in ("data.npz", "two.npz"):
        with pytest.raises(InputError, match=name):
            arrays.read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_card_must_be_json(tmp_path):
    for content in (pickle.dumps(Payload(tmp_path / "ran")), b"[" * 100_000, b"\xff\xfe", b"null"):
        (tmp_path / "card.json").write_bytes(content)
        with pytest.raises(InputError, match=r"card\.json"):
            released_model.read_card(tmp_path)
    assert not (tmp_path / "ran").exists()
