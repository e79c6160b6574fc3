"""Thousands of invalid configs on the command line: each ends in one line and status 2, and nothing is written.

The keys come from the dataclasses, so the tests cover new keys automatically.
"""

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import random
import resource
import subprocess
import sys
import types
import typing

import pytest

from mpt_jax import config as configs
from mpt_jax import data, train, update
from mpt_jax.errors import InputError
from mpt_jax.models import NETWORKS
from mpt_jax.objectives import METHODS
from mpt_jax.update import lock

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = str(ROOT / "configs/digits.py")
REACHED = "the config is valid"

NOT_NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "1e999",
    "abc",
    "",
    "None",
    "[]",
    "{}",
    "True",
    "0x",
    "--",
    "1,2",
    "[[1]]",
    "1 2",
    "ü",
]
BAD = {
    int: [*NOT_NUMBERS, "1.5", "1e3", "-1", "-" + "9" * 50, "3j"],
    float: [*NOT_NUMBERS, "-1", "-1e-9", "9" * 400, "3j"],
    bool: ["1", "0", "yes", "", "nan", "None", "[True]", "TRUE!"],
}
VALUES = {  # of the right type, valid for some keys and invalid for others
    int: ["0", "1", "2", "7", "10", "48", "52", "10000", str(2**31), str(2**64), "9" * 40],
    float: ["0", "1e-300", "0.01", "0.5", "1", "1.5", "100", "1e300", "1e308"],
    bool: ["true", "False"],
    str: [
        *("", "digits", "digit", "folder", "x.npz", "x.csv", "x.parquet", "x.py", "/dev/null", "/", "..", "x" * 5000),
        *("natural", "seed:1", "seed:-1", "3,1,2", "0,1,2,3,4,...", "...,1", "all", "none", "per_class:2", "total:0"),
        *(
            "{seed}",
            "{0}",
            "%s",
            "imagenet",
            "cifar",
            "cosine",
            "epoch",
            "error",
            "skip",
            "\x1b[2J",
            "a\nb",
            "\udcff",
            "nul\0",
        ),
    ],
}


def leaves(cls=configs.Config, prefix=""):
    """Yield every key with its type, such as ("optimizer.epochs", int)."""
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


LEAVES = dict(leaves())
SECTIONS = [field.name for field in dataclasses.fields(configs.Config) if dataclasses.is_dataclass(field.default)]


def value_types(hint):
    """Return the types of a key's values: its own, that of the items of a tuple, or those of a union."""
    arguments = [a for a in typing.get_args(hint) if a is not ...] or [hint]
    return [a if a in VALUES else str for a in arguments]


def is_list(hint):
    return typing.get_origin(hint) is tuple or isinstance(hint, types.UnionType)


def invalid_override(rng):
    """Return an override that is invalid in every config, as `key=value`."""
    kind = rng.choice(["type", "type", "type", "list", "unknown", "section", "deeper", "text"])
    if kind == "type":
        key = rng.choice([key for key, hint in LEAVES.items() if hint in BAD])
        return f"{key}={rng.choice(BAD[LEAVES[key]])}"
    if kind == "list":
        numbers = [key for key, hint in LEAVES.items() if is_list(hint) and value_types(hint)[0] in (int, float)]
        return f"{rng.choice(numbers)}=[1, {rng.choice(['nan', 'abc', 'None', '-1', '[2]', 'True', '1e999'])}]"
    if kind == "unknown":
        key = rng.choice([*LEAVES, *SECTIONS])
        at = rng.randrange(len(key) + 1)
        return f"{key[:at]}{rng.choice('_xyz .=ü')}{key[at:]}=1"
    if kind == "section":
        return f"{rng.choice(SECTIONS)}={rng.choice(['3', '', '[]', 'nan', 'None', 'x' * 10_000])}"
    if kind == "deeper":
        return f"{rng.choice(list(LEAVES))}.{rng.choice(['x', '0', '', '__class__'])}=1"
    key = rng.choice(["model.name", "model.dtype", "optimizer.schedule", "update.methods", "update.memory"])
    return f"{key}={rng.choice(['', 'x', 'None', '3', 'NaN', '../x', '__class__', 'mpt_kl,x', 'x' * 10_000])}"


def typed_override(rng):
    """Return an override with a value of the right type."""
    key = rng.choice(list(LEAVES))
    hint = LEAVES[key]
    names = [*data.POLICIES, *NETWORKS, *METHODS]
    pool = [value for kind in value_types(hint) for value in VALUES[kind] + (names if kind is str else [])]
    if is_list(hint):
        items = rng.choices(pool, k=rng.randrange(4))
        return f"{key}=[{', '.join(map(repr, items) if str in value_types(hint) else items)}]"
    return f"{key}={rng.choice(pool)}"


def run(arguments, spec=DIGITS):
    """Return the one line that the command prints to stderr with status 2."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = train.main(["--config", spec, *arguments])
    text = err.getvalue()
    assert status == 2, (status, arguments)
    assert text.startswith("error: ") and text.endswith("\n") and text.count("\n") == 1, (text, arguments)
    assert len(text) < 3000 and "Traceback" not in text, (text[:300], arguments)
    return text


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """Return a work directory; neither it nor the current folder may be written to."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "run"
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def stop(*_):
    raise InputError(REACHED)


def test_the_tests_cover_every_key():
    assert {"seeds", "dataset.on_bad_image", "optimizer.epochs", "update.methods"} <= LEAVES.keys()
    assert {kind for hint in LEAVES.values() for kind in value_types(hint)} == {int, float, bool, str}


def test_every_value_of_a_wrong_type(workdir, monkeypatch):
    monkeypatch.setattr(update, "prepare", stop)
    tried = 0
    for key, hint in LEAVES.items():
        for text in BAD.get(hint, []):
            line = run([f"--workdir={workdir}", f"--config.{key}={text}"])
            assert key.split(".")[-1] in line and REACHED not in line, (key, text, line)
            tried += 1
    assert tried > 200


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_invalid_overrides(workdir, monkeypatch, count):
    monkeypatch.setattr(update, "prepare", stop)
    rng = random.Random(0)
    for _ in range(count):
        bad = invalid_override(rng)
        overrides = [*(typed_override(rng) for _ in range(rng.randrange(3))), bad]
        assert REACHED not in run([f"--workdir={workdir}", *(f"--config.{text}" for text in overrides)]), bad


def test_random_configs_are_valid_or_one_line(workdir, monkeypatch, digits_dir):
    """Values of the right type may contradict each other, the data or the machine; nothing is trained."""
    monkeypatch.setattr(lock, "hold", stop)
    monkeypatch.setattr(data, "load", functools.cache(data.load))
    rng, valid = random.Random(1), 0
    for _ in range(100):
        overrides = [f"--config.{typed_override(rng)}" for _ in range(rng.randrange(1, 4))]
        # The folder comes last: a random one would be where TFDS prepares the digits.
        valid += REACHED in run([f"--workdir={workdir}", *overrides, f"--config.dataset.data_dir={digits_dir}"])
    assert 5 < valid < 95


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["update.tune.bias=0,1", "dataset.validation_per_class=0"], ["update.tune", "validation_per_class"]),
        (
            ["update.methods=posthoc_bias", "update.tune={}", "dataset.validation_per_class=0"],
            ["posthoc", "validation"],
        ),
        (["dataset.mean=0.5"], ["dataset.mean", "dataset.std"]),
        (["dataset.mean=1,2,3", "dataset.std=1,2,3"], ["dataset.mean", "channel"]),
        (["update.schedule=5,10", "dataset.class_order=0,1,2,3,4"], ["update.schedule", "class_order"]),
        (["update.schedule=5,11"], ["update.schedule", "10"]),
        (["dataset.validation_per_class=52"], ["validation_per_class", "training images"]),
        (["dataset.train_per_class=1", "optimizer.batch_size=48"], ["batch_size", "training part"]),
        (["update.memory=none", "dataset.train_per_class=8", "update.schedule=8,10"], ["update.memory", "batch_size"]),
        (["model.name=linear"], ["model.name", "digits"]),
        (["model.stem=cifar"], ["stem"]),
        (["dataset.crop_padding=9"], ["crop_padding", "8"]),
        (["dataset.name=folder", "dataset.data_dir="], ["dataset.name=folder", "dataset.data_dir"]),
        (["dataset.image_size=8,8,8"], ["dataset.image_size"]),
        (["dataset.image_size=0"], ["dataset.image_size"]),
        (["dataset.channels=2"], ["dataset.channels"]),
        (["dataset.test_fraction=1"], ["dataset.test_fraction"]),
        (["dataset.on_bad_image=skp"], ["dataset.on_bad_image", "did you mean 'skip'"]),
        (["training.steps_per_dispatch=1000000000"], ["training.steps_per_dispatch"]),
    ],
)
def test_contradictions_name_both_sides(workdir, monkeypatch, digits_dir, overrides, keys):
    monkeypatch.setattr(lock, "hold", stop)
    arguments = (f"--config.{text}" for text in overrides)
    line = run([f"--workdir={workdir}", f"--config.dataset.data_dir={digits_dir}", *arguments])
    assert REACHED not in line
    for key in keys:
        assert key in line


def test_config_files_with_any_values(workdir, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(update, "prepare", stop)
    path = tmp_path_factory.mktemp("configs") / "any.py"
    text = (
        "import numpy as np\nclass Odd:\n    __repr__ = lambda self: 'odd\\n' * 10**5\ndef get_config():\n    return {}"
    )
    odd = [
        "None",
        "Odd()",
        "object",
        "np.zeros(10**5)",
        "np.float64('nan')",
        "b'x'",
        "{1: 2}",
        "{3}",
        "range(5)",
        "1j",
        "'x' * 10**6",
    ]
    values = {name: repr({name: {"no such key": 1}}) for name in SECTIONS}
    bad = [
        *(f"{{{key.split('.')[0]!r}: {value}}}" for key in [s for s in SECTIONS] for value in odd if value != "{}"),
        *(
            f"{{{key.partition('.')[0]!r}: {{{key.partition('.')[2]!r}: {value}}}}}"
            for i, (key, hint) in enumerate(LEAVES.items())
            if "." in key and hint in BAD
            for value in odd[i % 4 :: 4]
        ),
        *values.values(),
        *("3", "[]", "None", "{1: 2}", "{None: {}}", "{'seeds': None}", "{'seeds': {0: 1}}", "{'seeds': np.arange(3)}"),
        *(
            "{'dataset': {'mean': [Odd()]}}",
            "{'dataset': {'class_order': [None]}}",
            "{'dataset': {'class_order': Odd()}}",
        ),
    ]
    for value in bad:
        path.write_text(text.format(value) if "{}" not in text else text.replace("{}", value))
        assert REACHED not in run([f"--workdir={workdir}"], str(path)), value
    assert len(bad) > 150


@pytest.mark.slow
def test_bad_configs_end_within_three_seconds(digits_dir, tmp_path):
    bad = ["seeds=-1", "update.methods=mpt", "dataset.name=digit", "optimizer.epochs=nan", "update.schedule=5,11"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home"), "XLA_FLAGS": ""}
    for override in bad:
        command = [sys.executable, "-m", "mpt_jax.train", "--config", DIGITS, f"--workdir={tmp_path}/run"]
        command.append(f"--config.dataset.data_dir={digits_dir}")  # already prepared, as after a first run
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*command, f"--config.{override}"], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert not (tmp_path / "run").exists()
        # CPU time rather than wall time: a busy machine must not fail the test.
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
