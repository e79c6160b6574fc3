"""Config files by name and by path, and files that are no configs."""

import dataclasses
import pathlib
import shutil

import pytest

from mpt_jax import config as configs
from mpt_jax.errors import InputError

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def test_invalid_files(tmp_path):
    with pytest.raises(InputError, match=r"digits\.py"):  # lists the files in that folder
        configs.load(str(CONFIGS / "digit.py"))
    for text, word in [
        ("def get_config(:", "SyntaxError"),
        ("x = 1", "get_config"),
        ("def get_config():\n    return 1 / 0", "ZeroDivisionError"),
        (
            "from mpt_jax.config import default_config\ndef get_config():\n    c = default_config()\n    c.sedes = 1",
            "sedes",
        ),
        ("def get_config():\n    return {'seed': 3}", "did you mean 'seeds'"),
        ("def get_config():\n    return None", "NoneType"),
        ("def get_config():\n    raise SystemExit(3)", "SystemExit"),
    ]:
        path = tmp_path / "broken.py"
        path.write_text(text)
        with pytest.raises(InputError, match=word):
            configs.load(str(path))
    with pytest.raises(InputError, match="no variants"):
        configs.load(str(CONFIGS / "memory.py") + ":smoke")
    with pytest.raises(InputError, match="smoke"):
        configs.load(str(CONFIGS / "cifar100.py") + ":smok")


def test_a_file_that_fails_names_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("mine.py").write_text("import math\n\ndef get_config():\n    return math.sqrt(-1)\n")
    for path in ("mine.py", tmp_path / "mine.py"):
        with pytest.raises(InputError, match=r"mine.py failed in line 4: ValueError"):
            configs.load(path)


def test_a_plain_partial_dict_is_a_config(tmp_path):
    path = tmp_path / "a:b" / "mine.py"
    path.parent.mkdir()
    path.write_text("def get_config():\n    return {'seeds': [4], 'update': {'schedule': [2, 3]}}")
    config = configs.load(str(path))
    assert config == configs.Config(seeds=(4,), update=dataclasses.replace(configs.UpdateConfig(), schedule=(2, 3)))


@pytest.mark.parametrize("variant", ["", ":smoke"])
def test_a_name_is_the_shipped_file_from_any_folder(variant, tmp_path, monkeypatch):
    by_path = configs.load(f"{CONFIGS}/cifar100.py{variant}")
    monkeypatch.chdir(tmp_path)
    assert configs.load(f"cifar100{variant}") == by_path
    assert configs.run_name(f"cifar100{variant}") == configs.run_name(f"{CONFIGS}/cifar100.py{variant}")


def test_a_copy_of_a_config_works_from_any_folder(tmp_path, monkeypatch):
    shutil.copy(CONFIGS / "digits.py", tmp_path / "mine.py")
    monkeypatch.chdir(tmp_path)
    assert configs.load("mine.py:all") == configs.load("digits:all")
    assert configs.run_name("mine.py:all") == "mine-all"


@pytest.mark.parametrize(("spec", "words"), [("digit", "did you mean 'digits'"), ("common", ""), ("", ""), ("..", "")])
def test_an_unknown_name_lists_the_shipped_configs(spec, words):
    with pytest.raises(
        InputError, match=f"unknown config '{spec}'; .*valid: .*digits, .*, or the path of a .py"
    ) as error:
        configs.load(spec)
    assert words in str(error.value) and "common, " not in str(error.value)


def test_a_path_without_a_file_lists_the_shipped_configs():
    with pytest.raises(InputError, match=r"no config file nowhere/x.py; expected a .py file; shipped .*digits"):
        configs.load("nowhere/x.py")
