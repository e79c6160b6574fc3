"""The command line: bad input, and help without JAX."""

import pathlib
import subprocess
import sys

import pytest

from mpt_jax.benchmark.__main__ import main

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: step|population|table|device|scaling"),
        (["step", "--accumulate", "3"], "multiple of the 8 devices times optimizer.accumulate=3"),
        (["step", "--fsdp", "3"], "mesh.fsdp=3"),
        (["input", "--images", "8", "--batch", "6"], "--batch=6; expected a multiple of the 8 devices"),
        (["input", "--images", "8", "--batch", "8", "--model", "nope"], "nope"),
        (["step", "--memory", "--device-memory", "0"], "above 0"),
        (["scaling", "--devices", "3"], "--devices 3: --batch 128"),
        (["scaling", "--method", "mpt"], "mpt_kl"),
        (["scaling", "--devices", "0"], "positive integer"),
        (["steps"], "population"),
        (["step", "--sizes", "2"], "--sizes"),
        (["step", "--rounds", "0"], "positive integer"),
        (["step", "--peak-tflops", "nan"], "above 0"),
        (["step", "--dtype", "float8"], "bfloat16"),
        (["step", "--model", "resnet19"], "resnet18"),
        (["step", "--model", "convnet", "--stem", "cifar"], "stem"),
        (["step", "--method", "mpt"], "mpt_kl"),
        (["step", "--batch", "12"], "multiple of the 8 devices"),
        (["step", "--against", "no-such-program --teachers 0"], "no such program"),
        (["step", "--against", "'"], "No closing quotation"),
        (["step", "--json", "no/such/folder/file"], "no/such/folder/file"),
        (["population", "--sizes", "1,x"], "positive integer"),
        (["population", "--sizes", ""], "at least one"),
        (["table", "--methods", "mpt_kl,mpt"], "mpt_lm"),
        (["table", "--methods", ","], "at least one"),
        (["device", "--data-dir", "no/such/folder"], "no/such/folder"),
        (["device", "--data-dir", "no/such/folder", "--toy"], "CIFAR-100"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ") and message in captured.err


def test_help_needs_no_jax():
    code = (
        "import sys, mpt_jax.benchmark.__main__ as b\n"
        "try: b.main(['step', '--help'])\nexcept SystemExit: pass\nprint('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "--against" in done.stdout and done.stdout.splitlines()[-1] == "False"
