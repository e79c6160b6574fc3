"""The command that verifies a work directory: its table, its lines, and its exit status."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from releases import release
from workdirs import make_workdir_with_predictions

from mpt_jax import verify
from mpt_jax.files import sealed, signature

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path):
    return make_workdir_with_predictions(tmp_path / "run", seeds=(0, 1))


@pytest.mark.parametrize("more", [[], ["--quick"]])
def test_the_status_is_0_and_a_table_shows_what_was_checked(more, folder, capsys):
    assert verify.main([str(folder), *more]) == 0
    printed = capsys.readouterr()
    rows = {line[:16].strip(): line[16:].split() for line in printed.out.splitlines()}
    assert rows["cards"] == rows["predictions"] == ["8", "0"] and rows["config"] == rows["gallery"] == ["1", "0"]
    assert "everything holds" in printed.out and printed.err == ""
    assert "8 of the cards were made before" in printed.out and "8 of the predictions were made" in printed.out


def test_the_status_is_1_and_each_fault_is_one_line(folder, capsys):
    (folder / "predictions/r0-old-seed0.npz").write_bytes(b"damaged")
    path = folder / "releases/r1-mpt_kl-seed1/card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(sealed.sealed({**card, "seed": 7, "method": "a\n\x1b[2Jb"})))
    assert verify.main([str(folder)]) == 1
    output = capsys.readouterr().out
    lines = [line for line in output.splitlines() if line.startswith("does not hold: ")]
    assert len(lines) == 3 and "r1-mpt_kl-seed1 holds the release r1-a " in lines[0] and "\x1b" not in output
    assert "r0-old-seed0.npz is missing or damaged" in lines[1]


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["."], ["nowhere", "--fast"], ["s3://bucket/run"]])
def test_bad_input_is_one_line_and_status_2(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert verify.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and printed.out == ""


def test_help_imports_no_jax():
    code = "import sys, mpt_jax.verify as v\ntry: v.main(['--help'])\nexcept SystemExit: print('jax' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert "--quick" in output and "PUBLIC" in output and output.strip().endswith("False")


def test_the_quick_check_imports_no_jax(folder, tmp_path):
    """So that it starts at once; of a release alone too."""
    states = tmp_path / "run/checkpoints/r1-students/3"
    states.mkdir(parents=True)
    notes = {"seconds": 1.0, "since": 0, "teachers": [], "sums": {}, "files": {}}
    (states / "notes.json").write_text(json.dumps(sealed.sealed(notes)))
    release(tmp_path / "one", "linear")
    code = (
        "import sys\nfrom mpt_jax import verify\nstatuses = [verify.main([path, '--quick']) for path in sys.argv[1:]]\n"
        "heavy = {'jax', 'jaxlib', 'flax', 'orbax', 'optax', 'grain', 'tensorflow_datasets', 'ml_collections'}\n"
        "print(statuses, heavy & {*sys.modules})"
    )
    line = [sys.executable, "-c", code, str(folder), str(tmp_path / "one")]
    output = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert re.search(r"^checkpoints +1 +0$", output, re.MULTILINE)
    assert output.splitlines()[-1] == "[0, 0] set()"


def test_a_release_alone(tmp_path, capsys):
    folder = tmp_path / "anywhere"
    release(folder, "linear")
    for more in ([], ["--quick"]):
        assert verify.main([str(folder), *more]) == 0
        assert re.search(r"^models +1 +0$", capsys.readouterr().out, re.MULTILINE)
    weights = max((folder / "model").rglob("d/*"), key=lambda path: path.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:-1])
    assert verify.main([str(folder)]) == 1
    assert f"does not hold: {weights} is damaged" in capsys.readouterr().out


def test_a_file_needs_a_key(tmp_path, capsys):
    (tmp_path / "gate.json").write_text("{}")
    assert verify.main([str(tmp_path / "gate.json")]) == 2
    assert "expected --key" in capsys.readouterr().err


def test_signatures_of_every_release_are_checked(folder, tmp_path, capsys):
    pytest.importorskip("model_signing", reason="needs the extra 'signing'")
    import keys

    private, public = keys.pair(tmp_path)
    _, other = keys.pair(tmp_path, name="other")
    names = sorted(path for path in (folder / "releases").iterdir())
    for path in names[1:]:
        signature.sign(path, private)
    line = [str(folder), "--quick", f"--key={public}"]
    assert verify.main(line) == 1
    output = capsys.readouterr().out
    assert f"does not hold: {names[0]}: not signed: there is no {names[0] / 'model.sig'}" in output
    assert re.search(r"^signatures +8 +1$", output, re.MULTILINE)
    signature.sign(names[0], private)
    assert verify.main(line) == 0 and "everything holds" in capsys.readouterr().out
    (names[2] / "added").write_text("")
    assert verify.main(line) == 1 and verify.main([str(folder), "--quick"]) == 0  # no card names it, but the signature
    assert capsys.readouterr().out.count("not what was signed") == 1
    assert verify.main([str(folder), f"--key={other}"]) == 1
    assert capsys.readouterr().out.count("was made with another key") == 8
    assert verify.main([str(folder), f"--key={tmp_path / 'none'}"]) == 2
    assert "is not a file" in capsys.readouterr().err
