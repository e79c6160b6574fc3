"""The command that signs releases and gate records, and the commands of its page."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("model_signing", reason="needs the extra 'signing'")

import keys
from releases import release

from mpt_jax import sign, verify
from mpt_jax.compare.__main__ import main as compare
from mpt_jax.files import signature

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """A folder with a release, and the predictions of two models."""
    release(tmp_path / "run/releases/r1-mpt_kl-seed0", "linear")
    for name, predictions in (("old", "aab"), ("new", "aaa")):
        rows = [
            f"{i},{label},{predicted}\n" for i, (label, predicted) in enumerate(zip("aab", predictions, strict=True))
        ]
        (tmp_path / f"{name}.csv").write_text("".join(["id,label,prediction\n", *rows]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(not shutil.which("openssl"), reason="no command openssl")
def test_the_commands_of_the_page_do_what_it_says(user_folder, capsys):
    page = (ROOT / "docs/trust.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    (\S.*)$", page, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["openssl"] * 2 + ["python"] * 4
    commands = {"compare": compare, "sign": sign.main, "verify": verify.main}
    for line in lines:
        words = shlex.split(line)
        if words[0] == "openssl":
            subprocess.run(words, check=True, capture_output=True)
        else:
            assert words[:2] == ["python", "-m"] and commands[words[2].removeprefix("mpt_jax.")](words[3:]) == 0
    assert {"team.key", "team.pub", "gate.json", "gate.json.sig"} <= {path.name for path in user_folder.iterdir()}
    (user_folder / "gate.json").write_text((user_folder / "gate.json").read_text().replace("aab", "aaa") + " ")
    (user_folder / "run/releases/r1-mpt_kl-seed0/added").write_text("")
    capsys.readouterr()
    for line in lines[4:]:
        assert verify.main(shlex.split(line)[3:]) == 1
        assert "not what was signed" in capsys.readouterr().out


def test_what_is_damaged_is_not_signed(user_folder, capsys):
    private, _ = keys.pair(user_folder)
    folder = user_folder / "run/releases/r1-mpt_kl-seed0"
    weights = max((folder / "model").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (user_folder / "error.json").write_text(json.dumps({"schema": 1, "passed": False, "error": "x"}))
    np.savez(user_folder / "some.npz", a=1)
    for path, words in (
        (folder, "is damaged"),
        (user_folder / "error.json", "is not the JSON of a comparison"),
        (user_folder / "some.npz", "is not JSON"),
        (user_folder / "none", "is not JSON (FileNotFoundError)"),
        (user_folder / "run", "not a released model"),
    ):
        assert sign.main([str(path), f"--key={private}"]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and words in printed.err and printed.err.count("\n") == 1
    assert not [*user_folder.rglob("*.sig")]


def test_several_are_signed_and_each_is_named(user_folder, capsys):
    private, public = keys.pair(user_folder)
    other = user_folder / "run/releases/r0-old-seed0"
    release(other, "linear", seed=1)
    paths = sorted((user_folder / "run/releases").iterdir())
    assert sign.main([*map(str, paths), f"--key={private}"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"signed: {path}: {path / 'model.sig'}" for path in paths]
    assert [signature.problem(path, public) for path in paths] == ["", ""]


@pytest.mark.parametrize(("arguments", "words"), [([], "--key"), (["--key=k"], "RELEASE_OR_RECORD"), (["x"], "--key")])
def test_missing_arguments_are_one_line(arguments, words, capsys):
    assert sign.main(arguments) == 2
    assert words in (printed := capsys.readouterr().err) and printed.count("\n") == 1
