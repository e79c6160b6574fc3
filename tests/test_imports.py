"""Imports: the package alone imports nothing, no module imports TensorFlow or PyTorch or starts a device."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "mpt_jax").rglob("*.py"))
}
MODULES = [name for name in SOURCES if not name.endswith(".__main__")]
COMMANDS = [name for name in MODULES if f"{name}.__main__" in SOURCES or '__name__ == "__main__"' in SOURCES[name]]


def imported(code, *arguments):
    """Return what `code` prints, and the modules that are imported after it."""
    code += "\nimport sys\nprint(chr(0).join(sys.modules))"
    line = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    *printed, modules = done.stdout.splitlines()
    return "\n".join(printed), set(modules.split("\0"))


def test_the_package_alone_imports_neither_jax_nor_numpy():
    assert "mpt_jax.train" in COMMANDS
    _, modules = imported("import mpt_jax")
    assert "mpt_jax" in modules and not modules & {"jax", "jaxlib", "numpy", "flax"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_imports_no_jax(command):
    code = (
        "import runpy, sys\nsys.argv[1:] = ['--help']\n"
        f"try: runpy.run_module({command!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code"
    )
    text, modules = imported(code)
    assert f"python -m {command}" in text
    assert not modules & {"jax", "jaxlib", "flax", "tensorflow_datasets", "orbax"}


def test_no_module_imports_tensorflow_or_torch_or_starts_a_device():
    code = (
        "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
        "from jax._src import xla_bridge\nprint(xla_bridge.backends_are_initialized())"
    )
    started, found = imported(code, *MODULES)
    assert set(MODULES) <= found
    assert not found & {"tensorflow", "torch"}
    assert started == "False"
