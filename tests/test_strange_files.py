"""No file stops the program by its kind or its content.

Every file of a finished work directory, of one with a checkpoint, and of what commands read, is replaced by each kind
of `strange_files`. The same command then ends in time, with status 0 and the same result, or with status 2 and one
line. What a link points to stays as it is.
"""

import ast
import os
import pathlib
import shutil
import signal

import commands
import numpy as np
import pytest
import strange_files
from chaos import time_limit

from mpt_jax import config as configs
from mpt_jax import train
from mpt_jax.compare import policy
from mpt_jax.errors import InputError
from mpt_jax.export import release
from mpt_jax.files import sealed, weights
from mpt_jax.files.predictions import released
from mpt_jax.models import own_network
from mpt_jax.reproduce import results

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kinds of files of POSIX")

OPTIONS = (
    *("--no-compilation-cache", "--config.seeds=0", "--config.optimizer.epochs=1", "--config.model.name=linear"),
    *("--config.update.methods=no_treatment,mpt_kl", "--config.update.tune={}", "--config.dataset.train_per_class=20"),
    *("--config.training.steps_per_dispatch=2", "--config.training.checkpoint_every=2"),
)
SECONDS = 60  # in which a command must have ended
OF_RUN = (
    *("config.json", "lock", "metrics.jsonl", "report.json", "report.md", "report.html", "plots"),
    *(".config.json.unfinished", ".report.json.unfinished", "predictions/.r1-mpt_kl-seed0.npz.unfinished"),
    *("predictions", "predictions/r0-old-seed0.npz", "predictions/r1-mpt_kl-seed0.npz"),
    *("releases", "releases/r1-mpt_kl-seed0", "releases/r0-old-seed0/card.json", "releases/r1-mpt_kl-seed0/card.json"),
)
OF_TRAINING = (
    *("metrics.jsonl", "checkpoints", "checkpoints/r1-students", "checkpoints/r1-students/{last}"),
    *("checkpoints/r1-students/{last}/notes.json", "checkpoints/r1-students/{last}/model"),
    *("checkpoints/r1-students/.{next}.unfinished", "releases/.r1-mpt_kl-seed0.unfinished"),
    *("predictions/r0-old-seed0.npz", "releases/r0-old-seed0/card.json"),
)
# The default tests try each place and each kind at least once.
FEW = {place: strange_files.KINDS[i % len(strange_files.KINDS)] for i, place in enumerate(OF_RUN)}


@pytest.fixture(scope="module")
def runs(features_file, tmp_path_factory):
    """A finished run, and one that was interrupted when it had two checkpoints of its students."""
    root = tmp_path_factory.mktemp("runs")
    patch, stopped = pytest.MonkeyPatch(), []
    patch.setattr("mpt_jax.report.plots.draw", lambda report, thumbnails: {})

    def run(name, on_metrics=None):
        where = ("--config", str(commands.ROOT / "configs/digits.py"), f"--config.dataset.name={features_file}")
        return train.main([*where, f"--workdir={root / name}", *OPTIONS], on_metrics=on_metrics)

    def stop(line):
        if line["stage"] == "students" and line["step"] >= 4 and not stopped:
            stopped.append(line)  # a second signal would end this process at once
            os.kill(os.getpid(), signal.SIGTERM)

    assert run("finished") == 0
    assert run("interrupted", stop) == 143
    yield root, run
    patch.undo()


def check(runs, capsys, start, place, kind, tmp_path):
    """Put one thing into a copy of a run, run the command again, and check how it ends."""
    root, run = runs
    shutil.rmtree(root / "copy", ignore_errors=True)
    shutil.copytree(root / start, root / "copy")
    steps = sorted(int(path.name) for path in (root / "copy").glob("checkpoints/r1-students/[0-9]*"))
    path = root / "copy" / place.format(last=max(steps, default=0), next=max(steps, default=0) + 2)
    path.parent.mkdir(exist_ok=True)
    victim = strange_files.put(path, kind, tmp_path)
    capsys.readouterr()
    with time_limit(SECONDS):
        status = run("copy")
    errors = capsys.readouterr().err
    assert victim is None or victim.read_bytes() == strange_files.VICTIM
    assert status in (0, 2), errors
    if status == 2:
        assert errors.startswith("error: ") and errors.count("\n") == 1 and str(root / "copy") in errors, errors
        assert "; " in errors  # says what would work
    else:
        assert not errors and commands.result(root / "finished") == commands.result(root / "copy")
    return status, errors


@pytest.mark.parametrize(("place", "kind"), [*FEW.items()])
def test_a_finished_run(runs, capsys, tmp_path, place, kind):
    check(runs, capsys, "finished", place, kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", strange_files.KINDS)
@pytest.mark.parametrize("place", OF_RUN)
def test_a_finished_run_in_all_places(runs, capsys, tmp_path, place, kind):
    check(runs, capsys, "finished", place, kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", strange_files.KINDS)
@pytest.mark.parametrize("place", OF_TRAINING)
def test_a_run_with_a_checkpoint_in_all_places(runs, capsys, tmp_path, place, kind):
    check(runs, capsys, "interrupted", place, kind, tmp_path)


@pytest.mark.parametrize(
    ("start", "place", "kind", "status"),
    [
        ("interrupted", "metrics.jsonl", "not UTF-8", 0),  # its damaged lines are dropped
        ("interrupted", "checkpoints/r1-students/{last}/notes.json", "pipe", 0),  # an older one is used
        ("finished", "predictions/r1-mpt_kl-seed0.npz", "pipe", 0),  # they are computed again
        ("finished", "predictions/r1-mpt_kl-seed0.npz", "sparse", 0),
        ("finished", "releases/r1-mpt_kl-seed0/card.json", "sparse", 2),
        ("finished", "config.json", "pipe", 2),
        ("finished", "lock", "link", 2),
        ("finished", ".report.json.unfinished", "link", 0),
    ],
)
def test_what_can_be_computed_again_is_and_the_rest_is_refused(runs, capsys, tmp_path, start, place, kind, status):
    assert check(runs, capsys, start, place, kind, tmp_path)[0] == status


def test_one_byte_that_is_not_utf_8_costs_one_line_of_the_metrics(runs, capsys):
    root, run = runs
    shutil.rmtree(root / "copy", ignore_errors=True)
    shutil.copytree(root / "interrupted", root / "copy")
    path = root / "copy/metrics.jsonl"
    first, *others = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first.replace(b"old", b"\xffld"), *others, b""]))
    assert run("copy") == 0
    assert commands.metrics(root / "copy") == commands.metrics(root / "finished")[1:]


def shapes(arrays):
    """Return predictions of other shapes and types, each with the digest that fits it."""
    labels, logits, ids = (arrays[name] for name in ("labels", "logits", "ids"))
    return {
        "fewer": {"labels": labels[1:], "logits": logits[1:], "ids": ids[1:]},
        "none": {"labels": labels[:0], "logits": logits[:0], "ids": ids[:0]},
        "fewer labels": {"labels": labels[1:], "logits": logits, "ids": ids},
        "fewer classes": {"labels": labels, "logits": logits[:, :1], "ids": ids},
        "no classes": {"labels": labels, "logits": logits[:, :0], "ids": ids},
        "flat": {"labels": labels, "logits": logits[:, 0], "ids": ids},
        "scalars": {"labels": labels[0], "logits": logits[0, 0], "ids": ids[0]},
        "float64": {"labels": labels, "logits": logits.astype(np.float64), "ids": ids},
        "texts": {"labels": labels.astype(str), "logits": logits.astype(str), "ids": ids},
    }


@pytest.mark.parametrize("name", ["r0-old-seed0", "r1-mpt_kl-seed0"])
@pytest.mark.parametrize("other", shapes({k: np.zeros((2, 2)) for k in ("labels", "logits", "ids")}))
def test_predictions_of_other_shapes_with_a_digest_that_fits(runs, capsys, name, other):
    root, run = runs
    shutil.rmtree(root / "copy", ignore_errors=True)
    shutil.copytree(root / "finished", root / "copy")
    path = root / f"copy/predictions/{name}.npz"
    sealed.write_arrays(path, shapes(released.read(path))[other])
    status, errors = run("copy"), capsys.readouterr().err
    assert status in (0, 2) and errors.count("\n") == (status == 2), errors
    if status == 0:
        assert commands.result(root / "finished") == commands.result(root / "copy")


READERS = {
    "config.py": lambda path: configs.load(str(path)),
    "net.py": lambda path: own_network.build(f"{path}:build", 3),
    "gate.toml": lambda path: policy._table(path),
    "names.txt": lambda path: release._class_names(str(path), 3),
    "w.safetensors": weights.read,
    "w.safetensors.index.json": weights.read,
    "results.json": results.read,
    "p.npz": released.read,
    "card.json": sealed.read_sealed,
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", [kind for kind in strange_files.KINDS if kind != "link"])
@pytest.mark.parametrize("name", READERS)
def test_what_commands_read(tmp_path, name, kind):
    strange_files.put(tmp_path / name, kind)
    with time_limit(SECONDS):
        try:
            READERS[name](tmp_path / name)
        except (InputError, OSError) as error:
            assert name in str(error)
        else:
            assert (name, kind) == ("gate.toml", "empty")


def readings(tree):
    """Yield the calls that open a file without a check of its kind."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name, first = ast.unparse(call.func), ast.unparse(call.args[0]) if call.args else ""
        checked = name.startswith(("regular_file.", "storage."))
        if name == "open" or (name.endswith((".read_text", ".read_bytes")) and not checked):
            yield name
        if name.endswith(".open") and first in ("'rb'", "'r'", "'wb'", "'w'", "'a'", "'a+'"):
            yield name


def test_files_are_opened_where_their_kind_is_checked():
    expected = {
        "runtime/regular_file.py": ["open"],
        "runtime/hardware.py": ["quota.read_text", "cpuinfo.read_text"],  # the system's
        "data/feeding/stream.py": ["CONTAINER_LIMIT.read_text"],
        "report/page.py": ["_TEMPLATE.read_text"],  # the package's
        "compare/show.py": ["_TEMPLATE.read_text"],
        "export/artifact.py": ["(folder / PROGRAM).read_bytes"],  # what was written a moment before
        "files/predictions/packed.py": ["path.open", "path.open"],
        "files/feature_cache.py": ["path.read_bytes", "path.read_bytes"],  # objects of a bucket
        "files/storage.py": ["path.open", "path.read_bytes", "path.read_bytes", "(source / name).read_bytes"],
    }
    package, found = pathlib.Path(train.__file__).parent, {}
    for path in sorted(package.rglob("*.py")):
        if calls := list(readings(ast.parse(path.read_text("utf-8")))):
            found[path.relative_to(package).as_posix()] = sorted(calls)
    assert found == {name: sorted(calls) for name, calls in expected.items()}
