"""Programs of the user: what runs is their current text, and a failure names its line."""

import os

import pytest

from mpt_jax.errors import InputError
from mpt_jax.runtime import user_program


def write(path, text):
    path.write_text(text)
    return path


def failure(path):
    with pytest.raises(InputError) as error, user_program.reported(path, "the program"):
        user_program.load(path).run()
    return str(error.value)


def test_a_program_knows_its_file_and_its_module(tmp_path):
    path = write(tmp_path / "a:b.py", "import dataclasses\nimport sys\ndef run():\n    return sys.modules[__name__]\n")
    module = user_program.load(path)
    assert module.run() is module and module.__file__ == str(path)


def test_an_edit_that_keeps_size_and_time_is_seen(tmp_path):
    path = write(tmp_path / "program.py", "value = 1\n")
    before, times = user_program.load(path), path.stat()
    write(path, "value = 2\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (before.value, user_program.load(path).value) == (1, 2)
    assert not (tmp_path / "__pycache__").exists()


def test_programs_of_equal_text_in_two_places_are_two_modules(tmp_path):
    (tmp_path / "b").mkdir()
    first, second = (user_program.load(write(folder / "net.py", "x = []\n")) for folder in (tmp_path, tmp_path / "b"))
    assert first.x is not second.x and first.__name__ != second.__name__


def test_annotations_of_a_dataclass_may_be_text(tmp_path):
    text = (
        "from __future__ import annotations\nfrom flax import linen as nn\nclass Net(nn.Module):\n    size: int = 3\n"
    )
    assert user_program.load(write(tmp_path / "net.py", text)).Net(size=4).size == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nx = 1 +\n", "the program failed in line 2: SyntaxError: "),
        ("def run():\n    inner()\n\ndef inner():\n    {}['a']\n", "the program failed in line 5: KeyError: 'a'"),
        ("import sys\nsys.exit('no')\n", "the program failed in line 2: SystemExit: no"),
        ("def run():\n    import json\n    json.loads('{')\n", "the program failed in line 3: JSONDecodeError: "),
        ("\0", "the program failed"),
    ],
)
def test_a_failure_names_the_last_line_of_the_program(tmp_path, text, message):
    assert failure(write(tmp_path / "program.py", text)).startswith(message)


def test_an_input_error_of_the_program_is_left_as_it_is(tmp_path):
    path = write(tmp_path / "p.py", "from mpt_jax.errors import InputError\ndef run():\n    raise InputError('mine')\n")
    assert failure(path) == "mine"
